//! All that a connection sends: pipelined requests, good and bad.
//!
//! The one thing to know: most of the invariants are checked by [`read`] itself; here the same input is read in
//! different ways, and the answers are compared.

use mlws_http1::Limits;

use crate::dice::Dice;
use crate::reading::{End, Message, Reading, read};
use crate::spoiled;

const NEXT: &[u8] = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n";

/// Checks one input, with each of the [limits](Dice::limits).
pub fn check(wire: &[u8]) {
    let mut dice = Dice::of(wire);
    for limits in dice.limits() {
        let whole = read(&limits, [wire]);
        assert_eq!(read(&limits, wire.chunks(1)), whole, "byte by byte it is another");
        assert_eq!(read(&limits, dice.cut(wire)), whole, "cut it is another");
        spoiled::check(&limits, wire, &whole);
        check_more(&limits, wire, &whole);
        check_places(&limits, wire, &whole);
        check_rewritten(&limits, &whole);
    }
}

/// What follows changes nothing of what was read, and nothing of it is read after an error or a close.
fn check_more(limits: &Limits, wire: &[u8], whole: &Reading) {
    let both = read(limits, [wire, NEXT]);
    match whole.end {
        End::Error(_) | End::Closed => assert_eq!(&both, whole, "what follows the end was looked at"),
        End::Incomplete | End::BetweenRequests => {
            let complete = whole.messages.iter().filter(|message| message.is_complete).count();
            assert_eq!(both.messages.get(..complete), whole.messages.get(..complete));
        }
    }
}

/// Each message is exactly the bytes it consumed: with the last of them missing it is not complete, and alone it is
/// what it is among others.
fn check_places(limits: &Limits, wire: &[u8], whole: &Reading) {
    let mut before = 0;
    for (message, place) in whole.messages.iter().zip(&whole.places) {
        assert_eq!(place.all.start, before, "messages stand one behind the other");
        before = place.all.end;
        let alone = read(limits, [&wire[place.all.clone()]]);
        assert_eq!(alone.messages, std::slice::from_ref(message));
        if message.is_complete {
            let end = if message.keep_alive { End::BetweenRequests } else { End::Closed };
            assert_eq!(alone.end, end);
            let short = read(limits, [&wire[place.all.start..place.all.end - 1]]);
            assert_eq!(short.end, End::Incomplete, "it is complete without its last byte");
        }
    }
}

/// What was accepted, written again, is accepted as the same.
fn check_rewritten(limits: &Limits, whole: &Reading) {
    let complete = whole.messages.iter().filter(|message| message.is_complete);
    let complete: Vec<_> = complete.cloned().collect();
    let again: Vec<u8> = complete.iter().flat_map(Message::write).collect();
    assert_eq!(read(limits, [&again[..]]).messages, complete, "written again it is another");
}
