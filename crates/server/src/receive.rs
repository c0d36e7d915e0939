//! The first half of a connection's way: bytes from the socket through the parser into a complete request, or a refusal.

use std::{io, sync::Arc, time::Instant};

use mlws_http1::{Event, Length, ProxyError, ProxyHeader};

use crate::{
    Response,
    connection::{Connection, Next, Phase},
    wire::Peer,
};

/// How many bytes are read and forgotten before the connection is closed under a client that goes on sending.
const LINGER_BYTES: usize = 16 << 20;
/// How many reads of one socket are done before others have their turn.
const READS_IN_A_TURN: usize = 16;
/// The room made for one read: of a head, and of a body.
const HEAD_ROOM: usize = 4 * 1024;
const BODY_ROOM: usize = 256 * 1024;
/// With so much room left, none is made.
const LEAST_ROOM: usize = 1024;

/// Why a request is not served.
struct Refusal {
    status: u16,
    why: String,
}

impl Connection {
    /// Reads and parses until a request is complete, something is wrong, or there is nothing more to read for now.
    pub(crate) fn receive(&mut self, now: Instant) -> Next {
        for _ in 0..READS_IN_A_TURN {
            match self.parse(now) {
                Ok(true) => return Next::Run,
                Ok(false) if !self.readable => return Next::Wait,
                Ok(false) => {}
                Err(refusal) => return self.refuse(refusal.status, &refusal.why, now),
            }
            match self.read() {
                Ok(0) => return self.input_ended(now),
                Ok(count) if self.phase == Phase::Body => self.received += count as u64,
                Ok(count) if self.request.body.bytes.len() == count => self.enter(Phase::Head, now),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => return Next::Close,
            }
        }
        Next::Wait
    }

    /// Answers `status` in the server's own words and ends the connection. What the client still sends is not parsed.
    pub(crate) fn refuse(&mut self, status: u16, why: &str, now: Instant) -> Next {
        log::debug!("refused {}:{} with {status}: {why}", self.wire().peer.address, self.wire().peer.port);
        if matches!(self.phase, Phase::Idle | Phase::Head) {
            self.request.is_head = false;
        }
        self.parser.stop();
        self.refused = true;
        let text = format!("{status} {}: {why}\n", mlws_http1::reason(status));
        let mut response = Response::plain(status, text);
        if status == 503 {
            response = response.field("Retry-After", "1").unwrap_or_else(|_| Response::plain(503, ""));
        }
        self.request.head.keep_alive = false;
        self.respond(response);
        self.send(now)
    }

    /// Reads and forgets until the client closes.
    #[inline(never)] // its scratch on the stack of every caller would cost a forked child four pages
    pub(crate) fn linger(&mut self, left: usize) -> Next {
        let mut scratch = [0; 16 * 1024];
        let mut left = left;
        while left > 0 {
            match self.wire().discard(&mut scratch) {
                Ok(0) => return Next::Close,
                Ok(count) => left = left.saturating_sub(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    self.phase = Phase::Lingering { left };
                    return Next::Wait;
                }
                Err(_) => return Next::Close,
            }
        }
        Next::Close
    }

    pub(crate) fn start_lingering(&mut self, now: Instant) -> Next {
        self.wire().finish_writing();
        self.since = now;
        self.readable = true;
        self.linger(LINGER_BYTES)
    }

    /// Makes the buffer begin with the first byte behind the request just served.
    pub(crate) fn expect_next_request(&mut self, now: Instant) {
        self.wire().reopen();
        self.request.body.bytes.drain(..self.parsed);
        self.request.body.clear();
        self.request.told_client = None;
        self.parsed = 0;
        let begun = !self.request.body.bytes.is_empty();
        self.request.began = now;
        self.enter(if begun { Phase::Head } else { Phase::Idle }, now);
        // Bytes of a next request may be here already; trying costs nothing where there are none.
        self.readable |= begun;
    }

    /// Parses what is there. True: the request is complete. False: more bytes are needed.
    fn parse(&mut self, now: Instant) -> Result<bool, Refusal> {
        if self.awaits_proxy && !self.hear_proxy()? {
            return Ok(false);
        }
        loop {
            let request = &mut self.request;
            let Some(event) = self.parser.next(&request.body.bytes[self.parsed..], &mut request.head)? else {
                self.compact();
                return Ok(false);
            };
            match event {
                Event::Head => {
                    self.parsed += self.request.head.len;
                    self.request.body.begin_at(self.parsed);
                    self.request.is_head = self.request.method() == "HEAD";
                    self.received = (self.request.body.bytes.len() - self.parsed) as u64;
                    self.enter(Phase::Body, now);
                    self.say_continue();
                }
                Event::Data { payload, consumed } => {
                    let at = self.parsed;
                    self.keep(at + payload.start, at + payload.end)?;
                    self.parsed += consumed;
                }
                Event::End { consumed } => {
                    self.parsed += consumed;
                    self.request.body.rewind()?;
                    self.enter(Phase::Complete, now);
                    return Ok(true);
                }
            }
        }
    }

