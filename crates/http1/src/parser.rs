//! The way in: bytes to events.
//!
//! The one thing to know: all state transitions of a connection's reading side are in [`Parser::next`]. The
//! parser keeps no bytes; the caller keeps what was not consumed yet and shows it again with more behind it.

use std::ops::Range;
use std::sync::Arc;

use crate::chunked::Chunked;
use crate::error::Error;
use crate::fields;
use crate::head::{Head, Length};
use crate::limits::Limits;
use crate::scan::Scan;

/// What the next bytes of the input are. Each message is one `Head`, any number of `Data`, one `End`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A head is complete, and consumed [`Head::len`] bytes.
    Head,
    /// A piece of the body, never empty.
    Data {
        /// The body's own bytes, as indices into the input.
        payload: Range<usize>,
        /// How many bytes of input are done with; at least `payload.end`.
        consumed: usize,
    },
    /// The message is complete.
    End {
        /// How many bytes of input are done with: the last chunk and the trailers, which are dropped.
        consumed: usize,
    },
}

/// The reading side of one connection.
#[derive(Debug)]
pub struct Parser {
    limits: Arc<Limits>,
    state: State,
    /// Another request may follow the current one.
    keep_alive: bool,
}

#[derive(Debug)]
enum State {
    /// Between requests, or in a head.
    Head(Scan),
    /// In a body with so many bytes left.
    Body(u64),
    Chunked(Chunked),
    /// Whatever follows is not parsed.
    Closed,
    Failed(Error),
}

impl Parser {
    /// A parser for a new connection.
    pub fn new(limits: Arc<Limits>) -> Self {
        Parser { limits, state: State::Head(Scan::default()), keep_alive: true }
    }

    /// The next event, or `None` if the input does not hold one yet.
    ///
    /// `input` is everything received and not yet consumed. After `None` it is the same bytes with more behind
    /// them; after an event it starts behind the bytes that the event consumed. `head` is filled in place when
    /// the event is [`Event::Head`], and is of no use after `None` or an error.
    ///
    /// An error is final: it is returned for ever. After the end of a message that does not keep the connection
    /// alive `None` is.
    pub fn next(&mut self, input: &[u8], head: &mut Head) -> Result<Option<Event>, Error> {
        let event = self.advance(input, head);
        if let Err(error) = event {
            self.state = State::Failed(error);
        }
        event
    }

    fn advance(&mut self, input: &[u8], head: &mut Head) -> Result<Option<Event>, Error> {
        match &mut self.state {
            State::Head(scan) => {
                let Some((line, length)) = scan.head(input, &self.limits)? else { return Ok(None) };
                fields::read(&input[..length], &line, &self.limits, head)?;
                self.keep_alive = head.keep_alive;
                self.state = match head.body {
                    Length::Known(length) => State::Body(length),
                    Length::Chunked => State::Chunked(Chunked::default()),
                };
                Ok(Some(Event::Head))
            }
            State::Body(0) => {
                self.end_message();
                Ok(Some(Event::End { consumed: 0 }))
            }
            State::Body(_) if input.is_empty() => Ok(None),
            State::Body(left) => {
                let length = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                Ok(Some(Event::Data { payload: 0..length, consumed: length }))
            }
            State::Chunked(chunked) => {
                let event = chunked.next(input, &self.limits)?;
                if matches!(event, Some(Event::End { .. })) {
                    self.end_message();
                }
                Ok(event)
            }
            State::Closed => Ok(None),
            State::Failed(error) => Err(*error),
        }
    }

    fn end_message(&mut self) {
        self.state = if self.keep_alive { State::Head(Scan::default()) } else { State::Closed };
    }

    /// True between requests, and after the last one: nothing of a next one was consumed. If there is no input
    /// either, its end is a clean one.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Head(_) | State::Closed)
    }

    /// Ends the current message if its body has a Content-Length. The caller has read the rest of that body from the connection
    /// itself, so the next input starts behind it.
    pub fn skip_body(&mut self) {
        if matches!(self.state, State::Body(_)) {
            self.end_message();
        }
    }

    /// After an early final answer: whatever follows is not parsed any more.
    pub fn stop(&mut self) {
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";

    fn parser() -> (Parser, Head) {
        (Parser::new(Arc::new(Limits::default())), Head::default())
    }

    #[test]
    fn a_message_is_a_head_its_data_and_an_end() {
        let (mut parser, mut head) = parser();
        assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
        let body = &POST[head.len..];
        assert_eq!(parser.next(&body[..2], &mut head), Ok(Some(Event::Data { payload: 0..2, consumed: 2 })));
        assert_eq!(parser.next(b"", &mut head), Ok(None));
        let rest = [&body[2..], GET].concat();
        assert_eq!(parser.next(&rest, &mut head), Ok(Some(Event::Data { payload: 0..3, consumed: 3 })));
        assert_eq!(parser.next(GET, &mut head), Ok(Some(Event::End { consumed: 0 })));
        assert_eq!(parser.next(GET, &mut head), Ok(Some(Event::Head)));
    }

    #[test]
    fn between_requests_is_before_a_head_is_complete_and_after_its_end() {
        let (mut parser, mut head) = parser();
        assert!(parser.is_between_requests());
        assert_eq!(parser.next(&GET[..9], &mut head), Ok(None));
        assert!(parser.is_between_requests());
        assert_eq!(parser.next(GET, &mut head), Ok(Some(Event::Head)));
        assert!(!parser.is_between_requests());
        assert_eq!(parser.next(b"", &mut head), Ok(Some(Event::End { consumed: 0 })));
        assert!(parser.is_between_requests());
    }

    #[test]
    fn a_skipped_body_is_followed_by_the_next_head() {
        let (mut parser, mut head) = parser();
        assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
        parser.next(b"hel", &mut head).expect("data");
        parser.skip_body();
        assert!(parser.is_between_requests());
        assert_eq!(parser.next(GET, &mut head), Ok(Some(Event::Head)));
    }

    #[test]
    fn after_a_stop_nothing_is_parsed() {
        let (mut parser, mut head) = parser();
        assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
        parser.stop();
        assert_eq!(parser.next(&POST[head.len..], &mut head), Ok(None));
        assert_eq!(parser.next(b"\0", &mut head), Ok(None));
    }

    #[test]
    fn the_room_for_fields_is_used_again() {
        let (mut parser, mut head) = parser();
        head.fields.reserve(16);
        let room = head.fields.as_ptr();
        for _ in 0..3 {
            assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
            assert_eq!(head.fields.len(), 2);
            parser.next(b"hello", &mut head).expect("a body");
            parser.next(b"", &mut head).expect("an end");
        }
        assert_eq!(head.fields.as_ptr(), room);
    }
}
