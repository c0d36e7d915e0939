//! Decoder for the chunked transfer coding (RFC 9112, section 7.1).
//!
//! A state machine that advances byte by byte through everything except chunk data, which it skips.
//!
//! Invariant: no byte is examined twice, and the meaning of a byte depends only on the bytes before it. Scanning
//! therefore takes linear time, and the result does not depend on how the input is split.

use crate::error::Error;
use crate::event::Event;
use crate::grammar::{is_text_byte, is_token_byte};
use crate::limits::Limits;

/// The decoder for one chunked body.
#[derive(Debug, Default)]
pub(crate) struct Chunked {
    state: State,
    /// The number of bytes at the start of the input that are examined but not consumed.
    scanned: usize,
    /// The size of the current chunk; in its data, the number of bytes remaining.
    remaining: u64,
    /// The size of the body through the end of the current chunk.
    body_size: u64,
    /// The size of all chunk extensions so far.
    extensions_size: usize,
    /// The size of all trailer lines so far, without the final empty line.
    trailers_size: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit of a chunk size.
    #[default]
    Size,
    /// After this many digits.
    Digits(u8),
    /// In white space after the size, before the `;` of an extension.
    AfterSize,
    /// After `;`, before the name of an extension.
    Extension,
    ExtensionName,
    /// In white space after the name of an extension.
    AfterExtensionName,
    /// After `=`.
    ExtensionValue,
    ExtensionToken,
    ExtensionQuoted,
    /// After `\` in a quoted string.
    ExtensionEscape,
    ExtensionQuoteEnd,
    /// In white space after the value of an extension.
    AfterExtensionValue,
    /// After the CR of the size line.
    SizeLf,
    Data,
    /// After the data, before its CR.
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the final empty line.
    Trailer,
    /// In the name of a trailer field, which starts at this index of the input.
    TrailerName(usize),
    TrailerValue,
    TrailerLf,
    /// After the CR of the final empty line.
    EndLf,
    End,
}

