//! The event loop: waits for sockets, accepts connections, advances them, and queues those that need the app.
//!
//! `EventLoop` is a value, not a thread: the thread that holds it (see [`thread_pool`](crate::thread_pool)) runs it. It
//! never runs app code. While a thread runs a request, it owns the connection; meanwhile the loop records events of the
//! socket in the connection's slot.

mod accept;
mod children;
mod connections;
mod drain;
mod encryption;
mod http2;
mod http2_connection;
mod slot;

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, Waker, event::Event as PollEvent, unix::SourceFd};
use mlws_http2::Event;
use slab::Slab;

use self::slot::Slot;
use crate::{
    App, Command, Concurrency, Listener,
    acceptor::Acceptor,
    command::CommandSource,
    connection::socket::HALF_CLOSE,
    connection::transport::PeerState,
    connection::{Connection, Readiness},
    context::ServerContext,
    deadlines::Deadlines,
    fork::Children,
    handover::Handover,
    recycle::RecycleLimits,
};

const HANDOVER: usize = (1 << 20) - 1;
const WAKER: usize = 1 << 20;
const COMMAND_SOURCES: usize = (1 << 20) + 1;
/// The control channel of children.
const CONTROL: usize = CHILDREN - 1;
const CHILDREN: usize = 1 << 24;
/// The relays of connections. The token of the connection is added.
const RELAYS: usize = 1 << 29;
const CONNECTIONS: usize = 1 << 30;

/// How often children without a pidfd are polled.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Clients of requests that have waited less than this for the app are not checked.
const MIN_WAIT_TO_CHECK: Duration = Duration::from_millis(10);

pub(crate) struct EventLoop {
    poll: Poll,
    /// A clone of the poll set's registry, for objects that deregister themselves.
    registry: Arc<Registry>,
    events: Events,
    context: Arc<ServerContext>,
    /// For the access log.
    app: Arc<dyn App>,
    acceptor: Acceptor,
    command_sources: Vec<CommandSource>,
    slots: Slab<Slot>,
    /// How many of the slots are streams of HTTP/2 connections.
    streams: usize,
    /// HTTP/2 connections with something to send or handle.
    pending_http2: Vec<usize>,
    /// HTTP/2 connections with requests that may not be queued yet.
    with_waiting_streams: VecDeque<usize>,
    /// The HTTP/2 connection whose waiting requests are queued one after the other, and since when.
    turn: Option<(usize, Instant)>,
    /// Reused buffers: for events of an HTTP/2 session, and for received bytes.
    http2_events: Vec<Event>,
    scratch: Vec<u8>,
    /// Connections whose request needs the app.
    ready_for_app: VecDeque<Box<Connection>>,
    /// Connections that can advance without another event.
    runnable: VecDeque<usize>,
    deadlines: Deadlines,
    children: Option<Children>,
    buffer_pool: Vec<Vec<u8>>,
    command: Option<Command>,
    /// Set while idle connections are handed over to other workers.
    handover: Option<Handover>,
    recycle: RecycleLimits,
    /// The times of the last two polls, after each of which connections were accepted; the latest first.
    poll_times: (Instant, Instant),
}

