//! A client made of raw frames.
#![allow(dead_code, missing_docs, unreachable_pub)] // each test file uses a part

use std::sync::Arc;
use std::time::Instant;

use mlws_http2::{Event, Head, Limits, PREFACE, Reason, ResponseHead, Session, StreamId};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 32;

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a.example")];
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", "a.example")];

/// A frame. The stream may include the reserved bit.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block in which every field is a literal without indexing.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            push_integer(&mut block, 0x7f, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer of RFC 7541, section 5.1, with a prefix of zero bits above `max`.
fn push_integer(block: &mut Vec<u8>, max: u8, value: usize) {
    if value < usize::from(max) {
        return block.push(value as u8);
    }
    block.push(max);
    let mut rest = value - usize::from(max);
    while rest >= 128 {
        block.push(rest as u8 | 128);
        rest >>= 7;
    }
    block.push(rest as u8);
}

/// HEADERS with the whole block and no body.
pub fn get(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, block(fields))
}

/// HEADERS with the whole block, to be followed by a body.
pub fn post(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, block(fields))
}

pub fn with(
    fields: &[(&'static str, &'static str)],
    more: &[(&'static str, &'static str)],
) -> Vec<(&'static str, &'static str)> {
    [fields, more].concat()
}

pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = values
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, payload)
}

pub fn window_update(stream: u32, increment: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, increment.to_be_bytes())
}

pub fn rst_stream(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, code.to_be_bytes())
}

/// A frame that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// Splits output into frames, all of which must be complete.
pub fn parse_frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<9>() {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let stream = u32::from_be_bytes(header[5..].try_into().unwrap());
        let payload = rest[..length].to_vec();
        frames.push(Frame { kind: header[3], flags: header[4], stream, payload });
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty(), "an incomplete frame: {bytes:?}");
    frames
}

/// A session and what it has returned.
pub struct Peer {
    pub session: Session,
    pub now: Instant,
    pub events: Vec<Event>,
    pub frames: Vec<Frame>,
}

impl Peer {
    /// A session before the preface.
    pub fn unconnected(limits: Limits) -> Self {
        let now = Instant::now();
        Peer { session: Session::new(Arc::new(limits), now), now, events: Vec::new(), frames: Vec::new() }
    }

    /// A session that has exchanged settings with the client. Its first frames are dropped.
    pub fn with_limits(limits: Limits) -> Self {
        Self::with_settings(limits, &[])
    }

    pub fn with_settings(limits: Limits, values: &[(u16, u32)]) -> Self {
        let mut peer = Self::unconnected(limits);
        peer.send(&[&PREFACE[..], &settings(values), &frame(SETTINGS, ACK, 0, b"")].concat());
        peer.frames.clear();
        peer
    }

    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    /// Passes bytes to the session and collects events and frames. All bytes must be consumed.
    pub fn send(&mut self, bytes: &[u8]) {
        let consumed = self.session.receive(bytes, self.now);
        assert_eq!(consumed, bytes.len());
        self.collect();
    }

    pub fn send_all(&mut self, parts: &[Vec<u8>]) {
        self.send(&parts.concat());
    }

    pub fn collect(&mut self) {
        let mut output = Vec::new();
        loop {
            self.events.extend(std::iter::from_fn(|| self.session.next_event()));
            let before = output.len();
            self.session.take_output(&mut output);
            if output.len() == before {
                break;
            }
        }
        self.events.extend(std::iter::from_fn(|| self.session.next_event()));
        self.frames.extend(parse_frames(&output));
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<(StreamId, &Head)> {
        let mut heads = Vec::new();
        for event in &self.events {
            if let Event::Head { stream, head } = event {
                heads.push((*stream, &**head));
            }
        }
        heads
    }

    /// The code of the GOAWAY that closed the connection, if it was an error.
    pub fn connection_error(&self) -> Option<Reason> {
        let last = self.frames.iter().rfind(|frame| frame.kind == GOAWAY);
        last.map(|frame| Reason::from(frame.number(4))).filter(|reason| *reason != Reason::NO_ERROR)
    }

    /// The streams that the server reset.
    pub fn resets(&self) -> Vec<(u32, Reason)> {
        let resets = self.frames.iter().filter(|frame| frame.kind == RST_STREAM);
        resets.map(|frame| (frame.stream, Reason::from(frame.number(0)))).collect()
    }

    /// Sends a response without a body.
    pub fn respond(&mut self, stream: u32) {
        self.session.respond(stream, ResponseHead::new(204).unwrap(), true).unwrap();
        self.collect();
    }

    /// Whether a new request is served.
    pub fn is_alive(&mut self) -> bool {
        self.events.clear();
        self.frames.clear();
        self.send(&get(9999, &GET));
        if self.heads().is_empty() {
            return false;
        }
        self.respond(9999);
        self.frames
            .iter()
            .any(|frame| frame.kind == HEADERS && frame.stream == 9999 && frame.payload == [0x89])
    }
}
