//! Complete responses that wait briefly to be sent together.
//!
//! Waking a client that sleeps in a read costs more than the rest of a small request. So responses are sent a few at a
//! time: as soon as no other request waits for the application, and after [`MAX_FLUSH_DELAY`] at the latest. The leader
//! checks before each call. If a call takes longer than expected, the monitor thread sends them. A response sent by the
//! monitor thread returns to the event loop like any other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    connection::shared_session::SharedSession,
    connection::writer::MAX_FLUSH_DELAY,
    connection::{Connection, Next},
};

/// The maximum number of waiting responses.
const MAX_BATCH: usize = 32;

#[derive(Default)]
pub(crate) struct WriteBatch(Mutex<Batch>);

#[derive(Default)]
#[expect(clippy::vec_box, reason = "a connection moves between its owners in its box")]
struct Batch {
    connections: Vec<Box<Connection>>,
    /// When the first of them was added.
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

    /// Whether the batch should be sent before a call that may take as long as the last one.
    pub(crate) fn is_due(&self, now: Instant, call: Duration) -> bool {
        let batch = self.lock();
        batch.connections.len() >= MAX_BATCH
            || batch.since.is_some_and(|since| now + call > since + MAX_FLUSH_DELAY)
    }

    /// Sends all responses. `apply` gets each connection with what it waits for next.
    pub(crate) fn send(&self, mut apply: impl FnMut(Box<Connection>, Next)) {
        let mut batch = std::mem::take(&mut *self.lock());
        let now = Instant::now();
        let mut session: Option<Arc<SharedSession>> = None;
        for mut connection in batch.connections.drain(..) {
            // Responses in the same HTTP/2 session leave in one system call.
            let own = connection.socket().stream().map(|stream| Arc::clone(stream.session()));
            if let Some(other) =
                session.take_if(|other| !own.as_ref().is_some_and(|own| Arc::ptr_eq(own, other)))
            {
                other.flush();
            }
            session = own;
            let next = connection.send_unflushed(now);
            apply(connection, next);
        }
        if let Some(last) = session {
            last.flush();
        }
        // Reuse the vector, unless another one was allocated meanwhile.
        let mut place = self.lock();
        if place.connections.capacity() == 0 {
            place.connections = batch.connections;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
