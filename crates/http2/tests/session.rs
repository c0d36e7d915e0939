//! Requests, responses and the end of a connection.

mod support;

use mlws_http2::{Event, Head, Limits, Reason, ResponseHead, StreamClosed};
use support::*;

fn text(head: &Head) -> (String, Vec<(String, String)>) {
    let show = |span: mlws_http1::Span| span.of(&head.bytes).escape_ascii().to_string();
    let spans = [head.method, head.target, head.path, head.query, head.host];
    let fields = head.fields.iter().map(|field| (show(field.name), show(field.value)));
    (spans.map(show).join(" "), fields.collect())
}

#[test]
fn a_request_becomes_a_head_with_the_parts_of_an_http_1_request() {
    let fields = [
        (":method", "GET"),
        (":authority", "a.example:8443"),
        (":scheme", "https"),
        (":path", "/a%20b?c=d?"),
        ("cookie", "e=f"),
        ("accept", "x"),
        ("x", "1"),
        ("cookie", "g=h"),
        ("accept", "y"),
    ];
    let mut peer = Peer::new();
    peer.send(&get(1, &fields));
    let [Event::Head { stream: 1, head }, Event::End { stream: 1 }] = &peer.events[..] else {
        panic!("{:?}", peer.events)
    };
    let (line, fields) = text(head);
    assert_eq!(line, "GET /a%20b?c=d? /a%20b c=d? a.example:8443");
    let fields: Vec<_> = fields.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    let expected =
        [("host", "a.example:8443"), ("cookie", "e=f; g=h"), ("accept", "x"), ("accept", "y"), ("x", "1")];
    assert_eq!(fields, expected);
    assert_eq!((head.content_length, head.expect_continue), (None, false));
    assert_eq!(head.field("Cookie"), Some(&b"e=f; g=h"[..]));
}

#[test]
fn options_for_the_server_has_the_target_star() {
    let mut peer = Peer::new();
    peer.send(&get(1, &[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "a")]));
    assert_eq!(text(peer.heads()[0].1).0, "OPTIONS * *  a");
}

#[test]
fn a_body_is_data_followed_by_an_end() {
    let mut peer = Peer::new();
    let fields = with(&POST, &[("content-length", "5"), ("expect", "100-Continue")]);
    peer.send_all(&[
        post(1, &fields),
        frame(DATA, 0, 1, b"he"),
        frame(DATA, 0, 1, b""),
        frame(DATA, 1, 1, b"llo"),
    ]);
    let [Event::Head { head, .. }, rest @ ..] = &peer.events[..] else { panic!("{:?}", peer.events) };
    assert_eq!((head.content_length, head.expect_continue), (Some(5), true));
    let data = |data: &'static str| Event::Data { stream: 1, data: data.into() };
    assert_eq!(rest, [data("he"), data("llo"), Event::End { stream: 1 }]);
}

#[test]
fn trailers_end_a_body_and_are_discarded() {
    let mut peer = Peer::new();
    let trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("a", "b")]));
    peer.send_all(&[post(1, &POST), frame(DATA, 0, 1, b"x"), trailers]);
    assert_eq!(peer.events[1..], [Event::Data { stream: 1, data: "x".into() }, Event::End { stream: 1 }]);
}

#[test]
fn responses_are_sent_in_the_order_in_which_they_are_ready() {
    let mut peer = Peer::new();
    peer.send_all(&[get(1, &GET), get(3, &GET), get(5, &GET)]);
    for stream in [5, 1, 3] {
        let mut head = ResponseHead::new(200).unwrap();
        head.field(b"Content-Length", b"2").unwrap();
        peer.session.respond(stream, head, false).unwrap();
        assert_eq!(peer.session.data(stream, b"ok", true), Ok(2));
    }
    peer.collect();
    let frames: Vec<_> = peer.frames.iter().map(|frame| (frame.kind, frame.flags, frame.stream)).collect();
    let response = |stream| [(HEADERS, END_HEADERS, stream), (DATA, END_STREAM, stream)];
    let position = |stream| frames.iter().position(|frame| *frame == response(stream)[0]).unwrap();
    assert!(position(5) < position(1) && position(1) < position(3), "{frames:?}");
    assert_eq!(frames.len(), 6);
    assert!(peer.session.is_idle());
}

