//! Target `response`: a script of application behavior, executed with the public API for responses.
//!
//! Invariant: for every script, a client receives exactly one response per request, with the body of the application,
//! or can detect that the response is truncated. A script has one line per step:
//!
//! ```text
//! ?H0c            a request: HEAD, HTTP/1.0, close (any combination)
//! !200 OK         status and reason
//! Name: value     a field; \n, \r and \0 are escapes
//! #5              the body length, if the server knows it
//! +data           body data
//! *300            this many bytes of body data
//! x               the application fails
//! ```

use mlws_http1::{EncodedHead, RequestInfo, ResponseError, ResponseHead, Version};

use crate::client;

const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

/// Checks all exchanges of a script.
pub fn check(script: &[u8]) {
    let mut wire = Vec::new();
    let mut extents = Vec::new();
    let exchanges = run(script);
    for exchange in &exchanges {
        extents.push(wire.len());
        wire.extend_from_slice(&exchange.wire);
    }
    for (exchange, start) in exchanges.iter().zip(extents) {
        client::check(exchange, &wire[start..]);
    }
}

/// The response to one request, as sent.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Whether the method is HEAD.
    pub is_head: bool,
    /// The status.
    pub status: u16,
    /// The accepted fields of the application, including connection fields and Content-Length.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The expected body.
    pub body: Vec<u8>,
    /// The encoded response.
    pub wire: Vec<u8>,
    /// Whether the body is complete. Otherwise the connection is closed early.
    pub is_complete: bool,
    /// Whether another response may follow on this connection.
    pub keep_alive: bool,
    /// Whether the head contains `Connection: close`.
    pub sends_close: bool,
}

/// Executes a script as a server would, up to the end of the connection.
pub fn run(script: &[u8]) -> Vec<Exchange> {
    let lines: Vec<&[u8]> = script.split(|&byte| byte == b'\n').collect();
    let mut exchanges = Vec::new();
    for steps in lines.chunk_by(|_, next| !next.starts_with(b"?")) {
        let exchange = respond(steps);
        let continues = exchange.keep_alive && exchange.is_complete;
        exchanges.push(exchange);
        if !continues {
            break;
        }
    }
    exchanges
}

fn respond(steps: &[&[u8]]) -> Exchange {
    let has_flag = |flag: u8| matches!(steps[0], [b'?', flags @ ..] if flags.contains(&flag));
    let request = RequestInfo {
        is_head: has_flag(b'H'),
        version: if has_flag(b'0') { Version::Http10 } else { Version::Http11 },
        keep_alive: !has_flag(b'c'),
    };
    run_app(request, steps).unwrap_or_else(|_| {
        run_app(request, &[b"!500 Internal Server Error", b"#1", b"+x"]).expect("valid error response")
    })
}

/// Executes the steps of one request. Fails where the server must send an error response instead.
fn run_app(request: RequestInfo, steps: &[&[u8]]) -> Result<Exchange, ResponseError> {
    let status_line = steps.iter().find_map(|step| step.strip_prefix(b"!")).unwrap_or(b"200 OK");
    let (status, reason) = split(status_line, b' ');
    let status = number(status).and_then(|status| status.try_into().ok()).unwrap_or(u16::MAX);
    let mut head = ResponseHead::new(status, &unescape(reason))?;
    let (mut fields, mut length, mut chunks, mut fails) = (Vec::new(), None, Vec::new(), false);
    for step in steps {
        match *step {
            [] | [b'?' | b'!', ..] => {}
            b"x" => {
                fails = true;
                break;
            }
            [b'#', digits @ ..] => length = number(digits),
            [b'+', data @ ..] => chunks.push(data.to_vec()),
            [b'*', digits @ ..] => chunks.push(vec![b'a'; number(digits).unwrap_or(0).min(70_000) as usize]),
            field => {
                let (name, value) = split(field, b':');
                let value = value.strip_prefix(b" ").unwrap_or(value);
                let (name, value) = (unescape(name), unescape(value));
                head.field(&name, &value)?;
                fields.push((name, value));
            }
        }
    }
    let encoded = head.finish(&request, length, DATE, "s");
    Ok(Exchange { is_head: request.is_head, status, fields, ..send(encoded, &chunks, fails) })
}

/// Encodes the response as a server does, and records what a client must receive.
fn send(encoded: EncodedHead, chunks: &[Vec<u8>], fails: bool) -> Exchange {
    let EncodedHead { bytes: mut wire, mut framing, keep_alive } = encoded;
    assert!(!framing.ends_by_close() || !keep_alive);
    let max = if framing.wants_body() { framing.remaining().unwrap_or(u64::MAX) } else { 0 };
    let mut body = chunks.concat();
    body.truncate(usize::try_from(max).unwrap_or(usize::MAX));
    for bytes in chunks {
        let chunk = framing.encode(bytes.len());
        wire.extend_from_slice(&chunk.prefix);
        wire.extend_from_slice(&bytes[..chunk.len]);
        wire.extend_from_slice(chunk.suffix);
    }
    let end = if fails { None } else { framing.end().ok() };
    wire.extend_from_slice(end.unwrap_or_default());
    // A truncated body delimited by close is signaled by a connection reset, which is not part of the bytes.
    let nothing_missing = framing.ends_by_close() || !framing.wants_body() || framing.remaining() == Some(0);
    Exchange {
        body,
        wire,
        is_complete: end.is_some() || nothing_missing,
        keep_alive: keep_alive && !fails,
        sends_close: !keep_alive,
        ..Exchange::default()
    }
}

/// Splits at the first occurrence of this byte.
fn split(bytes: &[u8], byte: u8) -> (&[u8], &[u8]) {
    let at = bytes.iter().position(|&it| it == byte).unwrap_or(bytes.len());
    (&bytes[..at], bytes.get(at + 1..).unwrap_or_default())
}

fn number(bytes: &[u8]) -> Option<u64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

fn unescape(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let [first, rest @ ..] = bytes {
        let (byte, after) = match bytes {
            [b'\\', b'n', after @ ..] => (b'\n', after),
            [b'\\', b'r', after @ ..] => (b'\r', after),
            [b'\\', b'0', after @ ..] => (0, after),
            _ => (*first, rest),
        };
        out.push(byte);
        bytes = after;
    }
    out
}
