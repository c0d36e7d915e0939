//! Hand-over: a worker that stops passes its idle connections to the workers that keep serving, so that clients notice nothing.
//!
//! All workers of all generations share one [queue](HandoverQueue). A worker that serves takes connections from it like from a listener
//! (see [`acceptor`](crate::acceptor)), by the same rules for an even load.
//!
//! Nothing blocks, and no connection is lost. If the queue is full, a connection stays with its worker and is served there. A message
//! in the queue outlives its sender.
//!
//! Invariant: a worker sends only after [`Command::HandOver`](crate::Command::HandOver), which promises that others receive. If
//! [`Command::Drain`](crate::Command::Drain) follows, it receives what is still in the queue.

pub(crate) mod queue;

use std::{
    io,
    os::fd::{AsFd, RawFd},
    sync::{Arc, atomic::Ordering},
};

use self::queue::{Arrival, Awaits, HandedOver, HandoverQueue};
use crate::connection::{Connection, Phase, tls_transport::TlsTransport};

/// The sending side, in a worker that stops.
pub(crate) struct Handover {
    queue: Arc<HandoverQueue>,
    /// The URLs of this worker's listeners.
    listeners: Arc<[String]>,
    /// The queue was full for the last connection, and has had no space since.
    is_full: bool,
    count: usize,
}

impl Drop for Handover {
    fn drop(&mut self) {
        if self.count > 0 {
            log::info!("idle connections handed over to other workers: {}", self.count);
        }
    }
}

impl Handover {
    pub(crate) fn new(queue: Arc<HandoverQueue>, listeners: Arc<[String]>) -> Self {
        Self { queue, listeners, is_full: false, count: 0 }
    }

    /// Hands a connection over if possible. The caller then forgets it.
    pub(crate) fn hand_over(&mut self, connection: &Connection) -> bool {
        let (socket, context) = (connection.socket(), connection.context());
        if self.is_full && connection.is_idle() {
            // No worker receives. After half of the graceful timeout, every response closes its connection.
            context.draining.fetch_or(context.must_close_connections(), Ordering::Relaxed);
        }
        if self.is_full || !is_transferable(connection) {
            return false;
        }
        let Some(listener) = self.listeners.get(socket.listener) else { return false };
        let state = HandedOver {
            awaits: match connection.phase {
                Phase::ProxyHeader => Awaits::ProxyHeader,
                Phase::Idle => Awaits::NextRequest,
                _ => Awaits::FirstRequest,
            },
            is_distrusted: !socket.peer.is_trusted && socket.peer.is_in(&context.settings.trusted),
            is_listener_gone: false,
            is_secure: socket.tls().is_some(),
        };
        match self.queue.send(socket.transport().as_fd(), &socket.peer, listener, state) {
            Ok(()) => self.count += 1,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return false,
            Err(error) => {
                self.is_full = true;
                if error.kind() != io::ErrorKind::WouldBlock {
                    log::warn!("hand-over: idle connections stay with this worker for now: {error}");
                }
            }
        }
        !self.is_full
    }

    /// Whether the queue may have space.
    pub(crate) fn may_have_space(&self) -> bool {
        !self.is_full
    }

    /// The queue has space again.
    pub(crate) fn on_space(&mut self) {
        self.is_full = false;
    }

    /// What to poll for space.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.queue.sending_end()
    }

    /// Receives the next connection that is still in the queue, because no other worker does any more.
    pub(crate) fn take_back(&self) -> Option<Arrival> {
        match self.queue.receive(&self.listeners) {
            Ok(arrival) => Some(arrival),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                log::error!("hand-over: connections in the queue are closed: {error}");
                None
            }
        }
    }
}

/// Whether no bytes of a request are here, and the last response is finished.
fn is_transferable(connection: &Connection) -> bool {
    connection.is_idle()
        && !connection.readiness.readable
        && connection.readiness.peer_closed.is_none()
        && !connection.socket().closes
        && connection.socket().tls().is_none_or(TlsTransport::is_untouched)
        && !connection.socket().was_aborted()
}
