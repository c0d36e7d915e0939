//! The socket of a connection and the few system calls that it needs.
//!
//! The socket never blocks. A thread or a child that must wait calls [`ClientSocket::wait_writable`] or
//! [`ClientSocket::wait_readable`].

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_sys::ReadBuffer;
use mlws_tls::TlsConfig;
use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec},
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown},
};

use crate::{
    connection::{
        call_timer::CallTimer,
        response_claim::{ResponseClaim, ResponseState},
        tls_transport::{Handshake, TlsTransport, concerns_client_certificate},
    },
    context::ServerContext,
    fork::{parent_link::ParentLink, progress::ResponseProgress, relay_channel::RelaySender},
    peer::Peer,
};

/// A client may half-close within this time after its request and still read the response. If it closes its side later, it no longer
/// waits for the response.
pub(crate) const HALF_CLOSE: Duration = Duration::from_secs(1);

/// What the peer has done with its side of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerState {
    Open,
    /// It sends no more. It may still read: TCP does not say.
    HalfClosed,
    /// It has reset the connection, or closed a Unix socket.
    Closed,
}

#[derive(Debug)]
pub(crate) struct ClientSocket {
    socket: OwnedFd,
    pub(crate) peer: Peer,
    /// The index of the listener that accepted the connection.
    pub(crate) listener: usize,
    /// The number of the connection in the event loop.
    pub(crate) token: usize,
    /// A reload has removed the listener: the next response closes the connection.
    pub(crate) closes: bool,
    pub(crate) context: Arc<ServerContext>,
    /// The TLS session. `None` if bytes are sent as they are.
    tls: Option<Box<TlsTransport>>,
    /// The client uses plain HTTP although the port requires TLS.
    pub(crate) is_plain_on_tls_port: bool,
    /// In a forked child: the link to its parent.
    parent: OnceLock<Arc<ParentLink>>,
    /// In a forked child: the response that goes through the parent is incomplete.
    is_truncated_in_relay: AtomicBool,
    /// The client must not take the end of the connection for a proper one.
    was_reset: AtomicBool,
    claim: ResponseClaim,
    pub(crate) timer: CallTimer,
    /// When the request was complete, by the clock of `timer`.
    request_complete: AtomicU64,
    /// When the client closed its side, by the clock of `timer`. Zero if it has not.
    half_closed: AtomicU64,
}

impl ClientSocket {
    pub(crate) fn new(socket: OwnedFd, peer: Peer, listener: usize, context: Arc<ServerContext>) -> Self {
        let peer = Peer { is_trusted: peer.is_in(&context.settings.trusted), ..peer };
        Self {
            socket,
            peer,
            listener,
            token: 0,
            closes: false,
            context,
            tls: None,
            is_plain_on_tls_port: false,
            parent: OnceLock::new(),
            is_truncated_in_relay: AtomicBool::new(false),
            was_reset: AtomicBool::new(false),
            claim: ResponseClaim::new(),
            timer: CallTimer::new(),
            request_complete: AtomicU64::new(0),
            half_closed: AtomicU64::new(0),
        }
    }

