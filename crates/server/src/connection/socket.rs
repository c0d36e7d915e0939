//! A connected socket and who is at the other end: the few system calls a connection needs.
//!
//! The socket never blocks; a thread or a child that must wait for it says so with [`ClientSocket::wait_writable`].

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec},
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown},
};

use crate::{
    context::ServerContext,
    fork::{ParentLink, RelaySender, ResponseProgress},
    peer::Peer,
    sys,
};

/// A client that sends its request and then half-closes does both within this time. One that ends its side later has given up.
pub(crate) const HALF_CLOSE: Duration = Duration::from_secs(1);

/// What the other end of a connection has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    Open,
    /// It sends no more. Whether it still reads, TCP does not say.
    HalfClosed,
    /// It has reset the connection, or left a Unix socket.
    Closed,
}

/// How far the response is that this connection owes its client. Whoever moves it on from `OPEN` answers: the app's side or the
/// watchdog, never both.
mod stage {
    /// Nothing is sent yet.
    pub(super) const OPEN: u8 = 0;
    pub(super) const BEGUN: u8 = 1;
    /// All of it is sent.
    pub(super) const ENDED: u8 = 2;
    /// The watchdog has ended the connection. Nothing follows this.
    pub(super) const FORFEITED: u8 = 3;
}

#[derive(Debug)]
pub(crate) struct ClientSocket {
    socket: OwnedFd,
    pub(crate) peer: Peer,
    pub(crate) listener: usize,
    /// The number under which the event loop knows the connection.
    pub(crate) token: usize,
    /// Its listener is gone since a reload: the next response closes the connection.
    pub(crate) closes: bool,
    pub(crate) context: Arc<ServerContext>,
    /// In a forked child.
    parent: OnceLock<Arc<ParentLink>>,
    /// In a forked child: the response that goes through its parent ends in the middle.
    is_truncated_in_relay: AtomicBool,
    stage: AtomicU8,
    /// A thread waits for a slow client...
    waits: AtomicBool,
    /// ...and has done so before in this call, for so many microseconds.
    waited: AtomicU64,
    /// The application was last seen at work on this request so many microseconds after `epoch`.
    call_started: AtomicU64,
    /// The present call has no bound: it waits for the next event of a `text/event-stream`.
    is_unbounded: AtomicBool,
    epoch: Instant,
    /// The request was complete so many microseconds after `epoch`.
    request_complete: AtomicU64,
    /// The client ended its side so many microseconds after `epoch`; zero if it has not.
    half_closed: AtomicU64,
}

impl ClientSocket {
    pub(crate) fn new(socket: OwnedFd, peer: Peer, listener: usize, context: Arc<ServerContext>) -> Self {
        let peer = Peer { is_trusted: context.settings.trusted.include(peer.ip), ..peer };
        Self {
            socket,
            peer,
            listener,
            token: 0,
            closes: false,
            context,
            parent: OnceLock::new(),
            is_truncated_in_relay: AtomicBool::new(false),
            stage: AtomicU8::new(stage::OPEN),
            waits: AtomicBool::new(false),
            waited: AtomicU64::new(0),
            call_started: AtomicU64::new(0),
            is_unbounded: AtomicBool::new(false),
            epoch: Instant::now(),
            request_complete: AtomicU64::new(0),
            half_closed: AtomicU64::new(0),
        }
    }

