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
    state: ChunkState,
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
enum ChunkState {
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
            if self.state == ChunkState::Data {
                let start = std::mem::take(&mut self.scanned);
                let end = input
                    .len()
                    .min(start.saturating_add(usize::try_from(self.remaining).unwrap_or(usize::MAX)));
                self.remaining -= (end - start) as u64;
                if self.remaining == 0 {
                    self.state = ChunkState::DataCr;
                }
                return Ok(Some(Event::Data { payload: start..end, consumed: end }));
            }
            self.state = self.step(byte, input, limits)?;
            self.scanned += 1;
            if self.state == ChunkState::End {
                return Ok(Some(Event::End { consumed: self.scanned }));
            }
        }
        Ok(None)
    }

    fn step(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<ChunkState, Error> {
        match self.state {
            ChunkState::Size | ChunkState::Digits(_) => self.size(byte, limits),
            ChunkState::AfterSize
            | ChunkState::Extension
            | ChunkState::ExtensionName
            | ChunkState::AfterExtensionName
            | ChunkState::ExtensionValue
            | ChunkState::ExtensionToken
            | ChunkState::ExtensionQuoted
            | ChunkState::ExtensionEscape
            | ChunkState::ExtensionQuoteEnd
            | ChunkState::AfterExtensionValue => self.extension(byte, limits),
            ChunkState::SizeLf if byte != b'\n' => Err(Error::LineEnd),
            ChunkState::SizeLf if self.remaining == 0 => Ok(ChunkState::Trailer),
            ChunkState::SizeLf => Ok(ChunkState::Data),
            ChunkState::DataCr if byte == b'\r' => Ok(ChunkState::DataLf),
            ChunkState::DataLf if byte == b'\n' => Ok(ChunkState::Size),
            ChunkState::DataCr | ChunkState::DataLf => Err(Error::ChunkEnd),
            ChunkState::Trailer
            | ChunkState::TrailerName(_)
            | ChunkState::TrailerValue
            | ChunkState::TrailerLf
            | ChunkState::EndLf => self.trailer(byte, input, limits),
            ChunkState::Data | ChunkState::End => Ok(self.state),
        }
    }

    /// `chunk-size`: 1 to 16 hexadecimal digits. White space may follow them only before an extension.
    fn size(&mut self, byte: u8, limits: &Limits) -> Result<ChunkState, Error> {
        let digits = if let ChunkState::Digits(digits) = self.state { digits } else { 0 };
        if let Some(digit) = char::from(byte).to_digit(16) {
            if digits == 16 {
                return Err(Error::ChunkSize);
            }
            self.remaining = self.remaining << 4 | u64::from(digit);
            return Ok(ChunkState::Digits(digits + 1));
        }
        let next = match byte {
            b'\r' => ChunkState::SizeLf,
            b';' => ChunkState::Extension,
            b' ' | b'\t' => ChunkState::AfterSize,
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
    fn extension(&mut self, byte: u8, limits: &Limits) -> Result<ChunkState, Error> {
        self.extensions_size += 1;
        if self.extensions_size > limits.chunk_extensions {
            return Err(Error::ChunkExtensionsTooLong);
        }
        match (self.state, byte) {
            (ChunkState::ExtensionQuoted, b'"') => Ok(ChunkState::ExtensionQuoteEnd),
            (ChunkState::ExtensionQuoted, b'\\') => Ok(ChunkState::ExtensionEscape),
            (ChunkState::ExtensionQuoted | ChunkState::ExtensionEscape, _) if is_text_byte(byte) => {
                Ok(ChunkState::ExtensionQuoted)
            }
            (ChunkState::AfterSize | ChunkState::Extension | ChunkState::ExtensionValue, b' ' | b'\t') => {
                Ok(self.state)
            }
            (ChunkState::ExtensionName | ChunkState::AfterExtensionName, b' ' | b'\t') => {
                Ok(ChunkState::AfterExtensionName)
            }
            (
                ChunkState::ExtensionToken | ChunkState::ExtensionQuoteEnd | ChunkState::AfterExtensionValue,
                b' ' | b'\t',
            ) => Ok(ChunkState::AfterExtensionValue),
            (ChunkState::Extension | ChunkState::ExtensionName, _) if is_token_byte(byte) => {
                Ok(ChunkState::ExtensionName)
            }
            (ChunkState::ExtensionName | ChunkState::AfterExtensionName, b'=') => {
                Ok(ChunkState::ExtensionValue)
            }
            (ChunkState::ExtensionValue | ChunkState::ExtensionToken, _) if is_token_byte(byte) => {
                Ok(ChunkState::ExtensionToken)
            }
            (ChunkState::ExtensionValue, b'"') => Ok(ChunkState::ExtensionQuoted),
            (
                ChunkState::AfterSize
                | ChunkState::ExtensionName
                | ChunkState::AfterExtensionName
                | ChunkState::ExtensionToken
                | ChunkState::ExtensionQuoteEnd
                | ChunkState::AfterExtensionValue,
                b';',
            ) => Ok(ChunkState::Extension),
            (
                ChunkState::ExtensionName | ChunkState::ExtensionToken | ChunkState::ExtensionQuoteEnd,
                b'\r',
            ) => Ok(ChunkState::SizeLf),
            (ChunkState::AfterSize, _) => Err(Error::ChunkSize),
            _ => Err(Error::ChunkExtension),
        }
    }

    /// Trailer fields have the grammar of header fields. They are checked and discarded.
    fn trailer(&mut self, byte: u8, input: &[u8], limits: &Limits) -> Result<ChunkState, Error> {
        let is_final_line =
            matches!((self.state, byte), (ChunkState::Trailer, b'\r') | (ChunkState::EndLf, _));
        self.trailers_size += usize::from(!is_final_line);
        if self.trailers_size > limits.trailers {
            return Err(Error::TrailersTooLong);
        }
        match (self.state, byte) {
            (ChunkState::Trailer, b'\r') => Ok(ChunkState::EndLf),
            (ChunkState::Trailer, _) if is_token_byte(byte) => Ok(ChunkState::TrailerName(self.scanned)),
            (ChunkState::TrailerName(start), _) if is_token_byte(byte) => Ok(ChunkState::TrailerName(start)),
            (ChunkState::TrailerName(start), b':') if is_forbidden(&input[start..self.scanned]) => {
                Err(Error::TrailerForbidden)
            }
            (ChunkState::TrailerName(_), b':') => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerValue, b'\r') => Ok(ChunkState::TrailerLf),
            (ChunkState::TrailerValue, _) if is_text_byte(byte) => Ok(ChunkState::TrailerValue),
            (ChunkState::TrailerLf, b'\n') => Ok(ChunkState::Trailer),
            (ChunkState::EndLf, b'\n') => Ok(ChunkState::End),
            (ChunkState::TrailerLf | ChunkState::EndLf, _) | (_, b'\n') => Err(Error::LineEnd),
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
        assert_eq!((examined, chunked.state), (encoded.len(), ChunkState::End));
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
