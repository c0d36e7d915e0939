//! What an app may answer, as a script: all that it can do goes through the public face of the response side.
//!
//! The one thing to know: whatever stands in the script, a client finds exactly one response for each request, with
//! the body the app gave, or can tell that it was cut. A script has one line for each step:
//!
//! ```text
//! ?H0c            a request: HEAD, HTTP/1.0, close (any of them, or none)
//! !200 OK         status and reason
//! Name: value     a field; \n, \r and \0 are what they look like
//! #5              the server knows the body to be this long
//! +data           a piece of the body
//! *300            a piece of this many bytes
//! x               the app fails here
//! ```

use mlws_http1::{EncodedHead, RequestInfo, ResponseError, ResponseHead, Version};

use crate::client;

const DATE: &[u8; 29] = b"Thu, 01 Jan 1970 00:00:00 GMT";

/// Checks all the exchanges of a script.
pub fn check(script: &[u8]) {
    let mut wire = Vec::new();
    let mut places = Vec::new();
    let exchanges = play(script);
    for exchange in &exchanges {
        places.push(wire.len());
        wire.extend_from_slice(&exchange.wire);
    }
    for (exchange, start) in exchanges.iter().zip(places) {
        client::check(exchange, &wire[start..]);
    }
}

/// One request's answer, as it went over the wire.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The request's method was HEAD.
    pub is_head: bool,
    /// The status sent.
    pub status: u16,
    /// The fields of the app that were taken, connection fields and Content-Length among them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body a client must find.
    pub body: Vec<u8>,
    /// All bytes sent.
    pub wire: Vec<u8>,
    /// The body is there to its end; else the connection is cut.
    pub is_complete: bool,
    /// Another answer may follow on this connection.
    pub keep_alive: bool,
    /// The head says that none does.
    pub says_close: bool,
}

/// Plays a script as a server would, up to the end of the connection.
pub fn play(script: &[u8]) -> Vec<Exchange> {
    let lines: Vec<&[u8]> = script.split(|&byte| byte == b'\n').collect();
    let mut exchanges = Vec::new();
    for steps in lines.chunk_by(|_, next| !next.starts_with(b"?")) {
        let exchange = answer(steps);
        let goes_on = exchange.keep_alive && exchange.is_complete;
        exchanges.push(exchange);
        if !goes_on {
            break;
        }
    }
    exchanges
}

fn answer(steps: &[&[u8]]) -> Exchange {
    let asks = |flag: u8| matches!(steps[0], [b'?', flags @ ..] if flags.contains(&flag));
    let asked = RequestInfo {
        is_head: asks(b'H'),
        version: if asks(b'0') { Version::Http10 } else { Version::Http11 },
        keep_alive: !asks(b'c'),
    };
    app(asked, steps).unwrap_or_else(|_| {
        app(asked, &[b"!500 Internal Server Error", b"#1", b"+x"]).expect("our own answer is a good one")
    })
}

/// What comes of the steps; an error where the app has to be answered for.
fn app(asked: RequestInfo, steps: &[&[u8]]) -> Result<Exchange, ResponseError> {
    let status_line = steps.iter().find_map(|step| step.strip_prefix(b"!")).unwrap_or(b"200 OK");
    let (status, reason) = split(status_line, b' ');
    let status = number(status).and_then(|status| status.try_into().ok()).unwrap_or(u16::MAX);
    let mut head = ResponseHead::new(status, &unescape(reason))?;
    let (mut fields, mut known, mut pieces, mut fails) = (Vec::new(), None, Vec::new(), false);
    for step in steps {
        match *step {
            [] | [b'?' | b'!', ..] => {}
            b"x" => {
                fails = true;
                break;
            }
            [b'#', length @ ..] => known = number(length),
            [b'+', piece @ ..] => pieces.push(piece.to_vec()),
            [b'*', length @ ..] => pieces.push(vec![b'a'; number(length).unwrap_or(0).min(70_000) as usize]),
            field => {
                let (name, value) = split(field, b':');
                let value = value.strip_prefix(b" ").unwrap_or(value);
                let (name, value) = (unescape(name), unescape(value));
                head.field(&name, &value)?;
                fields.push((name, value));
            }
        }
    }
    let finished = head.finish(&asked, known, DATE, "s");
    Ok(Exchange { is_head: asked.is_head, status, fields, ..send(finished, &pieces, fails) })
}

/// Writes the pieces as a server does, and notes what a client has to find.
fn send(finished: EncodedHead, pieces: &[Vec<u8>], fails: bool) -> Exchange {
    let EncodedHead { bytes: mut wire, mut framing, keep_alive } = finished;
    assert!(!framing.ends_by_close() || !keep_alive);
    let most = if framing.wants_body() { framing.remaining().unwrap_or(u64::MAX) } else { 0 };
    let mut body = pieces.concat();
    body.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    for bytes in pieces {
        let piece = framing.encode(bytes.len());
        wire.extend_from_slice(&piece.prefix);
        wire.extend_from_slice(&bytes[..piece.len]);
        wire.extend_from_slice(piece.suffix);
    }
    let end = if fails { None } else { framing.end().ok() };
    wire.extend_from_slice(end.unwrap_or_default());
    // Where only the close ends the body, a reset says that it is cut, and that is no byte.
    let owes_nothing = framing.ends_by_close() || !framing.wants_body() || framing.remaining() == Some(0);
    Exchange {
        body,
        wire,
        is_complete: end.is_some() || owes_nothing,
        keep_alive: keep_alive && !fails,
        says_close: !keep_alive,
        ..Exchange::default()
    }
}

/// Before and behind the first such byte.
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
        let (byte, behind) = match bytes {
            [b'\\', b'n', behind @ ..] => (b'\n', behind),
            [b'\\', b'r', behind @ ..] => (b'\r', behind),
            [b'\\', b'0', behind @ ..] => (0, behind),
            _ => (*first, rest),
        };
        out.push(byte);
        bytes = behind;
    }
    out
}
