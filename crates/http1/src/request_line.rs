//! The request line: method, target and version (RFC 9112, section 3).
//!
//! Invariant: the target is split into parts but never decoded or normalized. Use
//! [`percent_decode`](crate::percent_decode) to decode the path.

use std::ops::Range;

use memchr::{memchr, memchr2, memrchr};

use crate::error::Error;
use crate::grammar::{all, decimal};
use crate::head::{Span, Version};
use crate::limits::ParserMode;
use crate::uri::{is_host, is_host_byte};

/// A valid request line. Spans are relative to the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) path: Span,
    pub(crate) query: Span,
    /// The host and port of an absolute target, or of CONNECT.
    pub(crate) authority: Option<Span>,
    pub(crate) version: Version,
    /// Index of the byte after its CRLF.
    pub(crate) end: usize,
}

impl RequestLine {
    /// Parses the line at `line` in `input`, without its CRLF. The caller has checked that it starts with a token
    /// and a space.
    pub(crate) fn parse(input: &[u8], line: Range<usize>, mode: ParserMode) -> Result<Self, Error> {
        let until_space = |from: usize| memchr(b' ', &input[from..line.end]).map(|length| from + length);
        let method_end = until_space(line.start).ok_or(Error::RequestLine)?;
        let start = method_end + 1;
        let end = until_space(start).ok_or(Error::RequestLine)?;
        let method = &input[line.start..method_end];
        let target = &input[start..end];
        let version = parse_version(&input[end + 1..line.end])?;
        if (method, target) == (b"PRI", b"*") {
            return Err(Error::Version); // the connection preface of HTTP/2 (RFC 9113, section 3.4)
        }
        if !all(target, |byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\') {
            return Err(Error::Target);
        }
        let (authority, path) = match target {
            _ if method == b"CONNECT" => match mode {
                ParserMode::Strict => return Err(Error::Connect),
                ParserMode::Gunicorn if !is_host_and_port(target) => return Err(Error::Host),
                ParserMode::Gunicorn => (Some(Span::new(start, end)), start),
            },
            [b'/', ..] => (None, start),
            b"*" if method == b"OPTIONS" => (None, start),
            _ => {
                let authority = start + authority_start(target).ok_or(Error::Target)?;
                let path = memchr2(b'/', b'?', &input[authority..end]).map_or(end, |at| authority + at);
                let host = match mode {
                    ParserMode::Strict => authority,
                    ParserMode::Gunicorn => authority + userinfo_length(&input[authority..path]),
                };
                if !is_host(&input[host..path]) {
                    return Err(Error::Host);
                }
                (Some(Span::new(host, path)), path)
            }
        };
        let question = memchr(b'?', &input[path..end]).map(|length| path + length);
        Ok(RequestLine {
            method: Span::new(line.start, method_end),
            target: Span::new(start, end),
            path: Span::new(path, question.unwrap_or(end)),
            query: Span::new(question.map_or(end, |at| at + 1), end),
            authority,
            version,
            end: line.end + b"\r\n".len(),
        })
    }
}

/// A minor version that does not exist yet is processed as 1.1 (RFC 9110, section 2.5).
fn parse_version(bytes: &[u8]) -> Result<Version, Error> {
    match bytes {
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Error::Version),
        _ => Err(Error::RequestLine),
    }
}

/// Where the authority of an absolute target starts. `None` unless the scheme is `http` or `https`.
fn authority_start(target: &[u8]) -> Option<usize> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let is_prefix =
        |scheme: &&[u8]| target.get(..scheme.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(scheme));
    schemes.into_iter().find(is_prefix).map(<[u8]>::len)
}

/// The length of `userinfo "@"` at the start of an authority (RFC 3986, section 3.2.1).
fn userinfo_length(authority: &[u8]) -> usize {
    let is_userinfo = |&byte: &u8| is_host_byte(byte) || b",:%".contains(&byte);
    memchr(b'@', authority).filter(|&at| authority[..at].iter().all(is_userinfo)).map_or(0, |at| at + 1)
}

/// Whether `bytes` are a target of CONNECT, which requires a port (RFC 9112, section 3.2.3).
fn is_host_and_port(bytes: &[u8]) -> bool {
    is_host(bytes) && memrchr(b':', bytes).is_some_and(|colon| decimal(&bytes[colon + 1..]).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_target_is_split_into_authority_path_and_query() {
        let line = b"GET http://a:1/b/c?d=e HTTP/1.0";
        let parsed = RequestLine::parse(line, 0..line.len(), ParserMode::Strict).expect("a valid line");
        assert_eq!(parsed.authority.map(|authority| authority.of(line)), Some(&b"a:1"[..]));
        assert_eq!((parsed.path.of(line), parsed.query.of(line)), (&b"/b/c"[..], &b"d=e"[..]));
        assert_eq!(parsed.version, Version::Http10);
    }
}
