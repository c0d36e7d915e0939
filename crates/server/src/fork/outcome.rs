//! The consequence of a child's end for its connection.

use super::progress::ResponseProgress;

/// What a child's end means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildOutcome {
    /// The response is sent. Another request may follow.
    KeepAlive,
    /// The response is sent. The connection must be closed.
    Close,
    /// The child died before it sent anything.
    NoResponse { status: u16, why: &'static str },
    /// The child died in the middle of the response.
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
