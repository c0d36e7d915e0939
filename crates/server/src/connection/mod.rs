//! One connection, from its first byte to its close: receive a request, run the app, send the response, repeat.
//!
//! The box of a connection has one owner at a time: the event loop while it waits for its socket, a thread while a
//! request runs. Each step returns a [`Next`] that says what the connection waits for. Nothing blocks but the app.
//! [`handshake`] has the TLS handshake, [`read`] the half from bytes to a request, [`respond`] the half from the app to bytes.
//!
//! With HTTP/2, a `Connection` is one [`stream`]: it begins in the phase `Body` and is closed when its response is sent. What its
//! request and response need of the socket is a [`ClientSocket`]: a [`transport`] of its own, or a
//! [`stream_socket`] in the [`shared_session`] of an HTTP/2 connection.
//!
//! | phase | leaves by |
//! |---|---|
//! | [`ProxyHeader`](Phase::ProxyHeader) | a valid header → `Handshake` or `Head`; an invalid one → `Sending` 400 or 403 |
//! | [`Handshake`](Phase::Handshake) | the end of the handshake, or a client that does not use TLS → `Head`; an error or the deadline → closed |
//! | [`Idle`](Phase::Idle) | the first byte → `Head`; the keep-alive deadline or the end of the input → closed |
//! | [`Head`](Phase::Head) | a complete head → `Body`; an error or the deadline → `Sending` 4xx |
//! | [`Body`](Phase::Body) | a complete body, or one that the app reads itself → `Complete`; an error or the deadline → `Sending` 4xx |
//! | [`Complete`](Phase::Complete) | the app's response → `Sending`; with `--fork` a child → `InChild` |
//! | [`InChild`](Phase::InChild) | the child's end → as after `Sending`; a full socket → `Relaying`; no response → `Sending` 500 or 504 |
//! | [`Relaying`](Phase::Relaying) | everything sent → as after `Sending`; an error → `InChild` until the child ends |
//! | [`Sending`](Phase::Sending) | everything sent → `Idle`, `Head`, `Draining` or `Lingering`; an error or the deadline → closed |
//! | [`Draining`](Phase::Draining) | the rest of the body is read → `Idle` or `Head`; the deadline → closed |
//! | [`Lingering`](Phase::Lingering) | the end of the input, the deadline or the limit → closed |

mod access_log;
mod call_timer;
mod child_response;
pub(crate) mod encoded_response;
mod handshake;
mod proxy_header;
pub(crate) mod read;
mod readiness;
pub(crate) mod respond;
mod response_claim;
pub(crate) mod response_writer;
pub(crate) mod shared_session;
pub(crate) mod socket;
mod stream;
pub(crate) mod stream_socket;
pub(crate) mod tls_transport;
pub(crate) mod transport;
pub(crate) mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mlws_http1::Parser;

pub(crate) use self::readiness::Readiness;
use crate::{
    App, Request,
    connection::response_writer::ResponseWriter,
    connection::shared_session::Permit,
    connection::socket::ClientSocket,
    connection::tls_transport::TlsTransport,
    context::ServerContext,
    fork::relay::Relay,
    handover::queue::{Awaits, HandedOver},
};

/// How long the client may take to close its side, or keep sending, before the server closes the connection.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest buffer that is kept for reuse, in bytes.
const MAX_POOLED_BUFFER: usize = 32 * 1024;
/// The maximum number of buffers kept for reuse.
const POOL_SIZE: usize = 256;

/// A connection of HTTP/1, or a stream of HTTP/2.
pub(crate) struct Connection {
    pub(crate) token: usize,
    pub(crate) request: Request,
    pub(crate) parser: Parser,
    pub(crate) output: ResponseWriter,
    pub(crate) phase: Phase,
    /// When the current wait began.
    pub(crate) since: Instant,
    /// The number of bytes of the request's buffer that the parser has consumed.
    pub(crate) parsed: usize,
    /// Readiness of the socket while the event loop or a thread owns the connection. The event loop collects what happens meanwhile.
    pub(crate) readiness: Readiness,
    /// The server generated the response, not the app.
    pub(crate) server_generated: bool,
    /// The response has not been logged.
    pub(crate) log_pending: bool,
    /// Whether the client may still choose HTTP/2.
    http2_choice: Http2Choice,
    /// The right of a stream to be queued for the app or inside it.
    permit: Option<Permit>,
    /// For the access log.
    app: Arc<dyn App>,
}

