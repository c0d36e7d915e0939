//! Hosts and percent-decoding (RFC 3986).

use std::net::Ipv6Addr;

use memchr::memchr;

use crate::grammar::decimal;

/// Whether `bytes` are `uri-host [ ":" port ]` (RFC 3986, section 3.2), without the rarely used forms: no userinfo,
/// comma, percent-encoding or IP address of a future version.
pub fn is_host(bytes: &[u8]) -> bool {
    let end =
        if bytes.starts_with(b"[") { memchr(b']', bytes).map(|at| at + 1) } else { memchr(b':', bytes) };
    let (host, port) = bytes.split_at(end.unwrap_or(bytes.len()));
    let host_is_valid = match host {
        [b'[', address @ .., b']'] => {
            str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        _ => !host.is_empty() && host.iter().all(|&byte| is_host_byte(byte)),
    };
    let port_is_valid = match port {
        [] | [b':'] => true, // RFC 3986 allows an empty port
        [b':', port @ ..] => decimal(port).is_some_and(|port| u16::try_from(port).is_ok()),
        _ => false,
    };
    host_is_valid && port_is_valid
}

/// `unreserved` and `sub-delims` without the comma.
pub(crate) fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&byte)
}

/// Appends `path` to `out`, percent-decoded once (RFC 3986, section 2.1). A `%` that is not followed by two
/// hexadecimal digits is copied unchanged.
pub fn percent_decode(path: &[u8], out: &mut Vec<u8>) {
    let mut rest = path;
    while let Some(at) = memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |index: usize| rest.get(at + index).and_then(|&byte| char::from(byte).to_digit(16));
        let (byte, length) = match (digit(1), digit(2)) {
            (Some(high), Some(low)) => ((high * 16 + low) as u8, 3),
            _ => (b'%', 1),
        };
        out.push(byte);
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decode_copies_invalid_escapes_unchanged() {
        let mut out = Vec::new();
        percent_decode(b"/a%20b%2%zz%", &mut out);
        assert_eq!(out, b"/a b%2%zz%");
    }
}
