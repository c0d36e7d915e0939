//! One connection, from its first byte to its close: receive a request, have it answered, send, and again.
//!
//! A connection belongs to whoever holds its box: the loop while it waits for its socket, a thread while it is in the app.
//! Each step ends in a [`Next`] that says what it waits for; nothing blocks but the app itself. The two halves of the way
//! are told in `receive` and `answer`.

mod read;
pub(crate) mod respond;
pub(crate) mod response_writer;
pub(crate) mod socket;
pub(crate) mod writer;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mlws_http1::Parser;

use crate::{
    Request, connection::response_writer::ResponseWriter, connection::socket::ClientSocket,
    context::ServerContext, fork::Relay, handover::HandedOver,
};

/// How long a client may take to close its side, or go on sending, before the connection is closed under it.
const LINGER: Duration = Duration::from_secs(2);
/// The largest buffer kept for a next connection.
const KEPT: usize = 32 * 1024;
/// How many of them are kept.
const SPARE: usize = 256;

#[expect(clippy::struct_excessive_bools, reason = "six facts about a socket, not one state")]
pub(crate) struct Connection {
    pub(crate) token: usize,
    pub(crate) request: Request,
    pub(crate) parser: Parser,
    pub(crate) output: ResponseWriter,
    /// The rest of the response of a child that its client does not read at once.
    pub(crate) relay: Option<Box<Relay>>,
    pub(crate) phase: Phase,
    /// How many bytes of the request's buffer the parser has consumed.
    pub(crate) parsed: usize,
    /// When the present wait began.
    pub(crate) since: Instant,
    /// The server itself has answered, in place of the app.
    pub(crate) refused: bool,
    /// The access log has yet to hear of this response.
    pub(crate) unlogged: bool,
    /// Body bytes received, for the minimum rate.
    pub(crate) received: u64,
    /// The socket may have more to read.
    pub(crate) readable: bool,
    /// The socket may have room again.
    pub(crate) writable: bool,
    /// A PROXY header is to come first.
    pub(crate) awaits_proxy: bool,
    /// The peer has ended its side: a short read no longer means that there is nothing more to read.
    pub(crate) peer_done: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// Bytes of a head are awaited; a new connection starts here.
    Head,
    Body,
    /// A request waits for the app, or is in it. It is complete, or the app reads the rest of it.
    Complete,
    /// The response is being sent.
    Sending,
    /// The response is over, but for the access log, which is written by the application. Only for a response that the server
    /// itself gave in place of a child process.
    Unlogged {
        lost: bool,
    },
    /// A child process answers.
    InChild,
    /// The response is sent; the rest of the request's body, which the app has not read, is read and dropped.
    Draining {
        left: u64,
    },
    /// A child process has sent a part of its response to the client, and sends the rest through the relay.
    Relaying,
    /// All is said: what the client still sends is read and forgotten until it closes, too.
    Lingering {
        left: u64,
    },
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Its socket, or its deadline.
    Wait,
    /// The app.
    Run,
    /// To be sent, whole, together with others.
    Flush,
    /// Nothing more.
    Close,
}

impl Connection {
    pub(crate) fn new(token: usize, socket: ClientSocket, now: Instant) -> Self {
        let limits = Arc::clone(&socket.context.limits);
        let awaits_proxy = socket.context.settings.proxy_protocol.is_some();
        let request = Request::new(Arc::new(socket), now);
        Self {
            token,
            request,
            parser: Parser::new(limits),
            output: ResponseWriter::default(),
            relay: None,
            phase: Phase::Head,
            parsed: 0,
            since: now,
            refused: false,
            unlogged: false,
            received: 0,
            readable: true,
            writable: false,
            awaits_proxy,
            peer_done: false,
        }
    }

    /// Restores the state of a connection that another worker handed over. The caller has not registered the socket yet.
    pub(crate) fn restore(&mut self, state: HandedOver) {
        self.phase = if state.is_kept_alive { Phase::Idle } else { Phase::Head };
        self.awaits_proxy = state.awaits_proxy;
        if let Some(socket) = Arc::get_mut(&mut self.request.socket) {
            socket.peer.is_trusted &= !state.is_distrusted;
            socket.closes = state.is_listener_gone;
        }
    }

