//! New connections, accepted from listeners or handed over by other workers.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    sync::Arc,
    time::Instant,
};

use mio::Interest;

use super::{CONNECTIONS, EventLoop, Slot, register};
use crate::{
    connection::{Connection, socket::ClientSocket},
    handover::queue::{Arrival, Awaits},
    idle::{self, longest_idle},
};

/// The most connections accepted from one listener per iteration, so that others get their turn.
const MAX_ACCEPTS_PER_ITERATION: usize = 64;

impl EventLoop {
    /// Accepts connections from one listener. Returns true if more may be waiting.
    pub(super) fn accept(&mut self, index: usize, now: Instant) -> bool {
        for _ in 0..MAX_ACCEPTS_PER_ITERATION {
            if self.acceptor.is_full_for(index, now, self.connections()) {
                self.close_longest_idle(now);
            }
            let Some(arrival) = self.acceptor.accept(index, now, self.connections()) else { return false };
            self.register_arrival(arrival, now);
        }
        true
    }

    pub(super) fn register_arrival(&mut self, arrival: Arrival, now: Instant) {
        if let Err(error) = self.register_connection(arrival, now) {
            log::error!("closing a new connection: registering it in the poll set failed: {error}");
        }
    }

    /// Closes idle connections, if there are any, so that a waiting client can be accepted.
    pub(super) fn close_longest_idle(&mut self, now: Instant) {
        let candidates = self.slots.iter().filter_map(|(token, slot)| match slot {
            Slot::Held(connection) => idle::candidate(connection),
            Slot::Http2(http2) => {
                http2.idle_since().map(|(is_kept_alive, since)| (is_kept_alive, since, token))
            }
            Slot::Out(_) => None,
        });
        for token in longest_idle(candidates, self.connections(), now) {
            if let Some(Slot::Http2(_)) = self.slots.get(token) {
                self.close_http2(token, now);
            } else if let Some(connection) = self.slots.get_mut(token).and_then(Slot::take) {
                self.close(&connection);
            }
        }
    }

    pub(super) fn register_connection(&mut self, arrival: Arrival, now: Instant) -> io::Result<()> {
        let Arrival { socket, peer, listener, handed_over } = arrival;
        let mut socket = ClientSocket::new(socket, peer, listener, Arc::clone(&self.context));
        let has_requests = handed_over.is_some_and(|state| state.awaits == Awaits::NextRequest);
        let is_secure = match &handed_over {
            Some(state) if state.is_listener_gone => state.is_secure,
            _ => self.acceptor.is_secure(listener),
        };
        if let Some(tls) = self.context.settings.tls.as_ref().filter(|_| is_secure && !has_requests) {
            socket.start_tls(tls)?;
        }
        let entry = self.slots.vacant_entry();
        let token = entry.key();
        socket.token = token;
        register(
            self.poll.registry(),
            socket.transport().as_fd().as_raw_fd(),
            CONNECTIONS + token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let mut connection = Box::new(Connection::new(token, socket, &self.app, now));
        if let Some(handed_over) = handed_over {
            connection.restore(handed_over);
        }
        entry.insert(Slot::Held(connection));
        self.acceptor.publish_load(self.slots.len());
        self.advance(token, now);
        Ok(())
    }
}
