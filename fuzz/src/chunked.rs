//! Target `chunked`: a chunked body.
//!
//! An accepted body is decoded a second time by a minimal decoder. Both must return the same data and length.

use mlws_http1::Limits;

use crate::poisoned;
use crate::rng::Rng;
use crate::transcript::{End, parse};

/// The head that precedes the input.
pub const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Checks one input, with the default limits and with small ones.
pub fn check(body: &[u8]) {
    let mut rng = Rng::from_input(body);
    let wire = [HEAD, body].concat();
    let Limits { body: max, chunk_extensions, trailers, .. } = rng.small_limits();
    // The limits of the head stay at their defaults, because HEAD must be accepted.
    let small = Limits { body: max, chunk_extensions, trailers, ..Limits::default() };
    for limits in [Limits::default(), small] {
        let whole = parse(&limits, [&wire[..]]);
        assert_eq!(parse(&limits, wire.chunks(1)), whole, "parsing byte by byte gave another result");
        let segments = rng.split(body);
        assert_eq!(
            parse(&limits, [HEAD].into_iter().chain(segments)),
            whole,
            "splitting the input gave another result"
        );
        poisoned::check(&limits, &wire, &whole);
        let (message, extent) = (&whole.messages[0], &whole.extents[0]);
        if !message.is_complete {
            continue;
        }
        let end = extent.all.end;
        assert_eq!(decode(&wire[HEAD.len()..end]), Some((message.body.clone(), end - HEAD.len())));
        assert_eq!(parse(&limits, [&wire[..end - 1]]).end, End::Incomplete, "complete without its last byte");
        let again = parse(&limits, [&message.encode()[..]]);
        assert_eq!((&again.messages[0], again.end), (message, End::BetweenRequests));
    }
}

/// Decodes a chunked body (RFC 9112, section 7.1). Returns the data and the encoded length.
fn decode(mut wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let total = wire.len();
    let mut body = Vec::new();
    loop {
        let line = line(&mut wire)?;
        let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
        let (size, extensions) = line.split_at(digits);
        assert!(matches!(extensions, [] | [b';', ..]) && is_text(extensions), "{extensions:?}");
        let size = usize::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(wire.split_off(..size)?);
        wire = wire.strip_prefix(b"\r\n")?;
    }
    loop {
        let line = line(&mut wire)?;
        if line.is_empty() {
            return Some((body, total - wire.len()));
        }
        let name = line.split(|&byte| byte == b':').next()?.to_ascii_lowercase();
        assert!(name.len() < line.len() && is_text(line) && name.iter().all(u8::is_ascii_graphic));
        assert!(![&b"host"[..], b"content-length", b"transfer-encoding"].contains(&&name[..]));
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t')
}

/// Removes and returns one line. It contains neither CR nor LF.
fn line<'a>(wire: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = wire.iter().position(|byte| b"\r\n".contains(byte))?;
    let line = wire.split_off(..end)?;
    *wire = wire.strip_prefix(b"\r\n")?;
    Some(line)
}
