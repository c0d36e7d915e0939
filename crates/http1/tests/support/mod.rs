//! Parses input the way a server does, segment by segment, and checks the invariants of every event.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;

use mlws_http1::{Error, Event, Head, Length, Limits, Parser};

/// The parsed messages and the final state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub messages: Vec<Message>,
    pub end: End,
    /// The number of bytes consumed.
    pub consumed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was consumed, and another request may follow.
    BetweenRequests,
    /// A head or a body is incomplete.
    Incomplete,
    /// The last message closed the connection.
    Closed,
    Error(Error),
}

/// A message, copied from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub method: String,
    pub target: String,
    pub path: Vec<u8>,
    pub query: Vec<u8>,
    pub host: Option<Vec<u8>>,
    pub version: &'static str,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub length: Length,
    pub keep_alive: bool,
    pub expect_continue: bool,
    pub body: Vec<u8>,
    pub is_complete: bool,
}

/// Parses a connection whose input arrives in these segments.
pub(crate) fn parse<'a>(limits: &Limits, segments: impl IntoIterator<Item = &'a [u8]>) -> Transcript {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let mut transcript = Transcript { messages: Vec::new(), end: End::BetweenRequests, consumed: 0 };
    let mut input = Vec::new();
    for segment in segments {
        input.extend_from_slice(segment);
        let mut start = 0;
        loop {
            let rest = &input[start..];
            match parser.next(rest, &mut head) {
                Ok(Some(event)) => {
                    let consumed = transcript.record(&event, &head, rest);
                    start += consumed;
                    transcript.consumed += consumed;
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
                    assert_eq!(
                        parser.next(b"GET / HTTP/1.0\r\n\r\n", &mut head),
                        Err(error),
                        "an error must be final"
                    );
                    parser.stop();
                    assert_eq!(
                        parser.next(b"", &mut head),
                        Err(error),
                        "an error must be final even after stop()"
                    );
                    assert!(!parser.is_between_requests());
                    transcript.end = End::Error(error);
                    return transcript;
                }
            }
        }
        input.drain(..start);
    }
    transcript.end = match transcript.messages.last() {
        Some(message) if !message.is_complete => End::Incomplete,
        Some(message) if !message.keep_alive => End::Closed,
        _ if !input.is_empty() => End::Incomplete,
        _ => End::BetweenRequests,
    };
    let in_body = transcript.messages.last().is_some_and(|message| !message.is_complete);
    assert_eq!(parser.is_between_requests(), !in_body);
    transcript
}

impl Transcript {
    /// Records an event and returns the number of bytes it consumed.
    fn record(&mut self, event: &Event, head: &Head, input: &[u8]) -> usize {
        match event {
            Event::Head => {
                assert!(self.messages.last().is_none_or(|last| last.is_complete && last.keep_alive));
                assert!(head.len <= input.len() && input[..head.len].ends_with(b"\r\n\r\n"));
                self.messages.push(Message::new(head, input));
                head.len
            }
            Event::Data { payload, consumed } => {
                let message = self.messages.last_mut().expect("data follows a head");
                assert!(!message.is_complete && !payload.is_empty());
                assert!(payload.end <= *consumed && *consumed <= input.len());
                message.body.extend_from_slice(&input[payload.clone()]);
                *consumed
            }
            Event::End { consumed } => {
                let message = self.messages.last_mut().expect("an end follows a head");
                assert!(!message.is_complete && *consumed <= input.len());
                message.is_complete = true;
                if let Length::Known(length) = message.length {
                    assert_eq!((message.body.len() as u64, *consumed), (length, 0));
                }
                *consumed
            }
        }
    }
}

impl Message {
    fn new(head: &Head, input: &[u8]) -> Self {
        let field =
            |field: &mlws_http1::Field| (field.name.of(input).to_vec(), field.value.of(input).to_vec());
        Message {
            method: head.method(input).to_owned(),
            target: head.target(input).to_owned(),
            path: head.path.of(input).to_vec(),
            query: head.query.of(input).to_vec(),
            host: head.host.map(|host| host.of(input).to_vec()),
            version: head.version.as_str(),
            fields: head.fields.iter().map(field).collect(),
            length: head.body,
            keep_alive: head.keep_alive,
            expect_continue: head.expect_continue,
            body: Vec::new(),
            is_complete: false,
        }
    }
}
