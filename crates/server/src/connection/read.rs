//! From the socket through the parser to a complete request, or to the response that rejects it.

use std::{io, sync::Arc, time::Instant};

use log::Level;
use mlws_http1::{Event, Head, Length};

use crate::{
    Concurrency, Response,
    connection::{Connection, Http2Choice, Next, Phase, socket::ClientSocket, transport::Transport},
    upload::Upload,
};

/// The number of bytes that a client may still send after the end of the connection, before it is closed.
pub(crate) const LINGER_BYTES: u64 = 16 << 20;
/// The most bytes read from one socket per iteration, so that others get their turn.
pub(crate) const MAX_BYTES_PER_ITERATION: usize = 512 * 1024;
/// The size of one read: of a head, of a body, and of a chunked body, which takes longer to parse.
const HEAD_READ: usize = 4 * 1024;
const BODY_READ: usize = 256 * 1024;
const CHUNKED_READ: usize = 32 * 1024;
/// The buffer grows when it has less space than this.
const MIN_READ: usize = 1024;

/// Why a request is rejected.
pub(super) struct HttpError {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Connection {
    /// Reads and parses until the app can be called, the request must be rejected, or the socket is empty.
    pub(crate) fn receive(&mut self, now: Instant) -> Next {
        if self.socket().stream().is_some() {
            return self.receive_stream(now);
        }
        let mut left = MAX_BYTES_PER_ITERATION;
        loop {
            if matches!(self.phase, Phase::Handshake)
                && let Some(next) = self.shake_hands(now)
            {
                return next;
            }
            if self.is_http2() {
                return Next::SwitchToHttp2;
            }
            match self.parse(now) {
                Ok(true) => return Next::Run,
                Ok(false) if matches!(self.phase, Phase::Handshake) => continue, // a PROXY header is complete
                Ok(false) if !self.readiness.readable || left == 0 => return Next::Wait,
                Ok(false) => {}
                Err(_) if self.may_become_http2() && self.readiness.readable => {}
                Err(_) if self.may_become_http2() => return Next::Wait,
                Err(_) if self.is_unexpected_tls() => return self.answer_tls(now),
                Err(error) => return self.reject(error.status, &error.message, now),
            }
            match self.read(self.read_size()) {
                Ok(0) => return self.input_ended(now),
                Ok(count) => {
                    left = left.saturating_sub(count);
                    match &mut self.phase {
                        Phase::Body { received } => *received += count as u64,
                        _ if self.request.body.bytes.len() > count => {}
                        Phase::ProxyHeader => (self.request.began, self.since) = (now, now),
                        _ => self.enter_head(now),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readiness.readable = false,
                Err(_) => return Next::Close,
            }
        }
    }

    /// Sends a response of the server and ends the connection. What the client still sends is not parsed. A HEAD
    /// request gets no body, even if its head is incomplete.
    pub(crate) fn reject(&mut self, status: u16, message: &str, now: Instant) -> Next {
        let is_proxy_header = matches!(self.phase, Phase::ProxyHeader);
        let level = match status {
            // Either the proxy is configured differently than this server, or a client pretends to be one.
            400 | 403 if is_proxy_header => Level::Warn,
            500 | 503 | 507 => Level::Warn,
            _ => Level::Info,
        };
        let what = if is_proxy_header { "connection" } else { "request" };
        self.context().rejections.log(
            level,
            format_args!("rejected a {what} from {}: {status} {message}", self.socket().peer.name()),
            now,
        );
        if matches!(self.phase, Phase::ProxyHeader | Phase::Idle | Phase::Head) {
            let bytes = &self.request.body.bytes[self.parsed..];
            self.request.is_head = bytes.starts_with(b"HEAD ");
            self.request.head = if is_proxy_header { Head::default() } else { Head::of_incomplete(bytes) };
        }
        self.parser.stop();
        self.server_generated = true;
        self.end_upload();
        let text = format!("{status} {}: {message}\n", mlws_http1::reason(status));
        let mut response = Response::plain(status, text);
        if status == 503 {
            response = response.field("Retry-After", "1").unwrap_or_else(|_| Response::plain(503, ""));
        }
        self.request.head.keep_alive = false;
        self.respond(response);
        self.send(now)
    }

    /// Reads and discards until the client closes its side.
    pub(crate) fn linger(&mut self, left: u64) -> Next {
        let turn = left.min(MAX_BYTES_PER_ITERATION as u64);
        let Ok(unread) = self.discard(turn, Transport::discard_raw) else { return Next::Close };
        let left = left - turn + unread;
        if left == 0 {
            return Next::Close;
        }
        self.phase = Phase::Lingering { left };
        Next::Wait
    }

    /// Reads and discards up to `limit` bytes. Returns how many are missing when the socket is empty. The end of the
    /// input is an error.
    #[inline(never)] // the buffer on the stack of each caller would cost a forked child four pages
    fn discard(
        &mut self,
        limit: u64,
        read: fn(&Transport, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<u64> {
        let mut scratch = [0; 16 * 1024];
        let mut left = limit;
        while left > 0 && self.readiness.readable {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            match read(self.socket().transport(), &mut scratch[..size]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => left -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readiness.readable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    pub(crate) fn start_lingering(&mut self, now: Instant) -> Next {
        self.socket().shutdown_write();
        self.since = now;
        self.readiness.readable = true;
        self.linger(LINGER_BYTES)
    }

    /// Removes the answered request from the buffer.
    pub(crate) fn expect_next_request(&mut self, now: Instant) {
        self.socket().reset_response();
        self.request.body.bytes.drain(..self.parsed);
        self.request.body.clear();
        self.request.client_override = None;
        self.parsed = 0;
        self.http2_choice = Http2Choice::Over;
        let has_bytes = !self.request.body.bytes.is_empty();
        self.request.began = now;
        self.enter(if has_bytes { Phase::Head } else { Phase::Idle }, now);
        // The buffer may already have the next request; reading costs nothing if the socket is empty.
        self.readiness.readable |= has_bytes;
    }

    /// The response is sent. Another request may follow after the rest of this one's body.
    pub(crate) fn await_next_request(&mut self, now: Instant) -> Next {
        let Some(upload) = self.request.upload.take() else {
            self.expect_next_request(now);
            return Next::Wait;
        };
        let Some(missing) = upload.end() else { return self.start_lingering(now) };
        // All bytes that were received before the call are parsed.
        self.request.body.clear();
        self.request.body.bytes.clear();
        self.parsed = 0;
        // The thread that read the body has recorded no readiness.
        self.readiness.readable = true;
        self.enter(Phase::Draining { left: missing }, now);
        self.drain(missing, now)
    }

    /// Ends the reading of the body, whatever the app does. Returns true if a part of it had not been received.
    pub(crate) fn end_upload(&mut self) -> bool {
        let Some(upload) = self.request.upload.take() else { return false };
        upload.end().is_none_or(|missing| missing > 0)
    }

    /// Reads and discards the part of a body that the app has not read.
    pub(crate) fn drain(&mut self, left: u64, now: Instant) -> Next {
        match self.discard(left, Transport::discard) {
            Ok(0) => {
                self.parser.skip_body();
                self.expect_next_request(now);
                Next::Wait
            }
            Ok(left) => {
                self.phase = Phase::Draining { left };
                Next::Wait
            }
            Err(_) => Next::Close,
        }
    }

    /// Parses the buffer. Returns true if the app can be called, false if more bytes are needed.
    fn parse(&mut self, now: Instant) -> Result<bool, HttpError> {
        if matches!(self.phase, Phase::ProxyHeader) && !self.parse_proxy_header()?
            || matches!(self.phase, Phase::Handshake)
        {
            return Ok(false);
        }
        loop {
            let request = &mut self.request;
            let Some(event) = self.parser.next(&request.body.bytes[self.parsed..], &mut request.head)? else {
                self.compact();
                return self.begin_upload(now);
            };
            match event {
                Event::Head => {
                    self.parsed += self.request.head.len;
                    self.request.body.begin_at(self.parsed);
                    self.request.is_head = self.request.method() == "HEAD";
                    let received = (self.request.body.bytes.len() - self.parsed) as u64;
                    self.enter(Phase::Body { received }, now);
                    if self.socket().is_plain_on_tls_port {
                        return Err(self.plain_http_error());
                    }
                    self.ask_for_body();
                }
                Event::Data { payload, consumed } => {
                    let at = self.parsed;
                    self.store_body(at + payload.start, at + payload.end)?;
                    self.parsed += consumed;
                }
                Event::End { consumed } => {
                    self.parsed += consumed;
                    self.request.body.finish()?;
                    self.enter(Phase::Complete, now);
                    return Ok(true);
                }
            }
        }
    }

    /// Sends `100 Continue` if the client waits for it and the body must be received before the app is called.
    pub(super) fn ask_for_body(&mut self) {
        let is_received_first = self.request.is_chunked() || !may_upload(self.socket());
        if self.expects_continue() && is_received_first {
            self.send_continue();
        }
    }

    fn expects_continue(&self) -> bool {
        self.request.head.expect_continue && matches!(self.phase, Phase::Body { received: 0 })
    }

    /// Asks the client for a chunked body, which is received before the app is called. PEP 3333 allows that (section
    /// "HTTP 1.1 Expect/Continue").
    fn send_continue(&self) {
        match self.socket().try_send_continue() {
            Ok(0) => {}
            // The client has not read earlier responses. It may send the body unasked (RFC 9110, section 10.1.1).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.socket().tls().is_none() => {}
            // Only a part was sent, or the client is gone. The next read shows it.
            Ok(_) | Err(_) => self.socket().shutdown(),
        }
    }

    /// Lets the app read the rest of the body from the socket itself, if the body has a Content-Length and is too large
    /// to be received first, or if the client waits for `100 Continue`, which the app requests by reading. Returns
    /// false if the body must be received first, as every chunked body must: WSGI applications need its length.
    pub(super) fn begin_upload(&mut self, now: Instant) -> Result<bool, HttpError> {
        let expects_continue = self.expects_continue();
        let request = &mut self.request;
        let settings = &request.socket.context.settings;
        let Length::Known(length) = request.head.body else { return Ok(false) };
        let Phase::Body { received } = self.phase else { return Ok(false) };
        if (!expects_continue && length <= settings.body_buffer) || !may_upload(&request.socket) {
            return Ok(false);
        }
        if matches!(settings.concurrency, Concurrency::Fork { .. }) {
            request.head.keep_alive = false; // the parser of the parent does not see what a child reads
        }
        request.body.finish()?;
        let upload = Arc::new(Upload::new(
            &request.socket,
            length.saturating_sub(request.body.received()),
            expects_continue,
            (received, now.saturating_duration_since(self.since)),
        ));
        request.body.continue_from(Arc::clone(&upload), length);
        request.upload = Some(upload);
        self.enter(Phase::Complete, now);
        Ok(true)
    }

    pub(super) fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    pub(super) fn enter_head(&mut self, now: Instant) {
        self.request.began = now;
        self.enter(Phase::Head, now);
    }

    /// Stores body bytes: in the buffer, moved next to the body so far, or in a temporary file if memory is short.
    pub(super) fn store_body(&mut self, start: usize, end: usize) -> io::Result<()> {
        let length = self.request.head.body;
        let early = matches!(length, Length::Known(length) if length > self.context().settings.body_buffer);
        // The few bytes that came with the head of a body that the app reads itself must not reserve memory for the
        // whole body.
        let length = if early { Length::Known((end - start) as u64) } else { length };
        let socket = &self.request.socket;
        let budget = socket.stream().map_or(&socket.context.body_memory, |stream| stream.body_memory());
        self.request.body.store(start..end, length, &socket.context.settings, budget)
    }

    /// Removes consumed bytes after the body, so that chunk sizes and spooled bytes do not accumulate.
    pub(super) fn compact(&mut self) {
        let body = &mut self.request.body;
        if matches!(self.phase, Phase::Body { .. }) && self.parsed > body.end {
            body.bytes.drain(body.end..self.parsed);
            self.parsed = body.end;
            body.shrink();
        }
    }

    pub(super) fn read(&mut self, size: usize) -> io::Result<usize> {
        let buffer = &mut self.request.body.bytes;
        // Growing earlier would double the buffer of a client that sends single bytes.
        if buffer.capacity() - buffer.len() < size.min(MIN_READ) {
            buffer.reserve(size);
        }
        let offered = buffer.capacity() - buffer.len();
        let socket = &self.request.socket;
        let (count, has_more) = match self.phase {
            Phase::ProxyHeader => (socket.transport().read_raw(buffer)?, false),
            _ => socket.read(buffer)?,
        };
        // A short read means that the socket is empty, unless the end of the input follows, for which there may be no
        // further event.
        self.readiness.readable = has_more || count == offered || self.readiness.peer_closed.is_some();
        Ok(count)
    }

    pub(super) fn read_size(&self) -> usize {
        let Phase::Body { received } = self.phase else { return HEAD_READ };
        let body = &self.request.body;
        match self.request.head.body {
            Length::Known(length) => {
                let missing = length.saturating_sub(received);
                let limit = body.read_size(BODY_READ);
                usize::try_from(missing).unwrap_or(limit).clamp(HEAD_READ, limit)
            }
            Length::Chunked => body.read_size(CHUNKED_READ),
        }
    }

    /// The client sends no more. Between requests that is a clean end. Within a request the client may still read an
    /// error response.
    fn input_ended(&mut self, now: Instant) -> Next {
        self.readiness.readable = false;
        let left = &self.request.body.bytes[self.parsed..];
        if self.parser.is_between_requests() && matches!(left, b"" | b"\r\n") {
            return Next::Close;
        }
        self.reject(400, "the connection was closed before the request was complete", now)
    }
}

/// Whether the app may read a body from the socket itself. A child process has no TLS or HTTP/2 session.
fn may_upload(socket: &ClientSocket) -> bool {
    !socket.has_session() || !matches!(socket.context.settings.concurrency, Concurrency::Fork { .. })
}

impl From<mlws_http1::Error> for HttpError {
    fn from(error: mlws_http1::Error) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

impl From<io::Error> for HttpError {
    /// Only writing to the temporary file of a body fails with an I/O error.
    fn from(error: io::Error) -> Self {
        log::error!("storing a request body failed: {error}");
        Self { status: 507, message: "the request body cannot be stored".into() }
    }
}
