//! The consequence of a child's end for its connection.

use super::progress::ResponseProgress;

/// What a child means for the connection that it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildOutcome {
    /// The response is sent and the connection may be used again.
    KeepAlive,
    /// The response is sent and the connection is to be closed.
    Close,
    /// It died before it sent anything.
    NoResponse { status: u16, why: &'static str },
    /// It died in the middle of the response.
    Truncated,
}

impl ChildOutcome {
    /// The outcome of a child with this progress. `None` if it has not finished its response.
    pub(super) fn of(progress: ResponseProgress) -> Option<Self> {
        match progress {
            ResponseProgress::KeepAlive => Some(Self::KeepAlive),
            ResponseProgress::Close => Some(Self::Close),
            ResponseProgress::Truncated => Some(Self::Truncated),
            ResponseProgress::NotStarted | ResponseProgress::Started => None,
        }
    }
}
