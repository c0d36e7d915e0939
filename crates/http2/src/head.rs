//! A request head (RFC 9113, sections 8.2 and 8.3), checked beyond what `h2` checks.
//!
//! The result resembles the head of an HTTP/1 request: one buffer with all text, and spans of it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use mlws_http1::{Error, Field, Span, is_host};

use crate::limits::Limits;

/// A request head. The scheme is not part of it: the server knows whether the connection is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The text of the request. All spans refer to it.
    pub bytes: Vec<u8>,
    /// The method: a token of at most 32 bytes. Methods are case-sensitive.
    pub method: Span,
    /// Path and query as sent: visible ASCII without `#`.
    pub target: Span,
    /// The path, still percent-encoded: starts with `/`, or is `*` for OPTIONS.
    pub path: Span,
    /// The part after the first `?`; empty if there is none.
    pub query: Span,
    /// The authority: a host with an optional port.
    pub host: Span,
    /// The fields, with names in lowercase. The first one is Host. Fields with the same name are adjacent. Cookie
    /// fields are combined into one.
    pub fields: Vec<Field>,
    /// The size of the body in bytes, if known in advance. `h2` resets a stream that has more or less.
    pub content_length: Option<u64>,
    /// Whether the client waits for `100 Continue` before it sends the body. False if there is no body.
    pub expect_continue: bool,
    /// The decoded size in the measure of [`Limits::header_list_size`].
    pub decoded_size: usize,
}

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// The stream must be reset (RFC 9113, section 8.1.1).
    Malformed,
    /// The request can be answered with the status of the error.
    Rejected(Error),
}

impl From<Error> for HeadError {
    fn from(error: Error) -> Self {
        HeadError::Rejected(error)
    }
}

/// The longest method, as in HTTP/1.
const MAX_METHOD: usize = 32;

/// The overhead of a field in the measure of `SETTINGS_MAX_HEADER_LIST_SIZE`.
const FIELD_OVERHEAD: usize = 32;

impl Head {
    /// Checks a head that `h2` has decoded. `is_end` is whether there is no body.
    pub(crate) fn new(parts: &Parts, is_end: bool, limits: &Limits) -> Result<Self, HeadError> {
        let method = parts.method.as_str();
        check_values(&parts.headers)?;
        if method == "CONNECT" {
            return Err(Error::Connect.into());
        }
        let target = parts.uri.path_and_query().ok_or(HeadError::Malformed)?.as_str();
        if !(target.starts_with('/') || target == "*" && method == "OPTIONS") {
            return Err(HeadError::Malformed);
        }
        let host = host(parts)?;
        check_request_line(method, target, limits)?;
        check_fields(&parts.headers, limits)?;
        if !is_host(host) {
            return Err(Error::Host.into());
        }
        let content_length = content_length(&parts.headers)?;
        if content_length.is_some_and(|length| length > limits.body) {
            return Err(Error::BodyTooLarge.into());
        }
        let expect_continue = expect_continue(&parts.headers)? && !is_end;

        let mut head = Head { content_length, expect_continue, ..Head::default() };
        head.decoded_size = 4 * FIELD_OVERHEAD + method.len() + target.len() + host.len();
        head.bytes.reserve(1024);
        head.method = head.push(method.as_bytes());
        head.bytes.push(b' '); // so that method and target can be logged as one
        head.target = head.push(target.as_bytes());
        let question = target.find('?');
        let at = |offset: usize| head.target.start + offset as u32;
        let path_end = question.map_or(head.target.end, at);
        let query_start = question.map_or(head.target.end, |offset| at(offset + 1));
        head.path = Span { start: head.target.start, end: path_end };
        head.query = Span { start: query_start, end: head.target.end };
        head.push_fields(host, &parts.headers);
        Ok(head)
    }

    fn push_fields(&mut self, host: &[u8], headers: &HeaderMap) {
        self.fields.reserve(headers.len() + 1);
        self.push_field(b"host", host);
        self.host = self.fields[0].value;
        for name in headers.keys() {
            let values = headers.get_all(name).iter();
            match *name {
                header::HOST => {}
                header::COOKIE => self.push_cookie(values), // RFC 9113, section 8.2.3
                _ => values.for_each(|value| self.push_field(name.as_str().as_bytes(), value.as_bytes())),
            }
        }
    }

