//! What the fields of a request say about its body, its host and its connection (RFC 9112, sections 3.2, 6 and
//! 9; RFC 9110, section 10.1.1).
//!
//! The one thing to know: where two fields disagree, or one could be read in two ways, the request is refused.
//! A server that guesses is one that a proxy in front of it can be made to disagree with.

use memchr::memchr_iter;

use crate::error::Error;
use crate::grammar::{decimal, is_text, is_token_byte, list, trim_end, trim_start};
use crate::head::{Field, Head, Length, Span, Version};
use crate::limits::{Limits, Tolerance};
use crate::target::{RequestLine, is_host};

/// Reads the fields of a complete head into `head`. `input` ends with the head's blank line.
pub(crate) fn read(input: &[u8], line: &RequestLine, limits: &Limits, head: &mut Head) -> Result<(), Error> {
    head.method = line.method;
    head.target = line.target;
    head.path = line.path;
    head.query = line.query;
    head.version = line.version;
    head.len = input.len();
    split_lines(input, line.end, &mut head.fields)?;
    let mut found = Found::default();
    for field in &head.fields {
        found.note(input, field, head.version, limits.tolerance)?;
    }
    head.host = line.authority.or(found.host);
    if (head.version, limits.tolerance, found.host) == (Version::Http11, Tolerance::Strict, None) {
        return Err(Error::HostMissing);
    }
    head.body = found.length(head.version)?;
    if matches!(head.body, Length::Known(length) if length > limits.body) {
        return Err(Error::BodyTooLarge);
    }
    found.close |= line.method.of(input) == b"CONNECT"; // what follows is meant for the tunnel
    head.keep_alive = !found.close && (found.keep_alive || head.version == Version::Http11);
    head.expect_continue = found.expects && head.version == Version::Http11 && head.body != Length::Known(0);
    Ok(())
}

/// Splits the field lines, which start at `first` and end with the blank line, and checks their grammar (RFC 9112,
/// section 5). Each ends with CRLF: [`Scan`](crate::scan::Scan) has checked that.
fn split_lines(input: &[u8], first: usize, fields: &mut Vec<Field>) -> Result<(), Error> {
    fields.clear();
    let mut start = first;
    let lines = &input[first..input.len() - b"\r\n".len()];
    for feed in memchr_iter(b'\n', lines).map(|at| first + at) {
        let end = feed - 1;
        let line = &input[start..end];
        let colon = line.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(0);
        if colon == 0 || line[colon] != b':' {
            return Err(Error::FieldName);
        }
        let value = trim_start(&line[colon + 1..]);
        if !is_text(value) {
            return Err(Error::FieldValue);
        }
        let value_start = end - value.len();
        fields.push(Field {
            name: Span::new(start, start + colon),
            value: Span::new(value_start, value_start + trim_end(value).len()),
        });
        start = feed + 1;
    }
    Ok(())
}

/// What the fields read so far have said.
#[derive(Default)]
struct Found {
    host: Option<Span>,
    content_type: Option<()>,
    content_length: Option<u64>,
    /// Whether the Transfer-Encoding, if there is one, ends in chunks, else what is wrong with it.
    chunked: Option<Result<(), Error>>,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl Found {
    fn note(
        &mut self,
        input: &[u8],
        field: &Field,
        version: Version,
        tolerance: Tolerance,
    ) -> Result<(), Error> {
        let (name, value) = (field.name.of(input), field.value.of(input));
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                once(&mut self.host, field.value, Error::HostRepeated)?;
                if !is_host(value) {
                    return Err(Error::Host);
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") && version == Version::Http11 => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::Expectation);
                }
                self.expects = true;
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                once(&mut self.content_type, (), Error::ContentTypeRepeated)?;
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = decimal(value).ok_or(Error::ContentLength)?;
                once(&mut self.content_length, length, Error::ContentLengthRepeated)?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => match tolerance {
                // `chunked` followed by white space is legal, and hides it from parsers that do not trim it.
                Tolerance::Strict if input.get(field.value.end as usize) != Some(&b'\r') => {
                    return Err(Error::TransferCoding);
                }
                Tolerance::Strict => {
                    let is_chunked = value.eq_ignore_ascii_case(b"chunked");
                    let chunked = is_chunked.then_some(()).ok_or(Error::TransferCoding);
                    once(&mut self.chunked, chunked, Error::TransferEncodingRepeated)?;
                }
                Tolerance::Gunicorn => list(value).try_for_each(|coding| self.stack(coding))?,
            },
            _ => {}
        }
        Ok(())
    }

    /// Notes one more coding of those that were applied one after the other.
    fn stack(&mut self, coding: &[u8]) -> Result<(), Error> {
        let others: [&[u8]; 4] = [b"identity", b"gzip", b"compress", b"deflate"];
        let chunked = if coding.eq_ignore_ascii_case(b"chunked") {
            Ok(())
        } else if others.iter().any(|other| coding.eq_ignore_ascii_case(other)) {
            self.close = true; // whoever passed it on may have framed it differently
            Err(Error::ChunkedNotLast)
        } else {
            return Err(Error::TransferCoding);
        };
        match self.chunked.replace(chunked) {
            Some(Ok(())) => Err(Error::ChunkedNotLast),
            _ => Ok(()),
        }
    }

    fn length(&self, version: Version) -> Result<Length, Error> {
        match (self.chunked, self.content_length) {
            (None, length) => Ok(Length::Known(length.unwrap_or(0))),
            (Some(_), Some(_)) => Err(Error::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(Error::TransferEncodingVersion),
            (Some(chunked), None) => chunked.map(|()| Length::Chunked),
        }
    }
}

/// Notes what a field said that may be there once only.
fn once<T>(slot: &mut Option<T>, value: T, repeated: Error) -> Result<(), Error> {
    if slot.replace(value).is_some() { Err(repeated) } else { Ok(()) }
}
