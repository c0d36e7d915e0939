//! The way out: a response head, checked while it is written (RFC 9112, sections 4, 5 and 9).
//!
//! The one thing to know: the head is written straight into one buffer as the fields come. The fields that
//! frame the message or belong to the connection are held back, and the server's own are written at the end.

use std::fmt;

use crate::framing::Framing;
use crate::grammar::{decimal, is_text, is_token, list};
use crate::head::Version;

/// The interim answer to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What the request said that its answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The method is HEAD: the answer has no body.
    pub is_head: bool,
    /// The request's version: HTTP/1.0 knows no chunks.
    pub version: Version,
    /// The connection may live on after the answer.
    pub keep_alive: bool,
}

/// A complete response head.
#[derive(Debug)]
pub struct Finished {
    /// The head, up to and with its blank line.
    pub bytes: Vec<u8>,
    /// What frames the body.
    pub framing: Framing,
    /// The connection lives on after the body.
    pub keep_alive: bool,
}

/// Why an application's status or field cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// A status that is no final one; only 200 to 599 are.
    Status(u16),
    /// A control character in the reason phrase.
    Reason,
    /// This name, escaped, is no token.
    FieldName(String),
    /// There is a control character in the value of the field of this name.
    FieldValue(String),
    /// Content-Length is not a plain decimal number below 2^64; its value, escaped.
    ContentLength(String),
    /// Two Content-Lengths that differ.
    ContentLengths(u64, u64),
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResponseError::Status(status) => write!(f, "status {status} is not between 200 and 599"),
            ResponseError::Reason => write!(f, "the reason phrase has a control character"),
            ResponseError::FieldName(name) => write!(f, "header name '{name}' is not a token"),
            ResponseError::FieldValue(name) => {
                write!(f, "the value of header '{name}' has a control character")
            }
            ResponseError::ContentLength(value) => {
                write!(f, "Content-Length '{value}' is not a plain number")
            }
            ResponseError::ContentLengths(one, two) => write!(f, "Content-Length is both {one} and {two}"),
        }
    }
}

impl std::error::Error for ResponseError {}

/// A response head while it is written.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "which fields were given, not one state")]
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
    /// Begins a head with a status from 200 to 599. The reason may be empty, and may hold bytes above ASCII.
    pub fn new(status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        Self::reuse(Vec::with_capacity(512), status, reason)
    }

    /// Like [`ResponseHead::new`], in a buffer that is at hand. What it holds is dropped.
    pub fn reuse(buffer: Vec<u8>, status: u16, reason: &[u8]) -> Result<Self, ResponseError> {
        if !(200..=599).contains(&status) {
            return Err(ResponseError::Status(status));
        }
        if !is_text(reason) {
            return Err(ResponseError::Reason);
        }
        let mut bytes = buffer;
        bytes.clear();
        bytes.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(&mut bytes, status.into());
        bytes.push(b' ');
        bytes.extend_from_slice(reason);
        bytes.extend_from_slice(b"\r\n");
        Ok(ResponseHead {
            bytes,
            status,
            content_length: None,
            close: false,
            has_date: false,
            has_server: false,
            is_event_stream: false,
        })
    }

    /// The status given.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The status line and the fields so far, as they will be sent; a Content-Length comes at the end only.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the Content-Type is `text/event-stream` (server-sent events).
    pub fn is_event_stream(&self) -> bool {
        self.is_event_stream
    }

    /// The Content-Length given by a field, if one was.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// Adds a field. Those that belong to the connection (RFC 9110, section 7.6.1) are the server's own: of them
    /// only `Connection: close` is heard, the others are dropped. After an error the head is as it was before.
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

    fn set_content_length(&mut self, value: &[u8]) -> Result<(), ResponseError> {
        let length =
            decimal(value).ok_or_else(|| ResponseError::ContentLength(value.escape_ascii().to_string()))?;
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

    /// Ends the head. `body_length` is the length of the body where it is known without a Content-Length; `date`
    /// and `server` are the values for those fields where the application gave none.
    pub fn finish(
        mut self,
        asked: &Asked,
        body_length: Option<u64>,
        date: &[u8; 29],
        server: &str,
    ) -> Finished {
        if !self.has_date {
            self.push_field(b"Date", date);
        }
        if !self.has_server {
            self.push_field(b"Server", server.as_bytes());
        }
        let (framing, keep_alive) = self.frame(*asked, body_length);
        match (keep_alive, asked.version) {
            (false, _) => self.push_field(b"Connection", b"close"),
            (true, Version::Http10) => self.push_field(b"Connection", b"keep-alive"),
            (true, Version::Http11) => {}
        }
        self.bytes.extend_from_slice(b"\r\n");
        Finished { bytes: self.bytes, framing, keep_alive }
    }

    /// Chooses the framing (RFC 9112, section 6.3), writes the field that announces it, and says whether the
    /// connection can live on.
    fn frame(&mut self, asked: Asked, body_length: Option<u64>) -> (Framing, bool) {
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
        let keep_alive = asked.keep_alive && !self.close;
        if asked.is_head || matches!(self.status, 204 | 304) {
            return (Framing::no_body(), keep_alive);
        }
        match (length, asked.version) {
            (Some(length), _) => (Framing::length(length), keep_alive),
            (None, Version::Http11) => {
                self.push_field(b"Transfer-Encoding", b"chunked");
                (Framing::chunked(), keep_alive)
            }
            (None, Version::Http10) => (Framing::close(), false),
        }
    }
}

