//! The responses that threads are producing, by the token of their connection, so that the event loop and the monitor
//! thread can send what is buffered.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// A response that a thread is producing.
pub(crate) trait ActiveWriter: Send + Sync {
    /// The socket may accept more, has failed, or its client sends no more, since `half_closed`. Returns true if there
    /// is more to send without waiting.
    fn on_event(&self, half_closed: Option<Instant>) -> bool;

    /// Sends what waits for further chunks.
    fn flush_deferred(&self);
}

#[derive(Default)]
pub(crate) struct ActiveWriters(Mutex<HashMap<usize, Arc<dyn ActiveWriter>>>);

impl ActiveWriters {
    pub(crate) fn insert(&self, token: usize, writer: Arc<dyn ActiveWriter>) {
        self.lock().insert(token, writer);
    }

    pub(crate) fn remove(&self, token: usize) {
        self.lock().remove(&token);
    }

    /// Passes an event of a connection's socket to the writer of its response, if there is one. Returns true if there
    /// is more to send without waiting.
    pub(crate) fn on_event(&self, token: usize, half_closed: Option<Instant>) -> bool {
        let writer = self.lock().get(&token).map(Arc::clone);
        writer.is_some_and(|writer| writer.on_event(half_closed))
    }

    /// Sends what waits for further chunks.
    pub(crate) fn flush_deferred(&self) {
        let writers: Vec<_> = self.lock().values().map(Arc::clone).collect();
        for writer in writers {
            writer.flush_deferred();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<dyn ActiveWriter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ActiveWriters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActiveWriters({})", self.lock().len())
    }
}
