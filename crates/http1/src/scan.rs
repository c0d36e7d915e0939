//! Finds the end of a request head while its bytes arrive (RFC 9112, section 2.2).
//!
//! The one thing to know: every byte is looked at once, however the input is cut, and every error depends on
//! the bytes before it alone. So the same bytes give the same answer whole and one by one.

use std::ops::{Range, RangeInclusive};

use memchr::memchr;

use crate::error::Error;
use crate::grammar::is_token_byte;
use crate::limits::{Limits, Tolerance};
use crate::target::RequestLine;

/// How far the head at the start of the input has been checked.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    part: Part,
    lines: Lines,
}

#[derive(Debug, Default)]
enum Part {
    /// Before the method; one empty line may stand there.
    #[default]
    Start,
    /// In the method.
    Method,
    /// After the method.
    RequestLine,
    /// After the request line, with so many field lines complete.
    Fields(RequestLine, usize),
}

impl Scan {
    /// The request line and the length of the head, or `None` if the head is not complete yet. `input` starts
    /// with the first byte of the head, on every call.
    pub(crate) fn head(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<(RequestLine, usize)>, Error> {
        let window = &input[..input.len().min(limits.head).min(u32::MAX as usize)]; // spans are 32 bits wide
        match self.head_in(window, limits)? {
            None if window.len() < input.len() => Err(Error::HeadTooLong),
            complete => Ok(complete),
        }
    }

    fn head_in(&mut self, window: &[u8], limits: &Limits) -> Result<Option<(RequestLine, usize)>, Error> {
        loop {
            match &mut self.part {
                Part::Start => {
                    if !self.lines.skip_empty(window)? {
                        return Ok(None);
                    }
                    self.part = Part::Method;
                }
                Part::Method => {
                    if !is_method_complete(self.lines.rest(window), limits)? {
                        return Ok(None);
                    }
                    self.part = Part::RequestLine;
                }
                Part::RequestLine => {
                    let line = self.lines.next(window, limits.request_line, Error::RequestLineTooLong)?;
                    let Some(line) = line else { return Ok(None) };
                    self.part = Part::Fields(RequestLine::parse(window, line, limits.tolerance)?, 0);
                }
                Part::Fields(request_line, count) => {
                    if *count == limits.fields && !matches!(self.lines.rest(window), [] | [b'\r', ..]) {
                        return Err(Error::TooManyFields);
                    }
                    let longest = limits.field_size.saturating_sub(b"\r\n".len());
                    let line = self.lines.next(window, longest, Error::FieldTooLong)?;
                    let Some(line) = line else { return Ok(None) };
                    if line.is_empty() {
                        return Ok(Some((*request_line, self.lines.start)));
                    }
                    *count += 1;
                }
            }
        }
    }
}

/// Judges the method before its line is complete, so that whoever speaks another protocol hears at once.
fn is_method_complete(line: &[u8], limits: &Limits) -> Result<bool, Error> {
    let lengths = method_lengths(limits.tolerance);
    let line = &line[..line.len().min(limits.request_line).min(lengths.end() + 1)];
    match line.iter().position(|&byte| !is_method_byte(byte, limits.tolerance)) {
        Some(at) if lengths.contains(&at) && line[at] == b' ' => Ok(true),
        Some(_) => Err(Error::Method),
        None if line.len() > *lengths.end() => Err(Error::MethodTooLong),
        None => Ok(line.len() == limits.request_line), // then the line, whole or too long, is no request line anyway
    }
}

fn method_lengths(tolerance: Tolerance) -> RangeInclusive<usize> {
    match tolerance {
        Tolerance::Strict => 1..=32,
        Tolerance::Gunicorn => 3..=20,
    }
}

fn is_method_byte(byte: u8, tolerance: Tolerance) -> bool {
    match tolerance {
        Tolerance::Strict => is_token_byte(byte),
        Tolerance::Gunicorn => is_token_byte(byte) && !byte.is_ascii_lowercase() && byte != b'#',
    }
}

/// The lines at the start of the input.
#[derive(Debug, Default)]
struct Lines {
    /// Where the current line starts.
    start: usize,
    /// Up to here there is no line feed in it.
    seen: usize,
}

impl Lines {
    fn rest<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.start..]
    }

    /// Skips one empty line if there is one, and says whether enough is there to tell.
    fn skip_empty(&mut self, input: &[u8]) -> Result<bool, Error> {
        match input {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => (self.start, self.seen) = (2, 2),
            [b'\r', ..] => return Err(Error::LineEnd),
            _ => {}
        }
        Ok(true)
    }

    /// The next line, without its CRLF, as a range of the input.
    fn next(&mut self, input: &[u8], longest: usize, too_long: Error) -> Result<Option<Range<usize>>, Error> {
        let feed = memchr(b'\n', &input[self.seen..]).map(|at| self.seen + at);
        let end = feed.unwrap_or(input.len());
        let ends_in_return = self.start < end && input[end - 1] == b'\r';
        let line = self.start..end - usize::from(ends_in_return);
        if line.len() > longest {
            return Err(too_long);
        }
        let Some(feed) = feed else {
            self.seen = input.len();
            return Ok(None);
        };
        if !ends_in_return {
            return Err(Error::LineEnd);
        }
        self.start = feed + 1;
        self.seen = self.start;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_looked_at_once_however_the_head_arrives() {
        let head =
            format!("\r\nGET /{} HTTP/1.1\r\n{}\r\n", "a".repeat(8000), "name: some value\r\n".repeat(90));
        let input = head.as_bytes();
        let mut scan = Scan::default();
        let mut looked_at = 0;
        for arrived in 1..=input.len() {
            let before = scan.lines.seen;
            let complete = scan.head(&input[..arrived], &Limits::default()).expect("a good head");
            looked_at += scan.lines.seen - before;
            assert!(matches!(scan.part, Part::Start | Part::Method) || scan.lines.seen == arrived);
            assert_eq!(complete.map(|(_, length)| length), (arrived == input.len()).then_some(arrived));
        }
        assert_eq!(looked_at, input.len());
    }

    #[test]
    fn a_head_over_its_limit_is_not_waited_for() {
        let limits = Limits { head: 30, ..Limits::default() };
        let error = Scan::default().head(b"GET / HTTP/1.1\r\nHost: example.c", &limits).err();
        assert_eq!(error, Some(Error::HeadTooLong));
        let open = Scan::default().head(b"GET / HTTP/1.1\r\nHost: example.", &limits);
        assert!(matches!(open, Ok(None)));
    }
}