pub(crate) enum Phase {
    /// A new connection must begin with a PROXY header.
    ProxyHeader,
    /// The TLS handshake.
    Handshake,
    /// Between requests.
    Idle,
    /// Receiving a head. A new connection starts here.
    Head,
    /// Receiving a body.
    Body {
        /// Bytes received, for the minimum rate.
        received: u64,
    },
    /// The request waits for the app or is in it. It is complete, or the app reads the rest of the body.
    Complete,
    /// A child process answers.
    InChild,
    /// A child has sent the beginning of its response to the client, and sends the rest through the relay.
    Relaying(Box<Relay>),
    /// Sending the response.
    Sending,
    /// The response is sent. The rest of the request's body, which the app has not read, is read and discarded.
    Draining {
        /// Bytes of the body that are missing.
        left: u64,
    },
    /// The connection ends. What the client still sends is read and discarded until it closes its side.
    Lingering {
        /// Bytes that are still accepted.
        left: u64,
    },
}

/// Whether the client may choose HTTP/2. It must do so with the first bytes after the TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Http2Choice {
    Possible,
    /// The same. The peer is a proxy, which has sent a PROXY header.
    PossibleForProxy,
    /// The connection uses HTTP/1.
    Over,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// An event of its socket, or its deadline.
    Wait,
    /// A thread or child to run the app.
    Run,
    /// Being sent together with other responses.
    Flush,
    /// Nothing: the client has chosen HTTP/2, so its requests will be streams.
    SwitchToHttp2,
    /// Nothing: it is to be closed.
    Close,
}

impl Phase {
    /// The phase of a new connection, after the PROXY header if there is one.
    fn first(socket: &ClientSocket) -> Self {
        if socket.tls().is_some() { Self::Handshake } else { Self::Head }
    }
}

impl Connection {
    pub(crate) fn new(token: usize, socket: ClientSocket, app: &Arc<dyn App>, now: Instant) -> Self {
        let limits = Arc::clone(&socket.context.limits);
        let phase = match &socket.context.settings.proxy_protocol {
            Some(_) => Phase::ProxyHeader,
            None => Phase::first(&socket),
        };
        let request = Request::new(Arc::new(socket), now);
        Self {
            token,
            request,
            parser: Parser::new(limits),
            output: ResponseWriter::default(),
            phase,
            since: now,
            parsed: 0,
            readiness: Readiness { readable: true, ..Readiness::default() },
            server_generated: false,
            log_pending: false,
            http2_choice: Http2Choice::Possible,
            permit: None,
            app: Arc::clone(app),
        }
    }

    /// Restores the state of a connection that another worker handed over. The caller has not registered the socket yet.
    pub(crate) fn restore(&mut self, state: HandedOver) {
        self.phase = match state.awaits {
            Awaits::ProxyHeader => Phase::ProxyHeader,
            Awaits::FirstRequest => Phase::first(self.socket()),
            Awaits::NextRequest => Phase::Idle,
        };
        if let Some(socket) = Arc::get_mut(&mut self.request.socket) {
            socket.peer.is_trusted &= !state.is_distrusted;
            socket.closes = state.is_listener_gone;
        }
    }

    /// Advances as far as the socket allows now.
    pub(crate) fn advance(&mut self, now: Instant) -> Next {
        if self.readiness.writable && self.socket().flush_records().is_err() {
            return Next::Close;
        }
        match self.phase {
            Phase::ProxyHeader | Phase::Handshake | Phase::Idle | Phase::Head | Phase::Body { .. } => {
                self.receive(now)
            }
            Phase::Sending if self.readiness.writable => self.send(now),
            Phase::Draining { left } if self.readiness.readable => self.drain(left, now),
            Phase::Relaying(_) => self.continue_relay(now),
            Phase::Lingering { left } if self.readiness.readable => self.linger(left),
            _ => Next::Wait,
        }
    }

    /// Whether [`advance`](Self::advance) can do something without waiting.
    pub(crate) fn can_advance(&self) -> bool {
        let Readiness { readable, writable, .. } = self.readiness;
        match &self.phase {
            Phase::ProxyHeader
            | Phase::Handshake
            | Phase::Idle
            | Phase::Head
            | Phase::Body { .. }
            | Phase::Draining { .. }
            | Phase::Lingering { .. } => readable,
            Phase::Sending => writable,
            Phase::Relaying(relay) => (writable && !self.output.is_empty()) || relay.can_receive(),
            Phase::Complete | Phase::InChild => false,
        }
    }

