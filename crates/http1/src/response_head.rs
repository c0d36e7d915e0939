//! Encoder for response heads (RFC 9112, sections 4, 5 and 9).
//!
//! Fields are checked and appended to one buffer as they are added. The server owns the fields that frame the message
//! or concern the connection: those of the application are not copied, and [`ResponseHead::finish`] writes the
//! server's at the end.

use crate::framing::{Framing, Kind};
use crate::grammar::{decimal, is_text, is_token, list, trim};
use crate::head::Version;
use crate::response_error::ResponseError;

/// The interim response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The properties of a request that affect how its response is encoded.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo {
    /// The method is HEAD: the response has no body.
    pub is_head: bool,
    /// The HTTP version of the request. HTTP/1.0 and HTTP/2 have no chunked coding.
    pub version: Version,
    /// Whether the connection may persist after the response.
    pub keep_alive: bool,
}

/// A complete response head.
#[derive(Debug)]
pub struct EncodedHead {
    /// The head, including its blank line.
    pub bytes: Vec<u8>,
    /// The framing of the body.
    pub framing: Framing,
    /// Whether the connection persists after the response.
    pub keep_alive: bool,
}

/// A response head under construction.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub struct ResponseHead {
    bytes: Vec<u8>,
    status: u16,
    content_length: Option<u64>,
    close: bool,
    has_date: bool,
    has_server: bool,
    is_event_stream: bool,
}

impl ResponseHead {
    /// Starts a head. `status` is 200 to 999; `reason` may be empty and may contain bytes above ASCII.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`] or [`ResponseError::Reason`].
    pub fn new(status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        Self::with_buffer(Vec::with_capacity(512), status, reason)
    }

    /// Like [`ResponseHead::new`], but reuses a buffer, whose content is discarded.
    ///
    /// # Errors
    ///
    /// [`ResponseError::Status`] or [`ResponseError::Reason`].
    pub fn with_buffer(buffer: Vec<u8>, status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        if !(200..=999).contains(&status) {
            return Err(ResponseError::Status(status));
        }
        if !is_text(reason) {
            return Err(ResponseError::Reason);
        }
        Ok(Self::start(buffer, status, reason))
    }

    /// Starts a head with any status. `reason` is valid.
    pub(crate) fn start(buffer: Vec<u8>, status: u16, reason: &[u8]) -> Self {
        let mut bytes = buffer;
        bytes.clear();
        bytes.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(&mut bytes, status.into());
        bytes.push(b' ');
        bytes.extend_from_slice(reason);
        bytes.extend_from_slice(b"\r\n");
        ResponseHead {
            bytes,
            status,
            content_length: None,
            close: false,
            has_date: false,
            has_server: false,
            is_event_stream: false,
        }
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The status line and the fields added so far, without Content-Length, which [`ResponseHead::finish`] writes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the Content-Type is `text/event-stream` (server-sent events).
    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// The value of the Content-Length field, if one was added.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Adds a field. Fields that concern the connection (RFC 9110, section 7.6.1) are ignored, except for
    /// `Connection: close`.
    ///
    /// # Errors
    ///
    /// The name or value is invalid. The head is unchanged then.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), ResponseError> {
        if !is_token(name) {
            return Err(ResponseError::FieldName(name.escape_ascii().to_string()));
        }
        if !is_text(value) {
            return Err(ResponseError::FieldValue(name.escape_ascii().to_string()));
        }
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            2 if is("te") => return Ok(()),
            4 if is("date") => self.has_date = true,
            6 if is("server") => self.has_server = true,
            7 if is("trailer") || is("upgrade") => return Ok(()),
            10 if is("connection") => {
                self.close |= list(value).any(|option| option.eq_ignore_ascii_case(b"close"));
                return Ok(());
            }
            10 if is("keep-alive") => return Ok(()),
            12 if is("content-type") => self.is_event_stream = is_event_stream(value),
            14 if is("content-length") => return self.set_content_length(value),
            16 if is("proxy-connection") => return Ok(()),
            17 if is("transfer-encoding") => return Ok(()),
            _ => {}
        }
        self.push_field(name, value);
        Ok(())
    }

    /// The head as it is, without fields of the server.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(b"\r\n");
        self.bytes
    }

    fn set_content_length(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        let length = decimal(trim(value))
            .ok_or_else(|| ResponseError::ContentLength(value.escape_ascii().to_string()))?;
        match self.content_length {
            Some(other) if other != length => Err(ResponseError::ContentLengths(other, length)),
            _ => {
                self.content_length = Some(length);
                Ok(())
            }
        }
    }

    fn push_field(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// Completes the head. `body_length` is the size of the body in bytes, if known; a Content-Length field takes
    /// precedence. `date` and `server` are the values of those fields unless the application added them. If `server` is
    /// empty, that field is omitted.
    pub fn finish(
        mut self,
        request: &RequestInfo,
        body_length: Option<u64>,
        date: &[u8; 29],
        server: &str,
    ) -> EncodedHead {
        if !self.has_date {
            self.push_field(b"Date", date);
        }
        if !self.has_server && !server.is_empty() {
            self.push_field(b"Server", server.as_bytes());
        }
        let (framing, keep_alive) = self.write_framing(*request, body_length);
        match (keep_alive, request.version) {
            (_, Version::Http2) | (true, Version::Http11) => {}
            (false, _) => self.push_field(b"Connection", b"close"),
            (true, Version::Http10) => self.push_field(b"Connection", b"keep-alive"),
        }
        self.bytes.extend_from_slice(b"\r\n");
        EncodedHead { bytes: self.bytes, framing, keep_alive }
    }

    /// Chooses the framing (RFC 9112, section 6.3) and writes its field. Also returns whether the connection persists.
    fn write_framing(&mut self, request: RequestInfo, body_length: Option<u64>) -> (Framing, bool) {
        let length = match self.status {
            204 => None,
            304 => self.content_length,
            _ => self.content_length.or(body_length),
        };
        if let Some(length) = length {
            self.bytes.extend_from_slice(b"Content-Length: ");
            push_decimal(&mut self.bytes, length);
            self.bytes.extend_from_slice(b"\r\n");
        }
        let keep_alive = request.keep_alive && !self.close;
        if request.is_head || matches!(self.status, 204 | 304) {
            return (Framing(Kind::NoBody), keep_alive);
        }
        match (length, request.version) {
            (Some(length), _) => (Framing(Kind::Length(length)), keep_alive),
            (None, Version::Http11) => {
                self.push_field(b"Transfer-Encoding", b"chunked");
                (Framing(Kind::Chunked), keep_alive)
            }
            (None, Version::Http10) => (Framing(Kind::Close), false),
            (None, Version::Http2) => (Framing(Kind::Close), keep_alive),
        }
    }
}

/// Compares the media type without its parameters (RFC 9110, section 8.3).
fn is_event_stream(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

fn push_decimal(bytes: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut remaining = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (remaining % 10) as u8;
        remaining /= 10;
        if remaining == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests;