#[test]
fn interim_responses_precede_the_final_one() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    for _ in 0..2 {
        let mut hints = ResponseHead::interim(103).unwrap();
        hints.field(b"Link", b"</a.css>; rel=preload").unwrap();
        peer.session.respond(1, hints, true).unwrap();
    }
    peer.collect();
    assert_eq!(peer.frames.len(), 2);
    peer.respond(1);
    let flags: Vec<_> = peer.frames.iter().map(|frame| (frame.kind, frame.flags)).collect();
    assert_eq!(flags, [(HEADERS, END_HEADERS), (HEADERS, END_HEADERS), (HEADERS, END_HEADERS | END_STREAM)]);
    assert_eq!(peer.frames[2].payload, [0x89], ":status: 204");
    let late = ResponseHead::interim(103).unwrap();
    assert_eq!(peer.session.respond(1, late, false), Err(StreamClosed));
}

#[test]
fn a_stream_that_is_closed_accepts_nothing() {
    let mut peer = Peer::new();
    peer.send_all(&[get(1, &GET), get(3, &GET)]);
    assert_eq!(peer.session.data(1, b"x", true), Err(StreamClosed), "before the head");
    peer.respond(1);
    peer.send(&rst_stream(3, 8));
    for stream in [1, 3, 5, 0, u32::MAX] {
        assert_eq!(peer.session.respond(stream, ResponseHead::new(200).unwrap(), true), Err(StreamClosed));
        assert_eq!(peer.session.data(stream, b"x", true), Err(StreamClosed));
        peer.session.release(stream, 100);
        peer.session.reset(stream, Reason::CANCEL);
    }
    assert!(peer.is_alive());
}

#[test]
fn a_stream_has_one_response() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
    assert_eq!(peer.session.respond(1, ResponseHead::new(200).unwrap(), false), Err(StreamClosed));
    assert_eq!(peer.session.data(1, b"x", true), Ok(1));
    assert!(peer.is_alive());
}

#[test]
fn a_response_before_the_end_of_the_request_stops_the_request() {
    let mut peer = Peer::new();
    peer.send_all(&[post(1, &POST), frame(DATA, 0, 1, b"x")]);
    peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
    assert_eq!(peer.session.data(1, b"done", true), Ok(4));
    peer.collect();
    let kinds: Vec<_> = peer.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [HEADERS, DATA, RST_STREAM], "the response is complete before the reset");
    assert_eq!(peer.resets(), [(1, Reason::NO_ERROR)]);
    peer.events.clear();
    peer.send_all(&[frame(DATA, 1, 1, b"y")]);
    assert_eq!(peer.events, []);
    assert!(peer.is_alive());
}

#[test]
fn resets_of_the_client_carry_their_code() {
    let mut peer = Peer::new();
    for (stream, code) in [(1, 8), (3, 0), (5, 0xff00_0000)] {
        peer.send_all(&[get(stream, &GET), rst_stream(stream, code)]);
        assert_eq!(peer.events.pop(), Some(Event::Reset { stream, reason: Reason::from(code) }));
    }
    peer.send(&get(7, &GET));
    peer.session.respond(7, ResponseHead::new(200).unwrap(), false).unwrap();
    peer.collect();
    peer.send(&rst_stream(7, 8));
    assert_eq!(
        peer.events.pop(),
        Some(Event::Reset { stream: 7, reason: Reason::CANCEL }),
        "while responding"
    );
}

#[test]
fn a_reset_of_the_server_is_sent_once() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    peer.session.reset(1, Reason::INTERNAL_ERROR);
    peer.session.reset(1, Reason::CANCEL);
    peer.collect();
    assert_eq!(peer.resets(), [(1, Reason::INTERNAL_ERROR)]);
}

