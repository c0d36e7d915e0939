//! Parses segments as a server does, and records the result. The fuzz targets use this file, too.
//!
//! [`parse`] follows the contract of [`Parser::next`] exactly and checks every event: how many bytes it consumes, how
//! many the caller must keep, and how often the parser is called.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::ops::Range;
use std::sync::Arc;

use mlws_http1::{Error, Event, Field, Head, Length, Limits, Parser, Version};

/// The parsed messages and the final state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// The messages. The last one may be incomplete.
    pub messages: Vec<Message>,
    /// The position of each message in the input, as far as it was consumed.
    pub extents: Vec<Extent>,
    /// The final state.
    pub end: End,
}

/// The state at the end of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything was consumed, and another request may follow.
    BetweenRequests,
    /// A head or a body is incomplete.
    Incomplete,
    /// The last message closes the connection. Later input was not parsed.
    Closed,
    /// The request was rejected. Later input was not parsed.
    Error(Error),
}

/// A message, copied from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// The part of the target before the question mark.
    pub path: Vec<u8>,
    /// The part of the target after the question mark.
    pub query: Vec<u8>,
    /// The authority of the target, or the Host field.
    pub host: Option<Vec<u8>>,
    /// The HTTP version.
    pub version: Version,
    /// Names and values, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// How the body is delimited.
    pub length: Length,
    /// Whether another request may follow.
    pub keep_alive: bool,
    /// Whether the client waits for 100 Continue.
    pub expect_continue: bool,
    /// The decoded data received so far.
    pub body: Vec<u8>,
    /// Whether the message is complete.
    pub is_complete: bool,
}

/// The position of a message in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// The index of the first byte of the body.
    pub body: usize,
    /// The range from its first byte through the last consumed byte.
    pub all: Range<usize>,
}

/// Parses a connection whose input arrives in these segments.
pub fn parse<'a>(limits: &Limits, segments: impl IntoIterator<Item = &'a [u8]>) -> Transcript {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let mut transcript = Transcript { messages: Vec::new(), extents: Vec::new(), end: End::BetweenRequests };
    let mut input = Vec::new();
    let (mut consumed, mut received, mut calls, mut segment_count) = (0, 0, 0, 0);
    for segment in segments {
        input.extend_from_slice(segment);
        received += segment.len();
        segment_count += 1;
        let mut start = 0;
        loop {
            // At most one event per byte: data is never empty, and each message has one head and one end.
            calls += 1;
            assert!(
                calls <= segment_count + received,
                "{calls} calls for {received} bytes in {segment_count} segments"
            );
            let rest = &input[start..];
            match parser.next(rest, &mut head) {
                Ok(Some(event)) => {
                    let length = transcript.record(&event, &head, rest, consumed, limits);
                    start += length;
                    consumed += length;
                }
                Ok(None) => {
                    assert_eq!(
                        parser.next(rest, &mut head),
                        Ok(None),
                        "the same input returned another event"
                    );
                    break;
                }
                Err(error) => {
                    check_error_is_final(error, &mut parser, &mut head);
                    transcript.end = End::Error(error);
                    return transcript;
                }
            }
        }
        input.drain(..start);
        if transcript.is_closed() {
            input.clear();
        }
        transcript.check_kept(input.len(), limits);
    }
    let in_body = transcript.messages.last().is_some_and(|message| !message.is_complete);
    assert_eq!(parser.is_between_requests(), !in_body);
    transcript.end = match () {
        () if transcript.is_closed() => End::Closed,
        () if in_body || !input.is_empty() => End::Incomplete,
        () => End::BetweenRequests,
    };
    transcript
}

fn check_error_is_final(error: Error, parser: &mut Parser, head: &mut Head) {
    assert!((400..=505).contains(&error.status()) && !error.to_string().is_empty());
    for input in [&b"GET / HTTP/1.0\r\n\r\n"[..], b"", b"0\r\n\r\n"] {
        assert_eq!(parser.next(input, head), Err(error), "an error must be final");
        parser.stop();
        assert!(!parser.is_between_requests());
    }
}

impl Transcript {
    /// Records an event and returns the number of bytes it consumed.
    fn record(&mut self, event: &Event, head: &Head, input: &[u8], at: usize, limits: &Limits) -> usize {
        let consumed = match event {
            Event::Head => {
                assert!(self.messages.last().is_none_or(|last| last.is_complete && last.keep_alive));
                check_head(head, input, limits);
                self.messages.push(Message::new(head, input));
                self.extents.push(Extent { body: at + head.len, all: at..at });
                head.len
            }
            Event::Data { payload, consumed } => {
                let message = self.messages.last_mut().expect("data without a head");
                assert!(!message.is_complete && !payload.is_empty() && payload.end <= *consumed);
                message.body.extend_from_slice(&input[payload.clone()]);
                assert!(message.body.len() as u64 <= limits.body);
                *consumed
            }
            Event::End { consumed } => {
                let message = self.messages.last_mut().expect("end without a head");
                assert!(!message.is_complete);
                message.is_complete = true;
                if let Length::Known(length) = message.length {
                    assert_eq!((message.body.len() as u64, *consumed), (length, 0));
                }
                *consumed
            }
        };
        assert!(consumed <= input.len());
        self.extents.last_mut().expect("event without a message").all.end = at + consumed;
        consumed
    }

    fn is_closed(&self) -> bool {
        self.messages.last().is_some_and(|message| message.is_complete && !message.keep_alive)
    }

    /// The number of bytes that the parser makes the caller keep is bounded.
    fn check_kept(&self, kept: usize, limits: &Limits) {
        let max = match self.messages.last() {
            Some(Message { is_complete: false, length: Length::Known(_), .. }) => 0,
            // CRLF, 16 digits, extensions, CRLF; or trailers and the final CRLF.
            Some(Message { is_complete: false, .. }) => limits.chunk_extensions + limits.trailers + 22,
            _ => limits.head,
        };
        assert!(kept <= max, "{kept} bytes kept, expected at most {max}");
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

    /// Encodes the message. The result is never longer than the original.
    pub fn encode(&self) -> Vec<u8> {
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