    fn push_field(&mut self, name: &[u8], value: &[u8]) {
        let field = Field { name: self.push(name), value: self.push(value) };
        self.fields.push(field);
        self.decoded_size += FIELD_OVERHEAD + name.len() + value.len();
    }

    fn push_cookie<'a>(&mut self, values: impl Iterator<Item = &'a HeaderValue>) {
        let name = self.push(b"cookie");
        let start = self.bytes.len();
        for (number, value) in values.enumerate() {
            if number > 0 {
                self.bytes.extend_from_slice(b"; ");
            }
            self.bytes.extend_from_slice(value.as_bytes());
            self.decoded_size += FIELD_OVERHEAD + b"cookie".len() + value.len();
        }
        self.fields.push(Field { name, value: Span { start: start as u32, end: self.bytes.len() as u32 } });
    }

    fn push(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(text);
        Span { start, end: self.bytes.len() as u32 }
    }

    /// The value of the first field with this name, compared without case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let has_name = |field: &&Field| field.name.of(&self.bytes).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(has_name).map(|field| field.value.of(&self.bytes))
    }
}

/// A value must not start or end with white space (RFC 9113, section 8.2.1).
fn check_values(headers: &HeaderMap) -> Result<(), HeadError> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_padded = |value: &[u8]| is_space(value.first()) || is_space(value.last());
    if headers.values().any(|value| is_padded(value.as_bytes())) { Err(HeadError::Malformed) } else { Ok(()) }
}

/// The authority of the request, which a Host field may repeat (RFC 9113, section 8.3.1).
fn host(parts: &Parts) -> Result<&[u8], HeadError> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut fields = parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let field = fields.next();
    match (authority, field, fields.next()) {
        (_, _, Some(_)) | (None, None, None) => Err(HeadError::Malformed),
        (Some(authority), Some(field), None) if !authority.eq_ignore_ascii_case(field) => {
            Err(HeadError::Malformed)
        }
        (Some(host), _, None) | (None, Some(host), None) => Ok(host),
    }
}

fn check_request_line(method: &str, target: &str, limits: &Limits) -> Result<(), Error> {
    if method.len() > MAX_METHOD {
        return Err(Error::MethodTooLong);
    }
    if method.len() + target.len() + 2 > limits.request_line {
        return Err(Error::RequestLineTooLong);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\') {
        return Err(Error::Target);
    }
    Ok(())
}

fn check_fields(headers: &HeaderMap, limits: &Limits) -> Result<(), Error> {
    // browsers send each cookie in a field of its own
    let cookies = headers.get_all(header::COOKIE).iter();
    let (number, length) =
        cookies.fold((0, 0), |(number, length), value| (number + 1, length + 2 + value.len()));
    if headers.len() - number + usize::from(number > 0) > limits.fields {
        return Err(Error::TooManyFields);
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let cookie_size = if number > 0 { b"cookie".len() + 2 + length } else { 0 };
    if cookie_size > limits.field_size || headers.iter().any(|field| size(field) > limits.field_size) {
        return Err(Error::FieldTooLong);
    }
    if headers.get_all(header::CONTENT_TYPE).iter().nth(1).is_some() {
        return Err(Error::ContentTypeRepeated);
    }
    Ok(())
}

/// `h2` has reset streams with an invalid or contradictory Content-Length.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Error> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::ContentLengthRepeated);
    }
    let is_decimal = value.as_bytes().iter().all(u8::is_ascii_digit);
    let length = value.to_str().ok().filter(|_| is_decimal).and_then(|text| text.parse().ok());
    length.map(Some).ok_or(Error::ContentLength)
}

/// RFC 9110, section 10.1.1.
fn expect_continue(headers: &HeaderMap) -> Result<bool, Error> {
    let mut values = headers.get_all(header::EXPECT).iter();
    if !values.all(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Error::Expectation);
    }
    Ok(headers.contains_key(header::EXPECT))
}
