//! Reads segments as a server does, and says what came of it.
//!
//! The one thing to know: the reader keeps the parser's contract to the letter, and checks while it reads what must
//! hold of every event: what it consumes, how much it holds, how often the parser has to be called.

use std::ops::Range;
use std::sync::Arc;

use mlws_http1::{Error, Event, Field, Head, Length, Limits, Parser, Version};

/// All that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The messages, the last of which may not be complete.
    pub messages: Vec<Message>,
    /// Where each of them stands in the input, as far as it was consumed.
    pub places: Vec<Place>,
    /// How it ended.
    pub end: End,
}

/// How a reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was consumed, and another request may come.
    BetweenRequests,
    /// A head or a body is not complete.
    Incomplete,
    /// The last message closed the connection; what followed was not looked at.
    Closed,
    /// The request was refused; what followed was not looked at.
    Error(Error),
}

/// A message, copied out of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// As sent.
    pub method: String,
    /// As sent.
    pub target: String,
    /// The part of the target before the question mark.
    pub path: Vec<u8>,
    /// The part of the target behind it.
    pub query: Vec<u8>,
    /// Of the target or the Host field.
    pub host: Option<Vec<u8>>,
    /// As sent.
    pub version: Version,
    /// Names and values, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How the body is delimited.
    pub length: Length,
    /// Another request may follow.
    pub keep_alive: bool,
    /// The client waits for 100.
    pub expect_continue: bool,
    /// Decoded, as far as it came.
    pub body: Vec<u8>,
    /// The end was seen.
    pub is_complete: bool,
}

/// Where a message stands in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Index of the first byte of the body.
    pub body: usize,
    /// From its first byte to the last that was consumed.
    pub all: Range<usize>,
}

/// Reads the segments one after the other.
pub fn read<'a>(limits: &Limits, segments: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let mut reading = Reading { messages: Vec::new(), places: Vec::new(), end: End::BetweenRequests };
    let mut input = Vec::new();
    let (mut consumed, mut received, mut calls, mut turns) = (0, 0, 0, 0);
    for segment in segments {
        input.extend_from_slice(segment);
        received += segment.len();
        turns += 1;
        let mut start = 0;
        loop {
            // Data is never empty, a head is longer than "x / HTTP/1.0", and each has one end.
            calls += 1;
            assert!(calls <= turns + received, "{calls} calls for {received} bytes in {turns} segments");
            let rest = &input[start..];
            match parser.next(rest, &mut head) {
                Ok(Some(event)) => {
                    let length = reading.take(&event, &head, rest, consumed, limits);
                    start += length;
                    consumed += length;
                }
                Ok(None) => {
                    assert_eq!(parser.next(rest, &mut head), Ok(None), "asked again, it answers otherwise");
                    break;
                }
                Err(error) => {
                    nothing_is_parsed_after(error, &mut parser, &mut head);
                    reading.end = End::Error(error);
                    return reading;
                }
            }
        }
        input.drain(..start);
        if reading.is_closed() {
            input.clear();
        }
        reading.check_held(input.len(), limits);
    }
    let in_body = reading.messages.last().is_some_and(|message| !message.is_complete);
    assert_eq!(parser.is_between_requests(), !in_body);
    reading.end = match () {
        () if reading.is_closed() => End::Closed,
        () if in_body || !input.is_empty() => End::Incomplete,
        () => End::BetweenRequests,
    };
    reading
}

fn nothing_is_parsed_after(error: Error, parser: &mut Parser, head: &mut Head) {
    assert!((400..=505).contains(&error.status()) && !error.to_string().is_empty());
    for input in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"", b"0\r\n\r\n"] {
        assert_eq!(parser.next(input, head), Err(error), "an error is final");
        parser.stop();
        assert!(!parser.is_between_requests());
    }
}

