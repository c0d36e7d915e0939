//! How long the application has been in its current call, without the time that it waited for its client.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Shared between the thread that runs a request and the monitor thread. Times are microseconds after `epoch`.
#[derive(Debug)]
pub(crate) struct CallTimer {
    epoch: Instant,
    started: AtomicU64,
    /// The call has no time limit: it waits for the next server-sent event.
    is_suspended: AtomicBool,
    /// A thread is waiting for a slow client.
    is_waiting: AtomicBool,
    /// How long the current call has waited for its client, without the wait that is not over.
    waited: AtomicU64,
}

impl CallTimer {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            started: AtomicU64::new(0),
            is_suspended: AtomicBool::new(false),
            is_waiting: AtomicBool::new(false),
            waited: AtomicU64::new(0),
        }
    }

    pub(crate) fn restart(&self, now: Instant) {
        self.waited.store(0, Ordering::Relaxed);
        self.is_suspended.store(false, Ordering::Relaxed);
        self.started.store(self.micros(now), Ordering::Release);
    }

    /// Removes the time limit until the next [`restart`](Self::restart).
    pub(crate) fn suspend(&self) {
        self.is_suspended.store(true, Ordering::Release);
    }

    /// Runs `wait`, which blocks. Its time does not count.
    pub(crate) fn exclude<T>(&self, wait: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        self.is_waiting.store(true, Ordering::Release);
        let result = wait();
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(micros, Ordering::Relaxed);
        self.is_waiting.store(false, Ordering::Release);
        result
    }

    /// When the current call started. `None` if it has no time limit.
    pub(crate) fn started(&self) -> Option<Instant> {
        let started = Duration::from_micros(self.started.load(Ordering::Acquire));
        (!self.is_suspended.load(Ordering::Acquire)).then(|| self.epoch + started)
    }

    /// How long the current call has waited for its client. `None` while it is waiting.
    pub(crate) fn blocked_time(&self) -> Option<Duration> {
        let is_waiting = self.is_waiting.load(Ordering::Acquire);
        (!is_waiting).then(|| Duration::from_micros(self.waited.load(Ordering::Relaxed)))
    }

    pub(crate) fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }
}
