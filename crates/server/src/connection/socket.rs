//! The client's side of a request: where it comes from and where the response goes, and who answers it.
//!
//! With HTTP/1 a connection has one [`ClientSocket`] for all its requests, with HTTP/2 each stream has one. It never blocks. A thread
//! or a child that must wait calls [`ClientSocket::wait_writable`] or [`ClientSocket::wait_readable`].

mod sending;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_http2::Reason;
use mlws_sys::ReadBuffer;
use mlws_tls::TlsConfig;

use crate::{
    connection::{
        call_timer::CallTimer,
        encoded_response::EncodedResponse,
        response_claim::{ResponseClaim, ResponseState},
        stream_socket::StreamSocket,
        tls_transport::{Handshake, TlsTransport},
        transport::{PeerState, Transport, log_read_error},
    },
    context::ServerContext,
    fork::{parent_link::ParentLink, progress::ResponseProgress},
    peer::Peer,
};

/// A client may half-close within this time after its request and still read the response. If it closes its side later, it no longer
/// waits for the response.
pub(crate) const HALF_CLOSE: Duration = Duration::from_secs(1);

/// What carries requests and responses.
#[derive(Debug)]
enum Channel {
    /// HTTP/1: the connection.
    Connection(Transport),
    /// HTTP/2: one stream of a connection.
    Stream(StreamSocket),
}