#[test]
fn graceful_shutdown_announces_the_end_and_completes_the_streams() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    peer.session.go_away();
    peer.collect();
    let frames = peer.take_frames();
    assert_eq!((frames[0].kind, frames[0].number(0), frames[0].number(4)), (GOAWAY, (1 << 31) - 1, 0));
    assert_eq!((frames[1].kind, frames[1].flags), (PING, 0));
    peer.send(&get(3, &GET));
    assert_eq!(peer.heads().len(), 2, "a request that was on its way");
    peer.send_all(&[frame(PING, ACK, 0, &frames[1].payload), get(5, &GET)]);
    assert_eq!(peer.heads().len(), 2, "a request after the client has received GOAWAY");
    let last = &peer.frames[0];
    assert_eq!((last.kind, last.number(0), last.number(4)), (GOAWAY, 3, 0));
    peer.respond(1);
    assert!(!peer.session.is_closed());
    peer.respond(3);
    assert_eq!(peer.events.last(), Some(&Event::GoAway { error: None }));
    assert!(peer.session.is_closed());
}

#[test]
fn a_client_that_does_not_answer_the_ping_gets_no_new_streams_after_the_second_call() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    peer.session.go_away();
    peer.session.go_away();
    peer.send(&get(3, &GET));
    assert_eq!(peer.heads().len(), 1);
    assert_eq!(peer.resets(), [(3, Reason::REFUSED_STREAM)]);
    peer.respond(1);
    assert!(peer.session.is_idle(), "the server may close the connection");
}

#[test]
fn shutdown_of_an_idle_connection_and_before_the_preface() {
    let mut peer = Peer::new();
    peer.session.go_away();
    peer.collect();
    assert_eq!(peer.frames[0].number(0), (1 << 31) - 1);
    let ping = peer.frames[1].payload.clone();
    peer.send(&frame(PING, ACK, 0, &ping));
    assert_eq!(peer.events, [Event::GoAway { error: None }]);

    let mut peer = Peer::unconnected(Limits::default());
    peer.session.go_away();
    peer.send_all(&[mlws_http2::PREFACE.to_vec(), settings(&[])]);
    assert!(peer.frames.iter().any(|frame| frame.kind == GOAWAY && frame.number(4) == 0));
    assert!(!peer.session.is_closed(), "a request may be on its way");
}

#[test]
fn all_streams_are_reset_when_the_connection_fails() {
    let mut peer = Peer::new();
    peer.send_all(&[get(1, &GET), get(3, &GET)]);
    peer.events.clear();
    peer.send(&frame(DATA, 0, 0, b"x"));
    let reset = |stream| Event::Reset { stream, reason: Reason::PROTOCOL_ERROR };
    let error = Some(mlws_http2::Error::Connection(Reason::PROTOCOL_ERROR));
    assert_eq!(peer.events, [reset(1), reset(3), Event::GoAway { error }]);
    assert_eq!(peer.session.respond(1, ResponseHead::new(200).unwrap(), true), Err(StreamClosed));
}

#[test]
fn settings_announce_the_limits() {
    let limits = Limits {
        concurrent_streams: 7,
        frame_size: 20_000,
        header_list_size: 30_000,
        stream_window: 40_000,
        ..Limits::default()
    };
    let mut peer = Peer::unconnected(limits);
    peer.collect();
    let values: Vec<_> = peer.frames[0]
        .payload
        .chunks(6)
        .map(|value| (value[1], Frame { payload: value[2..].to_vec(), ..peer.frames[0].clone() }.number(0)))
        .collect();
    for expected in [(3, 7), (5, 20_000), (6, 30_000), (4, 40_000)] {
        assert!(values.contains(&expected), "{expected:?} in {values:?}");
    }
}

#[test]
fn a_session_may_move_between_threads() {
    fn assert_send<T: Send>() {}
    assert_send::<mlws_http2::Session>();
    assert_send::<Event>();
}