    /// Bytes are encrypted from now on, by a session that begins with its handshake.
    pub(crate) fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        self.tls = Some(Box::new(TlsTransport::new(config)?));
        Ok(())
    }

    /// The client does not use TLS although it should.
    pub(crate) fn abandon_tls(&mut self) {
        (self.tls, self.is_plain_on_tls_port) = (None, true);
    }

    pub(crate) fn tls(&self) -> Option<&TlsTransport> {
        self.tls.as_deref()
    }

    /// Whether the next response closes the connection, whatever the client wants.
    pub(crate) fn must_close(&self) -> bool {
        let context = &self.context;
        // A TLS connection cannot be handed over to another worker.
        let is_stuck_here = self.tls.is_some() && context.drain_began.get().is_some();
        self.closes || is_stuck_here || context.draining.load(Ordering::Relaxed)
    }

    /// Advances the TLS handshake as far as the socket allows.
    pub(crate) fn handshake(&self) -> io::Result<Handshake> {
        self.tls.as_ref().map_or(Ok(Handshake::Complete), |tls| tls.handshake(&self.socket))
    }

    /// Logs why a TLS session has ended.
    pub(crate) fn log_tls_error(&self, error: &io::Error) {
        let level = if concerns_client_certificate(error) { log::Level::Info } else { log::Level::Debug };
        log::log!(level, "TLS connection from {} failed: {error}", self.peer.name());
    }

    /// Sends TLS records that the socket did not accept before.
    pub(crate) fn flush_records(&self) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.flush(&self.socket))
    }

    /// Appends available bytes to `into`, up to its spare capacity. 0 means the end of the input. Also returns whether there may be
    /// more without an event of the socket.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        let Some(tls) = &self.tls else { return Ok((self.read_raw(into)?, false)) };
        let limit = into.capacity() - into.len();
        let read = tls.read(&self.socket, limit, |bytes| {
            into.extend_from_slice(bytes);
            bytes.len()
        });
        read.inspect_err(|error| self.log_read_error(error))
    }

    /// The same for bytes before the TLS session.
    pub(crate) fn read_raw(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, spare_capacity(into)))?)
    }

    /// Reads a part of a request body for the app, at most `limit` bytes.
    pub(crate) fn read_body(&self, into: &mut ReadBuffer<'_>, limit: usize) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => {
                let limit = limit.min(into.remaining());
                let read = tls.read(&self.socket, limit, |bytes| into.append(bytes));
                Ok(read.inspect_err(|error| self.log_read_error(error))?.0)
            }
            None => into.read_from(&self.socket, limit),
        }
    }

    /// Reads available bytes, up to the length of `scratch`, and discards them.
    pub(crate) fn discard(&self, scratch: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => Ok(tls.read(&self.socket, scratch.len(), <[u8]>::len)?.0),
            None => self.discard_raw(scratch),
        }
    }

    /// The same for bytes of a connection that has ended, without decrypting them.
    pub(crate) fn discard_raw(&self, scratch: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.socket, scratch, RecvFlags::empty())?.0)
    }

    fn log_read_error(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::InvalidData {
            self.log_tls_error(error);
        }
    }

    /// Sends a part of the response. `BrokenPipe` if the watchdog has aborted it.
    pub(crate) fn send(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        self.claim_response()?;
        self.send_or_relay(|| self.send_interim(bytes, more), |relay| relay.send(&[IoSlice::new(bytes)]))
    }

    /// Sends bytes that are not part of the final response: `100 Continue`.
    pub(crate) fn send_interim(&self, bytes: &[u8], more: bool) -> io::Result<usize> {
        if let Some(tls) = &self.tls {
            return tls.send(&self.socket, &[IoSlice::new(bytes)]);
        }
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        Ok(rustix::io::retry_on_intr(|| rustix::net::send(&self.socket, bytes, flags))?)
    }

    /// Sends a part of the response. `more` announces that a file follows immediately.
    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>], more: bool) -> io::Result<usize> {
        self.claim_response()?;
        let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        let none = &mut SendAncillaryBuffer::default();
        let send = || match &self.tls {
            Some(tls) => tls.send(&self.socket, slices),
            None => {
                Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.socket, slices, none, flags))?)
            }
        };
        self.send_or_relay(send, |relay| relay.send(slices))
    }

    /// Sends a part of a file as part of the response, by sendfile(2), and advances `offset`.
    pub(crate) fn send_file(&self, file: BorrowedFd<'_>, offset: &mut u64, count: u64) -> io::Result<usize> {
        self.claim_response()?;
        let limit = usize::try_from(count).unwrap_or(usize::MAX).min(1 << 30);
        let mut at = *offset;
        let to_socket = || match &self.tls {
            Some(tls) => tls.send_file(&self.socket, file, at, limit),
            None => Ok(rustix::io::retry_on_intr(|| {
                rustix::fs::sendfile(&self.socket, file, Some(&mut at), limit)
            })?),
        };
        let sent = self.send_or_relay(to_socket, |relay| relay.send_file(file, *offset, count))?;
        *offset += sent as u64;
        Ok(sent)
    }

    /// Sends to the socket. A child whose client reads slowly sends through its parent from then on. With TLS a child always sends
    /// through its parent, which has the session.
    fn send_or_relay(
        &self,
        to_socket: impl FnOnce() -> io::Result<usize>,
        to_relay: impl FnOnce(&RelaySender) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(parent) = self.parent.get() else { return to_socket() };
        if let Some(relay) = parent.relay() {
            return to_relay(relay);
        }
        if self.tls.is_some() {
            return to_relay(parent.start_relay()?);
        }
        match to_socket() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match parent.start_relay() {
                Ok(relay) => to_relay(relay),
                Err(failure) => {
                    log::warn!("no relay for a response, so its process waits for its client: {failure}");
                    Err(error)
                }
            },
            sent => sent,
        }
    }

    fn relay(&self) -> Option<&RelaySender> {
        self.parent.get().and_then(|parent| parent.relay())
    }

    /// Sends all of `bytes`, which are not part of the final response. Blocks.
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

    /// Blocks until the socket accepts bytes. `TimedOut` after the write timeout.
    pub(crate) fn wait_writable(&self) -> io::Result<()> {
        let deadline = Instant::now() + self.context.settings.write_timeout;
        self.while_waiting(|| {
            loop {
                match self.poll(PollFlags::OUT, deadline) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => return other,
                }
            }
        })
    }

    /// Blocks until there are bytes to read, or the end of the input. `TimedOut` after `deadline`, `Interrupted` by a signal.
    pub(crate) fn wait_readable(&self, deadline: Instant) -> io::Result<()> {
        self.while_waiting(|| self.poll(PollFlags::IN, deadline))
    }

    /// Runs `wait`, whose time does not count as the app's.
    fn while_waiting(&self, wait: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.timer.exclude(|| match self.parent.get() {
            Some(parent) => parent.progress.while_waiting_for_client(wait),
            None => wait(),
        })
    }

    fn poll(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).map_err(|_| io::ErrorKind::InvalidInput)?;
        let relay = self.relay().filter(|_| events == PollFlags::OUT);
        let socket = relay.map_or(self.socket.as_fd(), AsFd::as_fd);
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&timeout)) {
            Ok(0) => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What the peer has done with its side, as far as the kernel knows.
    pub(crate) fn peer_state(&self) -> PeerState {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let polled =
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut sockets, Some(&Timespec::default())));
        let events = sockets[0].revents();
        if polled.is_err() || events.intersects(PollFlags::HUP | PollFlags::ERR) {
            PeerState::Closed
        } else if events.contains(PollFlags::RDHUP) {
            PeerState::HalfClosed
        } else {
            PeerState::Open
        }
    }

    /// The application starts a call, or shows that it is alive.
    pub(crate) fn restart_call_timer(&self, now: Instant) {
        self.timer.restart(now);
        if let Some(parent) = self.parent.get() {
            parent.progress.start_call(now);
        }
    }

    /// The call has no time limit until the next [`restart_call_timer`](Self::restart_call_timer).
    pub(crate) fn suspend_call_timer(&self) {
        self.timer.suspend();
        if let Some(parent) = self.parent.get() {
            parent.progress.suspend_timeout();
        }
    }

    /// Records when the client closed its side.
    pub(crate) fn record_half_close(&self, now: Instant) {
        let at = self.timer.micros(now).max(1);
        let _ = self.half_closed.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Records when the request was complete.
    pub(crate) fn record_request_complete(&self, at: Instant) {
        self.request_complete.store(self.timer.micros(at), Ordering::Relaxed);
        self.half_closed.store(0, Ordering::Relaxed);
    }

    /// Whether the client no longer waits for the response that is being produced (see [`HALF_CLOSE`]).
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

    /// Whether this process is a forked child that answers one request.
    pub(crate) fn is_in_child(&self) -> bool {
        self.parent.get().is_some()
    }

    fn claim_response(&self) -> io::Result<()> {
        let is_first = self.claim.claim().map_err(|_| io::ErrorKind::BrokenPipe)?;
        if let Some(parent) = self.parent.get().filter(|_| is_first) {
            parent.progress.set_response(ResponseProgress::Started);
        }
        Ok(())
    }

    /// The response has been sent.
    pub(crate) fn finish_response(&self) {
        self.claim.finish();
    }

    /// The next request may be answered.
    pub(crate) fn reset_response(&self) {
        self.claim.reset();
    }

    /// For the watchdog: ends the connection, with `response` if the app's response has not started, or with a reset in the middle of
    /// it. If the app sends anything later, the client is gone.
    pub(crate) fn abort_response(&self, response: &[u8]) {
        match self.claim.abort() {
            // If the socket is full, the client does not read earlier responses.
            ResponseState::NotStarted
                if self.send_interim(response, false).is_ok_and(|sent| sent == response.len()) => {}
            ResponseState::Finished => {}
            _ => self.reset(),
        }
        self.shutdown();
    }

    /// Whether the watchdog has ended the connection.
    pub(crate) fn was_aborted(&self) -> bool {
        self.claim.is_aborted()
    }

    /// Logs a request that is rejected because of what its client sent or did not send.
    pub(crate) fn log_rejection(&self, client: &str, status: u16, reason: &str) {
        let message = format_args!("rejected a request from {client}: {status} {reason}");
        self.context.rejections.log(log::Level::Info, message, Instant::now());
    }

    /// In a forked child: connects it with its parent.
    pub(crate) fn set_parent(&self, parent: &Arc<ParentLink>) {
        let _ = self.parent.set(Arc::clone(parent));
    }

    /// In a forked child: whether the response goes through the parent and is incomplete, so that the client must see a reset.
    pub(crate) fn is_truncated_in_relay(&self) -> bool {
        self.is_truncated_in_relay.load(Ordering::Relaxed)
    }

    /// In a forked child: replaces the socket, which belongs to the parent from now on, by a closed one.
    pub(crate) fn release_socket(&self) -> io::Result<()> {
        let (closed, _) = UnixStream::pair()?;
        mlws_sys::replace_descriptor(&self.socket, &closed)
    }

    /// Tells the peer that no more bytes follow.
    pub(crate) fn shutdown_write(&self) {
        if self.relay().is_none() {
            self.close_tls();
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
        }
    }

    /// Tells the peer that the connection ends properly, before it is closed. Not for a connection that is reset.
    pub(crate) fn close_tls(&self) {
        if let Some(tls) =
            self.tls.as_ref().filter(|_| !self.is_in_child() && !self.was_reset.load(Ordering::Relaxed))
        {
            tls.close(&self.socket);
        }
    }

    /// Closes the connection for the peer, even if another process holds a copy of the socket.
    pub(crate) fn shutdown(&self) {
        if self.relay().is_none() {
            let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        }
    }

    /// Resets the connection, so that the peer can tell this from a clean end, even if another process holds a copy of the socket.
    pub(crate) fn reset(&self) {
        if self.relay().is_some() {
            // The parent still has to send what was produced before.
            return self.is_truncated_in_relay.store(true, Ordering::Relaxed);
        }
        self.was_reset.store(true, Ordering::Relaxed);
        // Connecting to AF_UNSPEC resets a TCP connection (connect(2)). Unix sockets have no reset.
        let _ = rustix::net::connect_unspec(&self.socket);
    }
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
