//! A parsed request head.
//!
//! A [`Head`] owns no text. It stores [`Span`]s, positions in the parser's input, so the caller must keep that input
//! for as long as the head.

/// A range of the input: `start..end`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first byte.
    pub start: u32,
    /// Index after the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes at this position. Empty if the span exceeds `bytes`, which cannot happen with the input it was
    /// created from. Never panics.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(crate) fn new(start: usize, end: usize) -> Self {
        Span { start: start as u32, end: end as u32 }
    }
}

/// One field line, as sent.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name; its case is preserved.
    pub name: Span,
    /// The value without surrounding white space. May be empty and may contain bytes above ASCII.
    pub value: Span,
}

/// The supported HTTP versions.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: the connection closes by default; there is no chunked coding.
    Http10,
    /// HTTP/1.1: the connection persists by default.
    #[default]
    Http11,
    /// HTTP/2. This crate does not parse it, but its heads and its framing can represent a request that was received
    /// over HTTP/2, and the response: a body without a Content-Length is not chunked, because its stream delimits it.
    Http2,
}

impl Version {
    /// The name used in request lines and in CGI: `HTTP/1.0`, `HTTP/1.1` or `HTTP/2.0`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}

/// How a request body is delimited (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// The size of the body in bytes; 0 if there is none.
    Known(u64),
    /// Chunks, the last of which has size 0.
    Chunked,
}

impl Default for Length {
    fn default() -> Self {
        Length::Known(0)
    }
}

/// The most bytes in which [`Head::of_incomplete`] looks for a request line.
const LONGEST_INCOMPLETE: usize = 1024;

/// A request head. All spans are relative to the start of the input of the call that returned [`Event::Head`].
///
/// [`Event::Head`]: crate::Event::Head
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method: a token of at most 32 bytes. Methods are case-sensitive.
    pub method: Span,
    /// The whole request target: visible ASCII without `#`.
    pub target: Span,
    /// The path, still percent-encoded. For an absolute target, the part after the authority: empty for
    /// `http://host?query`, where it means `/`. The whole target for `*` and CONNECT.
    pub path: Span,
    /// The part after the first `?`; empty if there is none.
    pub query: Span,
    /// The authority of the target without userinfo, otherwise the value of the Host field. `None` only for
    /// HTTP/1.0, or in [`ParserMode::Gunicorn`](crate::ParserMode::Gunicorn).
    pub host: Option<Span>,
    /// The HTTP version of the request.
    pub version: Version,
    /// All field lines in the order received, none dropped or combined.
    pub fields: Vec<Field>,
    /// How the body is delimited.
    pub body: Length,
    /// Whether another request may follow on this connection (RFC 9112, section 9.3).
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1). False if
    /// there is no body.
    pub expect_continue: bool,
    /// The number of input bytes consumed: an ignored leading CRLF, the request line, the field lines and the
    /// blank line.
    pub len: usize,
}

impl Head {
    /// The value of the first field with this name, compared without case.
    pub fn field<'a>(&self, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let has_name = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(has_name).map(|field| field.value.of(bytes))
    }

    /// As much of the request line as can be recognized in the beginning of a head that is not valid or not complete. For logs.
    /// All else has its default.
    pub fn of_incomplete(bytes: &[u8]) -> Self {
        let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        let bytes = &bytes[..bytes.len().min(start + LONGEST_INCOMPLETE)];
        let end = |start: usize, stop: &dyn Fn(u8) -> bool| {
            bytes[start..].iter().position(|byte| stop(*byte)).map_or(bytes.len(), |length| start + length)
        };
        let line = end(start, &|byte| matches!(byte, b'\r' | b'\n'));
        let is_space = |byte: u8| matches!(byte, b' ' | b'\r' | b'\n');
        let method = Span::new(start, end(start, &is_space));
        let begin = line.min(method.end as usize + 1);
        let target = Span::new(begin, end(begin, &is_space));
        let path = Span::new(begin, end(begin, &|byte| byte == b'?' || is_space(byte)));
        let query = Span::new((path.end as usize + 1).min(target.end as usize), target.end as usize);
        let version = bytes.get(target.end as usize..line).unwrap_or_default();
        let version = if version == b" HTTP/1.0" { Version::Http10 } else { Version::Http11 };
        Self { method, target, path, query, version, ..Self::default() }
    }

    /// The method as text; ASCII by construction.
    pub fn method<'a>(&self, bytes: &'a [u8]) -> &'a str {
        ascii(self.method.of(bytes))
    }

    /// The target as text; ASCII by construction.
    pub fn target<'a>(&self, bytes: &'a [u8]) -> &'a str {
        ascii(self.target.of(bytes))
    }
}

/// Empty if `bytes` are not UTF-8, which means that the head was created from other bytes. Compare [`Span::of`].
fn ascii(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_that_does_not_fit_is_empty() {
        assert_eq!(Span { start: 1, end: 3 }.of(b"abcd"), b"bc");
        assert_eq!(Span { start: 3, end: 9 }.of(b"abcd"), b"");
        assert_eq!(Span { start: 3, end: 1 }.of(b"abcd"), b"");
        assert_eq!(Head { method: Span { start: 0, end: 1 }, ..Head::default() }.method(b"\xff"), "");
    }

    #[test]
    fn the_request_line_of_an_incomplete_head_is_recognized_as_far_as_it_goes() {
        let long = [b"GET /".as_slice(), &[b'x'; 2000]].concat();
        for (bytes, method, target, path, query, version) in [
            (&b""[..], "", "", "", "", Version::Http11),
            (b"\r\n", "", "", "", "", Version::Http11),
            (b"NONSENSE\r\n\r\n", "NONSENSE", "", "", "", Version::Http11),
            (b"GET", "GET", "", "", "", Version::Http11),
            (b"GET \r\nX: /a b\r\n", "GET", "", "", "", Version::Http11),
            (b"GET / HT", "GET", "/", "/", "", Version::Http11),
            (b"GET /a?b?c HTTP/1.0\r\nX: y\r\n", "GET", "/a?b?c", "/a", "b?c", Version::Http10),
            (b"\r\nGET /a?", "GET", "/a?", "/a", "", Version::Http11),
            (b"G\xff /\xff", "", "", "/\u{fffd}", "", Version::Http11),
            (
                &long,
                "GET",
                str::from_utf8(&long[4..1024]).unwrap(),
                str::from_utf8(&long[4..1024]).unwrap(),
                "",
                Version::Http11,
            ),
        ] {
            let head = Head::of_incomplete(bytes);
            assert_eq!((head.method(bytes), head.target(bytes)), (method, target));
            assert_eq!(String::from_utf8_lossy(head.path.of(bytes)), path);
            assert_eq!(String::from_utf8_lossy(head.query.of(bytes)), query);
            assert_eq!(head.version, version);
        }
    }

    #[test]
    fn field_returns_the_first_field_and_ignores_case() {
        let bytes = b"a: 1 A: 2";
        let field = |at| Field { name: Span::new(at, at + 1), value: Span::new(at + 3, at + 4) };
        let head = Head { fields: vec![field(0), field(5)], ..Head::default() };
        assert_eq!(head.field(bytes, "A"), Some(&b"1"[..]));
        assert_eq!(head.field(bytes, "b"), None);
    }
}
