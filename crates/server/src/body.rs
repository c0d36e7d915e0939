//! The body of a response: bytes, a file, or a stream that the thread of the call pulls to its end.

use std::fs::File;

/// The body of a response.
pub enum Body {
    /// Nothing.
    Empty,
    /// All of it, at once.
    Bytes(Bytes),
    /// A range of an open file, sent by sendfile.
    File {
        /// The file; its own position is neither used nor moved.
        file: File,
        /// Where to start, in bytes.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// Pieces, pulled one by one in the thread of the call, as fast as the application produces them.
    Stream {
        /// Where they come from.
        stream: Box<dyn Stream>,
        /// The sum of their lengths, where it is known.
        length: Option<u64>,
    },
}

/// Bytes that somebody owns.
pub enum Bytes {
    /// A vector.
    Owned(Vec<u8>),
    /// Bytes of the program.
    Static(&'static [u8]),
    /// Bytes of another owner (a Python object), which is dropped when they are sent.
    Foreign(Box<dyn AsRef<[u8]> + Send>),
}

/// A body that is made piece by piece.
pub trait Stream: Send {
    /// The next piece, or `None` at the end. It is app code: it may block, and runs without any lock of the server. An empty piece
    /// sends nothing, but shows that the app is alive.
    /// After an error, which the stream has already told the log, the connection is cut so that the client can tell.
    fn next(&mut self) -> Result<Option<Bytes>, Aborted>;
}

/// The body ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

impl Body {
    /// Its length in bytes, where it is known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.as_ref().len() as u64),
            Self::File { length, .. } => Some(*length),
            Self::Stream { length, .. } => *length,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Static(bytes) => bytes,
            Self::Foreign(owner) => (**owner).as_ref(),
        }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Self::Owned(text.into_bytes())
    }
}

impl From<&'static str> for Bytes {
    fn from(text: &'static str) -> Self {
        Self::Static(text.as_bytes())
    }
}
