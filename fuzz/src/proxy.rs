//! Target `proxy`: the input as the start of a connection (PROXY protocol), and as the value of each forwarding field.
//!
//! Invariant: bytes sent by a client never change the values of its proxy: neither bytes after the PROXY header, nor list
//! elements to the left of those that the proxy appended.

use std::net::IpAddr;

use mlws_http1::{Forwarded, ForwardedField, ProxyError, ProxyHeader, ProxyVersions};

/// Checks one input.
pub fn check(bytes: &[u8]) {
    for versions in [ProxyVersions::One, ProxyVersions::Two, ProxyVersions::Both] {
        check_header(bytes, versions);
    }
    for (field, _) in ForwardedField::ALL {
        check_field(bytes, field);
    }
}

/// Every prefix needs more input or has the same result as the whole.
fn check_header(bytes: &[u8], versions: ProxyVersions) {
    let whole = ProxyHeader::parse(bytes, versions);
    let prefixes = (0..=bytes.len()).map(|end| ProxyHeader::parse(&bytes[..end], versions));
    let first = prefixes.enumerate().find(|(_, found)| *found != Ok(None));
    let Some((end, found)) = first else {
        assert!(whole == Ok(None) && bytes.len() < 4096, "unbounded input");
        return;
    };
    assert_eq!(found, whole, "splitting the input gave another result");
    match whole {
        Ok(Some((header, length))) => {
            assert_eq!(length, end, "the header ends before its last byte");
            assert!(if bytes[0] == b'P' { length <= 107 } else { length <= 4096 });
            check_reencoded(header);
        }
        Ok(None) => unreachable!("a prefix was complete"),
        Err(ProxyError::TooLong) => assert!(end == 16 || end == 107),
        Err(ProxyError::Missing | ProxyError::Malformed) => {}
    }
}

fn check_reencoded(header: ProxyHeader) {
    if let ProxyHeader::Tcp { source, destination } = header {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
        assert_eq!(ProxyHeader::parse(line.as_bytes(), ProxyVersions::One), Ok(Some((header, line.len()))));
    }
}

/// List elements sent by a client do not change those that its proxy appended.
fn check_field(bytes: &[u8], field: ForwardedField) {
    let is_proxy = |address: IpAddr| address.is_loopback();
    let parse = |value: &[u8]| {
        let forwarded = Forwarded::parse(&[(field, value)], is_proxy).ok()?;
        Some((
            forwarded.client,
            forwarded.https,
            forwarded.host.map(std::borrow::Cow::into_owned),
            forwarded.port,
        ))
    };
    if let Some((_, _, Some(host), _)) = parse(bytes) {
        assert!(
            !host.is_empty()
                && host.iter().all(|byte| byte.is_ascii_graphic() && !b"/\\@\"<>".contains(byte))
        );
    }
    let by_proxy: &[u8] = match field {
        ForwardedField::For => b"192.0.2.1:4711, 127.0.0.1",
        ForwardedField::Proto => b"https",
        ForwardedField::Host => b"shop.example",
        ForwardedField::Port => b"8443",
        ForwardedField::Prefix => b"/shop",
        ForwardedField::Forwarded => b"for=\"192.0.2.1:4711\";proto=https;host=\"a:1\", for=127.0.0.1",
    };
    let appended = parse(&[bytes, b", ", by_proxy].concat());
    let is_lenient = field != ForwardedField::Forwarded;
    assert!(
        appended == parse(by_proxy) || (appended.is_none() && !is_lenient),
        "a client changed the value of its proxy"
    );
    if field == ForwardedField::Prefix {
        let forwarded = Forwarded::parse(&[(field, bytes)], is_proxy);
        let prefix = forwarded.ok().and_then(|forwarded| forwarded.prefix).unwrap_or_default();
        assert!(
            prefix.is_empty()
                || (prefix.starts_with(b"/") && !prefix.starts_with(b"//") && !prefix.ends_with(b"/"))
        );
    }
}
