//! Target `target`: the input as a request target, as a host, and as a path to decode.
//!
//! Invariant: a target is only split, so its parts concatenated are the target.

use mlws_http1::{Limits, ParserMode, percent_decode};

use crate::transcript::{Message, parse};

/// Checks one input.
pub fn check(bytes: &[u8]) {
    check_decoding(bytes);
    if bytes.iter().any(|byte| b"\r\n".contains(byte)) {
        return; // several lines; see the target `machine`
    }
    for mode in [ParserMode::Strict, ParserMode::Gunicorn] {
        let limits = Limits { mode, ..Limits::default() };
        for method in ["GET", "OPTIONS", "CONNECT"] {
            let wire = [method.as_bytes(), b" ", bytes, b" HTTP/1.1\r\nHost: host\r\n\r\n"].concat();
            if let Some(message) = parse_first(&limits, &wire) {
                check_target(bytes, &message, mode);
            }
        }
        let wire = [b"GET / HTTP/1.1\r\nHost:", bytes, b"\r\n\r\n"].concat();
        if let Some(message) = parse_first(&limits, &wire) {
            let host = message.host.expect("missing host");
            if mode == ParserMode::Gunicorn && host.starts_with(b"/") {
                assert!(host.iter().all(u8::is_ascii_graphic), "not the path of a Unix socket");
            } else {
                check_host(&host, bytes);
            }
        }
    }
}

fn parse_first(limits: &Limits, wire: &[u8]) -> Option<Message> {
    parse(limits, [wire]).messages.into_iter().next()
}

fn check_target(bytes: &[u8], message: &Message, mode: ParserMode) {
    assert_eq!(message.target.as_bytes(), bytes);
    assert!(bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    let host = message.host.as_deref().expect("missing host");
    if message.method == "CONNECT" {
        assert_eq!((mode, host, &message.path[..]), (ParserMode::Gunicorn, bytes, bytes));
        return check_host(host, bytes);
    }
    assert!(!message.path.contains(&b'?'));
    let question: &[u8] = if bytes.contains(&b'?') { b"?" } else { b"" };
    let parts = [&message.path, question, &message.query].concat();
    match bytes {
        [b'/', ..] => assert_eq!((&parts[..], host), (bytes, &b"host"[..])),
        b"*" => assert_eq!((&message.method[..], &parts[..]), ("OPTIONS", bytes)),
        _ => {
            check_host(host, host);
            assert!(matches!(parts[..], [] | [b'/' | b'?', ..]));
            let before =
                bytes.strip_suffix(&[host, &parts].concat()[..]).expect("missing host, path and query");
            let before = String::from_utf8_lossy(before).to_lowercase();
            let (scheme, userinfo) = before.split_once("//").expect("missing scheme");
            assert!(["http:", "https:"].contains(&scheme));
            assert!(userinfo.is_empty() || (mode == ParserMode::Gunicorn && userinfo.ends_with('@')));
            assert!(!userinfo.contains(['/', '?', '[', ']']));
        }
    }
}

/// A host contains no delimiters of the syntaxes in which hosts are embedded, and a port is a number.
fn check_host(host: &[u8], sent: &[u8]) {
    let text = str::from_utf8(host).expect("host is not ASCII");
    assert_eq!(text, String::from_utf8_lossy(sent).trim_matches([' ', '\t']));
    let is_forbidden = |byte: char| !byte.is_ascii_graphic() || "\"#%,/<>?@\\^`{|}".contains(byte);
    assert!(!text.is_empty() && !text.contains(is_forbidden));
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').expect("missing closing bracket"),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    assert!(!name.is_empty() && !name.contains(['[', ']']));
    assert!(port.is_empty() || port == ":" || port[1..].parse::<u16>().is_ok());
}

fn check_decoding(bytes: &[u8]) {
    let mut decoded = b"kept".to_vec();
    percent_decode(bytes, &mut decoded);
    let decoded = decoded.strip_prefix(b"kept").expect("existing content must be kept");
    assert_eq!(decoded, reference_decode(bytes), "another decoder returned another result");
    let encoded: Vec<u8> = bytes.iter().flat_map(|byte| format!("%{byte:02X}").into_bytes()).collect();
    let mut again = Vec::new();
    percent_decode(&encoded, &mut again);
    assert_eq!(again, bytes, "encoded bytes do not decode to themselves");
}

/// A minimal decoder (RFC 3986, section 2.1).
fn reference_decode(bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        match digits.map(|digits| u8::from_str_radix(&String::from_utf8_lossy(digits), 16)) {
            Some(Ok(byte)) if bytes[at] == b'%' => {
                decoded.push(byte);
                at += 3;
            }
            _ => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    decoded
}
