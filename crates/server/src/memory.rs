//! Memory that responses share until their clients read them.

use std::sync::{Arc, atomic::Ordering};

use crate::context::ServerContext;

/// Bytes taken from [`Settings::response_memory`](crate::Settings::response_memory). They are given back on drop.
pub(crate) struct Reservation {
    context: Arc<ServerContext>,
    bytes: usize,
}

impl Reservation {
    /// Nothing if not so much is left.
    pub(crate) fn take(context: &Arc<ServerContext>, bytes: usize) -> Option<Self> {
        let mut reservation = Self { context: Arc::clone(context), bytes: 0 };
        reservation.resize(bytes).then_some(reservation)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes more, or gives some back. False, and nothing changed, if not so much is left.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let left = &self.context.response_memory;
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let take = |left: usize| left.checked_sub(more);
            if more > 0 && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return false;
            }
        } else {
            left.fetch_add(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.context.response_memory.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
