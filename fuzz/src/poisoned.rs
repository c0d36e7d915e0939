//! Parses byte by byte and overwrites (poisons) every byte that has been examined.
//!
//! A parser that examines a byte again finds an unexpected line feed and returns another result. This shows without a
//! clock that parsing takes linear time.

use std::sync::Arc;

use mlws_http1::{Event, Head, Limits, Parser};

use crate::transcript::{End, Transcript};

/// The number of bytes at the start of a head that may be examined again: an empty line, and the longest method with
/// its space.
const START: usize = 2 + 32 + 1;

/// Checks that the poisoned input has the same result as the original, which is `transcript`.
pub fn check(limits: &Limits, input: &[u8], transcript: &Transcript) {
    let complete = transcript.messages.iter().filter(|message| message.is_complete).count();
    let body: Vec<u8> = transcript.messages.iter().flat_map(|message| &message.body).copied().collect();
    let is_rejected = matches!(transcript.end, End::Error(_));
    assert_eq!(parse(limits, input), (body, complete, is_rejected), "a byte was examined twice");
}

/// The concatenated bodies, the number of complete messages, and whether the last one was rejected.
fn parse(limits: &Limits, input: &[u8]) -> (Vec<u8>, usize, bool) {
    let mut parser = Parser::new(Arc::new(limits.clone()));
    let mut head = Head::default();
    let (mut body, mut messages) = (Vec::new(), 0);
    let mut buffer = Buffer { is_head: true, ..Buffer::default() };
    for &byte in input {
        buffer.push(byte);
        loop {
            let visible = buffer.bytes();
            let consumed = match parser.next(visible, &mut head) {
                Ok(None) => break,
                Err(_) => return (body, messages, true),
                Ok(Some(Event::Head)) => head.len,
                Ok(Some(Event::Data { payload, consumed })) => {
                    body.extend_from_slice(&visible[payload]);
                    consumed
                }
                Ok(Some(Event::End { consumed })) => {
                    messages += 1;
                    consumed
                }
            };
            assert_eq!(
                consumed,
                visible.len(),
                "an event must be returned with its last byte and consume it"
            );
            buffer = Buffer { is_head: parser.is_between_requests(), ..Buffer::default() };
        }
        buffer.poison();
    }
    (body, messages, false)
}

/// The bytes received and not consumed.
#[derive(Default)]
struct Buffer {
    original: Vec<u8>,
    poisoned: Vec<u8>,
    /// Where the current line starts.
    line: usize,
    /// `poisoned` is overwritten up to this index.
    done: usize,
    is_head: bool,
}

impl Buffer {
    fn push(&mut self, byte: u8) {
        self.original.push(byte);
        self.poisoned.push(byte);
        // A line is parsed at its end, and the name of a trailer at its colon.
        if matches!(byte, b'\n' | b':') {
            self.done = self.done.min(self.line);
            self.poisoned[self.line..].copy_from_slice(&self.original[self.line..]);
        }
    }

    /// A complete head is parsed once more from its start.
    fn bytes(&self) -> &[u8] {
        if self.original.ends_with(b"\r\n\r\n") { &self.original } else { &self.poisoned }
    }

    fn poison(&mut self) {
        let from = if self.is_head { self.done.max(START) } else { self.done };
        for (at, byte) in self.poisoned.iter_mut().enumerate().skip(from) {
            // On every call, the first byte of a line distinguishes an excess field from the blank line.
            if at != self.line {
                *byte = b'\n';
            }
        }
        self.done = self.poisoned.len();
        if self.original.last() == Some(&b'\n') {
            self.line = self.original.len();
        }
    }
}
