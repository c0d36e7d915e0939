//! A strict response parser (RFC 9112, sections 4 to 7).
//!
//! It shares no code with the server. `differential.py` parses the same responses with h11.

use crate::response::Exchange;

/// Checks that `wire` starts with exactly the response of this exchange. Later responses may follow.
pub fn check(exchange: &Exchange, wire: &[u8]) {
    let (lines, mut rest) = head(wire).expect("missing head");
    let status = lines[0].strip_prefix("HTTP/1.1 ").expect("missing status line");
    assert_eq!(status[..4], format!("{} ", exchange.status));
    let fields: Vec<(&str, &str)> =
        lines[1..].iter().map(|line| line.split_once(": ").expect("missing colon")).collect();
    for (name, value) in &fields {
        assert!(!name.is_empty() && name.chars().all(is_token), "{name:?}");
        assert!(!value.contains(|byte: char| byte.is_ascii_control() && byte != '\t'), "{value:?}");
    }
    let all = |wanted: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        named.map(|(_, value)| *value).collect()
    };
    for name in ["date", "server"] {
        let by_app = exchange.fields.iter().filter(|field| is_named(field, name)).count();
        assert_eq!(all(name).len(), by_app.max(1), "{name}");
    }
    let owned = ["date", "server", "content-length", "transfer-encoding", "connection"];
    let others = |name: &str| !owned.iter().any(|other| name.eq_ignore_ascii_case(other));
    let kept = exchange.fields.iter().filter(|(name, _)| {
        let name = latin1(name);
        others(&name) && !HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop))
    });
    let kept: Vec<(String, String)> = kept.map(|(name, value)| (latin1(name), latin1(value))).collect();
    let found = fields.iter().filter(|(name, _)| others(name));
    assert!(found.map(|&(name, value)| (name.to_owned(), value.to_owned())).eq(kept), "{fields:?}");
    let closes = all("connection") == ["close"];
    assert!(closes || all("connection").is_empty() || all("connection") == ["keep-alive"]);
    assert_eq!(closes, exchange.sends_close);

    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    assert!(lengths.len() + codings.len() <= 1, "{lengths:?} and {codings:?}");
    assert!(exchange.status != 204 || lengths.len() + codings.len() == 0, "RFC 9110, section 8.6");
    let no_body = exchange.is_head || matches!(exchange.status, 204 | 304);
    let (body, is_complete) = match (lengths.first(), codings.first()) {
        _ if no_body => (Vec::new(), true),
        (Some(length), _) => {
            let length = length.parse::<u64>().expect("invalid number");
            let there = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            (rest.split_off(..there).expect("enough bytes").to_vec(), there as u64 == length)
        }
        (_, Some(coding)) => {
            assert_eq!(*coding, "chunked");
            chunks(&mut rest)
        }
        _ => {
            assert!(closes, "delimited by close, but without Connection: close");
            (std::mem::take(&mut rest).to_vec(), true)
        }
    };
    assert_eq!((body, is_complete), (exchange.body.clone(), exchange.is_complete));
    assert_eq!(wire.len() - rest.len(), exchange.wire.len(), "the response has another length");
}

/// Fields that the application must not send (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 5] = ["te", "trailer", "upgrade", "keep-alive", "proxy-connection"];

/// The lines before the blank line, and the rest of the input.
fn head(wire: &[u8]) -> Option<(Vec<String>, &[u8])> {
    let mut lines = Vec::new();
    let mut rest = wire;
    loop {
        let end = rest.iter().position(|byte| b"\r\n".contains(byte))?;
        let line = rest.split_off(..end)?;
        rest = rest.strip_prefix(b"\r\n")?;
        if line.is_empty() {
            return Some((lines, rest));
        }
        lines.push(latin1(line));
    }
}

/// The decoded body, and whether the last chunk is present.
fn chunks(rest: &mut &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\r') {
        let size = rest.split_off(..end).expect("within bounds");
        let size = usize::from_str_radix(&latin1(size), 16).expect("invalid chunk size");
        *rest = rest.strip_prefix(b"\r\n").expect("missing CRLF");
        body.extend_from_slice(rest.split_off(..size).expect("truncated chunk"));
        *rest = rest.strip_prefix(b"\r\n").expect("missing CRLF");
        if size == 0 {
            return (body, true);
        }
    }
    (body, false)
}

fn is_named((name, _): &(Vec<u8>, Vec<u8>), wanted: &str) -> bool {
    name.eq_ignore_ascii_case(wanted.as_bytes())
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

fn is_token(byte: char) -> bool {
    byte.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(byte)
}
