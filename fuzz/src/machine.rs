//! Target `machine`: everything a connection sends, that is, valid and invalid pipelined requests.
//!
//! [`parse`] itself checks most invariants. This module parses the same input in different ways and compares the
//! results.

use mlws_http1::Limits;

use crate::poisoned;
use crate::rng::Rng;
use crate::transcript::{End, Message, Transcript, parse};

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// Checks one input, with each of the [limits](Rng::limits).
pub fn check(wire: &[u8]) {
    let mut rng = Rng::from_input(wire);
    for limits in rng.limits() {
        let whole = parse(&limits, [wire]);
        assert_eq!(parse(&limits, wire.chunks(1)), whole, "parsing byte by byte gave another result");
        assert_eq!(parse(&limits, rng.split(wire)), whole, "splitting the input gave another result");
        poisoned::check(&limits, wire, &whole);
        check_later_input(&limits, wire, &whole);
        check_extents(&limits, wire, &whole);
        check_reencoded(&limits, &whole);
    }
}

/// Later input does not change earlier results, and is not parsed after an error or a close.
fn check_later_input(limits: &Limits, wire: &[u8], whole: &Transcript) {
    let both = parse(limits, [wire, NEXT]);
    match whole.end {
        End::Error(_) | End::Closed => assert_eq!(&both, whole, "input after the end was parsed"),
        End::Incomplete | End::BetweenRequests => {
            let complete = whole.messages.iter().filter(|message| message.is_complete).count();
            assert_eq!(both.messages.get(..complete), whole.messages.get(..complete));
        }
    }
}

/// Each message is exactly the bytes it consumed: without the last byte it is incomplete, and on its own it is parsed
/// the same way.
fn check_extents(limits: &Limits, wire: &[u8], whole: &Transcript) {
    let mut previous_end = 0;
    for (message, extent) in whole.messages.iter().zip(&whole.extents) {
        assert_eq!(extent.all.start, previous_end, "messages are not contiguous");
        previous_end = extent.all.end;
        let alone = parse(limits, [&wire[extent.all.clone()]]);
        assert_eq!(alone.messages, std::slice::from_ref(message));
        if message.is_complete {
            let end = if message.keep_alive { End::BetweenRequests } else { End::Closed };
            assert_eq!(alone.end, end);
            let truncated = parse(limits, [&wire[extent.all.start..extent.all.end - 1]]);
            assert_eq!(truncated.end, End::Incomplete, "complete without its last byte");
        }
    }
}

/// Accepted messages, re-encoded, are parsed as the same messages.
fn check_reencoded(limits: &Limits, whole: &Transcript) {
    let complete = whole.messages.iter().filter(|message| message.is_complete);
    let complete: Vec<_> = complete.cloned().collect();
    let again: Vec<u8> = complete.iter().flat_map(Message::encode).collect();
    assert_eq!(parse(limits, [&again[..]]).messages, complete, "re-encoded, it is parsed differently");
}
