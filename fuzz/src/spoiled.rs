//! Reads byte by byte while every byte that was looked at before is spoiled.
//!
//! The one thing to know: a parser that looks at a byte a second time finds a line feed where none may be, and
//! answers otherwise. So this shows that time is linear in the input, without a clock.

use std::sync::Arc;

use mlws_http1::{Event, Head, Limits, Parser};

use crate::reading::{End, Reading};

/// How many bytes at the start of a head may be looked at again: an empty line, and the longest method with the
/// space behind it.
const START: usize = 2 + 32 + 1;

/// Checks that `input`, spoiled, gives what it gave when it was read.
pub fn check(limits: &Limits, input: &[u8], reading: &Reading) {
    let complete = reading.messages.iter().filter(|message| message.is_complete).count();
    let body: Vec<u8> = reading.messages.iter().flat_map(|message| &message.body).copied().collect();
    let is_refused = matches!(reading.end, End::Error(_));
    assert_eq!(read(limits, input), (body, complete, is_refused), "a byte was looked at twice");
}

/// The bodies, how many messages were complete, and whether the last was refused.
fn read(limits: &Limits, input: &[u8]) -> (Vec<u8>, usize, bool) {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let (mut body, mut messages) = (Vec::new(), 0);
    let mut known = Known { is_head: true, ..Known::default() };
    for &byte in input {
        known.push(byte);
        loop {
            let seen = known.bytes();
            let consumed = match parser.next(seen, &mut head) {
                Ok(None) => break,
                Err(_) => return (body, messages, true),
                Ok(Some(Event::Head)) => head.len,
                Ok(Some(Event::Data { payload, consumed })) => {
                    body.extend_from_slice(&seen[payload]);
                    consumed
                }
                Ok(Some(Event::End { consumed })) => {
                    messages += 1;
                    consumed
                }
            };
            assert_eq!(consumed, seen.len(), "each event comes with its last byte, and consumes all");
            known = Known { is_head: parser.is_between_requests(), ..Known::default() };
        }
        known.spoil();
    }
    (body, messages, false)
}

/// What was received and not consumed.
#[derive(Default)]
struct Known {
    truth: Vec<u8>,
    spoiled: Vec<u8>,
    /// Where the current line starts.
    line: usize,
    /// Up to here `spoiled` is.
    done: usize,
    is_head: bool,
}

impl Known {
    fn push(&mut self, byte: u8) {
        self.truth.push(byte);
        self.spoiled.push(byte);
        // The end of a line, and of a trailer's name, are where the line is read.
        if matches!(byte, b'\n' | b':') {
            self.done = self.done.min(self.line);
            self.spoiled[self.line..].copy_from_slice(&self.truth[self.line..]);
        }
    }

    /// With its last line a head is complete, and is read once more from its start.
    fn bytes(&self) -> &[u8] {
        if self.truth.ends_with(b"\r\n\r\n") { &self.truth } else { &self.spoiled }
    }

    fn spoil(&mut self) {
        let from = if self.is_head { self.done.max(START) } else { self.done };
        for (at, byte) in self.spoiled.iter_mut().enumerate().skip(from) {
            // The first byte of a line tells a field too many from the blank line, as often as it is asked.
            if at != self.line {
                *byte = b'\n';
            }
        }
        self.done = self.spoiled.len();
        if self.truth.last() == Some(&b'\n') {
            self.line = self.truth.len();
        }
    }
}