/// The media type, without its parameters (RFC 9110, section 8.3).
fn is_event_stream(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

fn push_decimal(bytes: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = number;
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";
    const GET: Asked = Asked { is_head: false, version: Version::Http11, keep_alive: true };
    const HEAD: Asked = Asked { is_head: true, ..GET };
    const OLD: Asked = Asked { version: Version::Http10, ..GET };

    /// The head's lines without Date and Server, and what else came of it.
    fn finish(
        status: u16,
        fields: &[(&str, &str)],
        asked: Asked,
        body: Option<u64>,
    ) -> (Vec<String>, Finished) {
        let mut head = ResponseHead::new(status, b"").expect("a good status");
        for (name, value) in fields {
            head.field(name.as_bytes(), value.as_bytes()).expect("a good field");
        }
        let finished = head.finish(&asked, body, DATE, "s");
        let text = String::from_utf8(finished.bytes.clone()).expect("text");
        let (lines, rest) = text.split_once("\r\n\r\n").expect("a blank line");
        assert_eq!(rest, "");
        let is_ours = |line: &&str| *line == "Server: s" || line.starts_with("Date: Thu, 01");
        let lines = lines.split("\r\n").skip(1).filter(|line| !is_ours(line)).map(str::to_owned).collect();
        (lines, finished)
    }

    #[test]
    fn a_head_is_written_as_it_goes_over_the_wire() {
        let mut head = ResponseHead::reuse(b"old".to_vec(), 200, b"OK").expect("a good status");
        head.field(b"Content-Length", b"5").expect("a good field");
        head.field(b"X-Text", b"\xe9\t").expect("a good field");
        assert_eq!((head.status(), head.content_length()), (200, Some(5)));
        let finished = head.finish(&GET, None, DATE, "mylittlewebserver");
        let wire = b"HTTP/1.1 200 OK\r\nX-Text: \xe9\t\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            Server: mylittlewebserver\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(finished.bytes, wire);
        assert!(finished.keep_alive);
        assert_eq!(finished.framing.remaining(), Some(5));
    }

    #[test]
    fn what_could_end_a_line_is_refused() {
        for byte in ["\r", "\n", "\0", "\x07", "\x7f"] {
            let mut head = ResponseHead::new(200, b"").expect("a good status");
            let value = format!("a{byte}b");
            assert_eq!(head.field(b"A", value.as_bytes()), Err(ResponseError::FieldValue("A".to_owned())));
            assert!(matches!(head.field(value.as_bytes(), b"a"), Err(ResponseError::FieldName(_))));
            assert_eq!(ResponseHead::new(200, value.as_bytes()).err(), Some(ResponseError::Reason));
            assert_eq!(
                head.field(b"Connection", value.as_bytes()),
                Err(ResponseError::FieldValue("Connection".to_owned()))
            );
            assert_eq!(head.bytes, b"HTTP/1.1 200 \r\n");
        }
        for name in ["", "a b", "a:", "\u{e9}"] {
            let mut head = ResponseHead::new(200, b"").expect("a good status");
            assert!(matches!(head.field(name.as_bytes(), b"a"), Err(ResponseError::FieldName(_))), "{name}");
        }
    }

    #[test]
    fn only_final_statuses_are_taken() {
        for status in [0, 99, 100, 101, 199, 600, 999, u16::MAX] {
            assert_eq!(ResponseHead::new(status, b"").err(), Some(ResponseError::Status(status)));
        }
        assert!(ResponseHead::new(200, b"").is_ok() && ResponseHead::new(599, b"").is_ok());
    }

    #[test]
    fn a_content_length_is_a_plain_number_and_one() {
        let mut head = ResponseHead::new(200, b"").expect("a good status");
        for value in ["", "+5", "-5", "5 ", "5, 5", "0x5", "18446744073709551616"] {
            let error = ResponseError::ContentLength(value.to_owned());
            assert_eq!(head.field(b"content-length", value.as_bytes()), Err(error));
        }
        assert_eq!(head.field(b"Content-Length", b"5"), Ok(()));
        assert_eq!(head.field(b"Content-Length", b"5"), Ok(()));
        assert_eq!(head.field(b"Content-Length", b"6"), Err(ResponseError::ContentLengths(5, 6)));
    }

    #[test]
    fn the_fields_of_the_connection_are_the_servers_own() {
        let theirs = [
            ("Connection", "keep-alive, Upgrade"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("TE", "trailers"),
            ("Trailer", "X"),
            ("Transfer-Encoding", "gzip"),
            ("UPGRADE", "websocket"),
        ];
        let (lines, finished) = finish(200, &theirs, GET, Some(0));
        assert_eq!(lines, ["Content-Length: 0"]);
        assert!(finished.keep_alive);
    }

    #[test]
    fn a_close_from_the_application_closes() {
        let (lines, finished) = finish(200, &[("connection", "foo, Close")], GET, Some(0));
        assert_eq!(lines, ["Content-Length: 0", "Connection: close"]);
        assert!(!finished.keep_alive);
    }

    #[test]
    fn date_and_server_of_the_application_replace_ours() {
        let mut head = ResponseHead::new(200, b"").expect("a good status");
        head.field(b"DATE", b"never").expect("a good field");
        head.field(b"server", b"theirs").expect("a good field");
        let bytes = head.finish(&GET, Some(0), DATE, "ours").bytes;
        assert_eq!(bytes, b"HTTP/1.1 200 \r\nDATE: never\r\nserver: theirs\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn the_length_is_the_fields_then_the_bodys_then_chunks_or_the_close() {
        let length = [("Content-Length", "5")];
        let (lines, finished) = finish(200, &length, GET, Some(9));
        assert_eq!((lines, finished.framing.remaining()), (vec!["Content-Length: 5".to_owned()], Some(5)));
        let (lines, finished) = finish(200, &[], GET, Some(9));
        assert_eq!((lines, finished.framing.remaining()), (vec!["Content-Length: 9".to_owned()], Some(9)));
        let (lines, finished) = finish(200, &[], GET, None);
        assert_eq!(
            (lines, finished.framing.end()),
            (vec!["Transfer-Encoding: chunked".to_owned()], Ok(&b"0\r\n\r\n"[..]))
        );
        let (lines, finished) = finish(200, &[], OLD, None);
        assert_eq!((lines, finished.framing.end()), (vec!["Connection: close".to_owned()], Ok(&b""[..])));
        assert!(!finished.keep_alive && finished.framing.wants_body());
    }

    #[test]
    fn http10_is_told_what_becomes_of_the_connection() {
        let (lines, finished) = finish(200, &[], OLD, Some(0));
        assert_eq!(lines, ["Content-Length: 0", "Connection: keep-alive"]);
        assert!(finished.keep_alive);
        let (lines, finished) = finish(200, &[], Asked { keep_alive: false, ..OLD }, Some(0));
        assert_eq!(lines, ["Content-Length: 0", "Connection: close"]);
        assert!(!finished.keep_alive);
    }

    #[test]
    fn head_204_and_304_have_no_body() {
        let length = [("Content-Length", "5")];
        let with_length = vec!["Content-Length: 5".to_owned()];
        for (status, fields, asked, body, lines) in [
            (200, &length[..], HEAD, None, &with_length),
            (200, &[], HEAD, Some(5), &with_length),
            (200, &[], HEAD, None, &vec![]),
            (204, &length, GET, Some(5), &vec![]),
            (204, &length, HEAD, None, &vec![]),
            (304, &length, GET, Some(0), &with_length),
            (304, &[], GET, Some(0), &vec![]),
        ] {
            let (found, finished) = finish(status, fields, asked, body);
            assert_eq!(&found, lines, "{status}");
            assert!(!finished.framing.wants_body() && finished.keep_alive);
        }
    }
}
