//! What a socket is ready for, from edge-triggered events.

use std::time::Instant;

/// Flags that an event sets, and that a system call clears when it would block.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Readiness {
    /// There may be bytes to read.
    pub(crate) readable: bool,
    /// The socket may accept bytes.
    pub(crate) writable: bool,
    /// When the peer was found to send no more. From then on a short read does not mean that the socket is empty.
    pub(crate) peer_closed: Option<Instant>,
}

impl Readiness {
    /// Adds what another one has.
    pub(crate) fn merge(&mut self, other: Self) {
        self.readable |= other.readable;
        self.writable |= other.writable;
        self.peer_closed = self.peer_closed.or(other.peer_closed);
    }
}
