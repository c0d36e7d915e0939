//! The body of a response: bytes, a file, or a stream that the thread of the call pulls to its end.

use std::fs::File;

/// The body of a response.
pub enum Body {
    /// No body.
    Empty,
    /// The whole body.
    Bytes(Bytes),
    /// A range of an open file, sent by sendfile(2).
    File {
        /// The file. Its position is neither used nor changed.
        file: File,
        /// The start of the range, in bytes.
        offset: u64,
        /// The length of the range, in bytes.
        length: u64,
    },
    /// Chunks, pulled in the thread of the call as fast as the application produces them.
    Stream {
        /// The source of the chunks.
        stream: Box<dyn Stream>,
        /// The sum of their lengths, if it is known.
        length: Option<u64>,
    },
}

/// Bytes with an owner.
pub enum Bytes {
    /// A vector.
    Owned(Vec<u8>),
    /// Static bytes.
    Static(&'static [u8]),
    /// Bytes of another owner (a Python object), which is dropped when they are sent.
    Foreign(Box<dyn AsRef<[u8]> + Send>),
}

/// A body that is produced chunk by chunk.
pub trait Stream: Send {
    /// Returns the next chunk, or `None` at the end. This is app code: it may block, and the server holds no lock
    /// meanwhile. An empty chunk sends nothing, but shows that the app is alive. The stream logs its own errors; after
    /// one, the connection is closed in such a way that the client notices.
    fn next(&mut self) -> Result<Option<Bytes>, Aborted>;
}

/// The body ends before it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

impl Body {
    /// The length in bytes, if it is known.
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
