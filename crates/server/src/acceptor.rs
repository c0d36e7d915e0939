//! The listening sockets, and when connections are accepted from them. The last source may be the queue of connections
//! that other workers [hand over](crate::handover).
//!
//! A source is not tried while no connection waits there. Accepting pauses if no file descriptors are left, if there
//! are too many connections, or if another worker should accept the next one (see
//! [`worker_loads`](crate::worker_loads)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{HandoverQueue, Listener, Settings, handover::queue::Arrival, worker_loads::WorkerLoad};

/// How long accepting pauses after an error or when the worker is full.
const RETRY_ACCEPT: Duration = Duration::from_millis(100);
/// The minimum interval between warnings about accept errors.
const LOG_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker defers accepting in favor of workers with fewer connections.
const DEFER_ACCEPT: Duration = Duration::from_millis(1);
/// After deferring, a worker accepts one connection, and one more per this many that it has.
const CREDIT_DIVISOR: usize = 16;

pub(crate) struct Acceptor {
    listeners: Vec<ListenerState>,
    /// The URL of each listener.
    urls: Arc<[String]>,
    /// Whether each listener requires TLS, if TLS is enabled.
    are_secure: Vec<bool>,
    /// The maximum number of connections.
    max_connections: usize,
    /// The load of this worker, while it takes part in balancing.
    load: Option<WorkerLoad>,
    /// When the last warning was logged.
    last_warning: Option<Instant>,
}

enum Source {
    Listener(Listener),
    Handover(Arc<HandoverQueue>),
}

struct ListenerState {
    source: Source,
    /// Connections may be waiting.
    is_readable: bool,
    /// Do not accept before this time.
    paused: Option<Instant>,
    /// How many connections may still be accepted although the fair share is exceeded.
    accept_credit: usize,
}