impl EventLoop {
    pub(crate) fn new(
        listeners: Vec<Listener>,
        command_sources: Vec<CommandSource>,
        context: Arc<ServerContext>,
        app: &Arc<dyn App>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let acceptor = Acceptor::new(listeners, registry, &context.settings)?;
        for (index, source) in command_sources.iter().enumerate() {
            register(registry, source.descriptor.as_raw_fd(), COMMAND_SOURCES + index, Interest::READABLE)?;
        }
        let children = match context.settings.concurrency {
            Concurrency::Fork { children, .. } => {
                let children = Children::new(children.max(1), context.settings.timeout, CHILDREN)?;
                register(registry, children.control_descriptor(), CONTROL, Interest::READABLE)?;
                Some(children)
            }
            _ => None,
        };
        Ok(Self {
            registry: Arc::new(registry.try_clone()?),
            poll,
            events: Events::with_capacity(64),
            recycle: RecycleLimits::new(&context.settings),
            context,
            app: Arc::clone(app),
            acceptor,
            command_sources,
            slots: Slab::new(),
            streams: 0,
            pending_http2: Vec::new(),
            with_waiting_streams: VecDeque::new(),
            turn: None,
            http2_events: Vec::new(),
            scratch: Vec::new(),
            ready_for_app: VecDeque::new(),
            runnable: VecDeque::new(),
            deadlines: Deadlines::default(),
            children,
            buffer_pool: Vec::new(),
            command: None,
            handover: None,
            poll_times: (Instant::now(), Instant::now()),
        })
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), Token(WAKER))
    }

    /// Polls without blocking. Returns whether there are events.
    pub(crate) fn poll_now(&mut self) -> io::Result<bool> {
        self.poll_for(Some(Duration::ZERO))?;
        Ok(!self.events.is_empty())
    }

    /// Blocks until there are events, a deadline passes, or `at_most` has passed. Handles nothing. Returns false if a
    /// signal or `at_most` ended the wait, so that there is nothing to do.
    pub(crate) fn wait_for_events(&mut self, at_most: Option<Duration>) -> io::Result<bool> {
        let now = Instant::now();
        let children = self.children.as_ref();
        let polling = children.is_some_and(Children::needs_polling).then_some(CHILD_POLL_INTERVAL);
        let background = children.and_then(Children::next_background_deadline);
        let [paused, background, rejections] =
            [self.acceptor.pause(), background, self.context.rejections.next_report()]
                .map(|until| until.map(|until| until.saturating_duration_since(now)));
        let due =
            [self.deadlines.wait(now), polling, paused, background, rejections].into_iter().flatten().min();
        self.poll_for([due, at_most].into_iter().flatten().min())?;
        Ok(!self.events.is_empty() || due.is_some_and(|due| now.elapsed() >= due))
    }

    /// Advances every connection that can advance without the app, and accepts new ones.
    pub(crate) fn run_once(&mut self) {
        let now = self.handle_events();
        self.poll_times = (now, self.poll_times.0);
        for index in 0..self.acceptor.len() {
            self.accept(index, now);
        }
        self.advance_runnable(now);
    }

    /// Like [`run_once`](Self::run_once), but without accepting: if no thread is free, another worker may have one.
    pub(crate) fn run_once_without_accepting(&mut self) {
        let now = self.handle_events();
        self.advance_runnable(now);
    }

    fn handle_events(&mut self) -> Instant {
        let now = Instant::now();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.handle_event(event, now);
        }
        events.clear();
        self.events = events;
        now
    }

    fn advance_runnable(&mut self, now: Instant) {
        for _ in 0..self.runnable.len() {
            if let Some(token) = self.runnable.pop_front() {
                self.advance(token, now);
            }
        }
        self.check_children(now);
        self.context.rejections.report_suppressed(now);
        for token in self.deadlines.take_expired(now) {
            self.time_out(token, now);
        }
        self.process_http2(now);
    }

    /// Whether another iteration would find something to do without waiting.
    pub(crate) fn is_busy(&self) -> bool {
        !self.runnable.is_empty() || self.acceptor.is_busy()
    }

    /// Whether a connection waits for the app.
    pub(crate) fn has_ready(&mut self) -> bool {
        if self.ready_for_app.is_empty() {
            self.admit_waiting();
        }
        !self.ready_for_app.is_empty()
    }

    /// When the oldest queued request was complete.
    pub(crate) fn oldest_ready(&self) -> Option<Instant> {
        self.ready_for_app.front().map(|connection| connection.since)
    }

    /// The next connection that needs the app.
    pub(crate) fn next_ready(&mut self) -> Option<Box<Connection>> {
        if self.children.as_ref().is_some_and(|children| !children.has_capacity()) {
            return None;
        }
        if self.ready_for_app.is_empty() {
            self.admit_waiting();
        }
        self.ready_for_app.pop_front()
    }

    /// Counts a request that is about to run. Returns, once, why this process should be replaced.
    pub(crate) fn count_request(&mut self) -> Option<String> {
        self.recycle.on_request()
    }

    /// Rejects all queued requests, because no thread is left to run them.
    pub(crate) fn reject_pending(&mut self) {
        let now = Instant::now();
        for mut connection in std::mem::take(&mut self.ready_for_app) {
            let next = connection.reject(503, "the application is stuck", now);
            self.apply(connection, next);
        }
    }

    /// Whether the client of a queued request no longer waits for the response. A half-close alone does not mean that:
    /// a client may close its side right after its request.
    pub(crate) fn client_gave_up(&self, connection: &Connection, now: Instant) -> bool {
        if let Some(stream) = connection.socket().stream() {
            return stream.is_reset();
        }
        // A connection accepted in this iteration may have been waiting since the one before.
        let since = connection.since.min(self.poll_times.1);
        if now.saturating_duration_since(since) < MIN_WAIT_TO_CHECK {
            return false;
        }
        match connection.socket().peer_state() {
            PeerState::Open => false,
            PeerState::Closed => true,
            PeerState::HalfClosed => {
                let slot = self.slots.get(connection.token);
                let ended = slot.and_then(|slot| match slot {
                    Slot::Out(readiness) => readiness.peer_closed,
                    Slot::Held(connection) => connection.readiness.peer_closed,
                    Slot::Http2(_) => None,
                });
                // An end without an event happened after the latest poll.
                ended.unwrap_or(self.poll_times.0) > connection.since + HALF_CLOSE
            }
        }
    }

    pub(crate) fn forks(&self) -> bool {
        self.children.is_some()
    }

    fn poll_for(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.process_http2(Instant::now());
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn handle_event(&mut self, event: &PollEvent, now: Instant) {
        match event.token().0 {
            token if token >= CONNECTIONS => self.record_readiness(token - CONNECTIONS, event, now),
            token if token >= RELAYS => self.record_relay_readiness(token - RELAYS, now),
            token if token >= CHILDREN => self.reap(token - CHILDREN, now),
            CONTROL => self.read_control_channel(now),
            token if token >= COMMAND_SOURCES => self.handle_commands(token - COMMAND_SOURCES),
            WAKER => {}
            HANDOVER => self.resume_handover(now),
            token => self.acceptor.mark_readable(token),
        }
    }

    fn record_readiness(&mut self, token: usize, event: &PollEvent, now: Instant) {
        let peer_closed = event.is_read_closed() || event.is_error();
        let readiness = Readiness {
            readable: event.is_readable() || peer_closed,
            writable: event.is_writable() || event.is_write_closed(),
            peer_closed: peer_closed.then_some(now),
        };
        self.add_readiness(token, readiness, now);
    }

    /// Something has happened to a connection or stream.
    fn add_readiness(&mut self, token: usize, readiness: Readiness, now: Instant) {
        match self.slots.get_mut(token) {
            None => {}
            Some(Slot::Held(connection)) => {
                connection.readiness.merge(readiness);
                self.advance(token, now);
            }
            Some(Slot::Http2(http2)) => {
                http2.readiness.merge(readiness);
                self.advance_http2(token, now);
            }
            Some(Slot::Out(collected)) => {
                collected.merge(readiness);
                if self.context.writers.on_event(token, readiness.peer_closed) {
                    self.runnable.push_back(token);
                }
            }
        }
    }
}

fn deregister(registry: &Registry, socket: &impl AsFd) {
    let _ = registry.deregister(&mut SourceFd(&socket.as_fd().as_raw_fd()));
}

fn register(registry: &Registry, descriptor: RawFd, token: usize, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&descriptor), Token(token), interest)
}
