//! What proxies say: the bytes as the start of a connection, and as values of forwarded fields.
//!
//! The one thing to know: both are heard from whoever may reach a port, so nobody else's bytes may change what a proxy said: neither
//! those behind its header, nor those left of its own word in a list.

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

/// Every prefix gives nothing yet, or what the whole gives.
fn check_header(bytes: &[u8], versions: ProxyVersions) {
    let whole = ProxyHeader::parse(bytes, versions);
    let prefixes = (0..=bytes.len()).map(|end| ProxyHeader::parse(&bytes[..end], versions));
    let first = prefixes.enumerate().find(|(_, found)| *found != Ok(None));
    let Some((end, found)) = first else {
        assert!(whole == Ok(None) && bytes.len() < 4096, "nothing is waited for without end");
        return;
    };
    assert_eq!(found, whole, "cut it is another");
    match whole {
        Ok(Some((header, length))) => {
            assert_eq!(length, end, "it ends with its last byte");
            assert!(if bytes[0] == b'P' { length <= 107 } else { length <= 4096 });
            check_rewritten(header);
        }
        Ok(None) => unreachable!("it was found"),
        Err(ProxyError::TooLong) => assert!(end == 16 || end == 107),
        Err(ProxyError::Missing | ProxyError::Malformed) => {}
    }
}

fn check_rewritten(header: ProxyHeader) {
    if let ProxyHeader::Tcp { source, destination } = header {
        assert_eq!(source.is_ipv4(), destination.is_ipv4());
        let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from, to) = (source.ip(), destination.ip());
        let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
        assert_eq!(ProxyHeader::parse(line.as_bytes(), ProxyVersions::One), Ok(Some((header, line.len()))));
    }
}

/// What stands in a list behind whatever a client sent is not changed by it.
fn check_field(bytes: &[u8], field: ForwardedField) {
    let is_proxy = |address: IpAddr| address.is_loopback();
    let read = |value: &[u8]| {
        let said = Forwarded::parse(&[(field, value)], is_proxy).ok()?;
        Some((said.client, said.https, said.host.map(std::borrow::Cow::into_owned), said.port))
    };
    if let Some((_, _, Some(host), _)) = read(bytes) {
        assert!(
            !host.is_empty()
                && host.iter().all(|byte| byte.is_ascii_graphic() && !b"/\\@\"<>".contains(byte))
        );
    }
    let own: &[u8] = match field {
        ForwardedField::For => b"192.0.2.1:4711, 127.0.0.1",
        ForwardedField::Proto => b"https",
        ForwardedField::Host => b"shop.example",
        ForwardedField::Port => b"8443",
        ForwardedField::Prefix => b"/shop",
        ForwardedField::Forwarded => b"for=\"192.0.2.1:4711\";proto=https;host=\"a:1\", for=127.0.0.1",
    };
    let appended = read(&[bytes, b", ", own].concat());
    let is_lax = field != ForwardedField::Forwarded;
    assert!(
        appended == read(own) || (appended.is_none() && !is_lax),
        "a client has changed what its proxy said"
    );
    if field == ForwardedField::Prefix {
        let said = Forwarded::parse(&[(field, bytes)], is_proxy);
        let prefix = said.ok().and_then(|said| said.prefix).unwrap_or_default();
        assert!(
            prefix.is_empty()
                || (prefix.starts_with(b"/") && !prefix.starts_with(b"//") && !prefix.ends_with(b"/"))
        );
    }
}
