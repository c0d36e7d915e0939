//! The request line: method, target, version (RFC 9112, section 3), hosts and percent-encoding (RFC 3986).
//!
//! The one thing to know: a target is never decoded or normalised here, only cut into parts. Whoever wants the
//! path decoded calls [`percent_decode`], once.

use std::net::Ipv6Addr;
use std::ops::Range;

use memchr::{memchr, memrchr};

use crate::error::Error;
use crate::grammar::{all, decimal};
use crate::head::{Span, Version};
use crate::limits::Tolerance;

/// A request line that was found good. Spans are relative to the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Span,
    pub(crate) target: Span,
    pub(crate) path: Span,
    pub(crate) query: Span,
    /// The host and port that the target names, if it does.
    pub(crate) authority: Option<Span>,
    pub(crate) version: Version,
    /// Index of the byte after its CRLF.
    pub(crate) end: usize,
}

impl RequestLine {
    /// `line` is where in `input` it stands, without CRLF. That it starts with a token and a space is known.
    pub(crate) fn parse(input: &[u8], line: Range<usize>, tolerance: Tolerance) -> Result<Self, Error> {
        let until_space = |from: usize| memchr(b' ', &input[from..line.end]).map(|length| from + length);
        let method_end = until_space(line.start).ok_or(Error::RequestLine)?;
        let start = method_end + 1;
        let end = until_space(start).ok_or(Error::RequestLine)?;
        let method = &input[line.start..method_end];
        let target = &input[start..end];
        let version = version(&input[end + 1..line.end])?;
        if (method, target) == (b"PRI", b"*") {
            return Err(Error::Version); // the preface of HTTP/2
        }
        if !all(target, |byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Error::Target);
        }
        let (authority, path) = match target {
            _ if method == b"CONNECT" => match tolerance {
                Tolerance::Strict => return Err(Error::Connect),
                Tolerance::Gunicorn if !is_host_and_port(target) => return Err(Error::Host),
                Tolerance::Gunicorn => (Some(Span::new(start, end)), start),
            },
            [b'/', ..] => (None, start),
            b"*" if method == b"OPTIONS" => (None, start),
            _ => {
                let authority = start + after_scheme(target).ok_or(Error::Target)?;
                let path = input[authority..end].iter().position(|&byte| byte == b'/' || byte == b'?');
                let path = path.map_or(end, |length| authority + length);
                let host = match tolerance {
                    Tolerance::Strict => authority,
                    Tolerance::Gunicorn => authority + userinfo(&input[authority..path]),
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

fn version(bytes: &[u8]) -> Result<Version, Error> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Error::Version),
        _ => Err(Error::RequestLine),
    }
}

/// Where the authority of an absolute target starts. Only the two schemes that HTTP serves are taken.
fn after_scheme(target: &[u8]) -> Option<usize> {
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let starts =
        |scheme: &&[u8]| target.get(..scheme.len()).is_some_and(|bytes| bytes.eq_ignore_ascii_case(scheme));
    schemes.into_iter().find(starts).map(<[u8]>::len)
}

/// How many bytes of an authority are `userinfo "@"` (RFC 3986, section 3.2.1).
fn userinfo(authority: &[u8]) -> usize {
    let is_userinfo = |&byte: &u8| is_host_byte(byte) || b",:%".contains(&byte);
    memchr(b'@', authority).filter(|&at| authority[..at].iter().all(is_userinfo)).map_or(0, |at| at + 1)
}

/// The target of CONNECT (RFC 9112, section 3.2.3), whose port has to be there.
fn is_host_and_port(bytes: &[u8]) -> bool {
    is_host(bytes) && memrchr(b':', bytes).is_some_and(|colon| decimal(&bytes[colon + 1..]).is_some())
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986, section 3.2) of a kind that is met in the wild: no
/// userinfo, comma or percent-encoding, no address of a future version.
pub(crate) fn is_host(bytes: &[u8]) -> bool {
    let end =
        if bytes.starts_with(b"[") { memchr(b']', bytes).map(|at| at + 1) } else { memchr(b':', bytes) };
    let (host, port) = bytes.split_at(end.unwrap_or(bytes.len()));
    let host_is_good = match host {
        [b'[', address @ .., b']'] => {
            str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        _ => !host.is_empty() && host.iter().all(|&byte| is_host_byte(byte)),
    };
    let port_is_good = match port {
        [] | [b':'] => true, // RFC 3986 lets the port be empty
        [b':', port @ ..] => decimal(port).is_some_and(|port| u16::try_from(port).is_ok()),
        _ => false,
    };
    host_is_good && port_is_good
}

/// `unreserved` and `sub-delims` without the comma.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

/// Appends `path` to `out` with its percent-encoding undone, once. What is not `%` and two hexadecimal digits
/// stays as it is.
pub fn percent_decode(path: &[u8], out: &mut Vec<u8>) {
    let mut rest = path;
    while let Some(at) = memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |index: usize| rest.get(at + index).and_then(|&byte| char::from(byte).to_digit(16));
        let (byte, taken) = match (digit(1), digit(2)) {
            (Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            _ => (b'%', 1),
        };
        out.push(byte);
        rest = &rest[at + taken..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_cut_into_its_parts() {
        let line = b"GET http://a:1/b/c?d=e HTTP/1.0";
        let parsed = RequestLine::parse(line, 0..line.len(), Tolerance::Strict).expect("a good line");
        assert_eq!(parsed.authority.map(|authority| authority.of(line)), Some(&b"a:1"[..]));
        assert_eq!((parsed.path.of(line), parsed.query.of(line)), (&b"/b/c"[..], &b"d=e"[..]));
        assert_eq!(parsed.version, Version::Http10);
    }

    #[test]
    fn decoding_leaves_what_is_no_encoding() {
        let mut out = Vec::new();
        percent_decode(b"/a%20b%2%zz%", &mut out);
        assert_eq!(out, b"/a b%2%zz%");
    }
}
