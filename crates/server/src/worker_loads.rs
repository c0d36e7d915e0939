//! The number of connections of each worker, in shared memory, so that workers can balance them.
//!
//! Workers share a listening socket, and a worker that is awake would accept every connection before the others wake
//! up. So a worker with more than its fair share defers accepting once, for a moment, and then accepts a few. If the
//! worker with the fewest connections is busy or dead, that costs a millisecond, but no connection.
//!
//! Invariant: a slot holds the pid of its worker next to the number, and a worker only replaces a value that it wrote
//! itself. So a worker that drains cannot overwrite what its successor or the master has written.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mlws_sys::SharedPage;

/// The value of a slot without a worker.
const ABSENT: u64 = 0;
/// The distance of slots, so that each has its own cache line.
const CACHE_LINE_U64S: usize = 8;

/// The loads of all workers. Created before they are forked.
#[derive(Debug)]
pub struct WorkerLoads {
    slots: usize,
    page: SharedPage<AtomicU64>,
}

impl WorkerLoads {
    /// Allocates this many slots.
    ///
    /// # Errors
    ///
    /// If the system has no memory for them.
    pub fn new(slots: usize) -> io::Result<Self> {
        let numbers = slots.checked_mul(CACHE_LINE_U64S).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { slots, page: SharedPage::new(numbers)? })
    }

    /// The number of slots. Workers beyond it are not balanced.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// For the master: the worker of this slot has exited or is about to exit.
    pub fn clear(&self, slot: usize) {
        if let Some(slot) = self.slot(slot) {
            slot.store(ABSENT, Ordering::Relaxed);
        }
    }

    fn slot(&self, slot: usize) -> Option<&AtomicU64> {
        self.page.get(slot.checked_mul(CACHE_LINE_U64S)?)
    }

    /// The smallest number of connections of the other workers.
    fn min_other(&self, own: usize) -> Option<u32> {
        let others = (0..self.slots).filter(|slot| *slot != own);
        let values = others.filter_map(|slot| Some(self.slot(slot)?.load(Ordering::Relaxed)));
        values.filter(|value| *value != ABSENT).map(|value| value as u32).min()
    }
}

/// The slot of this worker.
#[derive(Debug)]
pub(crate) struct WorkerLoad {
    loads: Arc<WorkerLoads>,
    slot: usize,
    written: u64,
}

impl WorkerLoad {
    /// Takes the slot over from its previous worker.
    pub(crate) fn take(loads: Arc<WorkerLoads>, slot: usize) -> Self {
        let written = u64::from(std::process::id()) << 32;
        if let Some(slot) = loads.slot(slot) {
            slot.store(written, Ordering::Relaxed);
        }
        Self { loads, slot, written }
    }

    /// Publishes the number of connections of this worker.
    pub(crate) fn publish(&mut self, connections: usize) {
        let count = u32::try_from(connections).unwrap_or(u32::MAX);
        self.replace(self.written >> 32 << 32 | u64::from(count));
    }

    /// Whether another worker should accept the next connection.
    pub(crate) fn exceeds_fair_share(&self) -> bool {
        let own = self.written as u32;
        self.loads.min_other(self.slot).is_some_and(|min| own > min + 1 + min / 8)
    }

    fn replace(&mut self, new: u64) {
        if let Some(slot) = self.loads.slot(self.slot) {
            // Fails if the slot belongs to another worker now.
            let _ = slot.compare_exchange(self.written, new, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.written = new;
    }
}

impl Drop for WorkerLoad {
    fn drop(&mut self) {
        self.replace(ABSENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Arc<WorkerLoads>, WorkerLoad, WorkerLoad) {
        let loads = Arc::new(WorkerLoads::new(3).unwrap());
        let [one, two] = [0, 1].map(|slot| WorkerLoad::take(Arc::clone(&loads), slot));
        (loads, one, two)
    }

    #[test]
    fn a_fair_share_is_the_minimum_plus_one_plus_an_eighth() {
        let (_loads, mut one, mut two) = three();
        one.publish(1);
        assert!(!one.exceeds_fair_share());
        one.publish(2);
        assert!(one.exceeds_fair_share());
        two.publish(80);
        one.publish(91);
        assert!(!one.exceeds_fair_share() && !two.exceeds_fair_share());
        one.publish(92);
        assert!(one.exceeds_fair_share());
    }

    #[test]
    fn a_worker_that_has_exited_neither_counts_nor_overwrites_its_successor() {
        let (loads, mut one, mut two) = three();
        one.publish(9);
        assert!(one.exceeds_fair_share());
        loads.clear(1);
        two.publish(1);
        assert!(!one.exceeds_fair_share());
        let _successor = WorkerLoad::take(Arc::clone(&loads), 1);
        assert!(one.exceeds_fair_share());
        drop(two);
        assert!(one.exceeds_fair_share());
        drop(one);
        assert_eq!(loads.min_other(1), None);
    }

    #[test]
    fn a_worker_without_a_slot_does_not_use_that_of_another() {
        let loads = Arc::new(WorkerLoads::new(1).unwrap());
        let [mut first, mut extra] = [0, 1].map(|slot| WorkerLoad::take(Arc::clone(&loads), slot));
        first.publish(5);
        extra.publish(0);
        assert_eq!((loads.min_other(1), loads.min_other(0)), (Some(5), None));
        drop(extra);
        assert_eq!(loads.min_other(1), Some(5));
    }
}
