//! [`Http2Connection`]: an HTTP/2 connection, as the event loop sees it.
//!
//! Its streams have slots of their own. This is the part below them: it passes what arrives to the session, and decides when the
//! connection ends.
//!
//! ```text
//! Open --keep-alive over, drain--> Announced --a second later--> Refusing --no stream left--> Ending
//! any state --error, GOAWAY of the client--> Ending --output sent--> Closing --end of the input--> closed
//! ```

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mlws_http2::{Limits, Reason, StreamId};

use crate::{
    Settings,
    connection::{
        Connection, LINGER_TIMEOUT, Readiness,
        read::{LINGER_BYTES, MAX_BYTES_PER_ITERATION},
        shared_session::SharedSession,
        socket::ClientSocket,
        transport::{Transport, log_read_error},
    },
    context::ServerContext,
    peer::Peer,
    settings::Http2Settings,
};

/// The size of one read.
const READ_SIZE: usize = 64 * 1024;
/// How long requests that were on their way are accepted after the first GOAWAY frame.
const GOAWAY_DELAY: Duration = Duration::from_secs(1);
/// The memory for the heads of all requests of a connection, in bytes.
const MAX_HEADS: usize = 1 << 20;
/// The smallest flow-control window of a connection (RFC 9113, section 6.9.2).
const MIN_CONNECTION_WINDOW: u32 = 65_535;

pub(super) struct Http2Connection {
    pub(super) session: Arc<SharedSession>,
    context: Arc<ServerContext>,
    pub(super) peer: Peer,
    pub(super) listener: usize,
    pub(super) streams: HashMap<StreamId, OpenStream>,
    /// Requests that may not be queued for the application yet.
    pub(super) waiting: VecDeque<Box<Connection>>,
    pub(super) readiness: Readiness,
    /// It is in the list of connections to process.
    pub(super) is_pending: bool,
    /// Received bytes that the session does not accept before its output is sent.
    unread: Vec<u8>,
    state: State,
    /// When the connection or its last stream began or ended.
    since: Instant,
    has_had_streams: bool,
    /// When an incomplete request head was first seen.
    head_since: Option<Instant>,
    /// How many bytes are still read and discarded after the end of the session.
    linger: u64,
}

/// A stream that has a slot.
pub(super) struct OpenStream {
    pub(super) token: usize,
    pub(super) socket: Arc<ClientSocket>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// GOAWAY is sent, but requests are still accepted. Since when.
    Announced(Instant),
    /// No more requests are accepted.
    Refusing,
    /// The session has ended, but not all of its output is sent. What the client still sends is discarded.
    Ending,
    /// All output is sent. The connection waits for the client to close its side. Since when.
    Closing(Instant),
}

impl Http2Connection {
    /// `received` is what the client has sent already.
    pub(super) fn new(
        transport: Transport,
        peer: Peer,
        listener: usize,
        received: Vec<u8>,
        context: &Arc<ServerContext>,
        token: usize,
        now: Instant,
    ) -> Self {
        let limits = Arc::new(session_limits(&context.settings));
        let body_memory = context.body_memory.part(context.settings.body_in_memory);
        Self {
            session: Arc::new(SharedSession::new(transport, token, limits, body_memory, now)),
            context: Arc::clone(context),
            peer,
            listener,
            streams: HashMap::new(),
            waiting: VecDeque::new(),
            readiness: Readiness { readable: true, writable: true, peer_closed: None },
            is_pending: false,
            unread: received,
            state: State::Open,
            since: now,
            has_had_streams: false,
            head_since: None,
            linger: LINGER_BYTES,
        }
    }