    /// Appends what is there to `into`, up to its spare capacity. Zero is the end of input.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, spare_capacity(into)))?)
    }

    /// Reads and forgets what is there, up to `scratch`'s length.
    pub(crate) fn discard(&self, scratch: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, scratch, RecvFlags::empty())?.0)
    }

    /// Sends from a response. `BrokenPipe` where the watchdog has ended it.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.begin()?;
        self.send_or_relay(|| self.send_interim(bytes, more), |relay| relay.send(&[IoSlice::new(bytes)]))
    }

    /// Sends what is no part of the response: `100 Continue`.
    pub(crate) fn send_interim(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, bytes, flags))?)
    }

    /// With `more`, a file follows at once.
    pub(crate) fn send_vectored(&self, pieces: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        self.begin()?;
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        let none = &mut SendAncillaryBuffer::default();
        let mut send =
            || rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, pieces, none, flags));
        self.send_or_relay(|| Ok(send()?), |relay| relay.send(pieces))
    }

    /// Sends from a file without bringing its bytes into the process. Moves `offset` on.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, count: u64) -> io::Result<usize> {
        self.begin()?;
        let most = usize::try_from(count).unwrap_or(usize::MAX).min(1 << 30);
        let mut at = *offset;
        let mut to_socket =
            || rustix::io::retry_on_intr(|| rustix::fs::sendfile(&self.socket, file, Some(&mut at), most));
        let sent = self.send_or_relay(|| Ok(to_socket()?), |relay| relay.send_file(file, *offset, count))?;
        *offset += sent as u64;
        Ok(sent)
    }

    /// Uses the socket, or in a child whose client's socket was full before, the relay through its parent.
    fn send_or_relay(
        &self,
        to_socket: impl FnOnce() -> io::Result<usize>,
        to_relay: impl FnOnce(&RelaySender) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(parent) = self.parent.get() else { return to_socket() };
        if let Some(relay) = parent.relay() {
            return to_relay(relay);
        }
        match to_socket() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match parent.start_relay() {
                Ok(relay) => to_relay(relay),
                Err(failure) => {
                    log::warn!(
                        "a response cannot go through the worker, so its process waits for its client: {failure}"
                    );
                    Err(error)
                }
            },
            sent => sent,
        }
    }

    fn relay(&self) -> Option<&RelaySender> {
        self.parent.get().and_then(|parent| parent.relay())
    }

    /// Sends all of what is no part of the response, blocking.
    pub(crate) fn send_all_interim(&self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.send_interim(rest, false) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_writable()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Blocks until the socket takes bytes again; `TimedOut` past the write timeout.
    pub(crate) fn wait_writable(&self) -> io::Result<()> {
        let until = Instant::now() + self.context.settings.write_timeout;
        self.while_waiting(|| {
            loop {
                match self.poll(PollFlags::OUT, until) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }

    /// Blocks until there is something to read, or the end of the input; `TimedOut` past `until`, `Interrupted` by a signal.
    pub(crate) fn wait_readable(&self, until: Instant) -> io::Result<()> {
        self.while_waiting(|| self.poll(PollFlags::IN, until))
    }

    /// Runs `wait`, whose time does not count as the app's.
    fn while_waiting(&self, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let began = Instant::now();
        self.waits.store(true, Ordering::Release);
        let waited = match self.parent.get() {
            Some(parent) => parent.progress.while_waiting_for_client(wait),
            None => wait(),
        };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.waited.fetch_add(micros, Ordering::Relaxed);
        self.waits.store(false, Ordering::Release);
        waited
    }

    fn poll(&self, what: PollFlags, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        let relay = self.relay().filter(|_| what == PollFlags::OUT);
        let socket = relay.map_or(self.socket.as_fd(), AsFd::as_fd);
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(socket, what)], Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the other end has done, as far as the system has heard of it.
    pub(crate) fn peer_state(&self) -> PeerState {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let asked =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut sockets, Some(&Timespec::default())));
        let told = sockets[0].revents();
        if asked.is_err() || told.intersects(PollFlags::HUP | PollFlags::ERR) {
            PeerState::Closed
        } else if told.contains(PollFlags::RDHUP) {
            PeerState::HalfClosed
        } else {
            PeerState::Open
        }
    }

    /// For how long the present call has waited for its client in all; nothing while it does.
    pub(crate) fn blocked_time(&self) -> Option<Duration> {
        let waits = self.waits.load(Ordering::Acquire);
        (!waits).then(|| Duration::from_micros(self.waited.load(Ordering::Relaxed)))
    }

    /// The application goes into a call or shows that it is alive: its time starts again.
    pub(crate) fn restart_call_timer(&self, now: Instant) {
        self.waited.store(0, Ordering::Relaxed);
        self.is_unbounded.store(false, Ordering::Relaxed);
        self.call_started.store(self.micros(now), Ordering::Release);
        if let Some(parent) = self.parent.get() {
            parent.progress.start_call(now);
        }
    }

    /// From here to the next [`restart_call_timer`](Self::restart_call_timer) the application may take as long as it likes.
    pub(crate) fn suspend_call_timer(&self) {
        self.is_unbounded.store(true, Ordering::Release);
        if let Some(parent) = self.parent.get() {
            parent.progress.suspend_timeout();
        }
    }

    /// Since when the application has been in the present call; nothing if that has no bound.
    pub(crate) fn call_started(&self) -> Option<Instant> {
        let started = Duration::from_micros(self.call_started.load(Ordering::Acquire));
        (!self.is_unbounded.load(Ordering::Acquire)).then(|| self.epoch + started)
    }

    /// The client was found to send no more.
    pub(crate) fn note_half_close(&self, now: Instant) {
        let _ = self.half_closed.compare_exchange(
            0,
            self.micros(now).max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// The request was complete at this moment.
    pub(crate) fn note_request_complete(&self, at: Instant) {
        self.request_complete.store(self.micros(at), Ordering::Relaxed);
        self.half_closed.store(0, Ordering::Relaxed);
    }

    /// Whether nobody waits any more for the response that is being produced. A client may end its side right behind its request
    /// and still read; one that ends it later, or resets the connection, has given up.
    pub(crate) fn client_has_given_up(&self) -> bool {
        match self.peer_state() {
            PeerState::Open => false,
            PeerState::Closed => true,
            PeerState::HalfClosed => {
                let half_closed = self.half_closed.load(Ordering::Relaxed);
                let request = self.request_complete.load(Ordering::Relaxed);
                half_closed > 0 && Duration::from_micros(half_closed.saturating_sub(request)) > HALF_CLOSE
            }
        }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether this is the copy of a connection in a child process that answers one request.
    pub(crate) fn is_in_child(&self) -> bool {
        self.parent.get().is_some()
    }

    fn begin(&self) -> io::Result<()> {
        if self.stage.load(Ordering::Relaxed) == stage::BEGUN {
            return Ok(());
        }
        if !self.transition(stage::OPEN, stage::BEGUN) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(parent) = self.parent.get() {
            parent.progress.set_response(ResponseProgress::Started);
        }
        Ok(())
    }

    /// The response is sent.
    pub(crate) fn end_response(&self) {
        self.transition(stage::BEGUN, stage::ENDED);
    }

    /// The next request is expected.
    pub(crate) fn reopen(&self) {
        if !self.transition(stage::BEGUN, stage::OPEN) {
            self.transition(stage::ENDED, stage::OPEN);
        }
    }

    fn transition(&self, from: u8, to: u8) -> bool {
        self.stage.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the watchdog: ends the connection, with this answer if the app's has not begun, with a reset if it is under way. Whatever
    /// the app sends from now on, it finds its client gone.
    pub(crate) fn abort_response(&self, answer: &[u8]) {
        match self.stage.swap(stage::FORFEITED, Ordering::AcqRel) {
            // A socket with no room for it has had answers that the client does not read.
            stage::OPEN if self.send_interim(answer, false).is_ok_and(|sent| sent == answer.len()) => {}
            stage::ENDED => {}
            _ => self.reset(),
        }
        self.shutdown();
    }

    /// Whether the watchdog has ended the connection.
    pub(crate) fn was_aborted(&self) -> bool {
        self.stage.load(Ordering::Acquire) == stage::FORFEITED
    }

    /// In a forked child: what it reports of the response goes there, and what the client's socket does not take.
    pub(crate) fn set_parent(&self, parent: &Arc<ParentLink>) {
        let _ = self.parent.set(Arc::clone(parent));
    }

    /// In a forked child: whether the response goes through its parent, and has an end that only a reset shows to the client.
    pub(crate) fn is_truncated_in_relay(&self) -> bool {
        self.is_truncated_in_relay.load(Ordering::Relaxed)
    }

    /// In a forked child: puts a closed connection in the place of the socket, which belongs to the parent from now on.
    pub(crate) fn release_socket(&self) -> io::Result<()> {
        let (closed, _) = UnixStream::pair()?;
        sys::replace_descriptor(&self.socket, &closed)
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown_write(&self) {
        if self.relay().is_none() {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Ends the connection for the peer even where another process still holds a copy of the socket.
    pub(crate) fn shutdown(&self) {
        if self.relay().is_none() {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
    }

    /// Ends the connection by a reset, so that the peer can tell it from a clean end, whoever else holds a copy of the socket.
    pub(crate) fn reset(&self) {
        if self.relay().is_some() {
            // The parent still sends what came before.
            return self.is_truncated_in_relay.store(true, Ordering::Relaxed);
        }
        // Connecting a socket to nothing is how the system is asked for it (connect(2)); a Unix socket knows no reset.
        let _ = rustix::net::connect_unspec(&self.socket);
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
