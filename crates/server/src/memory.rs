//! Memory that many connections share: a budget of bytes, and reservations from it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[derive(Debug)]
pub(crate) struct MemoryBudget {
    /// The bytes of the limit that are not reserved.
    available: AtomicUsize,
    /// A larger budget that this one is a part of.
    parent: Option<Arc<MemoryBudget>>,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { available: AtomicUsize::new(bytes), parent: None })
    }

    /// At most `bytes` of this budget.
    pub(crate) fn part(self: &Arc<Self>, bytes: usize) -> Arc<Self> {
        Arc::new(Self { available: AtomicUsize::new(bytes), parent: Some(Arc::clone(self)) })
    }

    /// Makes every later reservation fail. A forked child calls this, because it must not buffer what its parent buffers for it.
    pub(crate) fn close(&self) {
        self.available.store(0, Ordering::Relaxed);
    }

    /// Takes bytes out. Returns false and changes nothing if too few are available.
    fn take(&self, bytes: usize) -> bool {
        let rest = |available: usize| available.checked_sub(bytes);
        if self.available.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_err() {
            return false;
        }
        let is_taken = self.parent.as_ref().is_none_or(|parent| parent.take(bytes));
        if !is_taken {
            self.available.fetch_add(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    fn put_back(&self, bytes: usize) {
        self.available.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.put_back(bytes);
        }
    }

    #[cfg(test)]
    pub(crate) fn available(&self) -> usize {
        self.available.load(Ordering::Relaxed)
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
        if let Some(more) = bytes.checked_sub(self.bytes) {
            if more > 0 && !self.budget.take(more) {
                return false;
            }
        } else {
            self.budget.put_back(self.bytes - bytes);
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
        self.budget.put_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_budget_is_limited_by_itself_and_by_the_whole() {
        let whole = MemoryBudget::new(100);
        let part = whole.part(60);
        assert!(Reservation::take(&part, 61).is_none());
        let first = Reservation::take(&part, 50);
        assert_eq!((part.available(), whole.available()), (10, 50));
        let other = Reservation::take(&whole, 45);
        assert!(other.is_some() && Reservation::take(&part, 10).is_none());
        assert_eq!((part.available(), whole.available()), (10, 5));
        drop(first);
        assert_eq!((part.available(), whole.available()), (60, 55));
    }
}
