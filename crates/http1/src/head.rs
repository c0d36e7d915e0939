//! What a parsed request head is.
//!
//! The one thing to know: a [`Head`] owns no text. It holds [`Span`]s, positions in the bytes the parser was
//! given, so whoever keeps the head keeps those bytes with it.

/// A piece of the input, from `start` up to but without `end`.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first byte.
    pub start: u32,
    /// Index after the last byte.
    pub end: u32,
}

impl Span {
    /// The bytes meant. Bytes that are not the ones the span was made from never panic: where it does not
    /// fit, it is empty.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub(crate) fn new(start: usize, end: usize) -> Self {
        Span { start: start as u32, end: end as u32 }
    }
}

/// One field line: both parts as sent, the value without the white space around it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name, in the case it was sent in.
    pub name: Span,
    /// The field's value; may be empty, may hold bytes above ASCII.
    pub value: Span,
}

/// The versions of HTTP spoken here.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: closes by default, knows no chunks.
    Http10,
    /// HTTP/1.1: stays open by default.
    #[default]
    Http11,
}

impl Version {
    /// As it stands in a request line: `HTTP/1.0` or `HTTP/1.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        }
    }
}

/// How the request body is delimited (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes follow the head; 0 where there is no body.
    Known(u64),
    /// Chunks follow the head, up to the one of size 0.
    Chunked,
}

impl Default for Length {
    fn default() -> Self {
        Length::Known(0)
    }
}

/// A request head. All spans are relative to the first byte of the input that made the parser report it.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method as sent: a token of at most 32 bytes.
    pub method: Span,
    /// The whole request target as sent: visible ASCII without `#`.
    pub target: Span,
    /// The path, still percent-encoded. Of an absolute target the part after the authority, which is empty
    /// in `http://host?query` and then means `/`. The target itself for `*` and for CONNECT.
    pub path: Span,
    /// What follows the first `?`, empty if nothing does.
    pub query: Span,
    /// The authority of the target without userinfo, else the value of the Host field. Only HTTP/1.0 may have
    /// none, unless [`Tolerance`](crate::Tolerance) allows it.
    pub host: Option<Span>,
    /// The version the request speaks.
    pub version: Version,
    /// All field lines in the order they came, nothing dropped or joined.
    pub fields: Vec<Field>,
    /// How the body is delimited.
    pub body: Length,
    /// The client wants, and the message allows, another request on this connection.
    pub keep_alive: bool,
    /// There is a body, and the client waits for `100 Continue` before it sends it.
    pub expect_continue: bool,
    /// How many bytes of input the head took: a skipped leading CRLF, the request line, the fields and the
    /// blank line.
    pub len: usize,
}

impl Head {
    /// The value of the first field of that name, in any case.
    pub fn field<'a>(&self, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
        let named = |field: &&Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        self.fields.iter().find(named).map(|field| field.value.of(bytes))
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

/// Only bytes the head was not made from can fail here, and they are treated as [`Span::of`] treats them.
fn ascii(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_other_bytes_is_empty() {
        assert_eq!(Span { start: 1, end: 3 }.of(b"abcd"), b"bc");
        assert_eq!(Span { start: 3, end: 9 }.of(b"abcd"), b"");
        assert_eq!(Span { start: 3, end: 1 }.of(b"abcd"), b"");
        assert_eq!(Head { method: Span { start: 0, end: 1 }, ..Head::default() }.method(b"\xff"), "");
    }

    #[test]
    fn the_first_field_of_a_name_is_found_in_any_case() {
        let bytes = b"a: 1 A: 2";
        let field = |at| Field { name: Span::new(at, at + 1), value: Span::new(at + 3, at + 4) };
        let head = Head { fields: vec![field(0), field(5)], ..Head::default() };
        assert_eq!(head.field(bytes, "A"), Some(&b"1"[..]));
        assert_eq!(head.field(bytes, "b"), None);
    }
}
