//! [`HandbackQueue`]: how connections return to the event loop.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use mio::Waker;

use crate::{
    connection::{Connection, Next},
    wakeup::LeaderSleep,
};

type Handback = (Box<Connection>, Next);

/// Connections of threads that lost the lead while they were in the application.
pub(super) struct HandbackQueue {
    connections: Mutex<Vec<Handback>>,
    is_filled: AtomicBool,
    leader: LeaderSleep,
    waker: Waker,
}

impl HandbackQueue {
    /// `waker` ends the wait of the event loop.
    pub(super) fn new(waker: Waker) -> Self {
        Self {
            connections: Mutex::default(),
            is_filled: AtomicBool::new(false),
            leader: LeaderSleep::new(),
            waker,
        }
    }

    pub(super) fn push(&self, connection: Box<Connection>, next: Next) {
        self.lock().push((connection, next));
        self.is_filled.store(true, Ordering::SeqCst);
        self.notify_leader();
    }

    /// Passes each connection to `apply`, with what it waits for next.
    pub(super) fn drain(&self, mut apply: impl FnMut(Box<Connection>, Next)) {
        if self.is_filled.swap(false, Ordering::SeqCst) {
            for (connection, next) in self.lock().drain(..) {
                apply(connection, next);
            }
        }
    }

    /// Runs `sleep` in the leader, unless a connection is here, or `has_work` finds other work. `sleep` must call
    /// [`leader_has_woken`](Self::leader_has_woken) before it releases the event loop.
    pub(super) fn sleep_unless(&self, has_work: impl Fn() -> bool, sleep: impl FnOnce()) {
        self.leader.sleep_unless(|| has_work() || self.is_filled.load(Ordering::SeqCst), sleep);
    }

    /// The sleep of the leader is over.
    pub(super) fn leader_has_woken(&self) {
        self.leader.end();
    }

    /// Wakes the leader if it sleeps. Call this after publishing work for it.
    pub(super) fn notify_leader(&self) {
        self.leader.notify(|| self.wake());
    }

    /// Ends the current or next wait of the event loop.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("waking the leader thread failed: {error}");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Handback>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
