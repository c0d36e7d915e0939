//! The reading side of a connection: bytes to events.
//!
//! All state transitions are in [`Parser::next`]. The parser buffers nothing: the caller keeps the bytes that have
//! not been consumed and passes them again, followed by newly received ones.
//!
//! ```text
//! Head --head--> Body or Chunked --end--> Head (keep-alive) or Closed
//! any state --error--> Failed        any state but Failed --stop()--> Closed
//! ```

use std::sync::Arc;

use crate::chunked::Chunked;
use crate::error::Error;
use crate::event::Event;
use crate::fields;
use crate::head::{Head, Length};
use crate::limits::Limits;
use crate::scan::Scan;

/// The parser for the requests of one connection.
#[derive(Debug)]
pub struct Parser {
    limits: Arc<Limits>,
    state: ParserState,
    /// Whether another request may follow the current one.
    keep_alive: bool,
}

#[derive(Debug)]
enum ParserState {
    /// Between requests, or inside a head.
    Head(Scan),
    /// Inside a body delimited by Content-Length, with the number of bytes remaining.
    Body(u64),
    /// Inside a chunked body.
    Chunked(Chunked),
    /// Further input is not parsed.
    Closed,
    Failed(Error),
}

impl Parser {
    /// Creates a parser for a new connection.
    pub fn new(limits: Arc<Limits>) -> Self {
        Parser { limits, state: ParserState::Head(Scan::default()), keep_alive: true }
    }

    /// Returns the next event, or `None` if more input is needed.
    ///
    /// `input` is everything received and not yet consumed. After `None`, pass the same bytes followed by newly
    /// received ones. After an event, start after the bytes that it consumed. `head` is filled in for
    /// [`Event::Head`]; its content is unspecified after `None` or an error.
    ///
    /// An error is final: every later call returns it again. After the last message of a connection, every call
    /// returns `None`.
    pub fn next(&mut self, input: &[u8], head: &mut Head) -> Result<Option<Event>, Error> {
        let event = self.advance(input, head);
        if let Err(error) = event {
            self.state = ParserState::Failed(error);
        }
        event
    }

    fn advance(&mut self, input: &[u8], head: &mut Head) -> Result<Option<Event>, Error> {
        match &mut self.state {
            ParserState::Head(scan) => {
                let Some((line, length)) = scan.head(input, &self.limits)? else { return Ok(None) };
                fields::parse_head(&input[..length], &line, &self.limits, head)?;
                self.keep_alive = head.keep_alive;
                self.state = match head.body {
                    Length::Known(length) => ParserState::Body(length),
                    Length::Chunked => ParserState::Chunked(Chunked::default()),
                };
                Ok(Some(Event::Head))
            }
            ParserState::Body(0) => {
                self.end_message();
                Ok(Some(Event::End { consumed: 0 }))
            }
            ParserState::Body(_) if input.is_empty() => Ok(None),
            ParserState::Body(remaining) => {
                let length = input.len().min(usize::try_from(*remaining).unwrap_or(usize::MAX));
                *remaining -= length as u64;
                Ok(Some(Event::Data { payload: 0..length, consumed: length }))
            }
            ParserState::Chunked(chunked) => {
                let event = chunked.next(input, &self.limits)?;
                if matches!(event, Some(Event::End { .. })) {
                    self.end_message();
                }
                Ok(event)
            }
            ParserState::Closed => Ok(None),
            ParserState::Failed(error) => Err(*error),
        }
    }

    fn end_message(&mut self) {
        self.state = if self.keep_alive { ParserState::Head(Scan::default()) } else { ParserState::Closed };
    }

    /// True between requests and after the last one. If there is no unconsumed input either, the peer may close
    /// the connection without truncating a request.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, ParserState::Head(_) | ParserState::Closed)
    }

    /// Ends the current message if its body has a Content-Length. Call this after reading the rest of that body from
    /// the connection directly: the next input starts after it.
    pub fn skip_body(&mut self) {
        if matches!(self.state, ParserState::Body(_)) {
            self.end_message();
        }
    }

    /// Stops parsing, after a final response that was sent before the end of the request. Has no effect after an
    /// error.
    pub fn stop(&mut self) {
        if !matches!(self.state, ParserState::Failed(_)) {
            self.state = ParserState::Closed;
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
    fn a_message_is_a_head_followed_by_data_and_an_end() {
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
    fn is_between_requests_until_a_head_is_complete_and_after_the_message() {
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
    fn skip_body_continues_with_the_next_head() {
        let (mut parser, mut head) = parser();
        assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
        parser.next(b"hel", &mut head).expect("data");
        parser.skip_body();
        assert!(parser.is_between_requests());
        assert_eq!(parser.next(GET, &mut head), Ok(Some(Event::Head)));
    }

    #[test]
    fn nothing_is_parsed_after_stop() {
        let (mut parser, mut head) = parser();
        assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
        parser.stop();
        assert_eq!(parser.next(&POST[head.len..], &mut head), Ok(None));
        assert_eq!(parser.next(b"\0", &mut head), Ok(None));
    }

    #[test]
    fn the_field_buffer_is_reused() {
        let (mut parser, mut head) = parser();
        head.fields.reserve(16);
        let buffer = head.fields.as_ptr();
        for _ in 0..3 {
            assert_eq!(parser.next(POST, &mut head), Ok(Some(Event::Head)));
            assert_eq!(head.fields.len(), 2);
            parser.next(b"hello", &mut head).expect("a body");
            parser.next(b"", &mut head).expect("an end");
        }
        assert_eq!(head.fields.as_ptr(), buffer);
    }
}
