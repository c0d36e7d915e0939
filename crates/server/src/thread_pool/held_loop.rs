//! Which thread holds the event loop.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{event_loop::EventLoop, event_loop_thread};

/// The place of the event loop while no thread holds it. A thread can release it without the GIL, before it waits for
/// the GIL.
pub(super) struct LoopSlot(Mutex<Option<Box<EventLoop>>>);

impl LoopSlot {
    pub(super) fn new(event_loop: EventLoop) -> Self {
        Self(Mutex::new(Some(Box::new(event_loop))))
    }

    /// Takes the event loop, unless another thread holds it.
    pub(super) fn try_take(&self) -> Option<HeldLoop<'_>> {
        let event_loop = self.lock().take()?;
        event_loop_thread::set(true);
        Some(HeldLoop { slot: self, event_loop: Some(event_loop) })
    }

    /// Locked only for a moment, so there is no wait.
    fn lock(&self) -> MutexGuard<'_, Option<Box<EventLoop>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The event loop, held until this is dropped. Meanwhile [`runs_event_loop`](crate::runs_event_loop) is true in its
/// thread.
pub(super) struct HeldLoop<'a> {
    slot: &'a LoopSlot,
    /// `Some` until the drop.
    event_loop: Option<Box<EventLoop>>,
}

impl Drop for HeldLoop<'_> {
    fn drop(&mut self) {
        event_loop_thread::set(false);
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
