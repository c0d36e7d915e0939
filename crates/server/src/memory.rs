//! Memory that many connections share: a budget of bytes, and reservations from it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes of a limit that are not reserved.
#[derive(Debug)]
pub(crate) struct MemoryBudget(AtomicUsize);

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(bytes)))
    }

    /// Makes every later reservation fail. A forked child calls this, because it must not buffer what its parent buffers for it.
    pub(crate) fn close(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Bytes reserved from a [`MemoryBudget`]. They return to it on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Reservation {
    /// Reserves `bytes`. `None` if fewer are available.
    pub(crate) fn take(budget: &Arc<MemoryBudget>, bytes: usize) -> Option<Self> {
        let mut reservation = Self { budget: Arc::clone(budget), bytes: 0 };
        reservation.resize(bytes).then_some(reservation)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Grows or shrinks the reservation. Returns false and changes nothing if the budget has too few bytes.
    pub(crate) fn resize(&mut self, bytes: usize) -> bool {
        let available = &self.budget.0;
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let take = |available: usize| available.checked_sub(more);
            if more > 0 && available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return false;
            }
        } else {
            available.fetch_add(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        true
    }

    /// Grows the reservation to at least `bytes`. Returns false and changes nothing if the budget has too few bytes.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> bool {
        bytes <= self.bytes || self.resize(bytes)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}