impl Reading {
    /// Notes an event and returns how many bytes it consumed.
    fn take(&mut self, event: &Event, head: &Head, input: &[u8], at: usize, limits: &Limits) -> usize {
        let consumed = match event {
            Event::Head => {
                assert!(self.messages.last().is_none_or(|last| last.is_complete && last.keep_alive));
                check_head(head, input, limits);
                self.messages.push(Message::new(head, input));
                self.places.push(Place { body: at + head.len, all: at..at });
                head.len
            }
            Event::Data { payload, consumed } => {
                let message = self.messages.last_mut().expect("data follows a head");
                assert!(!message.is_complete && !payload.is_empty() && payload.end <= *consumed);
                message.body.extend_from_slice(&input[payload.clone()]);
                assert!(message.body.len() as u64 <= limits.body);
                *consumed
            }
            Event::End { consumed } => {
                let message = self.messages.last_mut().expect("an end follows a head");
                assert!(!message.is_complete);
                message.is_complete = true;
                if let Length::Known(length) = message.length {
                    assert_eq!((message.body.len() as u64, *consumed), (length, 0));
                }
                *consumed
            }
        };
        assert!(consumed <= input.len());
        self.places.last_mut().expect("an event is of a message").all.end = at + consumed;
        consumed
    }

    fn is_closed(&self) -> bool {
        self.messages.last().is_some_and(|message| message.is_complete && !message.keep_alive)
    }

    /// What the parser makes the caller keep has a bound.
    fn check_held(&self, held: usize, limits: &Limits) {
        let most = match self.messages.last() {
            Some(Message { is_complete: false, length: Length::Known(_), .. }) => 0,
            // "CRLF, 16 digits, extensions, CRLF", and the end of the trailers.
            Some(Message { is_complete: false, .. }) => limits.chunk_extensions + limits.trailers + 22,
            _ => limits.head,
        };
        assert!(held <= most, "{held} bytes are held, of {most}");
    }
}

fn check_head(head: &Head, input: &[u8], limits: &Limits) {
    assert!(head.len <= input.len().min(limits.head) && input[..head.len].ends_with(b"\r\n\r\n"));
    let length = |span: mlws_http1::Span| span.of(&input[..head.len]).len();
    assert!((1..=32).contains(&length(head.method)) && length(head.target) > 0);
    assert!(length(head.method) + length(head.target) + " HTTP/1.1 ".len() <= limits.request_line);
    assert!(head.fields.len() <= limits.fields && head.fields.capacity() <= 4.max(2 * limits.fields));
    for field in &head.fields {
        assert!(
            length(field.name) > 0
                && length(field.name) + length(field.value) + ":\r\n".len() <= limits.field_size
        );
    }
    assert!(!matches!(head.body, Length::Known(length) if length > limits.body));
    assert!(!head.expect_continue || head.body != Length::Known(0));
}

impl Message {
    fn new(head: &Head, input: &[u8]) -> Self {
        let field = |field: &Field| (field.name.of(input).to_vec(), field.value.of(input).to_vec());
        Message {
            method: head.method(input).to_owned(),
            target: head.target(input).to_owned(),
            path: head.path.of(input).to_vec(),
            query: head.query.of(input).to_vec(),
            host: head.host.map(|host| host.of(input).to_vec()),
            version: head.version,
            fields: head.fields.iter().map(field).collect(),
            length: head.body,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            body: Vec::new(),
            is_complete: false,
        }
    }

    /// The message as it may stand on the wire; never longer than it stood there.
    pub fn write(&self) -> Vec<u8> {
        let mut wire = format!("{} {} {}\r\n", self.method, self.target, self.version.as_str()).into_bytes();
        for (name, value) in &self.fields {
            wire.extend([name, &b":"[..], value, b"\r\n"].concat());
        }
        wire.extend_from_slice(b"\r\n");
        match self.length {
            Length::Known(_) => wire.extend_from_slice(&self.body),
            Length::Chunked => {
                if !self.body.is_empty() {
                    wire.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
                    wire.extend_from_slice(&self.body);
                    wire.extend_from_slice(b"\r\n");
                }
                wire.extend_from_slice(b"0\r\n\r\n");
            }
        }
        wire
    }
}
