//! What waits a moment to be sent with more: whole responses, and pieces of a stream.
//!
//! Waking a client that sleeps in its read costs more than the rest of a small request, so whole responses are sent a few at a
//! time: as soon as no other request waits for the app, at the latest after [`PATIENCE`]. The leader sees to it before each call; if
//! a call takes longer than expected, the lookout does. A response sent by the lookout goes back to the loop like any other.
//!
//! The pieces of a stream are gathered likewise, by the thread that pulls them. While it is inside the app for the next piece, those
//! that wait are on loan here (a [`Lender`]), and if it is long in coming, the lookout sends them (PEP 3333 forbids to delay them).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use slab::Slab;

use crate::{
    connection::{Connection, Next},
    line::Line,
    wire::Wire,
};

/// How long a response or a piece may wait for others.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);
/// How many may wait.
const MANY: usize = 32;

#[derive(Default)]
pub(crate) struct Unsent {
    waiting: Mutex<Waiting>,
    lent: Mutex<Slab<Lent>>,
}

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a connection moves between its owners box and all")]
struct Waiting {
    connections: Vec<Box<Connection>>,
    /// When the first of them was put here.
    since: Option<Instant>,
}

/// Pieces of a stream whose thread is inside the app.
struct Lent {
    wire: Arc<Wire>,
    bytes: Vec<u8>,
}

/// Takes pieces on loan while the next one is made.
pub(crate) struct Lender<'a> {
    pub(crate) unsent: &'a Unsent,
    pub(crate) line: &'a Line,
}

impl Lender<'_> {
    /// Runs `pull`, which must not panic, while the lookout may send `bytes`; what it has not sent is left there.
    pub(crate) fn lend<R>(&self, wire: &Arc<Wire>, bytes: &mut Vec<u8>, pull: impl FnOnce() -> R) -> R {
        let lent = Lent { wire: Arc::clone(wire), bytes: std::mem::take(bytes) };
        let key = lock(&self.unsent.lent).insert(lent);
        self.line.be_watched();
        let pulled = pull();
        if let Some(lent) = lock(&self.unsent.lent).try_remove(key) {
            *bytes = lent.bytes;
        }
        pulled
    }
}

impl Unsent {
    /// Sends what streams have lent. An error is left to be met by the stream's own thread.
    pub(crate) fn send_lent(&self) {
        for (_, lent) in lock(&self.lent).iter_mut().filter(|(_, lent)| !lent.bytes.is_empty()) {
            if let Ok(count) = lent.wire.send(&lent.bytes, false) {
                lent.bytes.drain(..count);
            }
        }
    }

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
        lock(&self.waiting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