#[derive(Debug)]
pub(crate) struct ClientSocket {
    channel: Channel,
    pub(crate) peer: Peer,
    /// The index of the listener that accepted the connection.
    pub(crate) listener: usize,
    /// The number of the connection in the event loop.
    pub(crate) token: usize,
    /// A reload has removed the listener: the next response closes the connection.
    pub(crate) closes: bool,
    pub(crate) context: Arc<ServerContext>,
    /// The client uses plain HTTP although the port requires TLS.
    pub(crate) is_plain_on_tls_port: bool,
    /// In a forked child: the link to its parent.
    parent: OnceLock<Arc<ParentLink>>,
    /// In a forked child: the response that goes through the parent is incomplete.
    is_truncated_in_relay: AtomicBool,
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
        Self::with_channel(Channel::Connection(Transport::new(socket)), peer, listener, context)
    }

    /// The socket of a stream.
    pub(crate) fn of_stream(
        stream: StreamSocket,
        peer: Peer,
        listener: usize,
        context: Arc<ServerContext>,
    ) -> Self {
        Self::with_channel(Channel::Stream(stream), peer, listener, context)
    }

    fn with_channel(channel: Channel, peer: Peer, listener: usize, context: Arc<ServerContext>) -> Self {
        Self {
            channel,
            peer,
            listener,
            token: 0,
            closes: false,
            context,
            is_plain_on_tls_port: false,
            parent: OnceLock::new(),
            is_truncated_in_relay: AtomicBool::new(false),
            claim: ResponseClaim::new(),
            timer: CallTimer::new(),
            request_complete: AtomicU64::new(0),
            half_closed: AtomicU64::new(0),
        }
    }

    /// Bytes are encrypted from now on, by a session that begins with its handshake.
    pub(crate) fn start_tls(&mut self, config: &TlsConfig) -> io::Result<()> {
        match &mut self.channel {
            Channel::Connection(transport) => transport.start_tls(config),
            Channel::Stream(_) => Ok(()),
        }
    }

    /// The client does not use TLS although it should.
    pub(crate) fn abandon_tls(&mut self) {
        if let Channel::Connection(transport) = &mut self.channel {
            transport.abandon_tls();
        }
        self.is_plain_on_tls_port = true;
    }

    /// The connection, which other streams may share.
    pub(crate) fn transport(&self) -> &Transport {
        match &self.channel {
            Channel::Connection(transport) => transport,
            Channel::Stream(stream) => stream.transport(),
        }
    }

    /// Takes the connection out. `None` for a stream.
    pub(crate) fn into_transport(self) -> Option<(Transport, Peer)> {
        match self.channel {
            Channel::Connection(transport) => Some((transport, self.peer)),
            Channel::Stream(_) => None,
        }
    }

    pub(crate) fn tls(&self) -> Option<&TlsTransport> {
        self.transport().tls()
    }

    pub(crate) fn stream(&self) -> Option<&StreamSocket> {
        if let Channel::Stream(stream) = &self.channel { Some(stream) } else { None }
    }

    /// The descriptor of a connection. A stream has none of its own.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        if let Channel::Connection(transport) = &self.channel { Some(transport.as_fd()) } else { None }
    }

    /// Whether the next response closes the connection, whatever the client wants.
    pub(crate) fn must_close(&self) -> bool {
        let context = &self.context;
        // A TLS connection cannot be handed over to another worker.
        let is_stuck_here = self.tls().is_some() && context.drain_began.get().is_some();
        self.closes || is_stuck_here || context.draining.load(Ordering::Relaxed)
    }

    /// Advances the TLS handshake as far as the socket allows.
    pub(crate) fn handshake(&self) -> io::Result<Handshake> {
        self.transport().handshake()
    }

    /// Sends TLS records that the socket did not accept before. For a stream, the event loop does that.
    pub(crate) fn flush_records(&self) -> io::Result<()> {
        match &self.channel {
            Channel::Connection(transport) => transport.flush_records(),
            Channel::Stream(_) => Ok(()),
        }
    }

    /// Appends available bytes to `into`, up to its spare capacity. 0 means the end of the input. Also returns whether there may be
    /// more without an event.
    pub(crate) fn read(&self, into: &mut Vec<u8>) -> io::Result<(usize, bool)> {
        match &self.channel {
            Channel::Connection(transport) => {
                transport.read(into).inspect_err(|error| log_read_error(error, &self.peer))
            }
            Channel::Stream(stream) => stream.read(into),
        }
    }

    /// Reads a part of a request body for the app, at most `limit` bytes.
    pub(crate) fn read_body(&self, into: &mut ReadBuffer<'_>, limit: usize) -> io::Result<usize> {
        match &self.channel {
            Channel::Connection(transport) => {
                transport.read_limited(into, limit).inspect_err(|error| log_read_error(error, &self.peer))
            }
            Channel::Stream(stream) => stream.read_limited(into, limit),
        }
    }

    /// What the client has done with its side, as far as the kernel or the event loop knows.
    pub(crate) fn peer_state(&self) -> PeerState {
        let (stream, parent) = match (&self.channel, self.parent.get()) {
            (Channel::Connection(transport), _) => return transport.peer_state(),
            (Channel::Stream(stream), parent) => (stream, parent),
        };
        let is_gone = match parent {
            Some(parent) => parent.progress.is_client_gone(),
            // The event loop may not have noticed yet that the connection was closed.
            None => stream.is_reset() || stream.transport().peer_state() != PeerState::Open,
        };
        if is_gone { PeerState::Closed } else { PeerState::Open }
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

    /// Claims the response for the app's side. `BrokenPipe` if the watchdog has aborted it.
    pub(crate) fn claim_response(&self) -> io::Result<()> {
        let is_first = self.claim.claim().map_err(|_| io::ErrorKind::BrokenPipe)?;
        if let Some(parent) = self.parent.get().filter(|_| is_first) {
            parent.progress.set_response(ResponseProgress::Started);
        }
        Ok(())
    }

    /// Whether something of the response has been sent, or the watchdog has ended the connection.
    pub(crate) fn has_begun_response(&self) -> bool {
        !self.claim.is_free()
    }

    /// The response has been sent.
    pub(crate) fn finish_response(&self) {
        self.claim.finish();
    }

    /// The next request may be answered.
    pub(crate) fn reset_response(&self) {
        self.claim.reset();
    }

    /// For the watchdog: ends the connection or stream, with `response` if the app's response has not started, or with a reset in the
    /// middle of it. If the app sends anything later, the client is gone.
    pub(crate) fn abort_response(&self, response: &EncodedResponse) {
        let state = self.claim.abort();
        match &self.channel {
            Channel::Connection(transport) => {
                // If the socket is full, the client does not read earlier responses.
                let send = || transport.send_vectored(&response.slices(), false);
                match state {
                    ResponseState::NotStarted if send().is_ok_and(|sent| sent == response.len()) => {}
                    ResponseState::Finished => {}
                    _ => transport.reset(),
                }
                transport.shutdown();
            }
            Channel::Stream(stream) if state == ResponseState::NotStarted => {
                let EncodedResponse { status, head, body } = response;
                let sent = stream.send_head(*status, head, false).and_then(|()| stream.send_data(body, true));
                if !sent.is_ok_and(|sent| sent == body.len()) {
                    stream.reset(Reason::INTERNAL_ERROR);
                }
                stream.flush();
            }
            Channel::Stream(stream) => stream.reset(Reason::INTERNAL_ERROR),
        }
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

    /// In a forked child: gives the connection up, which belongs to the parent from now on.
    pub(crate) fn release_socket(&self) -> io::Result<()> {
        self.transport().release()
    }

    /// Tells the peer that no more bytes follow.
    pub(crate) fn shutdown_write(&self) {
        if let Some(transport) = self.own_transport() {
            if self.is_in_child() {
                transport.shutdown_write_raw();
            } else {
                transport.shutdown_write();
            }
        }
    }

    /// Tells the peer that the connection ends properly, before it is closed. Not for a connection that is reset.
    pub(crate) fn close_tls(&self) {
        if let Some(transport) = self.own_transport().filter(|_| !self.is_in_child()) {
            transport.close_tls();
        }
    }

    /// Closes the connection or stream for the peer and for threads that wait, even if another process holds a copy of the socket.
    pub(crate) fn shutdown(&self) {
        match &self.channel {
            Channel::Stream(stream) => stream.close(),
            Channel::Connection(transport) if self.relay().is_none() => transport.shutdown(),
            Channel::Connection(_) => {}
        }
    }

    /// Resets the connection or stream, so that the peer can tell this from a clean end, even if another process holds a copy of the
    /// socket.
    pub(crate) fn reset(&self) {
        if self.is_in_child() && (self.relay().is_some() || self.stream().is_some()) {
            // The parent still has to send what was produced before.
            return self.is_truncated_in_relay.store(true, Ordering::Relaxed);
        }
        match &self.channel {
            Channel::Connection(transport) => transport.reset(),
            Channel::Stream(stream) => stream.reset(Reason::INTERNAL_ERROR),
        }
    }

    /// The client is too slow, or gone: the rest of the response is not sent.
    pub(crate) fn cancel_stream(&self) {
        if let Some(stream) = self.stream().filter(|_| !self.is_in_child()) {
            stream.reset(Reason::CANCEL);
        }
    }

    /// The connection, unless it is that of a stream, or the parent sends the response.
    fn own_transport(&self) -> Option<&Transport> {
        match &self.channel {
            Channel::Connection(transport) if self.relay().is_none() => Some(transport),
            _ => None,
        }
    }
}
