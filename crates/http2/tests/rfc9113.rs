//! What a client may do wrong, section by section of RFC 9113 and RFC 7541, and what it may do.
//!
//! Where the RFC names a code, the expected code is that one unless a comment says why it is not.

mod support;

use mlws_http2::{Event, Limits, PREFACE, Reason};
use support::*;

/// The consequence of a case, observed from the frames that the server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Neither a reset nor the end of the connection.
    Accepted,
    /// Only the stream is reset; the connection serves another request.
    Stream(u32, Reason),
    /// The connection is closed.
    Connection(Reason),
}

use Outcome::{Accepted, Connection, Stream};

fn outcome(peer: &Peer) -> Outcome {
    match (peer.connection_error(), &peer.resets()[..]) {
        (Some(reason), _) => Connection(reason),
        (None, [(stream, reason)]) => Stream(*stream, *reason),
        (None, []) => Accepted,
        (None, resets) => panic!("several resets: {resets:?}"),
    }
}

fn check(cases: &[(&str, Vec<Vec<u8>>, Outcome)]) {
    let mut failures = Vec::new();
    for (name, parts, expected) in cases {
        let mut peer = Peer::new();
        peer.send_all(parts);
        let found = outcome(&peer);
        if found != *expected {
            failures.push(format!("{name}: expected {expected:?}, got {found:?}"));
        }
        if let Connection(reason) = found {
            assert!(peer.session.is_closed(), "{name}");
            let last = peer.events.last();
            let is_reported =
                matches!(last, Some(Event::GoAway { error: Some(error) }) if error.reason() == reason);
            assert!(is_reported, "{name}: {last:?}");
            peer.events.clear();
            peer.send(&get(9999, &GET));
            assert!(peer.events.is_empty(), "{name}: input after the end was parsed");
        } else {
            assert!(peer.is_alive(), "{name}: the connection does not serve other streams");
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// A complete request on stream 1, to which the server has not responded.
fn half_closed() -> Vec<u8> {
    get(1, &GET)
}

#[test]
fn section_3_4_connection_preface() {
    for (bytes, what) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP/1"),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "a wrong preface"),
        (b"\x16\x03\x01", "TLS"),
    ] {
        let mut peer = Peer::unconnected(Limits::default());
        peer.send(bytes);
        assert!(
            matches!(peer.events[..], [Event::GoAway { error: Some(mlws_http2::Error::Preface) }]),
            "{what}"
        );
    }
    let mut peer = Peer::unconnected(Limits::default());
    peer.send_all(&[PREFACE.to_vec(), get(1, &GET)]);
    assert_eq!(peer.connection_error(), Some(Reason::PROTOCOL_ERROR), "the first frame is not SETTINGS");
    let mut peer = Peer::unconnected(Limits::default());
    let first = &peer.frames;
    assert!(first.is_empty());
    peer.collect();
    assert_eq!(peer.frames[0].kind, SETTINGS, "the server's preface does not wait for the client's");
}

#[test]
fn section_4_frames() {
    let max = 16_384;
    check(&[
        (
            "4.1: a frame of an unknown type",
            vec![frame(0x16, 0, 0, [0; 8]), frame(0x16, 0xff, 7, b"")],
            Accepted,
        ),
        ("4.1: undefined flags", vec![frame(PING, 0xfe, 0, [0; 8])], Accepted),
        ("4.1: the reserved bit", vec![frame(PING, 0, 1 << 31, [0; 8])], Accepted),
        ("4.2: DATA of the maximum size", vec![post(1, &POST), frame(DATA, 1, 1, vec![0; max])], Accepted),
        (
            "4.2: DATA that is too large",
            vec![post(1, &POST), frame(DATA, 1, 1, vec![0; max + 1])],
            Connection(Reason::FRAME_SIZE_ERROR),
        ),
        (
            "4.2: HEADERS that are too large",
            vec![frame(HEADERS, 5, 1, vec![0; max + 1])],
            Connection(Reason::FRAME_SIZE_ERROR),
        ),
        // h2 reports errors of HPACK as PROTOCOL_ERROR instead of COMPRESSION_ERROR
        (
            "4.3: an invalid header block",
            vec![frame(HEADERS, 5, 1, [0x40])],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "4.3: another frame within a header block",
            vec![frame(HEADERS, 1, 1, block(&GET)), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "4.3: the header block of another stream within a header block",
            vec![frame(HEADERS, 1, 1, block(&GET)), get(3, &GET)],
            Connection(Reason::PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn section_5_1_stream_states() {
    let reset = || vec![half_closed(), rst_stream(1, 8)];
    let half_closed_data = vec![half_closed(), frame(DATA, 1, 1, b"x")];
    check(&[
        ("idle: DATA", vec![frame(DATA, 1, 1, b"x")], Connection(Reason::PROTOCOL_ERROR)),
        ("idle: RST_STREAM", vec![rst_stream(1, 8)], Connection(Reason::PROTOCOL_ERROR)),
        ("idle: WINDOW_UPDATE", vec![window_update(1, 9)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "idle: CONTINUATION",
            vec![frame(CONTINUATION, 4, 1, block(&GET))],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("idle: PRIORITY", vec![frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])], Accepted),
        // here and below, the RFC asks for STREAM_CLOSED; h2 closes the connection with PROTOCOL_ERROR
        ("half-closed: DATA", half_closed_data, Connection(Reason::PROTOCOL_ERROR)),
        ("half-closed: HEADERS", vec![half_closed(), get(1, &GET)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "half-closed: CONTINUATION",
            vec![half_closed(), frame(CONTINUATION, 4, 1, block(&GET))],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("half-closed: WINDOW_UPDATE", vec![half_closed(), window_update(1, 9)], Accepted),
        ("half-closed: PRIORITY", vec![half_closed(), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 9])], Accepted),
        ("half-closed: RST_STREAM", reset(), Accepted),
        (
            "closed by RST_STREAM: DATA",
            [reset(), vec![frame(DATA, 1, 1, b"x")]].concat(),
            Stream(1, Reason::STREAM_CLOSED),
        ),
        (
            "closed by RST_STREAM: HEADERS",
            [reset(), vec![get(1, &GET)]].concat(),
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "closed by RST_STREAM: CONTINUATION",
            [reset(), vec![frame(CONTINUATION, 4, 1, block(&GET))]].concat(),
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("closed by RST_STREAM: WINDOW_UPDATE", [reset(), vec![window_update(1, 9)]].concat(), Accepted),
        ("closed by RST_STREAM: RST_STREAM", [reset(), vec![rst_stream(1, 8)]].concat(), Accepted),
        ("5.1.1: an even stream", vec![get(2, &GET)], Connection(Reason::PROTOCOL_ERROR)),
        ("5.1.1: a lower stream", vec![get(5, &GET), get(3, &GET)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "5.3.1: HEADERS that depend on themselves",
            vec![frame(HEADERS, 5 | WITH_PRIORITY, 1, [&[0, 0, 0, 1, 9][..], &block(&GET)].concat())],
            Stream(1, Reason::PROTOCOL_ERROR),
        ),
        (
            "5.3.1: PRIORITY that depends on itself",
            vec![half_closed(), frame(PRIORITY, 0, 1, [0, 0, 0, 1, 9])],
            Stream(1, Reason::PROTOCOL_ERROR),
        ),
        (
            "5.5: a frame of an unknown type within a header block",
            vec![frame(HEADERS, 1, 1, block(&GET)), frame(0x16, 0, 0, [0; 8])],
            Connection(Reason::PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn section_5_1_a_stream_closed_by_its_response_is_closed() {
    for (kind, payload, expected) in [
        (DATA, b"x".to_vec(), Stream(1, Reason::STREAM_CLOSED)),
        (HEADERS, block(&GET), Connection(Reason::PROTOCOL_ERROR)),
        (WINDOW_UPDATE, vec![0, 0, 0, 1], Accepted),
        (RST_STREAM, vec![0, 0, 0, 8], Accepted),
        (PRIORITY, vec![0, 0, 0, 0, 9], Accepted),
    ] {
        let mut peer = Peer::new();
        peer.send(&half_closed());
        peer.respond(1);
        peer.send(&frame(kind, 5, 1, payload));
        assert_eq!(outcome(&peer), expected, "frame type {kind}");
    }
}

#[test]
fn section_6_1_to_6_4_data_headers_priority_reset() {
    let open = || post(1, &POST);
    let padded = |pad: u8, data: &[u8]| frame(DATA, END_STREAM | PADDED, 1, [&[pad], data].concat());
    let padded_headers =
        |pad: u8| frame(HEADERS, 5 | PADDED, 1, [&[pad], &block(&GET)[..], &[0; 3]].concat());
    let length = u8::try_from(block(&GET).len()).unwrap();
    check(&[
        ("6.1: DATA on stream 0", vec![frame(DATA, 1, 0, b"x")], Connection(Reason::PROTOCOL_ERROR)),
        ("6.1: padding", vec![open(), padded(3, b"x\0\0\0")], Accepted),
        ("6.1: only padding", vec![open(), padded(4, b"\0\0\0\0")], Accepted),
        (
            "6.1: more padding than payload",
            vec![open(), padded(5, b"\0\0\0\0")],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "6.1: PADDED without a length",
            vec![open(), frame(DATA, 9, 1, b"")],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("6.2: padding", vec![padded_headers(3)], Accepted),
        (
            "6.2: more padding than payload",
            vec![padded_headers(length + 4)],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("6.2: HEADERS on stream 0", vec![get(0, &GET)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "6.2: with a priority",
            vec![frame(HEADERS, 5 | WITH_PRIORITY, 1, [&[0x80, 0, 0, 0, 9][..], &block(&GET)].concat())],
            Accepted,
        ),
        (
            "6.3: PRIORITY on stream 0",
            vec![frame(PRIORITY, 0, 0, [0, 0, 0, 1, 9])],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "6.3: PRIORITY of 4 bytes",
            vec![frame(PRIORITY, 0, 1, [0; 4])],
            Connection(Reason::FRAME_SIZE_ERROR),
        ),
        ("6.4: RST_STREAM on stream 0", vec![rst_stream(0, 8)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "6.4: RST_STREAM of 3 bytes",
            vec![half_closed(), frame(RST_STREAM, 0, 1, [0; 3])],
            Connection(Reason::FRAME_SIZE_ERROR),
        ),
        ("7: an unknown code in RST_STREAM", vec![half_closed(), rst_stream(1, 0xff00_0000)], Accepted),
    ]);
}

#[test]
fn section_6_5_settings() {
    check(&[
        ("unknown settings", vec![settings(&[(0xff, 1), (9, 9)])], Accepted),
        ("several values of one setting", vec![settings(&[(4, 100), (4, 200)])], Accepted),
        ("ACK with a payload", vec![frame(SETTINGS, ACK, 0, [0; 6])], Connection(Reason::FRAME_SIZE_ERROR)),
        ("on a stream", vec![frame(SETTINGS, 0, 1, [0, 1, 0, 0, 0, 9])], Connection(Reason::PROTOCOL_ERROR)),
        ("of 3 bytes", vec![frame(SETTINGS, 0, 0, [0; 3])], Connection(Reason::FRAME_SIZE_ERROR)),
        ("ENABLE_PUSH 2", vec![settings(&[(2, 2)])], Connection(Reason::PROTOCOL_ERROR)),
        // the RFC asks for FLOW_CONTROL_ERROR
        ("INITIAL_WINDOW_SIZE 2^31", vec![settings(&[(4, 1 << 31)])], Connection(Reason::PROTOCOL_ERROR)),
        ("INITIAL_WINDOW_SIZE 2^31-1", vec![settings(&[(4, (1 << 31) - 1)])], Accepted),
        ("MAX_FRAME_SIZE 16383", vec![settings(&[(5, 16_383)])], Connection(Reason::PROTOCOL_ERROR)),
        ("MAX_FRAME_SIZE 2^24", vec![settings(&[(5, 1 << 24)])], Connection(Reason::PROTOCOL_ERROR)),
        ("MAX_FRAME_SIZE 2^24-1", vec![settings(&[(5, (1 << 24) - 1)])], Accepted),
        ("an ACK that was not due", vec![frame(SETTINGS, ACK, 0, b"")], Connection(Reason::PROTOCOL_ERROR)),
    ]);
    let mut peer = Peer::new();
    peer.send_all(&[settings(&[(4, 100)]), settings(&[])]);
    let ack = Frame { kind: SETTINGS, flags: ACK, stream: 0, payload: vec![] };
    assert_eq!(peer.frames, [ack.clone(), ack], "6.5.3: each is acknowledged");
}

#[test]
fn section_6_7_and_6_8_ping_and_goaway() {
    check(&[
        ("6.7: an ACK that was not asked for", vec![frame(PING, ACK, 0, [7; 8])], Accepted),
        ("6.7: PING on a stream", vec![frame(PING, 0, 1, [7; 8])], Connection(Reason::PROTOCOL_ERROR)),
        ("6.7: PING of 7 bytes", vec![frame(PING, 0, 0, [7; 7])], Connection(Reason::FRAME_SIZE_ERROR)),
        ("6.8: GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, [0; 8])], Connection(Reason::PROTOCOL_ERROR)),
    ]);
    let mut peer = Peer::new();
    peer.send(&frame(PING, 0, 0, b"12345678"));
    assert_eq!(peer.frames, [Frame { kind: PING, flags: ACK, stream: 0, payload: b"12345678".to_vec() }]);
}

#[test]
fn section_6_8_streams_are_completed_after_goaway_of_the_client() {
    let mut peer = Peer::new();
    peer.send_all(&[get(1, &GET), frame(GOAWAY, 0, 0, [0; 8])]);
    assert_eq!(peer.heads().len(), 1);
    assert!(!peer.session.is_closed());
    peer.respond(1);
    assert!(peer.frames.iter().any(|frame| frame.kind == HEADERS && frame.stream == 1));
    assert_eq!(peer.events.last(), Some(&Event::GoAway { error: None }));
}

#[test]
fn section_6_9_window_update() {
    let max = (1 << 31) - 1;
    check(&[
        ("0 on the connection", vec![window_update(0, 0)], Connection(Reason::PROTOCOL_ERROR)),
        // the RFC asks for a stream error, and permits a connection error
        ("0 on a stream", vec![half_closed(), window_update(1, 0)], Connection(Reason::PROTOCOL_ERROR)),
        ("of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, [0; 3])], Connection(Reason::FRAME_SIZE_ERROR)),
        (
            "the connection's window overflows",
            vec![window_update(0, max)],
            Connection(Reason::FLOW_CONTROL_ERROR),
        ),
        (
            "a stream's window overflows",
            vec![half_closed(), window_update(1, max)],
            Stream(1, Reason::FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.2: a stream's window overflows because of a setting",
            vec![half_closed(), window_update(1, max - 65_535), settings(&[(4, 65_536)])],
            Connection(Reason::FLOW_CONTROL_ERROR),
        ),
    ]);
}

#[test]
fn section_6_10_continuation() {
    let block = block(&GET);
    let (first, rest) = block.split_at(7);
    let (second, third) = rest.split_at(9);
    let start = || frame(HEADERS, END_STREAM, 1, first);
    check(&[
        (
            "several CONTINUATION frames",
            vec![start(), frame(CONTINUATION, 0, 1, second), frame(CONTINUATION, END_HEADERS, 1, third)],
            Accepted,
        ),
        (
            "after END_HEADERS",
            vec![half_closed(), frame(CONTINUATION, END_HEADERS, 1, rest)],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        ("on stream 0", vec![start(), frame(CONTINUATION, 4, 0, rest)], Connection(Reason::PROTOCOL_ERROR)),
        (
            "on another stream",
            vec![start(), frame(CONTINUATION, 4, 3, rest)],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "after DATA",
            vec![post(1, &POST), frame(DATA, 0, 1, b"x"), frame(CONTINUATION, 4, 1, rest)],
            Connection(Reason::PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn section_8_1_messages() {
    let open = || post(1, &POST);
    let trailers = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields));
    let length = |value| post(1, &with(&POST, &[("content-length", value)]));
    let data = |data: &str| frame(DATA, END_STREAM, 1, data);
    let malformed = Stream(1, Reason::PROTOCOL_ERROR);
    check(&[
        ("trailers", vec![open(), frame(DATA, 0, 1, b"x"), trailers(&[("a", "b")])], Accepted),
        ("trailers without END_STREAM", vec![open(), post(1, &[("a", "b")])], malformed),
        ("content-length", vec![length("1"), data("x")], Accepted),
        ("content-length 0", vec![length("0"), data("")], Accepted),
        ("less than content-length", vec![length("2"), data("x")], malformed),
        (
            "less than content-length over several frames",
            vec![length("3"), frame(DATA, 0, 1, b"x"), data("x")],
            malformed,
        ),
        ("more than content-length", vec![length("1"), frame(DATA, 0, 1, b"xy")], malformed),
        (
            "more than content-length over several frames",
            vec![length("2"), frame(DATA, 0, 1, b"x"), data("xy")],
            malformed,
        ),
        ("less than content-length with trailers", vec![length("2"), trailers(&[("a", "b")])], malformed),
        ("content-length without a body", vec![get(1, &with(&GET, &[("content-length", "1")]))], malformed),
        ("content-length that is not a number", vec![length("1x"), data("x")], malformed),
        ("content-length with a sign", vec![length("+1"), data("x")], malformed),
        (
            "contradictory content-lengths",
            vec![post(1, &with(&POST, &[("content-length", "1"), ("content-length", "2")]))],
            malformed,
        ),
    ]);
}

#[test]
fn section_8_2_and_8_3_fields() {
    let request = |more: &[(&'static str, &'static str)]| vec![get(1, &with(&GET, more))];
    let replaced = |name: &str, value: &'static str| {
        let fields: Vec<_> =
            GET.iter().map(|&(key, old)| (key, if key == name { value } else { old })).collect();
        vec![get(1, &fields)]
    };
    let without = |name: &str| {
        let fields: Vec<_> = GET.iter().copied().filter(|(key, _)| *key != name).collect();
        vec![get(1, &fields)]
    };
    let malformed = Stream(1, Reason::PROTOCOL_ERROR);
    let hpack = Connection(Reason::PROTOCOL_ERROR); // see "Limitations" in lib.rs
    let trailers = |fields: &[(&str, &str)]| {
        vec![post(1, &POST), frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields))]
    };
    check(&[
        ("8.2.1: uppercase", request(&[("X-a", "b")]), hpack),
        ("8.2.1: a space in a name", request(&[("x a", "b")]), hpack),
        ("8.2.1: a colon in a name", request(&[("x:a", "b")]), hpack),
        ("8.2.1: an empty name", request(&[("", "b")]), hpack),
        ("8.2.1: NUL in a value", request(&[("x", "a\0b")]), hpack),
        ("8.2.1: CR in a value", request(&[("x", "a\rb")]), hpack),
        ("8.2.1: LF in a value", request(&[("x", "a\nb")]), hpack),
        ("8.2.1: a leading space", request(&[("x", " a")]), malformed),
        ("8.2.1: a trailing tab", request(&[("x", "a\t")]), malformed),
        ("8.2.1: an inner tab", request(&[("x", "a\tb")]), Accepted),
        ("8.2.1: an empty value", request(&[("x", "")]), Accepted),
        ("8.2.2: connection", request(&[("connection", "keep-alive")]), malformed),
        ("8.2.2: keep-alive", request(&[("keep-alive", "1")]), malformed),
        ("8.2.2: proxy-connection", request(&[("proxy-connection", "x")]), malformed),
        ("8.2.2: transfer-encoding", request(&[("transfer-encoding", "chunked")]), malformed),
        ("8.2.2: upgrade", request(&[("upgrade", "h2c")]), malformed),
        ("8.2.2: te: gzip", request(&[("te", "trailers, gzip")]), malformed),
        ("8.2.2: te: trailers", request(&[("te", "trailers")]), Accepted),
        ("8.3: an unknown pseudo-header", request(&[(":x", "y")]), hpack),
        ("8.3: a pseudo-header of responses", request(&[(":status", "200")]), malformed),
        ("8.3: a pseudo-header after a field", vec![get(1, &[&[("x", "y")][..], &GET].concat())], malformed),
        // h2 drops it; trailers are discarded anyway
        ("8.3: a pseudo-header in trailers", trailers(&[(":path", "/")]), Accepted),
        ("8.3.1: no method", without(":method"), malformed),
        ("8.3.1: no scheme", without(":scheme"), malformed),
        ("8.3.1: no path", without(":path"), malformed),
        ("8.3.1: two methods", request(&[(":method", "GET")]), malformed),
        ("8.3.1: two schemes", request(&[(":scheme", "https")]), malformed),
        ("8.3.1: two paths", request(&[(":path", "/")]), malformed),
        ("8.3.1: two authorities", request(&[(":authority", "a.example")]), malformed),
        ("8.3.1: an empty path", replaced(":path", ""), malformed),
        ("8.3.1: a path without a slash", replaced(":path", "a"), malformed),
        ("8.3.1: an absolute URI as path", replaced(":path", "https://a.example/"), malformed),
        ("8.3.1: * for another method than OPTIONS", replaced(":path", "*"), malformed),
        ("8.3.1: LF in the path", replaced(":path", "/\n"), malformed),
        ("8.3.1: NUL in the path", replaced(":path", "/\0"), malformed),
        ("8.3.1: a space in the path", replaced(":path", "/ HTTP/1.1"), malformed),
        ("8.3.1: CR LF in the authority", replaced(":authority", "a\r\nb: c"), malformed),
        ("8.3.1: an empty authority", replaced(":authority", ""), malformed),
        ("8.3.1: a method that is not a token", replaced(":method", "G ET"), hpack),
        ("8.3.1: no authority and no Host", without(":authority"), malformed),
        ("8.3.1: Host is the authority", request(&[("host", "A.example")]), Accepted),
        ("8.3.1: Host differs from the authority", request(&[("host", "b.example")]), malformed),
        ("8.3.1: two Hosts", request(&[("host", "a.example"), ("host", "a.example")]), malformed),
        ("8.3.1: Host instead of the authority", vec![get(1, &with(&GET[..3], &[("host", "a")]))], Accepted),
        (
            "8.4: PUSH_PROMISE",
            vec![post(1, &POST), frame(PUSH_PROMISE, 4, 1, [0, 0, 0, 2])],
            Connection(Reason::PROTOCOL_ERROR),
        ),
        (
            "8.5: extended CONNECT",
            vec![get(1, &[&[(":method", "CONNECT"), (":protocol", "websocket")][..], &GET[1..]].concat())],
            malformed,
        ),
    ]);
}

#[test]
fn rfc_7541_header_compression() {
    let request = |block: &[u8]| vec![frame(HEADERS, 5, 1, block)];
    let with_get = |more: &[u8]| request(&[&block(&GET), more].concat());
    let error = Connection(Reason::PROTOCOL_ERROR); // instead of COMPRESSION_ERROR
    check(&[
        ("2.3.3: an index without an entry", with_get(&[0xff, 0x00]), error),
        ("2.3.3: the index of a name without an entry", with_get(&[0x7f, 0x00, 1, b'x']), error),
        ("4.2: a size update at the end of a block", with_get(&[0x20]), error),
        (
            "4.2: a size update at the start of a block",
            request(&[&[0x20][..], &block(&GET)].concat()),
            Accepted,
        ),
        (
            "6.3: a size update above the limit",
            request(&[&[0x3f, 0xe2, 0x1f][..], &block(&GET)].concat()),
            error,
        ),
        (
            "5.2: Huffman padding of more than 7 bits",
            with_get(b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"),
            error,
        ),
        ("5.2: Huffman padding of zeros", with_get(b"\x00\x85\xf2\xb2\x4a\x84\xff\x83\x49\x50\x90"), error),
        (
            "5.2: Huffman with EOS",
            with_get(b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f"),
            error,
        ),
        ("6.1: index 0", with_get(&[0x80]), error),
        (
            "5.1: an integer that is too large",
            with_get(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            error,
        ),
        ("5.1: a truncated integer", request(&[0x3f]), error), // panics in other implementations
        (
            "6.2.1: an entry is added and used",
            vec![frame(HEADERS, 5, 1, [&block(&GET)[..], b"\x40\x01x\x01y\xbe"].concat())],
            Accepted,
        ),
    ]);
}
