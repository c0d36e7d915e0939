//! The loop: waits for sockets, accepts, lets connections go on, and keeps what is ready for the app.
//!
//! It is a thing, not a thread: whoever holds it (see `thread_pool`) runs it. It never runs app code. A connection that is in the app
//! is out of the loop's hands, box and all; what its socket does meanwhile is noted in its slot.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, Waker, event::Event, unix::SourceFd};
use slab::Slab;

use crate::{
    App, Command, Concurrency, Listener,
    acceptor::Acceptor,
    connection::socket::{ClientSocket, HALF_CLOSE, PeerState},
    connection::{Connection, Next},
    context::ServerContext,
    deadlines::Deadlines,
    fork::{ChildOutcome, Children, Relay, Report},
    handover::{Arrival, Handover},
    idle::longest_idle,
    recycle::RecycleLimits,
};

const HANDOVER: usize = (1 << 20) - 1;
const WAKER: usize = 1 << 20;
const WATCHES: usize = (1 << 20) + 1;
/// The control channel of children.
const CONTROL: usize = CHILDREN - 1;
const CHILDREN: usize = 1 << 24;
/// The relays of connections, by the number of the connection.
const RELAYS: usize = 1 << 29;
const CONNECTIONS: usize = 1 << 30;

/// Connections accepted from one listener before others have their turn.
const ACCEPTS_IN_A_TURN: usize = 64;
/// How often that is done at the end, while there are more.
const TURNS_OF_A_DRAIN: usize = 256;
/// How often children without a pidfd are polled.
const CHILD_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A request that has waited less than this for the app is not worth asking after its client.
const SOON: Duration = Duration::from_millis(10);
/// Told when its descriptor is readable; what it answers is obeyed.
pub(crate) struct CommandSource {
    pub(crate) descriptor: OwnedFd,
    pub(crate) receive: Box<dyn FnMut() -> Option<Command> + Send>,
}

pub(crate) struct EventLoop {
    poll: Poll,
    /// The poll set's, for what leaves it by itself.
    registry: Arc<Registry>,
    events: Events,
    context: Arc<ServerContext>,
    acceptor: Acceptor,
    watches: Vec<CommandSource>,
    slots: Slab<Slot>,
    /// Connections whose request, stream or access log waits for the app.
    ready: VecDeque<Box<Connection>>,
    /// Connections that can go on without another event.
    again: VecDeque<usize>,
    deadlines: Deadlines,
    children: Option<Children>,
    spare: Vec<Vec<u8>>,
    order: Option<Command>,
    /// Once idle connections go to other workers.
    handover: Option<Handover>,
    recycle: RecycleLimits,
    /// When connections were last accepted, and the time before that.
    turns: (Instant, Instant),
}

/// Where a connection lives, and what its socket did while it was out.
#[derive(Default)]
struct Slot {
    connection: Option<Box<Connection>>,
    readable: bool,
    writable: bool,
    /// When its peer was found to send no more.
    peer_done: Option<Instant>,
}

