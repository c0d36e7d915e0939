//! What the fields of a request say about its body, its host and its connection (RFC 9112, sections 3.2, 6 and
//! 9; RFC 9110, section 10.1.1).
//!
//! The one thing to know: where two fields disagree, or one could be read in two ways, the request is refused.
//! A server that guesses is one that a proxy in front of it can be made to disagree with.

use std::mem::MaybeUninit;

use crate::error::Error;
use crate::grammar::{decimal, list};
use crate::head::{Field, Head, Length, Span, Version};
use crate::limits::{Limits, Tolerance};
use crate::target::{RequestLine, is_host};

/// How many fields fit on the stack; above the default limit, so that the heap is for unusual limits alone.
const ON_STACK: usize = 100;

/// Reads the fields of a complete head into `head`. `input` ends with the head's blank line.
pub(crate) fn read(input: &[u8], line: &RequestLine, limits: &Limits, head: &mut Head) -> Result<(), Error> {
    head.method = line.method;
    head.target = line.target;
    head.path = line.path;
    head.query = line.query;
    head.version = line.version;
    head.len = input.len();
    head.fields.clear();
    let mut found = if limits.fields <= ON_STACK {
        tokenize(input, line, limits.tolerance, &mut [const { MaybeUninit::uninit() }; ON_STACK], head)?
    } else {
        tokenize(input, line, limits.tolerance, &mut vec![MaybeUninit::uninit(); limits.fields], head)?
    };
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

/// httparse knows names and values; lines, their ends and the request line were checked before.
fn tokenize<'a>(
    input: &'a [u8],
    line: &RequestLine,
    tolerance: Tolerance,
    scratch: &mut [MaybeUninit<httparse::Header<'a>>],
    head: &mut Head,
) -> Result<Found, Error> {
    let start = line.method.start as usize;
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(&input[start..], scratch) {
        Ok(httparse::Status::Complete(length)) if start + length == input.len() => {}
        Err(httparse::Error::HeaderValue) => return Err(Error::FieldValue),
        Err(httparse::Error::TooManyHeaders) => return Err(Error::TooManyFields),
        _ => return Err(Error::FieldName),
    }
    let span = |part: &[u8]| {
        let start = part.as_ptr().addr() - input.as_ptr().addr();
        Span::new(start, start + part.len())
    };
    let mut found = Found::default();
    for header in &*request.headers {
        let field = Field { name: span(header.name.as_bytes()), value: span(header.value) };
        head.fields.push(field);
        // `chunked` followed by a tab is legal, and a known disguise for readers that do not trim it.
        let is_padded = input.get(field.value.end as usize) != Some(&b'\r');
        if is_padded
            && tolerance == Tolerance::Strict
            && header.name.eq_ignore_ascii_case("transfer-encoding")
        {
            return Err(Error::TransferCoding);
        }
        found.note(header.name, header.value, field.value, head.version, tolerance)?;
    }
    Ok(found)
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
        name: &str,
        value: &[u8],
        span: Span,
        version: Version,
        tolerance: Tolerance,
    ) -> Result<(), Error> {
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => {
                once(&mut self.host, span, Error::HostRepeated)?;
                if !is_host(value) {
                    return Err(Error::Host);
                }
            }
            6 if name.eq_ignore_ascii_case("expect") && version == Version::Http11 => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Error::Expectation);
                }
                self.expects = true;
            }
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in list(value) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            12 if name.eq_ignore_ascii_case("content-type") => {
                once(&mut self.content_type, (), Error::ContentTypeRepeated)?;
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(value).ok_or(Error::ContentLength)?;
                once(&mut self.content_length, length, Error::ContentLengthRepeated)?;
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => match tolerance {
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