    /// When the current wait has lasted too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let settings = &self.context().settings;
        let is_draining = || self.context().drain_began.get().is_some();
        let wait = match &self.phase {
            Phase::Idle => return Some(self.context().idle_until(self.since + settings.keep_alive)),
            Phase::Draining { .. } if is_draining() => LINGER_TIMEOUT.min(settings.keep_alive),
            Phase::Draining { .. } => settings.keep_alive,
            // A request that has not started must not delay the end of the server for long.
            Phase::ProxyHeader | Phase::Handshake | Phase::Head if is_draining() => {
                return Some(
                    self.context().idle_until(self.since + LINGER_TIMEOUT.min(settings.head_timeout)),
                );
            }
            Phase::ProxyHeader | Phase::Handshake | Phase::Head => settings.head_timeout,
            Phase::Body { received } => {
                let earned = received.checked_div(settings.body_rate).unwrap_or(0);
                settings.body_timeout + Duration::from_secs(earned)
            }
            Phase::Sending => settings.write_timeout,
            Phase::Lingering { .. } => LINGER_TIMEOUT,
            Phase::InChild => {
                return settings.timeout.map(|timeout| self.since + timeout);
            }
            Phase::Relaying(relay) => {
                let write = (!self.output.is_empty()).then(|| self.since + settings.write_timeout);
                return relay.next_check.into_iter().chain(write).min();
            }
            Phase::Complete => return None,
        };
        Some(self.since + wait)
    }

    /// The deadline has passed.
    pub(crate) fn time_out(&mut self, now: Instant) -> Next {
        match self.phase {
            Phase::ProxyHeader | Phase::Head if !self.request.body.bytes.is_empty() => {
                self.reject(408, "timeout while receiving the request head", now)
            }
            Phase::Body { .. } => self.reject(408, "timeout while receiving the request body", now),
            Phase::Sending => self.on_disconnect(now),
            Phase::Relaying(_) => self.abort_relay(now),
            _ => Next::Close,
        }
    }

    /// Whether no bytes of a request have been received.
    pub(crate) fn is_idle(&self) -> bool {
        match self.phase {
            Phase::ProxyHeader | Phase::Idle | Phase::Head => self.request.body.bytes.is_empty(),
            Phase::Handshake => self.socket().tls().is_some_and(TlsTransport::is_untouched),
            _ => false,
        }
    }

    /// Whether the last response is sent and another request may follow.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head)
    }

    /// From now on a child answers.
    pub(crate) fn enter_child(&mut self, now: Instant) -> Next {
        self.phase = Phase::InChild;
        self.since = now;
        Next::Wait
    }

    /// Whether the event loop has to do a TLS handshake for it, or to encrypt a response.
    pub(crate) fn has_costly_encryption(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Sending) && self.socket().tls().is_some()
    }

    pub(crate) fn is_in_child(&self) -> bool {
        matches!(self.phase, Phase::InChild)
    }

    pub(crate) fn relay(&self) -> Option<&Relay> {
        if let Phase::Relaying(relay) = &self.phase { Some(relay) } else { None }
    }

    pub(crate) fn relay_mut(&mut self) -> Option<&mut Relay> {
        if let Phase::Relaying(relay) = &mut self.phase { Some(relay) } else { None }
    }

    pub(crate) fn socket(&self) -> &ClientSocket {
        &self.request.socket
    }

    pub(crate) fn context(&self) -> &ServerContext {
        &self.request.socket.context
    }

    /// Moves the buffers of an idle connection to `pool`.
    pub(crate) fn release_buffers(&mut self, pool: &mut Vec<Vec<u8>>) {
        if !self.is_idle() {
            return;
        }
        for buffer in [std::mem::take(&mut self.request.body.bytes), std::mem::take(&mut self.request.buffer)]
        {
            if (1..=MAX_POOLED_BUFFER).contains(&buffer.capacity()) && pool.len() < POOL_SIZE {
                pool.push(buffer);
            }
        }
    }

    /// Takes the buffers back that [`release_buffers`](Self::release_buffers) moved to `pool`.
    pub(crate) fn acquire_buffers(&mut self, pool: &mut Vec<Vec<u8>>) {
        for buffer in [&mut self.request.body.bytes, &mut self.request.buffer] {
            if buffer.capacity() == 0 {
                *buffer = pool.pop().unwrap_or_default();
            }
        }
    }
}
