//! Who holds the event loop: one thread, or nobody.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::event_loop::EventLoop;

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

/// Where the event loop is while nobody holds it. A lock whose guard a thread can give up without the GIL, before it waits for that.
pub(super) struct LoopSlot(Mutex<Option<Box<EventLoop>>>);

impl LoopSlot {
    pub(super) fn new(event_loop: EventLoop) -> Self {
        Self(Mutex::new(Some(Box::new(event_loop))))
    }

    /// The event loop, unless another thread holds it.
    pub(super) fn try_take(&self) -> Option<HeldLoop<'_>> {
        let event_loop = self.lock().take()?;
        RUNS_EVENT_LOOP.set(true);
        Some(HeldLoop { slot: self, event_loop: Some(event_loop) })
    }

    /// The slot is only locked to look into it, so there is nothing to wait for.
    fn lock(&self) -> MutexGuard<'_, Option<Box<EventLoop>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop, held until this is dropped. For as long, [`runs_event_loop`] is true in its thread.
pub(super) struct HeldLoop<'a> {
    slot: &'a LoopSlot,
    /// There until the drop.
    event_loop: Option<Box<EventLoop>>,
}

impl Drop for HeldLoop<'_> {
    fn drop(&mut self) {
        RUNS_EVENT_LOOP.set(false);
        *self.slot.lock() = self.event_loop.take();
    }
}

impl Deref for HeldLoop<'_> {
    type Target = EventLoop;

    fn deref(&self) -> &EventLoop {
        self.event_loop.as_ref().unwrap_or_else(|| unreachable!("only the drop takes it"))
    }
}

impl DerefMut for HeldLoop<'_> {
    fn deref_mut(&mut self) -> &mut EventLoop {
        self.event_loop.as_mut().unwrap_or_else(|| unreachable!("only the drop takes it"))
    }
}