    /// Takes the PROXY header off the front: from here on the peer is the one that it tells. False: more bytes are needed.
    fn hear_proxy(&mut self) -> Result<bool, Refusal> {
        let wire = &self.request.wire;
        let Some(protocol) = &wire.house.settings.proxy_protocol else { return Ok(true) };
        let (may, found) = (
            protocol.from.include(wire.peer.ip),
            ProxyHeader::read(&self.request.body.bytes, protocol.versions),
        );
        let (header, length) = match found {
            Ok(None) => return Ok(false),
            Ok(Some(found)) if may => found,
            Err(ProxyError::Missing) if !may => (ProxyHeader::Local, 0),
            Err(error) if may => return Err(self.no_proxy(400, &error.to_string())),
            _ => return Err(self.no_proxy(403, "this peer may not send a PROXY header")),
        };
        self.awaits_proxy = false;
        self.request.body.bytes.drain(..length);
        let trusted = &wire.house.settings.trusted;
        let peer = match header {
            ProxyHeader::Local => return Ok(true),
            // Whoever it is, it is not the proxy that speaks.
            ProxyHeader::Unknown => Peer { is_trusted: false, ..wire.peer.clone() },
            ProxyHeader::Tcp { source, destination } => {
                let peer = Peer::new(Some(source.ip()), source.port());
                Peer { is_trusted: trusted.include(peer.ip), destination: Some(destination), ..peer }
            }
        };
        let wire = Arc::get_mut(&mut self.request.wire);
        wire.map(|wire| wire.peer = peer)
            .ok_or_else(|| Refusal { status: 500, why: "the connection is in use".into() })?;
        Ok(true)
    }

    /// The operator hears of it: either the proxy is not set up as this server is, or somebody tries to pass for one.
    fn no_proxy(&self, status: u16, why: &str) -> Refusal {
        let peer = &self.wire().peer;
        let client = if peer.address.is_empty() { "a Unix socket" } else { &peer.address };
        log::warn!("refused a connection from {client}: {why}");
        Refusal { status, why: why.to_owned() }
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        if phase == Phase::Head {
            self.request.began = now;
        }
        self.phase = phase;
        self.since = now;
    }

    /// Keeps body bytes: in the buffer, moved up to the body so far, or in a temporary file once they are too many.
    fn keep(&mut self, start: usize, end: usize) -> io::Result<()> {
        let house = Arc::clone(&self.request.wire.house);
        let body = &mut self.request.body;
        let fits = !body.is_spooled()
            && (body.end - body.begin + (end - start) <= house.settings.body_in_memory
                || matches!(self.request.head.body, Length::Known(length) if body.has_place(&house, length)));
        if fits {
            body.append(start..end);
            Ok(())
        } else {
            body.spool(&house.settings.temporary, start..end)
        }
    }

    /// Drops consumed bytes behind the body, so that chunk lines and spooled bytes do not pile up.
    fn compact(&mut self) {
        let body = &mut self.request.body;
        if self.phase == Phase::Body && self.parsed > body.end {
            body.bytes.drain(body.end..self.parsed);
            self.parsed = body.end;
        }
    }

    fn read(&mut self) -> io::Result<usize> {
        let room = if self.phase == Phase::Body { self.body_room() } else { HEAD_ROOM };
        let buffer = &mut self.request.body.bytes;
        // Not before the room runs out: what comes by single bytes would make its buffer twice and twice again as large.
        if buffer.capacity() - buffer.len() < room.min(LEAST_ROOM) {
            buffer.reserve(room);
        }
        let offered = buffer.capacity() - buffer.len();
        let count = self.request.wire.read(buffer)?;
        // A short read has emptied the socket; only the end of the input could follow without another event.
        self.readable = count == offered || self.peer_done;
        Ok(count)
    }

    fn body_room(&self) -> usize {
        match self.request.head.body {
            Length::Known(length) => {
                let missing = length.saturating_sub(self.received);
                usize::try_from(missing).unwrap_or(BODY_ROOM).clamp(HEAD_ROOM, BODY_ROOM)
            }
            Length::Chunked => BODY_ROOM / 8,
        }
    }

    /// `100 Continue`, where the client waits for it before it sends the body (RFC 9110, section 10.1.1).
    fn say_continue(&mut self) {
        let wanted = self.request.head.expect_continue && self.request.head.body != Length::Known(0);
        if wanted && self.parsed == self.request.body.bytes.len() {
            // Nothing else is on its way out, so there is room; a client that is gone shows itself at the next read.
            let _ = self.wire().send_interim(mlws_http1::CONTINUE, false);
        }
    }

    /// The client sends no more. Between requests that is a clean end; within one it is told, in case it still reads.
    fn input_ended(&mut self, now: Instant) -> Next {
        self.readable = false;
        let left = &self.request.body.bytes[self.parsed..];
        if self.parser.is_between_requests() && matches!(left, b"" | b"\r\n") {
            return Next::Close;
        }
        self.refuse(400, "the request ended before it was complete", now)
    }
}

impl From<mlws_http1::Error> for Refusal {
    fn from(error: mlws_http1::Error) -> Self {
        Self { status: error.status(), why: error.to_string() }
    }
}

impl From<io::Error> for Refusal {
    /// Only the temporary file of a body fails this way.
    fn from(error: io::Error) -> Self {
        log::error!("a request body could not be stored: {error}");
        Self { status: 507, why: "there is no room to store the request's body".into() }
    }
}