impl Chunked {
    /// Returns the next event, or `None` if more input is needed. On every call, `input` starts with the first byte
    /// that has not been consumed.
    pub(crate) fn next(&mut self, input: &[u8], limits: &Limits) -> Result<Option<Event>, Error> {
        while let Some(&byte) = input.get(self.scanned) {
            if self.state == State::Data {
                let start = std::mem::take(&mut self.scanned);
                let end = input
                    .len()
                    .min(start.saturating_add(usize::try_from(self.remaining).unwrap_or(usize::MAX)));
                self.remaining -= (end - start) as u64;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Some(Event::Data { payload: start..end, consumed: end }));
            }
            self.state = self.step(byte, input, limits)?;
            self.scanned += 1;
            if self.state == State::End {
                return Ok(Some(Event::End { consumed: self.scanned }));
            }
        }
        Ok(None)
    }

    fn step(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<State, Error> {
        match self.state {
            State::Size | State::Digits(_) => self.size(byte, limits),
            State::AfterSize
            | State::Extension
            | State::ExtensionName
            | State::AfterExtensionName
            | State::ExtensionValue
            | State::ExtensionToken
            | State::ExtensionQuoted
            | State::ExtensionEscape
            | State::ExtensionQuoteEnd
            | State::AfterExtensionValue => self.extension(byte, limits),
            State::SizeLf if byte != b'\n' => Err(Error::LineEnd),
            State::SizeLf if self.remaining == 0 => Ok(State::Trailer),
            State::SizeLf => Ok(State::Data),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::Size),
            State::DataCr | State::DataLf => Err(Error::ChunkEnd),
            State::Trailer
            | State::TrailerName(_)
            | State::TrailerValue
            | State::TrailerLf
            | State::EndLf => self.trailer(byte, input, limits),
            State::Data | State::End => Ok(self.state),
        }
    }

    /// `chunk-size`: 1 to 16 hexadecimal digits. White space may follow them only before an extension.
    fn size(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        let digits = if let State::Digits(digits) = self.state { digits } else { 0 };
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == 16 {
                return Err(Error::ChunkSize);
            }
            self.remaining = self.remaining << 4 | u64::from(digit);
            return Ok(State::Digits(digits + 1));
        }
        let next = match byte {
            b'\r' => State::SizeLf,
            b';' => State::Extension,
            b' ' | b'\t' => State::AfterSize,
            _ => return Err(Error::ChunkSize),
        };
        if digits == 0 {
            return Err(Error::ChunkSize);
        }
        self.body_size = self
            .body_size
            .checked_add(self.remaining)
            .filter(|&body| body <= limits.body)
            .ok_or(Error::BodyTooLarge)?;
        Ok(next)
    }

    /// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`, where BWS is optional white space. There is
    /// none at the end of the line.
    fn extension(&mut self, byte: u8, limits: &Limits) -> Result<State, Error> {
        self.extensions_size += 1;
        if self.extensions_size > limits.chunk_extensions {
            return Err(Error::ChunkExtensionsTooLong);
        }
        match (self.state, byte) {
            (State::ExtensionQuoted, b'"') => Ok(State::ExtensionQuoteEnd),
            (State::ExtensionQuoted, b'\\') => Ok(State::ExtensionEscape),
            (State::ExtensionQuoted | State::ExtensionEscape, _) if is_text_byte(byte) => {
                Ok(State::ExtensionQuoted)
            }
            (State::AfterSize | State::Extension | State::ExtensionValue, b' ' | b'\t') => Ok(self.state),
            (State::ExtensionName | State::AfterExtensionName, b' ' | b'\t') => Ok(State::AfterExtensionName),
            (State::ExtensionToken | State::ExtensionQuoteEnd | State::AfterExtensionValue, b' ' | b'\t') => {
                Ok(State::AfterExtensionValue)
            }
            (State::Extension | State::ExtensionName, _) if is_token_byte(byte) => Ok(State::ExtensionName),
            (State::ExtensionName | State::AfterExtensionName, b'=') => Ok(State::ExtensionValue),
            (State::ExtensionValue | State::ExtensionToken, _) if is_token_byte(byte) => {
                Ok(State::ExtensionToken)
            }
            (State::ExtensionValue, b'"') => Ok(State::ExtensionQuoted),
            (
                State::AfterSize
                | State::ExtensionName
                | State::AfterExtensionName
                | State::ExtensionToken
                | State::ExtensionQuoteEnd
                | State::AfterExtensionValue,
                b';',
            ) => Ok(State::Extension),
            (State::ExtensionName | State::ExtensionToken | State::ExtensionQuoteEnd, b'\r') => {
                Ok(State::SizeLf)
            }
            (State::AfterSize, _) => Err(Error::ChunkSize),
            _ => Err(Error::ChunkExtension),
        }
    }

    /// Trailer fields have the grammar of header fields. They are checked and discarded.
    fn trailer(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<State, Error> {
        let is_final_line = matches!((self.state, byte), (State::Trailer, b'\r') | (State::EndLf, _));
        self.trailers_size += usize::from(!is_final_line);
        if self.trailers_size > limits.trailers {
            return Err(Error::TrailersTooLong);
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::EndLf),
            (State::Trailer, _) if is_token_byte(byte) => Ok(State::TrailerName(self.scanned)),
            (State::TrailerName(start), _) if is_token_byte(byte) => Ok(State::TrailerName(start)),
            (State::TrailerName(start), b':') if is_forbidden(&input[start..self.scanned]) => {
                Err(Error::TrailerForbidden)
            }
            (State::TrailerName(_), b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text_byte(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            (State::EndLf, b'\n') => Ok(State::End),
            (State::TrailerLf | State::EndLf, _) | (_, b'\n') => Err(Error::LineEnd),
            _ => Err(Error::Trailer),
        }
    }
}

/// Trailer fields that would change the framing or the host (RFC 9110, section 6.5.1).
fn is_forbidden(name: &[u8]) -> bool {
    let forbidden: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
    forbidden.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_examined_once_when_the_chunks_arrive_byte_by_byte() {
        let encoded = format!("{0};a={1}\r\n{2}\r\n0\r\nname: {1}\r\n\r\n", "5", "x".repeat(9000), "hello");
        let mut chunked = Chunked::default();
        let (mut start, mut examined) = (0, 0);
        for arrived in 1..=encoded.len() {
            let before = chunked.scanned;
            match chunked.next(&encoded.as_bytes()[start..arrived], &Limits::default()).expect("valid chunks")
            {
                None => examined += chunked.scanned - before,
                Some(Event::Data { consumed, .. }) => {
                    start += consumed;
                    examined += consumed - before;
                }
                Some(event) => {
                    assert_eq!(event, Event::End { consumed: encoded.len() - start });
                    examined += chunked.scanned - before;
                }
            }
        }
        assert_eq!((examined, chunked.state), (encoded.len(), State::End));
    }

    #[test]
    fn data_is_returned_as_it_arrives() {
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