impl EventLoop {
    pub(crate) fn new(
        listeners: Vec<Listener>,
        watches: Vec<CommandSource>,
        context: Arc<ServerContext>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry();
        let acceptor = Acceptor::new(listeners, registry, &context.settings)?;
        for (index, watch) in watches.iter().enumerate() {
            register(registry, watch.descriptor.as_raw_fd(), WATCHES + index, Interest::READABLE)?;
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
            acceptor,
            watches,
            slots: Slab::new(),
            ready: VecDeque::new(),
            again: VecDeque::new(),
            deadlines: Deadlines::default(),
            children,
            spare: Vec::new(),
            order: None,
            handover: None,
            turns: (Instant::now(), Instant::now()),
        })
    }

    pub(crate) fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), Token(WAKER))
    }

    /// Takes what the system has ready, without blocking. True if there was anything.
    pub(crate) fn look(&mut self) -> io::Result<bool> {
        self.poll_for(Some(Duration::ZERO))?;
        Ok(!self.events.is_empty())
    }

    /// Blocks until the system has something ready, a deadline comes, or this time has passed. Handles nothing yet. False if a signal or
    /// `at_most` ended the wait, and nothing is to be done.
    pub(crate) fn wait(&mut self, at_most: Option<Duration>) -> io::Result<bool> {
        let now = Instant::now();
        let children = self.children.as_ref();
        let polling = children.is_some_and(Children::needs_polling).then_some(CHILD_POLL_INTERVAL);
        let background = children.and_then(Children::next_background_deadline);
        let [paused, background] = [self.acceptor.pause(), background]
            .map(|until| until.map(|until| until.saturating_duration_since(now)));
        let due = [self.deadlines.wait(now), polling, paused, background].into_iter().flatten().min();
        self.poll_for([due, at_most].into_iter().flatten().min())?;
        Ok(!self.events.is_empty() || due.is_some_and(|due| now.elapsed() >= due))
    }

    /// Lets every connection that has something to do go on, as far as it can without the app, and accepts new ones.
    pub(crate) fn turn(&mut self) {
        let now = self.serve_events();
        self.turns = (now, self.turns.0);
        for index in 0..self.acceptor.len() {
            self.accept(index, now);
        }
        self.go_on_without_events(now);
    }

    /// The same without accepting: where no thread is free, another worker may be.
    pub(crate) fn turn_without_accepting(&mut self) {
        let now = self.serve_events();
        self.go_on_without_events(now);
    }

    fn serve_events(&mut self) -> Instant {
        let now = Instant::now();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            self.handle(event, now);
        }
        events.clear();
        self.events = events;
        now
    }

    fn go_on_without_events(&mut self, now: Instant) {
        for _ in 0..self.again.len() {
            if let Some(token) = self.again.pop_front() {
                self.go_on(token, now);
            }
        }
        self.check_children(now);
        for token in self.deadlines.take_expired(now) {
            self.time_out(token, now);
        }
    }

    /// Whether another turn would find something to do without waiting.
    pub(crate) fn is_busy(&self) -> bool {
        !self.again.is_empty() || self.acceptor.is_busy()
    }

    /// Whether some connection waits for the app.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Since when the oldest request in the queue has waited.
    pub(crate) fn oldest_ready(&self) -> Option<Instant> {
        self.ready.front().map(|connection| connection.since)
    }

    /// The next connection that needs the app.
    pub(crate) fn next_ready(&mut self) -> Option<Box<Connection>> {
        if self.children.as_ref().is_some_and(|children| !children.has_room()) {
            return self.first_that_needs_no_child();
        }
        self.ready.pop_front()
    }

    /// A request is about to be begun. Says, once, that this process has served enough, and why.
    pub(crate) fn count(&mut self) -> Option<String> {
        self.recycle.add()
    }

    /// Nobody is left to run the app: sends away who waits for it.
    pub(crate) fn turn_away(&mut self) {
        let now = Instant::now();
        for mut connection in std::mem::take(&mut self.ready) {
            let next = connection.refuse(503, "the application is stuck", now);
            self.settle(connection, next);
        }
    }

    /// Whether nobody waits for the answer to this request any more. The end of the client's side alone does not say so, for a
    /// client may half-close when it has said all; but then it does so at once.
    pub(crate) fn is_forsaken(&self, connection: &Connection, now: Instant) -> bool {
        // What was accepted in this turn may have waited since connections were accepted before.
        let since = connection.since.min(self.turns.1);
        if !connection.is_complete() || now.saturating_duration_since(since) < SOON {
            return false;
        }
        match connection.socket().peer_state() {
            PeerState::Open => false,
            PeerState::Closed => true,
            PeerState::HalfClosed => {
                let ended = self.slots.get(connection.token).and_then(|slot| slot.peer_done);
                ended.is_some_and(|ended| ended > connection.since + HALF_CLOSE)
            }
        }
    }

    /// Takes a connection back, or a new one in, with what it waits for.
    pub(crate) fn settle(&mut self, mut connection: Box<Connection>, next: Next) {
        let token = connection.token;
        if next == Next::Close {
            return self.close(&connection);
        }
        if next == Next::Run {
            return self.queue(connection);
        }
        let Some(slot) = self.slots.get_mut(token) else { return };
        connection.readable |= std::mem::take(&mut slot.readable);
        connection.writable |= std::mem::take(&mut slot.writable);
        connection.peer_done |= slot.peer_done.is_some();
        if connection.can_go_on() {
            self.again.push_back(token);
        } else {
            connection.shed(&mut self.spare);
            if self.handover.as_mut().is_some_and(|handover| handover.hand_over(&connection)) {
                return self.forget(&connection);
            }
        }
        self.deadlines.set(token, connection.deadline());
        slot.connection = Some(connection);
    }

    /// Forks a child for this connection's request.
    pub(crate) fn start_child(&mut self, mut connection: Box<Connection>, app: &dyn App) {
        let now = Instant::now();
        let Some(children) = &mut self.children else { return };
        let own = connection.token;
        let connections = self.slots.iter().filter(|(token, _)| *token != own);
        let connections = connections.filter_map(|(_, slot)| slot.connection.as_ref()).flat_map(|other| {
            let relay = other.relay.as_ref().map(|relay| relay.descriptor());
            std::iter::once(other.socket().as_fd().as_raw_fd()).chain(relay)
        });
        let waiting = self.ready.iter().map(|connection| connection.socket().as_fd().as_raw_fd());
        let acceptor = self.acceptor.descriptors();
        let watches = self.watches.iter().map(|watch| watch.descriptor.as_raw_fd());
        let poll = [self.poll.as_raw_fd(), self.registry.as_raw_fd()];
        let handover = self.context.settings.handover.iter().flat_map(|queue| queue.descriptors());
        let mut others =
            connections.chain(waiting).chain(acceptor).chain(handover).chain(watches).chain(poll);
        let started = children.start(&mut connection, app, self.poll.registry(), &mut others);
        drop(others);
        let next = match started {
            Ok(()) => connection.enter_child(now),
            Err(error) => {
                log::error!("no process could be forked for a request: {error}");
                connection.refuse(503, "the server has no process left for this request", now)
            }
        };
        self.settle(connection, next);
    }

    pub(crate) fn forks(&self) -> bool {
        self.children.is_some()
    }

    /// Whether the loop has been told to end and has nothing left to do but to wait for connections that are given up.
    pub(crate) fn is_finished(&mut self, is_given_up: impl Fn(usize) -> bool) -> bool {
        if self.order == Some(Command::HandOver) && self.has_nothing_left(&is_given_up) {
            // If those that receive were told to end meanwhile, what was sent last has to be taken back.
            for index in 0..self.watches.len() {
                self.obey(index);
            }
        }
        match self.order {
            None => false,
            Some(Command::Stop) => true,
            Some(Command::HandOver | Command::Drain) => self.has_nothing_left(&is_given_up),
        }
    }

    fn has_nothing_left(&self, is_given_up: &impl Fn(usize) -> bool) -> bool {
        let mut slots = self.slots.iter();
        slots.all(|(token, slot)| slot.connection.is_none() && is_given_up(token))
            && self.children.as_ref().is_none_or(Children::is_empty)
    }

    /// What it was told last.
    pub(crate) fn order(&self) -> Option<Command> {
        self.order
    }

    fn poll_for(&mut self, wait: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn handle(&mut self, event: &Event, now: Instant) {
        match event.token().0 {
            token if token >= CONNECTIONS => self.note(token - CONNECTIONS, event, now),
            token if token >= RELAYS => self.note_relay(token - RELAYS, now),
            token if token >= CHILDREN => self.reap(token - CHILDREN, now),
            CONTROL => self.read_control_channel(now),
            token if token >= WATCHES => self.obey(token - WATCHES),
            WAKER => {}
            HANDOVER => self.hand_over_again(now),
            token => self.acceptor.knock(token),
        }
    }

    fn note(&mut self, token: usize, event: &Event, now: Instant) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let peer_done = event.is_read_closed() || event.is_error();
        slot.readable |= event.is_readable() || peer_done;
        slot.writable |= event.is_writable() || event.is_write_closed();
        if peer_done {
            slot.peer_done.get_or_insert(now);
        }
        if let Some(connection) = &mut slot.connection {
            connection.readable |= std::mem::take(&mut slot.readable);
            connection.writable |= std::mem::take(&mut slot.writable);
            connection.peer_done |= slot.peer_done.is_some();
            self.go_on(token, now);
        } else if self.context.writers.on_event(token, peer_done.then_some(now)) {
            self.again.push_back(token);
        }
    }

    fn go_on(&mut self, token: usize, now: Instant) {
        let Some(mut connection) = self.slots.get_mut(token).and_then(|slot| slot.connection.take()) else {
            // Its thread produces a response, of which more could be sent than one turn allows.
            if self.slots.contains(token) && self.context.writers.on_event(token, None) {
                self.again.push_back(token);
            }
            return;
        };
        connection.clothe(&mut self.spare);
        let next = catch_unwind(AssertUnwindSafe(|| connection.go_on(now))).unwrap_or_else(|_| {
            log::error!("the server panicked over a connection, which is closed");
            Next::Close
        });
        self.settle(connection, next);
    }

    fn time_out(&mut self, token: usize, now: Instant) {
        let Some(slot) = self.slots.get_mut(token) else { return };
        let Some(mut connection) = slot.connection.take() else { return };
        let mut check =
            || self.children.as_mut().and_then(|children| children.check_timeout(&connection, now));
        if connection.is_in_child() {
            let again = check();
            self.deadlines.set(token, again);
            slot.connection = Some(connection);
            return;
        }
        if connection.relay.as_ref().is_some_and(|relay| relay.next_check.is_some_and(|check| check <= now)) {
            let again = check();
            if let Some(relay) = &mut connection.relay {
                relay.next_check = again;
            }
        }
        let next = if connection.deadline().is_some_and(|deadline| deadline <= now) {
            connection.time_out(now)
        } else {
            Next::Wait
        };
        self.settle(connection, next);
    }

    fn queue(&mut self, mut connection: Box<Connection>) {
        self.deadlines.clear(connection.token);
        if self.ready.len() >= self.context.settings.queue && connection.is_complete() {
            let next = connection.refuse(503, "the server has too many requests waiting", Instant::now());
            return self.settle(connection, next);
        }
        self.ready.push_back(connection);
    }

    /// With every child busy, the access log is still written.
    fn first_that_needs_no_child(&mut self) -> Option<Box<Connection>> {
        let at = self.ready.iter().position(|connection| !connection.is_complete())?;
        self.ready.remove(at)
    }

    /// True if there may be more at this door.
    fn accept(&mut self, index: usize, now: Instant) -> bool {
        for _ in 0..ACCEPTS_IN_A_TURN {
            if self.acceptor.lacks_room(index, now, self.slots.len()) {
                self.close_longest_idle(now);
            }
            let Some(arrival) = self.acceptor.accept(index, now, self.slots.len()) else { return false };
            self.take_in(arrival, now);
        }
        true
    }

    fn take_in(&mut self, arrival: Arrival, now: Instant) {
        if let Err(error) = self.welcome(arrival, now) {
            log::error!("a connection could not be watched and is closed: {error}");
        }
    }

    /// Makes room for a client that waits, if there is an idle connection that can be closed.
    fn close_longest_idle(&mut self, now: Instant) {
        let connections = self.slots.iter().filter_map(|(_, slot)| slot.connection.as_deref());
        for token in longest_idle(connections, self.slots.len(), now) {
            let slot = self.slots.get_mut(token);
            if let Some(connection) = slot.and_then(|slot| slot.connection.take()) {
                self.close(&connection);
            }
        }
    }

    fn welcome(&mut self, arrival: Arrival, now: Instant) -> io::Result<()> {
        let Arrival { socket, peer, listener, handed_over } = arrival;
        let mut socket = ClientSocket::new(socket, peer, listener, Arc::clone(&self.context));
        let entry = self.slots.vacant_entry();
        let token = entry.key();
        socket.token = token;
        register(
            self.poll.registry(),
            socket.as_fd().as_raw_fd(),
            CONNECTIONS + token,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let mut connection = Box::new(Connection::new(token, socket, now));
        if let Some(handed_over) = handed_over {
            connection.restore(handed_over);
        }
        entry.insert(Slot { connection: Some(connection), ..Slot::default() });
        self.acceptor.tell(self.slots.len());
        self.go_on(token, now);
        Ok(())
    }

    fn close(&mut self, connection: &Connection) {
        if self.children.is_some() {
            // A child may still hold a copy of the socket: without this the poll set would keep it, and the client too.
            let _ = self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_fd().as_raw_fd()));
            connection.socket().hang_up();
        }
        self.close_slot(connection);
    }

    /// Another worker has the connection now: it stays open, and only this copy of its descriptor is closed.
    fn forget(&mut self, connection: &Connection) {
        // The poll set would go on reporting a socket that another process has a copy of.
        let _ = self.poll.registry().deregister(&mut SourceFd(&connection.socket().as_fd().as_raw_fd()));
        self.close_slot(connection);
    }

    fn close_slot(&mut self, connection: &Connection) {
        self.deadlines.clear(connection.token);
        self.slots.try_remove(connection.token);
        self.acceptor.tell(self.slots.len());
    }

    fn reap(&mut self, index: usize, now: Instant) {
        let Some(children) = &mut self.children else { return };
        if children.is_relayed(index) {
            self.read_control_channel(now); // the message that the relay has started may still be unread
        }
        let Some(children) = &mut self.children else { return };
        if let Some((token, outcome)) = children.reap(index, self.poll.registry()) {
            self.take_back_from_child(token, outcome, now);
        }
    }

    fn read_control_channel(&mut self, now: Instant) {
        while let Some(report) = self.children.as_mut().and_then(|children| children.next_report(now)) {
            match report {
                Report::Complete { connection, outcome } => {
                    self.take_back_from_child(connection, outcome, now);
                }
                Report::RelayStarted { connection, socket } => self.start_relay(connection, socket, now),
            }
        }
    }

    fn start_relay(&mut self, token: usize, socket: Option<OwnedFd>, now: Instant) {
        let Some(mut connection) = self.slots.get_mut(token).and_then(|slot| slot.connection.take()) else {
            return;
        };
        let socket = socket.ok_or_else(|| io::Error::other("no descriptor is left for it"));
        let relay = socket.and_then(|socket| Relay::new(socket, &self.registry, Token(RELAYS + token)));
        let next = match relay {
            Ok(mut relay) => {
                relay.next_check = connection.deadline();
                connection.start_relay(relay, now)
            }
            Err(error) => {
                log::error!("the rest of a response cannot be received from its process: {error}");
                connection.socket().reset();
                Next::Wait
            }
        };
        self.settle(connection, next);
    }

    fn note_relay(&mut self, token: usize, now: Instant) {
        let connection = self.slots.get_mut(token).and_then(|slot| slot.connection.as_mut());
        if let Some(relay) = connection.and_then(|connection| connection.relay.as_mut()) {
            relay.is_readable = true;
            self.go_on(token, now);
        }
    }

    fn take_back_from_child(&mut self, token: usize, outcome: ChildOutcome, now: Instant) {
        let connection = self.slots.get_mut(token).and_then(|slot| slot.connection.take());
        if let Some(mut connection) = connection {
            let next = connection.after_child(outcome, now);
            self.settle(connection, next);
        }
    }

    fn check_children(&mut self, now: Instant) {
        let Some(children) = &mut self.children else { return };
        children.check_background(now);
        if children.needs_polling() {
            for index in children.indices() {
                self.reap(index, now);
            }
        }
    }

    fn obey(&mut self, index: usize) {
        while let Some(order) = (self.watches[index].receive)() {
            if self.order >= Some(order) {
                continue;
            }
            match order {
                Command::HandOver | Command::Drain => self.drain(order),
                Command::Stop => self.children.as_mut().map_or((), Children::kill_all),
            }
            self.order = Some(order);
        }
    }

    /// Takes in who is already at the door, accepts no more, and lets all finish. Idle connections are handed over, or get one more
    /// answer.
    fn drain(&mut self, order: Command) {
        self.begin_drain(order);
        self.acceptor.leave_shares();
        for index in 0..self.acceptor.len() {
            self.acceptor.knock(index);
            // The socket may end with us, and who waits behind it would be reset. It holds no more than that by far.
            let _ = (0..TURNS_OF_A_DRAIN).take_while(|_| self.accept(index, Instant::now())).count();
        }
        self.close_doors();
    }

    /// From now on idle connections are handed over, if others go on; else each response is the last of its connection.
    fn begin_drain(&mut self, order: Command) {
        self.order = Some(order);
        self.context.drain_began.get_or_init(Instant::now);
        let handover = self.handover.take();
        if let Some(handover) = &handover {
            let _ = self.poll.registry().deregister(&mut SourceFd(&handover.descriptor()));
        }
        if let Some(queue) = self.context.settings.handover.clone().filter(|_| order == Command::HandOver) {
            self.acceptor.close_handover(self.poll.registry());
            let handover = Handover::new(queue, self.acceptor.urls());
            match register(self.poll.registry(), handover.descriptor(), HANDOVER, Interest::WRITABLE) {
                Ok(()) => return self.handover = Some(handover),
                Err(error) => log::error!("idle connections cannot be handed over: {error}"),
            }
        }
        self.context.draining.store(true, Ordering::Relaxed);
        while let Some(arrival) = handover.as_ref().and_then(Handover::take_back) {
            self.take_in(arrival, Instant::now());
        }
    }

    /// There is room again for connections that could not be handed over.
    fn hand_over_again(&mut self, now: Instant) {
        if let Some(handover) = &mut self.handover {
            handover.on_space();
        }
        for token in self.tokens() {
            if self.handover.as_ref().is_some_and(Handover::may_have_space) {
                self.go_on(token, now);
            }
        }
    }

    /// Accepts no more, and lets all finish. Idle connections are handed over, or get one more answer.
    pub(crate) fn close_doors(&mut self) {
        if self.order.is_none() {
            self.begin_drain(Command::HandOver);
        }
        self.acceptor.close(self.poll.registry());
        // One last look at each idle connection: a request may have come in since. And its deadline is nearer now.
        let now = Instant::now();
        for (_, slot) in &mut self.slots {
            if let Some(connection) = &mut slot.connection {
                connection.readable |= connection.is_idle();
            }
        }
        for token in self.tokens() {
            self.go_on(token, now);
        }
    }

    fn tokens(&self) -> Vec<usize> {
        self.slots.iter().map(|(token, _)| token).collect()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.order.is_some()
    }
}

fn register(registry: &Registry, descriptor: RawFd, token: usize, interest: Interest) -> io::Result<()> {
    registry.register(&mut SourceFd(&descriptor), Token(token), interest)
}