impl Acceptor {
    /// Registers each listener with its index as token.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        registry: &Registry,
        settings: &Settings,
    ) -> io::Result<Self> {
        let urls = listeners.iter().map(Listener::url).collect();
        let are_secure = listeners.iter().map(|listener| !listener.is_insecure()).collect();
        let handover = settings.handover.clone().map(Source::Handover);
        let sources = listeners.into_iter().map(Source::Listener).chain(handover);
        let listener = |source| ListenerState { source, is_readable: true, paused: None, accept_credit: 0 };
        let listeners: Vec<_> = sources.map(listener).collect();
        for (index, listener) in listeners.iter().enumerate() {
            registry.register(&mut SourceFd(&listener.descriptor()), Token(index), Interest::READABLE)?;
        }
        Ok(Self {
            listeners,
            urls,
            are_secure,
            max_connections: settings.connections,
            load: settings.loads.as_ref().map(|(loads, slot)| WorkerLoad::take(Arc::clone(loads), *slot)),
            last_warning: None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// Connections may be waiting at this listener. An event may arrive after the listeners are closed.
    pub(crate) fn mark_readable(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.is_readable = true;
        }
    }

    /// Whether accepting can continue without another event.
    pub(crate) fn is_busy(&self) -> bool {
        self.listeners.iter().any(|listener| listener.is_readable && listener.paused.is_none())
    }

    /// When the first pause ends.
    pub(crate) fn pause(&self) -> Option<Instant> {
        self.listeners.iter().filter_map(|listener| listener.paused).min()
    }

    /// The descriptors of the listeners.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let listeners =
            self.listeners.iter().filter(|listener| matches!(listener.source, Source::Listener(_)));
        listeners.map(ListenerState::descriptor)
    }

    /// The URL of each listener. Remains available after they are closed.
    pub(crate) fn urls(&self) -> Arc<[String]> {
        Arc::clone(&self.urls)
    }

    /// Whether connections of this listener use TLS, if it is enabled.
    pub(crate) fn is_secure(&self, index: usize) -> bool {
        self.are_secure.get(index).is_none_or(|is_secure| *is_secure)
    }

    /// Whether a client waits at this listener, the worker is full, and no other worker should accept the client.
    pub(crate) fn is_full_for(&self, index: usize, now: Instant, connections: usize) -> bool {
        let listener = &self.listeners[index];
        connections >= self.max_connections
            && listener.is_readable
            && listener.paused.is_none_or(|until| until <= now)
            && !self.load.as_ref().is_some_and(WorkerLoad::exceeds_fair_share)
            && matches!(&listener.source, Source::Listener(listener) if listener.has_client())
    }

    /// Accepts the next connection. `None` if none waits or accepting pauses. `connections` is the current number of
    /// connections.
    pub(crate) fn accept(&mut self, index: usize, now: Instant, connections: usize) -> Option<Arrival> {
        let listener = &mut self.listeners[index];
        if listener.paused.is_some_and(|until| until <= now) {
            listener.paused = None;
        }
        while listener.is_readable && listener.paused.is_none() {
            if connections >= self.max_connections {
                listener.paused = Some(now + RETRY_ACCEPT);
            } else if listener.defers_accept(self.load.as_ref(), connections) {
                listener.paused = Some(now + DEFER_ACCEPT);
            } else {
                match listener.source.accept(index, &self.urls) {
                    Ok(accepted) => return Some(accepted),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        (listener.is_readable, listener.accept_credit) = (false, 0);
                    }
                    Err(error) if concerns_one_connection(&error) => {}
                    Err(error) => {
                        listener.paused = Some(now + RETRY_ACCEPT);
                        if self.last_warning.is_none_or(|last| now >= last + LOG_INTERVAL) {
                            self.last_warning = Some(now);
                            log::warn!("accepting pauses for 0.1 s: {error}");
                        }
                    }
                }
            }
        }
        None
    }

    /// Publishes the number of connections for the other workers.
    pub(crate) fn publish_load(&mut self, connections: usize) {
        if let Some(load) = &mut self.load {
            load.publish(connections);
        }
    }

    /// From now on this worker does not take part in balancing and accepts every waiting connection.
    pub(crate) fn leave_balancing(&mut self) {
        self.load = None;
        self.listeners.iter_mut().for_each(|listener| listener.paused = None);
    }

    /// Stops receiving connections that other workers hand over.
    pub(crate) fn close_handover(&mut self, registry: &Registry) {
        let is_handover = |listener: &mut ListenerState| matches!(listener.source, Source::Handover(_));
        for listener in self.listeners.extract_if(.., is_handover) {
            let _ = registry.deregister(&mut SourceFd(&listener.descriptor()));
        }
    }

    /// Closes all listeners.
    pub(crate) fn close(&mut self, registry: &Registry) {
        self.leave_balancing();
        for listener in self.listeners.drain(..) {
            let _ = registry.deregister(&mut SourceFd(&listener.descriptor()));
        }
    }
}

impl Source {
    fn accept(&self, index: usize, urls: &[String]) -> io::Result<Arrival> {
        match self {
            Self::Listener(listener) => {
                let (socket, peer) = listener.accept()?;
                Ok(Arrival { socket, peer, listener: index, handed_over: None })
            }
            Self::Handover(queue) => queue.receive(urls),
        }
    }
}

impl ListenerState {
    fn descriptor(&self) -> RawFd {
        match &self.source {
            Source::Listener(listener) => listener.as_fd().as_raw_fd(),
            Source::Handover(queue) => queue.as_fd().as_raw_fd(),
        }
    }

    /// Whether another worker should accept the next connection. True once; then this worker accepts a few before it
    /// defers again.
    fn defers_accept(&mut self, load: Option<&WorkerLoad>, connections: usize) -> bool {
        if !load.is_some_and(WorkerLoad::exceeds_fair_share) {
            self.accept_credit = 0;
            return false;
        }
        let defers = self.accept_credit == 0;
        self.accept_credit = if defers { 1 + connections / CREDIT_DIVISOR } else { self.accept_credit - 1 };
        defers
    }
}

/// Errors of `accept` that concern the new connection, not the listener (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::CONNABORTED, Errno::PROTO, Errno::PERM, Errno::NETDOWN, Errno::NOPROTOOPT, Errno::HOSTDOWN]
        .iter()
        .chain(&[Errno::HOSTUNREACH, Errno::OPNOTSUPP, Errno::NETUNREACH, Errno::INTR])
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
