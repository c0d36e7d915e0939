//! Responses that wait a moment to be sent together.
//!
//! Waking a client that sleeps in its read costs more than the rest of a small request, so whole responses are sent a few at a
//! time: as soon as no other request waits for the app, at the latest after [`PATIENCE`]. The leader sees to it before each call; if
//! a call takes longer than expected, the lookout does. A response sent by the lookout goes back to the loop like any other.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::connection::{Connection, Next};

/// How long a response may wait for others.
const PATIENCE: Duration = Duration::from_millis(1);
/// How many may wait.
const MANY: usize = 32;

#[derive(Default)]
pub(crate) struct Unsent(Mutex<Waiting>);

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a connection moves between its owners box and all")]
struct Waiting {
    connections: Vec<Box<Connection>>,
    /// When the first of them was put here.
    since: Option<Instant>,
}

impl Unsent {
    pub(crate) fn put(&self, connection: Box<Connection>, now: Instant) {
        let mut waiting = self.lock();
        waiting.since.get_or_insert(now);
        waiting.connections.push(connection);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().connections.is_empty()
    }

    /// Whether they should be sent before a call that may take as long as the last one did.
    pub(crate) fn is_due(&self, now: Instant, call: Duration) -> bool {
        let waiting = self.lock();
        waiting.connections.len() >= MANY || waiting.since.is_some_and(|since| now + call > since + PATIENCE)
    }

    /// Sends them all; what each waits for next goes to `settle`.
    pub(crate) fn send(&self, mut settle: impl FnMut(Box<Connection>, Next)) {
        let mut waiting = std::mem::take(&mut *self.lock());
        let now = Instant::now();
        for mut connection in waiting.connections.drain(..) {
            let next = connection.send(now);
            settle(connection, next);
        }
        // The vector itself is used again, unless another has come to its place meanwhile.
        let mut place = self.lock();
        if place.connections.capacity() == 0 {
            place.connections = waiting.connections;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
