//! How a response body is cut into what goes over the wire (RFC 9112, sections 6 and 7).
//!
//! The one thing to know: [`Framing`] never touches the body. It says what to write around each piece and
//! counts, so that no body can be longer than announced and none ends short without being noticed.

use std::fmt;
use std::ops::Deref;

/// What frames the pieces of one response body, and counts them.
#[derive(Debug)]
pub struct Framing(Kind);

#[derive(Debug)]
enum Kind {
    /// Pieces are dropped: the answer to HEAD, 204 or 304.
    NoBody,
    /// So many bytes are still owed.
    Length(u64),
    Chunked,
    /// The body ends where the connection does.
    Close,
}

/// How to send one piece: `prefix`, then the first `take` bytes of the piece, then `suffix`.
#[derive(Debug)]
pub struct Piece {
    /// To be written first.
    pub prefix: Prefix,
    /// How many bytes of the piece to write. Fewer than it has: it goes past its Content-Length, or there is no
    /// body at all (see [`Framing::wants_body`]).
    pub take: usize,
    /// To be written last.
    pub suffix: &'static [u8],
}

/// At most one line with a chunk's size, kept without a heap.
#[derive(Debug, Default)]
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
        let mut rest = size;
        while rest > 0 {
            prefix.start -= 1;
            prefix.bytes[prefix.start as usize] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
        }
        prefix
    }
}

/// The body ended too early: the client has to be told by closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// How many bytes of the announced Content-Length were not given.
    pub missing: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body is {} bytes shorter than its Content-Length", self.missing)
    }
}

impl std::error::Error for Short {}

impl Framing {
    pub(crate) fn no_body() -> Self {
        Framing(Kind::NoBody)
    }

    pub(crate) fn length(length: u64) -> Self {
        Framing(Kind::Length(length))
    }

    pub(crate) fn chunked() -> Self {
        Framing(Kind::Chunked)
    }

    pub(crate) fn close() -> Self {
        Framing(Kind::Close)
    }

    /// How to send the next piece of `len` bytes. An empty piece writes nothing, as an empty chunk would end
    /// the body.
    pub fn piece(&mut self, len: usize) -> Piece {
        match &mut self.0 {
            Kind::Chunked if len > 0 => Piece { prefix: Prefix::chunk(len), take: len, suffix: b"\r\n" },
            Kind::Chunked | Kind::Close => Piece { prefix: Prefix::empty(), take: len, suffix: b"" },
            Kind::Length(left) => {
                let take = len.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= take as u64;
                Piece { prefix: Prefix::empty(), take, suffix: b"" }
            }
            Kind::NoBody => Piece { prefix: Prefix::empty(), take: 0, suffix: b"" },
        }
    }

    /// What to write after the last piece.
    pub fn end(&self) -> Result<&'static [u8], Short> {
        match self.0 {
            Kind::Length(missing) if missing > 0 => Err(Short { missing }),
            Kind::Chunked => Ok(b"0\r\n\r\n"),
            _ => Ok(b""),
        }
    }

    /// False if all pieces are dropped: the answer to HEAD, 204 or 304.
    pub fn wants_body(&self) -> bool {
        !matches!(self.0, Kind::NoBody)
    }

    /// Whether only the end of the connection tells the client that the body is complete.
    pub fn ends_by_close(&self) -> bool {
        matches!(self.0, Kind::Close)
    }

    /// How many bytes are still owed to a Content-Length; `None` for a body that has none.
    pub fn remaining(&self) -> Option<u64> {
        match self.0 {
            Kind::Length(left) => Some(left),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(framing: &mut Framing, bytes: &[u8]) -> Vec<u8> {
        let piece = framing.piece(bytes.len());
        [&piece.prefix, &bytes[..piece.take], piece.suffix].concat()
    }

    #[test]
    fn a_chunk_has_its_size_in_front_and_an_empty_one_is_never_written() {
        let mut framing = Framing::chunked();
        assert_eq!(written(&mut framing, b"hello"), b"5\r\nhello\r\n");
        assert_eq!(written(&mut framing, b""), b"");
        assert_eq!(written(&mut framing, &[b'a'; 0x1a0])[..7], *b"1a0\r\naa");
        assert_eq!(&*framing.piece(usize::MAX).prefix, format!("{:x}\r\n", usize::MAX).as_bytes());
        assert_eq!(framing.end(), Ok(&b"0\r\n\r\n"[..]));
        assert_eq!(framing.remaining(), None);
    }

    #[test]
    fn a_body_is_cut_at_its_length() {
        let mut framing = Framing::length(8);
        assert_eq!(written(&mut framing, b"hello"), b"hello");
        assert_eq!(framing.remaining(), Some(3));
        assert_eq!(framing.end(), Err(Short { missing: 3 }));
        assert_eq!(written(&mut framing, b" world"), b" wo");
        assert_eq!(written(&mut framing, b"!"), b"");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }

    #[test]
    fn without_a_body_every_piece_is_dropped() {
        let mut framing = Framing::no_body();
        assert!(!framing.wants_body());
        assert_eq!(written(&mut framing, b"hello"), b"");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }

    #[test]
    fn a_body_up_to_the_close_is_sent_as_it_is() {
        let mut framing = Framing::close();
        assert!(framing.wants_body());
        assert_eq!(written(&mut framing, b"hello"), b"hello");
        assert_eq!(framing.end(), Ok(&b""[..]));
    }
}
