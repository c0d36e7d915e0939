//! Whether the calling thread runs an event loop.

use std::cell::Cell;

thread_local! {
    static RUNS_EVENT_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread currently runs a server's event loop. It must not block then: not on the application's
/// locks, its log handlers or its hooks. False while the thread is inside the application.
pub fn runs_event_loop() -> bool {
    RUNS_EVENT_LOOP.get()
}

pub(crate) fn set(runs_event_loop: bool) {
    RUNS_EVENT_LOOP.set(runs_event_loop);
}
