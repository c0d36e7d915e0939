//! Finds the end of a request head while its bytes arrive (RFC 9112, section 2.2).
//!
//! Invariant: each byte is examined once, however the input is split, and an error depends only on the bytes before
//! it. Scanning therefore takes linear time, and the result does not depend on how the input is split.

use std::ops::{Range, RangeInclusive};

use memchr::memchr;

use crate::error::Error;
use crate::grammar::is_token_byte;
use crate::limits::{Limits, ParserMode};
use crate::request_line::RequestLine;

/// The progress made in the head at the start of the input.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    state: ScanState,
    lines: Lines,
}

#[derive(Debug, Default)]
enum ScanState {
    /// Before the method. One empty line is ignored there.
    #[default]
    Start,
    /// Inside the method.
    Method,
    /// After the method.
    RequestLine,
    /// After the request line, with the number of complete field lines.
    Fields(RequestLine, usize),
}

impl Scan {
    /// Returns the request line and the length of the head, or `None` if more input is needed. On every call,
    /// `input` starts with the first byte of the head.
    pub(crate) fn head(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<Option<(RequestLine, usize)>, Error> {
        let window = &input[..input.len().min(limits.head).min(u32::MAX as usize)]; // spans are 32 bits wide
        match self.scan_window(window, limits)? {
            None if window.len() < input.len() => Err(Error::HeadTooLong),
            complete => Ok(complete),
        }
    }

    fn scan_window(&mut self, window: &[u8], limits: &Limits) -> Result<Option<(RequestLine, usize)>, Error> {
        loop {
            match &mut self.state {
                ScanState::Start => {
                    if !self.lines.skip_empty_line(window)? {
                        return Ok(None);
                    }
                    self.state = ScanState::Method;
                }
                ScanState::Method => {
                    if !check_method(self.lines.rest(window), limits)? {
                        return Ok(None);
                    }
                    self.state = ScanState::RequestLine;
                }
                ScanState::RequestLine => {
                    let line = self.lines.next(window, limits.request_line, Error::RequestLineTooLong)?;
                    let Some(line) = line else { return Ok(None) };
                    self.state = ScanState::Fields(RequestLine::parse(window, line, limits.mode)?, 0);
                }
                ScanState::Fields(request_line, count) => {
                    if *count == limits.fields && !matches!(self.lines.rest(window), [] | [b'\r', ..]) {
                        return Err(Error::TooManyFields);
                    }
                    let max_length = limits.field_size.saturating_sub(b"\r\n".len());
                    let line = self.lines.next(window, max_length, Error::FieldTooLong)?;
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

/// Checks the method before its line is complete, so that clients of other protocols get an immediate response.
/// Returns whether the method is complete.
fn check_method(line: &[u8], limits: &Limits) -> Result<bool, Error> {
    let lengths = method_lengths(limits.mode);
    let line = &line[..line.len().min(limits.request_line).min(lengths.end() + 1)];
    match line.iter().position(|&byte| !is_method_byte(byte, limits.mode)) {
        Some(at) if lengths.contains(&at) && line[at] == b' ' => Ok(true),
        Some(_) => Err(Error::Method),
        None if line.len() > *lengths.end() => Err(Error::MethodTooLong),
        None => Ok(line.len() == limits.request_line), // the request line fails on its own then
    }
}

fn method_lengths(mode: ParserMode) -> RangeInclusive<usize> {
    match mode {
        ParserMode::Strict => 1..=32,
        ParserMode::Gunicorn => 3..=20,
    }
}

fn is_method_byte(byte: u8, mode: ParserMode) -> bool {
    match mode {
        ParserMode::Strict => is_token_byte(byte),
        ParserMode::Gunicorn => is_token_byte(byte) && !byte.is_ascii_lowercase() && byte != b'#',
    }
}

/// The lines at the start of the input.
#[derive(Debug, Default)]
struct Lines {
    /// Where the current line starts.
    start: usize,
    /// Where to continue the search for its LF.
    scanned: usize,
}

impl Lines {
    fn rest<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        &input[self.start..]
    }

    /// Skips an empty line if there is one. Returns false if more input is needed to decide.
    fn skip_empty_line(&mut self, input: &[u8]) -> Result<bool, Error> {
        match input {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => (self.start, self.scanned) = (2, 2),
            [b'\r', ..] => return Err(Error::LineEnd),
            _ => {}
        }
        Ok(true)
    }

    /// The range of the next line without its CRLF, or `None` if it is incomplete.
    fn next(
        &mut self,
        input: &[u8],
        max_length: usize,
        too_long: Error,
    ) -> Result<Option<Range<usize>>, Error> {
        let line_feed = memchr(b'\n', &input[self.scanned..]).map(|at| self.scanned + at);
        let end = line_feed.unwrap_or(input.len());
        let has_cr = self.start < end && input[end - 1] == b'\r';
        let line = self.start..end - usize::from(has_cr);
        if line.len() > max_length {
            return Err(too_long);
        }
        let Some(line_feed) = line_feed else {
            self.scanned = input.len();
            return Ok(None);
        };
        if !has_cr {
            return Err(Error::LineEnd);
        }
        self.start = line_feed + 1;
        self.scanned = self.start;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_examined_once_when_the_head_arrives_byte_by_byte() {
        let head =
            format!("\r\nGET /{} HTTP/1.1\r\n{}\r\n", "a".repeat(8000), "name: some value\r\n".repeat(90));
        let input = head.as_bytes();
        let mut scan = Scan::default();
        let mut examined = 0;
        for arrived in 1..=input.len() {
            let before = scan.lines.scanned;
            let complete = scan.head(&input[..arrived], &Limits::default()).expect("a valid head");
            examined += scan.lines.scanned - before;
            assert!(
                matches!(scan.state, ScanState::Start | ScanState::Method) || scan.lines.scanned == arrived
            );
            assert_eq!(complete.map(|(_, length)| length), (arrived == input.len()).then_some(arrived));
        }
        assert_eq!(examined, input.len());
    }

    #[test]
    fn a_head_that_exceeds_its_limit_is_rejected_immediately() {
        let limits = Limits { head: 30, ..Limits::default() };
        let error = Scan::default().head(b"GET / HTTP/1.1\r\nHost: example.c", &limits).err();
        assert_eq!(error, Some(Error::HeadTooLong));
        let incomplete = Scan::default().head(b"GET / HTTP/1.1\r\nHost: example.", &limits);
        assert!(matches!(incomplete, Ok(None)));
    }
}
