//! Framing of response bodies (RFC 9112, sections 6 and 7).
//!
//! [`Framing`] never copies body data. It returns what to write before and after each chunk, and counts.
//!
//! Invariant: a body never exceeds its Content-Length, and a body that ends before it is an error.

use std::fmt;
use std::ops::Deref;

/// Frames one response body chunk by chunk.
#[derive(Debug)]
pub struct Framing(pub(crate) Kind);

#[derive(Debug)]
pub(crate) enum Kind {
    /// All data is discarded: responses to HEAD, 204 and 304.
    NoBody,
    /// The remaining bytes of the Content-Length.
    Length(u64),
    Chunked,
    /// The end of the connection delimits the body, or in HTTP/2 the end of the stream.
    Close,
}

/// The framing of one chunk: write `prefix`, then the first `len` bytes of the chunk, then `suffix`.
#[derive(Debug)]
pub struct EncodedChunk {
    /// To be written before the data. Empty unless the coding is chunked.
    pub prefix: Prefix,
    /// The number of data bytes to write. Smaller than the chunk if the body exceeds its Content-Length, and 0 if the
    /// response has no body (see [`Framing::wants_body`]).
    pub len: usize,
    /// To be written after the data.
    pub suffix: &'static [u8],
}

/// Empty or the size line of a chunk. Stored inline.
#[derive(Debug)]
pub struct Prefix {
    bytes: [u8; 18],
    start: u8,
}

impl Deref for Prefix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}

impl Prefix {
    fn empty() -> Self {
        Prefix { bytes: [0; 18], start: 18 }
    }

    fn chunk(size: usize) -> Self {
        let mut prefix = Prefix { bytes: *b"0000000000000000\r\n", start: 16 };
        let mut remaining = size;
        while remaining > 0 {
            prefix.start -= 1;
            prefix.bytes[prefix.start as usize] = b"0123456789abcdef"[remaining & 15];
            remaining >>= 4;
        }
        prefix
    }
}

/// The body ended before its Content-Length. Close the connection: that is how the client detects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IncompleteBody {
    /// The number of missing bytes.
    pub missing: u64,
}

impl fmt::Display for IncompleteBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "incomplete body: {} bytes shorter than its Content-Length", self.missing)
    }
}

impl std::error::Error for IncompleteBody {}

impl Framing {
    /// Frames the next `len` bytes of the body. Writes nothing for 0 bytes, because an empty chunk would end a chunked
    /// body.
    pub fn encode(&mut self, len: usize) -> EncodedChunk {
        let len = match &mut self.0 {
            Kind::Chunked if len > 0 => {
                return EncodedChunk { prefix: Prefix::chunk(len), len, suffix: b"\r\n" };
            }
            Kind::Chunked | Kind::Close => len,
            Kind::Length(remaining) => {
                let len = len.min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= len as u64;
                len
            }
            Kind::NoBody => 0,
        };
        EncodedChunk { prefix: Prefix::empty(), len, suffix: b"" }
    }

    /// Returns what to write after the last chunk.
    ///
    /// # Errors
    ///
    /// [`IncompleteBody`] if bytes of the Content-Length are missing.
    pub fn end(&self) -> Result<&'static [u8], IncompleteBody> {
        match self.0 {
            Kind::Length(missing) if missing > 0 => Err(IncompleteBody { missing }),
            Kind::Chunked => Ok(b"0\r\n\r\n"),
            _ => Ok(b""),
        }
    }

    /// False if all data is discarded: responses to HEAD, 204 and 304.
    pub fn wants_body(&self) -> bool {
        !matches!(self.0, Kind::NoBody)
    }

    /// Whether the end of the connection, or in HTTP/2 of the stream, delimits the body.
    pub fn ends_by_close(&self) -> bool {
        matches!(self.0, Kind::Close)
    }

    /// The remaining bytes of the Content-Length; `None` without one.
    pub fn remaining(&self) -> Option<u64> {
        match self.0 {
            Kind::Length(remaining) => Some(remaining),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(framing: &mut Framing, bytes: &[u8]) -> Vec<u8> {
        let chunk = framing.encode(bytes.len());
        [&chunk.prefix, &bytes[..chunk.len], chunk.suffix].concat()
    }

    #[test]
    fn chunks_start_with_their_size_and_empty_ones_are_skipped() {
        let mut framing = Framing(Kind::Chunked);
        assert_eq!(encode(&mut framing, b"hello"), b"5\r\nhello\r\n");
        assert_eq!(encode(&mut framing, b""), b"");
        assert_eq!(encode(&mut framing, &[b'a'; 0x1a0])[..7], *b"1a0\r\naa");
        assert_eq!(&*framing.encode(usize::MAX).prefix, format!("{:x}\r\n", usize::MAX).as_bytes());
        assert_eq!(framing.end(), Ok(&b"0\r\n\r\n"[..]));
        assert_eq!(framing.remaining(), None);
    }

    #[test]
    fn a_body_is_truncated_to_its_content_length() {
        let mut framing = Framing(Kind::Length(8));
        assert_eq!(encode(&mut framing, b"hello"), b"hello");
        assert_eq!(framing.remaining(), Some(3));
        assert_eq!(framing.end(), Err(IncompleteBody { missing: 3 }));
        assert_eq!(encode(&mut framing, b" world"), b" wo");
        assert_eq!(encode(&mut framing, b"!"), b"");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }

    #[test]
    fn all_data_is_discarded_if_the_response_has_no_body() {
        let mut framing = Framing(Kind::NoBody);
        assert!(!framing.wants_body());
        assert_eq!(encode(&mut framing, b"hello"), b"");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }

    #[test]
    fn a_body_delimited_by_close_is_sent_unchanged() {
        let mut framing = Framing(Kind::Close);
        assert!(framing.wants_body());
        assert_eq!(encode(&mut framing, b"hello"), b"hello");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }
}