    /// Passes to the session what the socket has.
    pub(super) fn receive(&mut self, now: Instant, scratch: &mut Vec<u8>) {
        if std::mem::take(&mut self.readiness.writable) {
            self.session.on_writable();
        }
        if matches!(self.state, State::Ending | State::Closing(_)) {
            return self.discard(scratch);
        }
        let mut left = MAX_BYTES_PER_ITERATION;
        loop {
            if !self.unread.is_empty() {
                self.session.flush(); // the session accepts nothing while its output is full
                let consumed = self.session.receive(&self.unread, now);
                self.unread.drain(..consumed);
                if self.unread.is_empty() {
                    self.unread = Vec::new();
                } else if consumed > 0 {
                    continue;
                }
            }
            if !self.unread.is_empty() || !self.readiness.readable || left == 0 {
                return;
            }
            scratch.clear();
            scratch.reserve(READ_SIZE);
            match self.session.transport.read(scratch) {
                Ok((0, _)) => return self.fail(),
                Ok((count, has_more)) => {
                    let is_full = scratch.len() == scratch.capacity();
                    self.readiness.readable = has_more || is_full || self.readiness.peer_closed.is_some();
                    left = left.saturating_sub(count);
                    let consumed = self.session.receive(scratch, now);
                    self.unread.extend_from_slice(&scratch[consumed..]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readiness.readable = false,
                Err(error) => {
                    log_read_error(&error, &self.peer);
                    return self.fail();
                }
            }
        }
    }

    /// Whether [`receive`](Self::receive) can continue without an event.
    pub(super) fn can_receive(&self) -> bool {
        self.readiness.readable && self.unread.is_empty()
    }

    /// Nothing can be sent or received any more.
    fn fail(&mut self) {
        self.readiness.readable = false;
        self.session.set_failed();
    }

    /// The session is in an unknown state.
    pub(super) fn fail_after_panic(&mut self) {
        log::error!("closing an HTTP/2 connection from {}: the server panicked", self.peer.name());
        self.fail();
    }

    /// Reads and discards what the client sends after the end.
    fn discard(&mut self, scratch: &mut Vec<u8>) {
        scratch.resize(READ_SIZE, 0);
        let mut left = MAX_BYTES_PER_ITERATION;
        while self.readiness.readable && left > 0 {
            match self.session.transport.discard_raw(scratch) {
                Ok(count @ 1..) if count as u64 <= self.linger => {
                    self.linger -= count as u64;
                    left = left.saturating_sub(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readiness.readable = false,
                Ok(_) | Err(_) => return self.fail(),
            }
        }
    }

    pub(super) fn on_stream_opened(&mut self, id: StreamId, stream: OpenStream, now: Instant) {
        self.streams.insert(id, stream);
        (self.since, self.has_had_streams) = (now, true);
        self.head_since = None; // a head is complete; if there is a part of another one, it has begun later
    }

    pub(super) fn on_stream_closed(&mut self, stream: StreamId, now: Instant) {
        self.streams.remove(&stream);
        self.since = now;
    }

    /// The session has ended.
    pub(super) fn on_session_end(&mut self, error: Option<mlws_http2::Error>, now: Instant) {
        self.state = State::Ending;
        let Some(error) = error else { return };
        let level = match error {
            mlws_http2::Error::ClosedByPeer(_) => log::Level::Debug,
            error if error.reason() == Reason::ENHANCE_YOUR_CALM => log::Level::Warn,
            _ => log::Level::Info,
        };
        let message = format_args!("closed an HTTP/2 connection from {}: {error}", self.peer.name());
        if level != log::Level::Warn || self.context.http2_warnings.is_due(self.peer.ip, now) {
            log::log!(level, "{message}");
        }
    }

    /// Sends what there is to send. Returns whether the connection stays open. Call this after all events have been handled.
    pub(super) fn process(&mut self, now: Instant) -> bool {
        if self.session.has_failed() {
            return false;
        }
        let is_in_head = self.session.is_in_head();
        self.head_since = if is_in_head { self.head_since.or(Some(now)) } else { None };
        if self.state == State::Open && self.context.drain_began.get().is_some() {
            self.announce_end(now);
        }
        let is_flushed = self.session.flush();
        if self.session.has_failed() {
            return false;
        }
        match self.state {
            State::Refusing if self.streams.is_empty() && is_flushed => {
                self.session.abort(Reason::NO_ERROR); // its event leads to `Ending`
                self.session.flush();
            }
            State::Ending if is_flushed => {
                self.session.transport.shutdown_write();
                self.state = State::Closing(now);
            }
            _ => {}
        }
        true
    }

    fn announce_end(&mut self, now: Instant) {
        self.session.go_away();
        self.state = State::Announced(now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let settings = &self.context.settings;
        let blocked = self.session.blocked_since().map(|since| since + settings.write_timeout);
        let head = self.head_since.map(|since| since + settings.head_timeout);
        let state = match self.state {
            State::Open if !self.streams.is_empty() => None,
            State::Open if self.has_had_streams => {
                Some(self.context.idle_until(self.since + settings.keep_alive))
            }
            State::Open => Some(self.context.idle_until(self.since + settings.head_timeout)),
            State::Announced(since) => Some(since + GOAWAY_DELAY),
            State::Refusing | State::Ending => None,
            State::Closing(since) => return Some(since + LINGER_TIMEOUT),
        };
        [blocked, head, state].into_iter().flatten().min()
    }

    /// The deadline has passed. Returns whether the connection stays open.
    pub(super) fn time_out(&mut self, now: Instant) -> bool {
        let settings = &self.context.settings;
        let has_passed =
            |since: Option<Instant>, timeout: Duration| since.is_some_and(|since| since + timeout <= now);
        if has_passed(self.session.blocked_since(), settings.write_timeout) {
            return false;
        }
        if has_passed(self.head_since, settings.head_timeout) {
            self.context.rejections.log(
                log::Level::Info,
                format_args!(
                    "rejected a request from {}: timeout while receiving its head",
                    self.peer.name()
                ),
                now,
            );
            self.session.abort(Reason::ENHANCE_YOUR_CALM);
            return true;
        }
        match self.state {
            State::Open if self.streams.is_empty() => self.announce_end(now),
            State::Announced(since) if since + GOAWAY_DELAY <= now => {
                self.session.go_away();
                self.state = State::Refusing;
            }
            State::Closing(_) => return false,
            _ => {}
        }
        true
    }

    /// When the connection became idle, if it has neither streams nor a part of a request.
    pub(super) fn idle_since(&self) -> Option<(bool, Instant)> {
        let is_idle = self.state == State::Open && self.streams.is_empty() && self.head_since.is_none();
        (is_idle && !self.readiness.readable).then_some((self.has_had_streams, self.since))
    }
}

fn session_limits(settings: &Settings) -> Limits {
    let http2 = settings.http2.clone().unwrap_or_default();
    let Http2Settings { concurrent_streams, frame_size, header_list_size, stream_window, .. } = http2;
    Limits {
        concurrent_streams,
        frame_size,
        header_list_size,
        stream_window,
        connection_window: stream_window.max(MIN_CONNECTION_WINDOW),
        request_line: settings.limits.request_line,
        fields: settings.limits.fields,
        field_size: settings.limits.field_size,
        body: settings.limits.body,
        heads: MAX_HEADS,
        ..Limits::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };

    use mlws_http2::PREFACE;

    use super::*;
    use crate::connection::stream_socket::StreamSocket;

    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PART_OF_HEADERS: &[u8] = &[0, 0, 20, 1, 5, 0, 0, 0, 1, 0x82];

    fn connection(now: Instant) -> (Http2Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let context = Arc::new(ServerContext::new(Settings::default(), false, Arc::default()));
        let transport = Transport::new(ours.into());
        let received = [&PREFACE[..], SETTINGS].concat();
        (Http2Connection::new(transport, Peer::default(), 0, received, &context, 0, now), theirs)
    }

    #[test]
    fn the_time_of_a_head_begins_after_the_previous_head() {
        let start = Instant::now();
        let timeout = Settings::default().head_timeout;
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut http2, mut client) = connection(start);
        client.write_all(PART_OF_HEADERS).unwrap();
        http2.receive(at(1), &mut Vec::new());
        assert!(http2.process(at(1)) && http2.head_since == Some(at(1)));
        assert!(http2.process(at(2)) && http2.head_since == Some(at(1)));
        let socket = StreamSocket::new(Arc::clone(&http2.session), 1);
        let socket = ClientSocket::of_stream(socket, Peer::default(), 0, Arc::clone(&http2.context));
        http2.on_stream_opened(1, OpenStream { token: 1, socket: Arc::new(socket) }, at(3));
        assert!(http2.process(at(3)));
        assert_eq!(http2.deadline(), Some(at(3) + timeout));
    }

    #[test]
    fn output_that_the_client_has_not_read_outlasts_the_end_of_the_session() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (mut http2, mut client) = connection(start);
        http2.receive(start, &mut Vec::new());
        while http2.session.transport.send(&[0; 4096], false).is_ok() {} // the socket is full
        http2.session.abort(Reason::NO_ERROR);
        http2.on_session_end(None, start);
        assert!(http2.process(at(0)) && http2.state == State::Ending);
        assert!(http2.deadline() > Some(at(2)) && http2.time_out(at(10)));
        client.set_nonblocking(true).unwrap();
        while client.read(&mut [0; 4096]).is_ok() {}
        http2.readiness.writable = true;
        http2.receive(at(11), &mut Vec::new());
        assert!(http2.process(at(11)) && http2.state == State::Closing(at(11)));
        assert_eq!(http2.deadline(), Some(at(11) + LINGER_TIMEOUT));
        assert!(!http2.time_out(at(13)));
    }
}
