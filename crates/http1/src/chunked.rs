//! The chunked transfer coding (RFC 9112, section 7.1), read one byte at a time.
//!
//! The one thing to know: what a byte means depends on the bytes before it alone, so no cut of the input can
//! change the answer, and no byte is looked at twice. The data itself is never looked at.

use crate::error::Error;
use crate::grammar::{is_text_byte, is_token_byte};
use crate::limits::{Limits, Tolerance};
use crate::parser::Event;

/// A chunked body on its way in.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// How many bytes at the start of the input are decided but not consumed.
    seen: usize,
    /// Size of the current chunk; then what is left of it.
    left: u64,
    /// Size of the body, with the current chunk whole.
    body: u64,
    /// Bytes of chunk extensions so far.
    extensions: usize,
    /// Bytes of trailers so far, without the empty line behind them.
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a chunk size.
    #[default]
    Size,
    /// After so many of them.
    Digits(u8),
    /// After `;` or white space after it, before an extension's name.
    Extension,
    ExtensionName,
    /// After `=`.
    ExtensionValue,
    ExtensionToken,
    ExtensionQuoted,
    /// After `\` in a quoted string.
    ExtensionEscape,
    ExtensionUnquoted,
    /// After CR of the line with the size.
    SizeFeed,
    Data,
    /// After the data, before CR.
    DataReturn,
    DataFeed,
    /// At the start of a line after the last chunk.
    Trailer,
    /// In a trailer's name, which starts at this index of the input.
    TrailerName(usize),
    TrailerValue,
    TrailerFeed,
    /// After CR of the empty line at the end.
    EndFeed,
    End,
}

impl Chunked {
    /// The next event of the body. `input` starts with the first byte not consumed, on every call.
    pub(crate) fn next(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Event>, Error> {
        while let Some(&byte) = input.get(self.seen) {
            if self.state == State::Data {
                let start = std::mem::take(&mut self.seen);
                let end =
                    input.len().min(start.saturating_add(usize::try_from(self.left).unwrap_or(usize::MAX)));
                self.left -= (end - start) as u64;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                return Ok(Some(Event::Data { payload: start..end, consumed: end }));
            }
            self.state = self.step(byte, input, limits)?;
            self.seen += 1;
            if self.state == State::End {
                return Ok(Some(Event::End { consumed: self.seen }));
            }
        }
        Ok(None)
    }

    fn step(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<State, Error> {
        match self.state {
            State::Size | State::Digits(_) => self.size(byte, limits),
            State::Extension
            | State::ExtensionName
            | State::ExtensionValue
            | State::ExtensionToken
            | State::ExtensionQuoted
            | State::ExtensionEscape
            | State::ExtensionUnquoted => self.extension(byte, limits),
            State::SizeFeed if byte != b'\n' => Err(Error::LineEnd),
            State::SizeFeed if self.left == 0 => Ok(State::Trailer),
            State::SizeFeed => Ok(State::Data),
            State::DataReturn if byte == b'\r' => Ok(State::DataFeed),
            State::DataFeed if byte == b'\n' => Ok(State::Size),
            State::DataReturn | State::DataFeed => Err(Error::ChunkEnd),
            State::Trailer
            | State::TrailerName(_)
            | State::TrailerValue
            | State::TrailerFeed
            | State::EndFeed => self.trailer(byte, input, limits),
            State::Data | State::End => Ok(self.state),
        }
    }

    /// 1 to 16 hexadecimal digits, and nothing around them.
    fn size(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        let digits = if let State::Digits(digits) = self.state { digits } else { 0 };
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == 16 {
                return Err(Error::ChunkSize);
            }
            self.left = self.left << 4 | u64::from(digit);
            return Ok(State::Digits(digits + 1));
        }
        let next = match byte {
            b'\r' => State::SizeFeed,
            b';' => State::Extension,
            _ => return Err(Error::ChunkSize),
        };
        if digits == 0 {
            return Err(Error::ChunkSize);
        }
        self.body = self
            .body
            .checked_add(self.left)
            .filter(|&body| body <= limits.body)
            .ok_or(Error::BodyTooLarge)?;
        Ok(next)
    }

    /// `name [ "=" token ]`. Quoted values and white space before the name, which other readers refuse, are a matter of tolerance.
    fn extension(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        self.extensions += 1;
        if self.extensions > limits.chunk_extensions {
            return Err(Error::ChunkExtensionsTooLong);
        }
        let tolerant = limits.tolerance == Tolerance::Gunicorn;
        match (self.state, byte) {
            (State::Extension, b' ' | b'\t') if tolerant => Ok(State::Extension),
            (State::Extension | State::ExtensionName, _) if is_token_byte(byte) => Ok(State::ExtensionName),
            (State::ExtensionName, b'=') => Ok(State::ExtensionValue),
            (State::ExtensionValue | State::ExtensionToken, _) if is_token_byte(byte) => {
                Ok(State::ExtensionToken)
            }
            (State::ExtensionValue, b'"') if tolerant => Ok(State::ExtensionQuoted),
            (State::ExtensionQuoted, b'"') => Ok(State::ExtensionUnquoted),
            (State::ExtensionQuoted, b'\\') => Ok(State::ExtensionEscape),
            (State::ExtensionQuoted | State::ExtensionEscape, _) if is_text_byte(byte) => {
                Ok(State::ExtensionQuoted)
            }
            (State::ExtensionName | State::ExtensionToken | State::ExtensionUnquoted, b';') => {
                Ok(State::Extension)
            }
            (State::ExtensionName | State::ExtensionToken | State::ExtensionUnquoted, b'\r') => {
                Ok(State::SizeFeed)
            }
            _ => Err(Error::ChunkExtension),
        }
    }

    /// Field lines are checked as in a head, and dropped.
    fn trailer(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<State, Error> {
        let ends = matches!((self.state, byte), (State::Trailer, b'\r') | (State::EndFeed, _));
        self.trailers += usize::from(!ends);
        if self.trailers > limits.trailers {
            return Err(Error::TrailersTooLong);
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::EndFeed),
            (State::Trailer, _) if is_token_byte(byte) => Ok(State::TrailerName(self.seen)),
            (State::TrailerName(start), _) if is_token_byte(byte) => Ok(State::TrailerName(start)),
            (State::TrailerName(start), b':') if is_forbidden(&input[start..self.seen]) => {
                Err(Error::TrailerForbidden)
            }
            (State::TrailerName(_), b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerFeed),
            (State::TrailerValue, _) if is_text_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerFeed, b'\n') => Ok(State::Trailer),
            (State::EndFeed, b'\n') => Ok(State::End),
            (State::TrailerFeed | State::EndFeed, _) | (_, b'\n') => Err(Error::LineEnd),
            _ => Err(Error::Trailer),
        }
    }
}

