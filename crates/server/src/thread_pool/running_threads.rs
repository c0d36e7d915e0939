//! [`RunningThreads`]: waiting for the threads of the pool.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The number of serving threads besides the first.
#[derive(Default)]
pub(super) struct RunningThreads {
    count: Mutex<usize>,
    one_has_ended: Condvar,
}

/// Ends the count of a thread when it is dropped, even by a panic.
pub(super) struct RunningGuard<'a>(&'a RunningThreads);

impl RunningThreads {
    /// Counts a thread that is about to start.
    pub(super) fn add(&self) {
        *self.lock() += 1;
    }

    /// For a thread that was counted.
    pub(super) fn guard(&self) -> RunningGuard<'_> {
        RunningGuard(self)
    }

    pub(super) fn wait_for_all(&self) {
        let mut count = self.lock();
        while *count > 0 {
            count = self.one_has_ended.wait(count).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.one_has_ended.notify_all();
    }
}
