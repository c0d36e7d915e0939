//! Even load: how many connections each worker has, on a page that all of them see.
//!
//! Workers share a listening socket, and one that is awake would take every connection before the others have woken up.
//! So one that has more than its share holds back for a moment, once, and then takes a few: whoever has the fewest may be
//! busy or dead, and then costs a millisecond and no connection.
//!
//! The one thing to know: a slot holds the pid of its worker beside the number, and a worker only ever replaces what it has
//! written itself. So one that drains writes no more once its successor, or its master, has written there.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::sys::SharedPage;

/// What is in a slot without a worker.
const ABSENT: u64 = 0;
/// Slots lie so many numbers apart, each in a cache line of its own.
const APART: usize = 8;

/// A slot for each worker. Made before they are forked.
#[derive(Debug)]
pub struct WorkerLoads {
    slots: usize,
    page: SharedPage<AtomicU64>,
}

impl WorkerLoads {
    /// An error where the system has no memory for it.
    pub fn new(slots: usize) -> io::Result<Self> {
        let numbers = slots.checked_mul(APART).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { slots, page: SharedPage::new(numbers)? })
    }

    /// For how many workers there are slots. Others take no part.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// For the master: the worker of this slot is gone, or is about to go.
    pub fn clear(&self, slot: usize) {
        if let Some(slot) = self.slot(slot) {
            slot.store(ABSENT, Ordering::Relaxed);
        }
    }

    fn slot(&self, slot: usize) -> Option<&AtomicU64> {
        self.page.get(slot.checked_mul(APART)?)
    }

    /// The fewest connections that another worker has.
    fn least_but(&self, own: usize) -> Option<u32> {
        let others = (0..self.slots).filter(|slot| *slot != own);
        let told = others.filter_map(|slot| Some(self.slot(slot)?.load(Ordering::Relaxed)));
        told.filter(|told| *told != ABSENT).map(|told| told as u32).min()
    }
}

/// A worker's own slot.
#[derive(Debug)]
pub(crate) struct WorkerLoad {
    shares: Arc<WorkerLoads>,
    slot: usize,
    written: u64,
}

impl WorkerLoad {
    /// Takes the slot, whoever had it before.
    pub(crate) fn take(shares: Arc<WorkerLoads>, slot: usize) -> Self {
        let written = u64::from(std::process::id()) << 32;
        if let Some(slot) = shares.slot(slot) {
            slot.store(written, Ordering::Relaxed);
        }
        Self { shares, slot, written }
    }

    /// Tells the others how many connections there are here.
    pub(crate) fn tell(&mut self, connections: usize) {
        let count = u32::try_from(connections).unwrap_or(u32::MAX);
        self.replace(self.written >> 32 << 32 | u64::from(count));
    }

    /// Whether another worker should have the next connection.
    pub(crate) fn is_large(&self) -> bool {
        let own = self.written as u32;
        self.shares.least_but(self.slot).is_some_and(|least| own > least + 1 + least / 8)
    }

    fn replace(&mut self, new: u64) {
        if let Some(slot) = self.shares.slot(self.slot) {
            // Where it fails, the slot is somebody else's by now.
            let _ = slot.compare_exchange(self.written, new, Ordering::Relaxed, Ordering::Relaxed);
        }
        self.written = new;
    }
}

impl Drop for WorkerLoad {
    /// It accepts no more.
    fn drop(&mut self) {
        self.replace(ABSENT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> (Arc<WorkerLoads>, WorkerLoad, WorkerLoad) {
        let shares = Arc::new(WorkerLoads::new(3).unwrap());
        let [one, two] = [0, 1].map(|slot| WorkerLoad::take(Arc::clone(&shares), slot));
        (shares, one, two)
    }

    #[test]
    fn one_more_than_the_least_is_no_large_share_and_an_eighth_neither() {
        let (_shares, mut one, mut two) = three();
        one.tell(1);
        assert!(!one.is_large());
        one.tell(2);
        assert!(one.is_large());
        two.tell(80);
        one.tell(91);
        assert!(!one.is_large() && !two.is_large());
        one.tell(92);
        assert!(one.is_large());
    }

    #[test]
    fn a_worker_that_is_gone_counts_no_more_and_writes_no_more() {
        let (shares, mut one, mut two) = three();
        one.tell(9);
        assert!(one.is_large());
        shares.clear(1);
        two.tell(1);
        assert!(!one.is_large());
        let _successor = WorkerLoad::take(Arc::clone(&shares), 1);
        assert!(one.is_large());
        drop(two);
        assert!(one.is_large());
        drop(one);
        assert_eq!(shares.least_but(1), None);
    }
}
