//! Whole responses that wait a moment to be sent together.
//!
//! Waking a client that sleeps in its read costs more than the rest of a small request, so responses are sent a few at a time: as
//! soon as no other request waits for the application, at the latest after [`MAX_FLUSH_DELAY`]. The leader checks before each call;
//! if a call takes longer than expected, the monitor thread sends them. A response sent by the monitor thread goes back to the event
//! loop like any other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    connection::writer::MAX_FLUSH_DELAY,
    connection::{Connection, Next},
};

/// How many responses may wait.
const MAX_BATCH: usize = 32;

#[derive(Default)]
pub(crate) struct WriteBatch(Mutex<Batch>);

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a connection moves between its owners in its box")]
struct Batch {
    connections: Vec<Box<Connection>>,
    /// When the first of them came.
    since: Option<Instant>,
}

impl WriteBatch {
    pub(crate) fn push(&self, connection: Box<Connection>, now: Instant) {
        let mut batch = self.lock();
        batch.since.get_or_insert(now);
        batch.connections.push(connection);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Whether they should be sent before a call that may take as long as the last one did.
    pub(crate) fn is_due(&self, now: Instant, call: Duration) -> bool {
        let batch = self.lock();
        batch.connections.len() >= MAX_BATCH
            || batch.since.is_some_and(|since| now + call > since + MAX_FLUSH_DELAY)
    }

    /// Sends them all; what each waits for next goes to `settle`.
    pub(crate) fn send(&self, mut settle: impl FnMut(Box<Connection>, Next)) {
        let mut batch = std::mem::take(&mut *self.lock());
        let now = Instant::now();
        for mut connection in batch.connections.drain(..) {
            let next = connection.send(now);
            settle(connection, next);
        }
        // The vector itself is used again, unless there is another one by now.
        let mut place = self.lock();
        if place.connections.capacity() == 0 {
            place.connections = batch.connections;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
