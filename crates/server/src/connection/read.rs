//! The first half of a connection's way: bytes from the socket through the parser into a complete request, or a refusal.

use std::{io, sync::Arc, time::Instant};

use mlws_http1::{Event, Length, ProxyError, ProxyHeader};

use crate::{
    Concurrency, Response,
    connection::{Connection, Next, Phase},
    peer::Peer,
    upload::Upload,
};

/// How many bytes are read and forgotten before the connection is closed under a client that goes on sending.
const LINGER_BYTES: u64 = 16 << 20;
/// How many bytes of one socket are read before others have their turn.
const MAX_BYTES_PER_ITERATION: usize = 512 * 1024;
/// The room made for one read: of a head, of a body, and of a chunked one, which takes longer to parse.
const HEAD_READ: usize = 4 * 1024;
const BODY_READ: usize = 256 * 1024;
const CHUNKED_READ: usize = 32 * 1024;
/// With so much room left, none is made.
const MIN_READ: usize = 1024;

/// Why a request is not served.
struct HttpError {
    status: u16,
    message: String,
}

impl Connection {
    /// Reads and parses until the app can be called, something is wrong, or there is nothing more to read for now.
    pub(crate) fn receive(&mut self, now: Instant) -> Next {
        let mut left = MAX_BYTES_PER_ITERATION;
        loop {
            match self.parse(now) {
                Ok(true) => return Next::Run,
                Ok(false) if !self.readiness.readable || left == 0 => return Next::Wait,
                Ok(false) => {}
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

    /// Answers `status` in the server's own words and ends the connection. What the client still sends is not parsed.
    pub(crate) fn reject(&mut self, status: u16, message: &str, now: Instant) -> Next {
        log::debug!("rejected a request from {}: {status} {message}", self.socket().peer.name());
        if matches!(self.phase, Phase::ProxyHeader | Phase::Idle | Phase::Head) {
            self.request.is_head = self.request.body.bytes[self.parsed..].starts_with(b"HEAD ");
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

    /// Reads and forgets until the client closes.
    pub(crate) fn linger(&mut self, left: u64) -> Next {
        let turn = left.min(MAX_BYTES_PER_ITERATION as u64);
        let Ok(unread) = self.discard(turn) else { return Next::Close };
        let left = left - turn + unread;
        if left == 0 {
            return Next::Close;
        }
        self.phase = Phase::Lingering { left };
        Next::Wait
    }

    /// Reads and forgets up to `limit` bytes, or until the socket is empty. Returns how many of them are still to come; the end of the
    /// input is an error.
    #[inline(never)] // its scratch on the stack of every caller would cost a forked child four pages
    fn discard(&mut self, limit: u64) -> io::Result<u64> {
        let mut scratch = [0; 16 * 1024];
        let mut left = limit;
        while left > 0 && self.readiness.readable {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            match self.socket().discard(&mut scratch[..size]) {
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

    /// Makes the buffer begin with the first byte behind the request just served.
    pub(crate) fn expect_next_request(&mut self, now: Instant) {
        self.socket().reset_response();
        self.request.body.bytes.drain(..self.parsed);
        self.request.body.clear();
        self.request.told_client = None;
        self.parsed = 0;
        let begun = !self.request.body.bytes.is_empty();
        self.request.began = now;
        self.enter(if begun { Phase::Head } else { Phase::Idle }, now);
        // Bytes of a next request may be here already; trying costs nothing where there are none.
        self.readiness.readable |= begun;
    }

    /// The response is sent, and another request may follow once what is left of this one's body is out of the way.
    pub(crate) fn await_next_request(&mut self, now: Instant) -> Next {
        let Some(upload) = self.request.upload.take() else {
            self.expect_next_request(now);
            return Next::Wait;
        };
        let Some(missing) = upload.end() else { return self.start_lingering(now) };
        // All that was received before the call is parsed.
        self.request.body.clear();
        self.request.body.bytes.clear();
        self.parsed = 0;
        // What its thread has left in the socket was not noted anywhere.
        self.readiness.readable = true;
        self.enter(Phase::Draining { left: missing }, now);
        self.drain(missing, now)
    }

    /// Nobody reads the body any more, whatever the app does. True if some of it had not been received.
    pub(crate) fn end_upload(&mut self) -> bool {
        let Some(upload) = self.request.upload.take() else { return false };
        upload.end().is_none_or(|missing| missing > 0)
    }

    /// Reads and drops the rest of a body that the app has not read.
    pub(crate) fn drain(&mut self, left: u64, now: Instant) -> Next {
        match self.discard(left) {
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

    /// Parses what is there. True: the app can be called. False: more bytes are needed.
    fn parse(&mut self, now: Instant) -> Result<bool, HttpError> {
        if matches!(self.phase, Phase::ProxyHeader) && !self.parse_proxy_header()? {
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
                    if self.expects_continue() && self.request.is_chunked() {
                        self.send_continue();
                    }
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

    fn expects_continue(&self) -> bool {
        self.request.head.expect_continue && matches!(self.phase, Phase::Body { received: 0 })
    }

    /// Asks the client for a chunked body, which is received before the application is called. PEP 3333, section "HTTP 1.1
    /// Expect/Continue", allows that.
    fn send_continue(&self) {
        match self.socket().send_interim(mlws_http1::CONTINUE, false) {
            Ok(sent) if sent == mlws_http1::CONTINUE.len() => {}
            // The client has not read earlier responses. It may send the body unasked (RFC 9110, section 10.1.1).
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Cut off in the middle, or the client is gone, which the next read shows.
            Ok(_) | Err(_) => self.socket().shutdown(),
        }
    }

    /// Has the app read the rest of a body with a Content-Length from the socket itself, if the body is too large to be received first,
    /// or the client waits for `100 Continue`, which is the app's to ask for. False: the body is received first. A chunked body always
    /// is, for WSGI applications need its length.
    fn begin_upload(&mut self, now: Instant) -> Result<bool, HttpError> {
        let expects_continue = self.expects_continue();
        let request = &mut self.request;
        let settings = &request.socket.context.settings;
        let Length::Known(length) = request.head.body else { return Ok(false) };
        let Phase::Body { received } = self.phase else { return Ok(false) };
        if !expects_continue && length <= settings.body_buffer {
            return Ok(false);
        }
        if matches!(settings.concurrency, Concurrency::Fork { .. }) {
            request.head.keep_alive = false; // what a child reads, the parser of its parent does not see
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

    /// Takes the PROXY header off the front: from here on the peer is the one that it tells. False: more bytes are needed.
    fn parse_proxy_header(&mut self) -> Result<bool, HttpError> {
        let socket = &self.request.socket;
        let Some(protocol) = &socket.context.settings.proxy_protocol else { return Ok(true) };
        let is_proxy = protocol.from.include(socket.peer.ip);
        let parsed = ProxyHeader::parse(&self.request.body.bytes, protocol.versions);
        let (header, length) = match parsed {
            Ok(None) => return Ok(false),
            Ok(Some(parsed)) if is_proxy => parsed,
            Err(ProxyError::Missing) if !is_proxy => (ProxyHeader::Local, 0),
            Err(error) if is_proxy => return Err(self.proxy_error(400, &error.to_string())),
            _ => return Err(self.proxy_error(403, "this peer may not send a PROXY header")),
        };
        self.phase = Phase::Head;
        self.request.body.bytes.drain(..length);
        let trusted = &socket.context.settings.trusted;
        let peer = match header {
            ProxyHeader::Local => return Ok(true),
            // Whoever it is, it is not the proxy that speaks.
            ProxyHeader::Unknown => Peer { is_trusted: false, ..socket.peer.clone() },
            ProxyHeader::Tcp { source, destination } => {
                let peer = Peer::new(Some(source.ip()), source.port());
                Peer { is_trusted: trusted.include(peer.ip), destination: Some(destination), ..peer }
            }
        };
        let socket = Arc::get_mut(&mut self.request.socket);
        socket
            .map(|socket| socket.peer = peer)
            .ok_or_else(|| HttpError { status: 500, message: "the connection is in use".into() })?;
        Ok(true)
    }

    /// The operator hears of it: either the proxy is not set up as this server is, or somebody tries to pass for one.
    fn proxy_error(&self, status: u16, message: &str) -> HttpError {
        let peer = &self.socket().peer;
        log::warn!("rejected a connection from {}: {message}", peer.name());
        HttpError { status, message: message.to_owned() }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.phase = phase;
        self.since = now;
    }

    fn enter_head(&mut self, now: Instant) {
        self.request.began = now;
        self.enter(Phase::Head, now);
    }

    /// Keeps body bytes: in the buffer, moved up to the body so far, or in a temporary file where memory is short.
    fn store_body(&mut self, start: usize, end: usize) -> io::Result<()> {
        let length = self.request.head.body;
        let early = matches!(length, Length::Known(length) if length > self.context().settings.body_buffer);
        // The little that came with the head of a body that is not received first takes no memory for the whole of it.
        let length = if early { Length::Known((end - start) as u64) } else { length };
        self.request.body.store(start..end, length, &self.request.socket.context)
    }

    /// Drops consumed bytes behind the body, so that chunk lines and spooled bytes do not pile up.
    fn compact(&mut self) {
        let body = &mut self.request.body;
        if matches!(self.phase, Phase::Body { .. }) && self.parsed > body.end {
            body.bytes.drain(body.end..self.parsed);
            self.parsed = body.end;
            body.shrink();
        }
    }

    fn read(&mut self, size: usize) -> io::Result<usize> {
        let buffer = &mut self.request.body.bytes;
        // Not before the room runs out: what comes by single bytes would make its buffer twice and twice again as large.
        if buffer.capacity() - buffer.len() < size.min(MIN_READ) {
            buffer.reserve(size);
        }
        let offered = buffer.capacity() - buffer.len();
        let count = self.request.socket.read(buffer)?;
        // A short read has emptied the socket; only the end of the input could follow without another event.
        self.readiness.readable = count == offered || self.readiness.peer_closed.is_some();
        Ok(count)
    }

    fn read_size(&self) -> usize {
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

    /// The client sends no more. Between requests that is a clean end; within one it is told, in case it still reads.
    fn input_ended(&mut self, now: Instant) -> Next {
        self.readiness.readable = false;
        let left = &self.request.body.bytes[self.parsed..];
        if self.parser.is_between_requests() && matches!(left, b"" | b"\r\n") {
            return Next::Close;
        }
        self.reject(400, "the connection was closed before the request was complete", now)
    }
}

impl From<mlws_http1::Error> for HttpError {
    fn from(error: mlws_http1::Error) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

impl From<io::Error> for HttpError {
    /// Only the temporary file of a body fails this way.
    fn from(error: io::Error) -> Self {
        log::error!("storing a request body failed: {error}");
        Self { status: 507, message: "the request body cannot be stored".into() }
    }
}
