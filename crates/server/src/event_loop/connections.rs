//! The slots of connections: how they are taken, given back and closed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use super::{EventLoop, Slot, deregister};
use crate::connection::{Connection, Next};

impl EventLoop {
    /// Takes a connection back, or a new one in, with what it waits for.
    pub(crate) fn apply(&mut self, mut connection: Box<Connection>, next: Next) {
        let token = connection.token;
        let is_stream = connection.socket().stream().is_some();
        match next {
            Next::Close => return self.close(&connection),
            Next::Run if is_stream => return self.enqueue_stream(connection),
            Next::Run => return self.enqueue(connection),
            Next::SwitchToHttp2 => return self.switch_to_http2(*connection, Instant::now()),
            Next::Wait | Next::Flush => {}
        }
        if let Some(stream) = connection.socket().stream() {
            self.mark_pending(stream.session().token);
        }
        let Some(slot) = self.slots.get_mut(token) else { return };
        if let Slot::Out(readiness) = slot {
            connection.readiness.merge(std::mem::take(readiness));
        }
        if connection.can_advance() {
            self.runnable.push_back(token);
        } else {
            connection.release_buffers(&mut self.buffer_pool);
            if self.handover.as_mut().is_some_and(|handover| handover.hand_over(&connection)) {
                return self.forget(&connection);
            }
        }
        self.deadlines.set(token, connection.deadline());
        *slot = Slot::Held(connection);
    }

    pub(super) fn advance(&mut self, token: usize, now: Instant) {
        if let Some(Slot::Http2(_)) = self.slots.get(token) {
            return self.advance_http2(token, now);
        }
        let Some(mut connection) = self.slots.get_mut(token).and_then(Slot::take) else {
            // A thread is producing the response, and there is more to send than one iteration allows.
            if self.slots.contains(token) && self.context.writers.on_event(token, None) {
                self.runnable.push_back(token);
            }
            return;
        };
        connection.acquire_buffers(&mut self.buffer_pool);
        let next = catch_unwind(AssertUnwindSafe(|| connection.advance(now))).unwrap_or_else(|_| {
            log::error!("closing a connection: the server panicked");
            Next::Close
        });
        self.apply(connection, next);
    }

    pub(super) fn time_out(&mut self, token: usize, now: Instant) {
        if let Some(Slot::Http2(_)) = self.slots.get(token) {
            return self.time_out_http2(token, now);
        }
        let Some(slot) = self.slots.get_mut(token) else { return };
        let Some(mut connection) = slot.take() else { return };
        let mut check =
            || self.children.as_mut().and_then(|children| children.check_timeout(&connection, now));
        if connection.is_in_child() {
            let again = check();
            self.deadlines.set(token, again);
            *slot = Slot::Held(connection);
            return;
        }
        if connection.relay().and_then(|relay| relay.next_check).is_some_and(|check| check <= now) {
            let again = check();
            if let Some(relay) = connection.relay_mut() {
                relay.next_check = again;
            }
        }
        let next = if connection.deadline().is_some_and(|deadline| deadline <= now) {
            connection.time_out(now)
        } else {
            Next::Wait
        };
        self.apply(connection, next);
    }

    pub(super) fn enqueue(&mut self, mut connection: Box<Connection>) {
        self.deadlines.clear(connection.token);
        if self.ready_for_app.len() >= self.context.settings.queue {
            let next = connection.reject(503, "the server has too many requests waiting", Instant::now());
            return self.apply(connection, next);
        }
        self.ready_for_app.push_back(connection);
    }

    pub(super) fn close(&mut self, connection: &Connection) {
        if connection.socket().stream().is_some() {
            return self.close_stream(connection, Instant::now());
        }
        connection.socket().close_tls();
        if self.children.is_some() {
            // A child may hold a copy of the socket, which would keep it in the poll set and open for the client.
            deregister(self.poll.registry(), connection.socket().transport());
            connection.socket().shutdown();
        }
        self.close_slot(connection);
    }

    /// Another worker owns the connection now. It stays open; only this copy of its descriptor is closed.
    fn forget(&mut self, connection: &Connection) {
        // Another process has a copy of the socket, so it would stay in the poll set.
        deregister(self.poll.registry(), connection.socket().transport());
        self.close_slot(connection);
    }

    fn close_slot(&mut self, connection: &Connection) {
        self.deadlines.clear(connection.token);
        self.remove_slot(connection.token);
    }

    /// The number of connections, where the streams of HTTP/2 do not count.
    pub(super) fn connections(&self) -> usize {
        self.slots.len() - self.streams
    }
}
