//! The field lines of a request, and what they mean for its body, host and connection (RFC 9112, sections 3.2, 5, 6
//! and 9; RFC 9110, section 10.1.1).
//!
//! Invariant: ambiguity is an error. If two fields conflict, or one can be read in two ways, the request is rejected.
//! A server that guesses can be made to disagree with the proxy in front of it (request smuggling).

use memchr::memchr_iter;

use crate::error::Error;
use crate::grammar::{all, decimal, is_text, is_token_byte, list, trim_end, trim_start};
use crate::head::{Field, Head, Length, Span, Version};
use crate::limits::{Limits, ParserMode};
use crate::request_line::RequestLine;
use crate::uri::is_host;

/// Parses the fields of a complete head and fills in `head`. `input` ends with the blank line.
pub(crate) fn parse_head(
    input: &[u8],
    line: &RequestLine,
    limits: &Limits,
    head: &mut Head,
) -> Result<(), Error> {
    head.method = line.method;
    head.target = line.target;
    head.path = line.path;
    head.query = line.query;
    head.version = line.version;
    head.len = input.len();
    split_lines(input, line.end, &mut head.fields)?;
    let mut info = HeaderInfo::default();
    for field in &head.fields {
        info.record(input, field, head.version, limits.mode)?;
    }
    head.host = line.authority.or(info.host);
    if (head.version, limits.mode, info.host) == (Version::Http11, ParserMode::Strict, None) {
        return Err(Error::HostMissing);
    }
    head.body = info.body_length(head.version)?;
    if matches!(head.body, Length::Known(length) if length > limits.body) {
        return Err(Error::BodyTooLarge);
    }
    info.close |= line.method.of(input) == b"CONNECT"; // the client sends the bytes of its tunnel next
    head.keep_alive = !info.close && (info.keep_alive || head.version == Version::Http11);
    head.expect_continue =
        info.expect_continue && head.version == Version::Http11 && head.body != Length::Known(0);
    Ok(())
}

/// Splits the field lines, from the one at `start` through the blank line, and checks their grammar (RFC 9112,
/// section 5). The scanner has checked that each ends with CRLF.
fn split_lines(input: &[u8], start: usize, fields: &mut Vec<Field>) -> Result<(), Error> {
    fields.clear();
    let lines = &input[start..input.len() - b"\r\n".len()];
    let mut line_start = start;
    for line_feed in memchr_iter(b'\n', lines) {
        let line_end = start + line_feed - 1;
        let line = &input[line_start..line_end];
        let colon = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(0);
        if colon == 0 || line[colon] != b':' {
            return Err(Error::FieldName);
        }
        let value = trim_start(&line[colon + 1..]);
        if !is_text(value) {
            return Err(Error::FieldValue);
        }
        let value_start = line_end - value.len();
        fields.push(Field {
            name: Span::new(line_start, line_start + colon),
            value: Span::new(value_start, value_start + trim_end(value).len()),
        });
        line_start = line_end + b"\r\n".len();
    }
    Ok(())
}

/// What the fields recorded so far determine.
#[derive(Default)]
struct HeaderInfo {
    host: Option<Span>,
    content_type: Option<()>,
    content_length: Option<u64>,
    /// `None` without a Transfer-Encoding, `Ok` if its last coding is `chunked`, else the error to report.
    chunked: Option<Result<(), Error>>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
}

impl HeaderInfo {
    fn record(
        &mut self,
        input: &[u8],
        field: &Field,
        version: Version,
        mode: ParserMode,
    ) -> Result<(), Error> {
        let (name, value) = (field.name.of(input), field.value.of(input));
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                set_once(&mut self.host, field.value, Error::HostRepeated)?;
                let accepts_paths = mode == ParserMode::Gunicorn;
                if !(is_host(value) || accepts_paths && is_socket_path(value)) {
                    return Err(Error::Host);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") && version == Version::Http11 => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::Expectation);
                }
                self.expect_continue = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                set_once(&mut self.content_type, (), Error::ContentTypeRepeated)?;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or(Error::ContentLength)?;
                set_once(&mut self.content_length, length, Error::ContentLengthRepeated)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => match mode {
                ParserMode::Strict => {
                    let is_chunked = value.eq_ignore_ascii_case(b"chunked");
                    let chunked = is_chunked.then_some(()).ok_or(Error::TransferCoding);
                    set_once(&mut self.chunked, chunked, Error::TransferEncodingRepeated)?;
                }
                ParserMode::Gunicorn => list(value).try_for_each(|coding| self.record_coding(coding))?,
            },
            _ => {}
        }
        Ok(())
    }

    /// Records the next of several transfer codings, which were applied in this order.
    fn record_coding(&mut self, coding: &[u8]) -> Result<(), Error> {
        let others: [&[u8]; 4] = [b"identity", b"gzip", b"compress", b"deflate"];
        let chunked = if coding.eq_ignore_ascii_case(b"chunked") {
            Ok(())
        } else if others.iter().any(|other| coding.eq_ignore_ascii_case(other)) {
            self.close = true; // a proxy on the way may have framed the body differently
            Err(Error::ChunkedNotLast)
        } else {
            return Err(Error::TransferCoding);
        };
        match self.chunked.replace(chunked) {
            Some(Ok(())) => Err(Error::ChunkedNotLast),
            _ => Ok(()),
        }
    }

    /// How the body is delimited (RFC 9112, section 6.3).
    fn body_length(&self, version: Version) -> Result<Length, Error> {
        match (self.chunked, self.content_length) {
            (None, length) => Ok(Length::Known(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Error::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(Error::TransferEncodingVersion),
            (Some(chunked), None) => chunked.map(|()| Length::Chunked),
        }
    }
}

/// Whether a Host is the path of a Unix socket.
fn is_socket_path(value: &[u8]) -> bool {
    value.starts_with(b"/") && all(value, |byte| byte.is_ascii_graphic())
}

/// Stores the value of a field that may occur only once.
fn set_once<T>(slot: &mut Option<T>, value: T, repeated: Error) -> Result<(), Error> {
    if slot.replace(value).is_some() { Err(repeated) } else { Ok(()) }
}
