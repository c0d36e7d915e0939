//! Whether the calling thread holds the event loop.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::MutexGuard,
};

use crate::event_loop::Loop;

thread_local! {
    static RUNS_EVENT_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread runs a server's event loop just now, so that it must not wait for anything: not for the application's
/// locks, its log handlers or its hooks. False while the thread is inside the application.
pub fn runs_event_loop() -> bool {
    RUNS_EVENT_LOOP.get()
}

/// In a child that was forked by the event loop, and does not go on with it.
pub(crate) fn forget_event_loop() {
    RUNS_EVENT_LOOP.set(false);
}

/// The locked event loop. For as long as this exists, [`runs_event_loop`] is true in its thread.
pub(super) struct HeldLoop<'a>(MutexGuard<'a, Loop>);

impl<'a> HeldLoop<'a> {
    pub(super) fn new(event_loop: MutexGuard<'a, Loop>) -> Self {
        RUNS_EVENT_LOOP.set(true);
        Self(event_loop)
    }
}

impl Drop for HeldLoop<'_> {
    fn drop(&mut self) {
        RUNS_EVENT_LOOP.set(false);
    }
}

impl Deref for HeldLoop<'_> {
    type Target = Loop;

    fn deref(&self) -> &Loop {
        &self.0
    }
}

impl DerefMut for HeldLoop<'_> {
    fn deref_mut(&mut self) -> &mut Loop {
        &mut self.0
    }
}