fn is_forbidden(name: &[u8]) -> bool {
    let forbidden: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
    forbidden.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_looked_at_once_however_the_chunks_arrive() {
        let wire = format!("{0};a={1}\r\n{2}\r\n0\r\nname: {1}\r\n\r\n", "5", "x".repeat(9000), "hello");
        let mut chunked = Chunked::default();
        let (mut start, mut looked_at) = (0, 0);
        for arrived in 1..=wire.len() {
            let before = chunked.seen;
            match chunked.next(&wire.as_bytes()[start..arrived], &Limits::default()).expect("good chunks") {
                None => looked_at += chunked.seen - before,
                Some(Event::Data { consumed, .. }) => {
                    start += consumed;
                    looked_at += consumed - before;
                }
                Some(event) => {
                    assert_eq!(event, Event::End { consumed: wire.len() - start });
                    looked_at += chunked.seen - before;
                }
            }
        }
        assert_eq!((looked_at, chunked.state), (wire.len(), State::End));
    }

    #[test]
    fn data_is_handed_on_as_it_arrives() {
        let mut chunked = Chunked::default();
        let mut next = |input: &[u8]| chunked.next(input, &Limits::default());
        assert_eq!(next(b"5"), Ok(None));
        assert_eq!(next(b"5\r\n"), Ok(None));
        assert_eq!(next(b"5\r\nhel"), Ok(Some(Event::Data { payload: 3..6, consumed: 6 })));
        assert_eq!(next(b"lo\r\n0"), Ok(Some(Event::Data { payload: 0..2, consumed: 2 })));
        assert_eq!(next(b"\r\n0"), Ok(None));
        assert_eq!(next(b"\r\n0\r\n\r\nGET"), Ok(Some(Event::End { consumed: 7 })));
    }
}