    /// Goes on with what the socket allows now.
    pub(crate) fn advance(&mut self, now: Instant) -> Next {
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Body => self.receive(now),
            Phase::Sending if self.writable => self.send(now),
            Phase::Draining { left } if self.readable => self.drain(left, now),
            Phase::Relaying => self.continue_relay(now),
            Phase::Lingering { left } if self.readable => self.linger(left),
            _ => Next::Wait,
        }
    }

    /// Whether [`advance`](Self::advance) could get on without waiting.
    pub(crate) fn can_advance(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Head | Phase::Body | Phase::Draining { .. } | Phase::Lingering { .. } => {
                self.readable
            }
            Phase::Sending => self.writable,
            Phase::Relaying => {
                (self.writable && !self.output.is_empty())
                    || self.relay.as_ref().is_some_and(|relay| relay.can_receive())
            }
            _ => false,
        }
    }

    /// When the present wait has lasted too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let settings = &self.context().settings;
        let is_draining = || self.context().drain_began.get().is_some();
        let wait = match self.phase {
            Phase::Idle => return Some(self.context().idle_until(self.since + settings.keep_alive)),
            Phase::Draining { .. } if is_draining() => LINGER.min(settings.keep_alive),
            Phase::Draining { .. } => settings.keep_alive,
            // A request that is not even asked yet does not hold up the end for long.
            Phase::Head if is_draining() => {
                return Some(self.context().idle_until(self.since + LINGER.min(settings.head_timeout)));
            }
            Phase::Head => settings.head_timeout,
            Phase::Body => {
                let earned = self.received.checked_div(settings.body_rate).unwrap_or(0);
                settings.body_timeout + Duration::from_secs(earned)
            }
            Phase::Sending => settings.write_timeout,
            Phase::Lingering { .. } => LINGER,
            Phase::InChild => {
                return settings.timeout.map(|timeout| self.since + timeout);
            }
            Phase::Relaying => {
                let check = self.relay.as_ref().and_then(|relay| relay.next_check);
                let write = (!self.output.is_empty()).then(|| self.since + settings.write_timeout);
                return check.into_iter().chain(write).min();
            }
            Phase::Complete | Phase::Unlogged { .. } => return None,
        };
        Some(self.since + wait)
    }

    /// The deadline has passed.
    pub(crate) fn time_out(&mut self, now: Instant) -> Next {
        match self.phase {
            Phase::Head if !self.request.body.bytes.is_empty() => {
                self.refuse(408, "the request's head did not come in time", now)
            }
            Phase::Body => self.refuse(408, "the request's body came too slowly", now),
            Phase::Sending => self.on_disconnect(now),
            Phase::Relaying => self.lose_relay(now),
            _ => Next::Close,
        }
    }

    /// Whether nothing of a request is here.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head) && self.request.body.bytes.is_empty()
    }

    /// Whether a request is complete and not yet answered.
    pub(crate) fn is_complete(&self) -> bool {
        self.phase == Phase::Complete
    }

    /// Whether the last response is sent and the connection may live on.
    pub(crate) fn is_between_requests(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Head)
    }

    /// A child answers from here on.
    pub(crate) fn enter_child(&mut self, now: Instant) -> Next {
        self.phase = Phase::InChild;
        self.since = now;
        Next::Wait
    }

    pub(crate) fn is_in_child(&self) -> bool {
        self.phase == Phase::InChild
    }

    pub(crate) fn socket(&self) -> &ClientSocket {
        &self.request.socket
    }

    pub(crate) fn context(&self) -> &ServerContext {
        &self.request.socket.context
    }

    /// An idle connection keeps no buffers; they go to `spare`.
    pub(crate) fn release_buffers(&mut self, spare: &mut Vec<Vec<u8>>) {
        if !self.is_idle() {
            return;
        }
        for buffer in [std::mem::take(&mut self.request.body.bytes), std::mem::take(&mut self.request.buffer)]
        {
            if (1..=KEPT).contains(&buffer.capacity()) && spare.len() < SPARE {
                spare.push(buffer);
            }
        }
    }

    /// Takes the buffers that [`release_buffers`](Self::release_buffers) gave away.
    pub(crate) fn acquire_buffers(&mut self, spare: &mut Vec<Vec<u8>>) {
        for buffer in [&mut self.request.body.bytes, &mut self.request.buffer] {
            if buffer.capacity() == 0 {
                *buffer = spare.pop().unwrap_or_default();
            }
        }
    }
}
