//! Reads bytes the way a server does, in pieces, and says what came of it.
//!
//! The one thing to know: while it reads it checks what must hold of every event, so each test that uses it
//! checks that too.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::Arc;

use mlws_http1::{Error, Event, Head, Length, Limits, Parser};

/// All that was read: the messages, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    pub messages: Vec<Message>,
    pub end: End,
    /// How many bytes were consumed.
    pub consumed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything was consumed and another request may come.
    BetweenRequests,
    /// A head or a body is not complete.
    Incomplete,
    /// The last message closed the connection.
    Closed,
    Error(Error),
}

/// A message with everything copied out of the input.
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

/// Reads `pieces` one after the other.
pub(crate) fn read<'a>(limits: &Limits, pieces: impl IntoIterator<Item = &'a [u8]>) -> Reading {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let mut reading = Reading { messages: Vec::new(), end: End::BetweenRequests, consumed: 0 };
    let mut input = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut start = 0;
        loop {
            let rest = &input[start..];
            match parser.next(rest, &mut head) {
                Ok(Some(event)) => {
                    let consumed = reading.take(&event, &head, rest);
                    start += consumed;
                    reading.consumed += consumed;
                }
                Ok(None) => {
                    assert_eq!(parser.next(rest, &mut head), Ok(None), "asking again changed the answer");
                    break;
                }
                Err(error) => {
                    assert_eq!(
                        parser.next(b"GET / HTTP/1.0\r\n\r\n", &mut head),
                        Err(error),
                        "an error is final"
                    );
                    parser.stop();
                    assert_eq!(parser.next(b"", &mut head), Err(error), "also after a stop");
                    assert!(!parser.is_between_requests());
                    reading.end = End::Error(error);
                    return reading;
                }
            }
        }
        input.drain(..start);
    }
    reading.end = match reading.messages.last() {
        Some(message) if !message.is_complete => End::Incomplete,
        Some(message) if !message.keep_alive => End::Closed,
        _ if !input.is_empty() => End::Incomplete,
        _ => End::BetweenRequests,
    };
    let in_body = reading.messages.last().is_some_and(|message| !message.is_complete);
    assert_eq!(parser.is_between_requests(), !in_body);
    reading
}

impl Reading {
    /// Notes an event and returns how many bytes it consumed.
    fn take(&mut self, event: &Event, head: &Head, input: &[u8]) -> usize {
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
