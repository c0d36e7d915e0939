//! A chunked body.
//!
//! The one thing to know: an accepted body is decoded a second time, by the plainest decoder there is, and both have
//! to find the same bytes and the same end.

use mlws_http1::Limits;

use crate::dice::Dice;
use crate::reading::{End, read};
use crate::spoiled;

/// The head in front of the input.
pub const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Checks one input, with the default limits and with small ones.
pub fn check(body: &[u8]) {
    let mut dice = Dice::of(body);
    let wire = [HEAD, body].concat();
    let Limits { body: most, chunk_extensions, trailers, .. } = dice.small_limits();
    let small = Limits { body: most, chunk_extensions, trailers, ..Limits::default() }; // the head has to pass
    for limits in [Limits::default(), small] {
        let whole = read(&limits, [&wire[..]]);
        assert_eq!(read(&limits, wire.chunks(1)), whole, "byte by byte it is another");
        let cut = dice.cut(body);
        assert_eq!(read(&limits, [HEAD].into_iter().chain(cut)), whole, "cut it is another");
        spoiled::check(&limits, &wire, &whole);
        let (message, place) = (&whole.messages[0], &whole.places[0]);
        if !message.is_complete {
            continue;
        }
        let end = place.all.end;
        assert_eq!(plain(&wire[HEAD.len()..end]), Some((message.body.clone(), end - HEAD.len())));
        assert_eq!(read(&limits, [&wire[..end - 1]]).end, End::Incomplete, "it is complete without its end");
        let again = read(&limits, [&message.write()[..]]);
        assert_eq!((&again.messages[0], again.end), (message, End::BetweenRequests));
    }
}

/// The body and its length on the wire (RFC 9112, section 7.1).
fn plain(mut wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let all = wire.len();
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
            return Some((body, all - wire.len()));
        }
        let name = line.split(|&byte| byte == b':').next()?.to_ascii_lowercase();
        assert!(name.len() < line.len() && is_text(line) && name.iter().all(u8::is_ascii_graphic));
        assert!(![&b"host"[..], b"content-length", b"transfer-encoding"].contains(&&name[..]));
    }
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\t')
}

/// Takes one line, which has neither CR nor LF in it.
fn line<'a>(wire: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = wire.iter().position(|byte| b"\r\n".contains(byte))?;
    let line = wire.split_off(..end)?;
    *wire = wire.strip_prefix(b"\r\n")?;
    Some(line)
}
