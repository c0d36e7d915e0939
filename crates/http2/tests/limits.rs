//! Each limit, with a client that exceeds it.

mod support;

use std::time::Duration;

use mlws_http1::Error as HeadError;
use mlws_http2::{Error, Event, Limits, Rate, Reason, ResponseHead};
use support::*;

/// The error that closed the connection, which must have been reported to the client too.
fn calm_error(peer: &Peer) -> Error {
    assert_eq!(peer.connection_error(), Some(Reason::ENHANCE_YOUR_CALM));
    assert!(peer.session.is_closed());
    match peer.events.last() {
        Some(Event::GoAway { error: Some(error) }) => *error,
        other => panic!("not closed: {other:?}"),
    }
}

fn rejections(peer: &Peer) -> Vec<(u32, u16, bool)> {
    let mut rejections = Vec::new();
    for event in &peer.events {
        if let Event::Rejected { stream, error, is_answered, .. } = event {
            rejections.push((*stream, error.status(), *is_answered));
        }
    }
    rejections
}

/// The frames of a mistake on a new stream.
type Mistake<'a> = &'a dyn Fn(u32) -> Vec<Vec<u8>>;

/// Odd stream numbers.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

#[test]
fn rapid_reset_is_limited_to_a_burst_and_a_rate() {
    let mut peer = Peer::new();
    let mut streams = streams();
    for _ in 0..200 {
        let stream = streams.next().unwrap();
        peer.send_all(&[get(stream, &GET), rst_stream(stream, 8)]);
    }
    assert_eq!(peer.connection_error(), None);
    let mut reset = peer.take_events();
    reset.retain(|event| matches!(event, Event::Reset { reason: Reason::CANCEL, .. }));
    assert_eq!(reset.len(), 200, "each reset is reported");
    peer.now += Duration::from_secs(1);
    for _ in 0..20 {
        let stream = streams.next().unwrap();
        peer.send_all(&[get(stream, &GET), rst_stream(stream, 8)]);
    }
    assert_eq!(peer.connection_error(), None);
    let stream = streams.next().unwrap();
    peer.send_all(&[get(stream, &GET), rst_stream(stream, 8)]);
    assert_eq!(calm_error(&peer), Error::TooManyResets);
}

#[test]
fn made_you_reset_counts_the_resets_that_mistakes_of_the_client_cause() {
    let length = with(&POST, &[("content-length", "9")]);
    let padded = with(&GET, &[("x", " ")]);
    let mistakes: [(&str, Mistake<'_>); 6] = [
        ("window overflow", &|stream| vec![get(stream, &GET), window_update(stream, (1 << 31) - 1)]),
        ("self-dependency", &|stream| {
            vec![get(stream, &GET), frame(PRIORITY, 0, stream, [&stream.to_be_bytes()[..], &[0]].concat())]
        }),
        ("content-length", &|stream| vec![post(stream, &length), frame(DATA, 1, stream, b"x")]),
        ("found by h2", &|stream| vec![get(stream, &GET[1..])]),
        ("found by us", &|stream| vec![get(stream, &padded)]),
        ("DATA on a closed stream", &|stream| {
            vec![get(stream, &GET), rst_stream(stream, 0), frame(DATA, 1, stream, b"x")]
        }),
    ];
    for (name, mistake) in mistakes {
        let limits = Limits { resets: Rate { burst: 12, per_second: 0 }, ..Limits::default() };
        let mut peer = Peer::with_limits(limits);
        let count = streams().take_while(|&stream| {
            peer.send_all(&mistake(stream));
            peer.connection_error().is_none()
        });
        let count = count.count();
        assert!(count == 12 || count == 6 && name.starts_with("DATA"), "{name}: {count}");
        assert_eq!(calm_error(&peer), Error::TooManyResets, "{name}");
    }
}

#[test]
fn resets_that_the_server_decides_on_are_not_counted() {
    let mut peer = Peer::new();
    for stream in streams().take(1000) {
        peer.send(&get(stream, &GET));
        peer.session.reset(stream, Reason::INTERNAL_ERROR);
        peer.collect();
    }
    for stream in streams().skip(1000).take(1000) {
        peer.send(&post(stream, &POST));
        peer.respond(stream); // before the request is complete
    }
    assert_eq!(peer.connection_error(), None);
    assert_eq!(peer.resets().len(), 2000);
}

#[test]
fn uploads_that_are_under_way_when_the_server_ends_them_are_not_mistakes() {
    let mut peer = Peer::new();
    let uploads: Vec<u32> = streams().take(200).collect();
    for &stream in &uploads {
        peer.send(&post(stream, &POST));
        peer.respond(stream); // before the request is complete
    }
    for &stream in &uploads {
        let trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, block(&[("a", "b")]));
        peer.send_all(&[frame(DATA, 0, stream, b"x").repeat(20), trailers]);
    }
    assert_eq!(peer.connection_error(), None);
    assert_eq!(peer.resets().len(), uploads.len());
    assert!(peer.resets().iter().all(|(_, reason)| *reason == Reason::NO_ERROR));
}

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut peer = Peer::new();
    for stream in streams().take(101) {
        peer.send(&get(stream, &GET));
    }
    assert_eq!(peer.heads().len(), 100);
    assert_eq!(peer.resets(), [(201, Reason::REFUSED_STREAM)]);
    peer.respond(1);
    peer.send(&get(203, &GET));
    assert_eq!(peer.heads().len(), 101, "a response makes place for another stream");
    for stream in streams().skip(102).take(201) {
        peer.send(&get(stream, &GET));
    }
    assert_eq!(calm_error(&peer), Error::TooManyResets);
}

#[test]
fn streams_are_refused_without_counting_until_the_settings_are_acknowledged() {
    let mut peer = Peer::unconnected(Limits::default());
    peer.send_all(&[mlws_http2::PREFACE.to_vec(), settings(&[])]);
    for stream in streams().take(1000) {
        peer.send(&get(stream, &GET));
    }
    assert_eq!(peer.connection_error(), None);
    assert_eq!(peer.resets().len(), 900);
}

#[test]
fn a_continuation_flood_is_limited_by_bytes() {
    let mut peer = Peer::new();
    peer.send(&frame(HEADERS, END_STREAM, 1, block(&GET)));
    let part = block(&[("x", &"a".repeat(16_000))]);
    let count = (0..100).take_while(|_| {
        peer.send(&frame(CONTINUATION, 0, 1, &part));
        peer.connection_error().is_none()
    });
    assert_eq!(count.count(), 5);
    assert_eq!(calm_error(&peer), Error::HeaderBlockTooLong);
    assert_eq!(peer.heads(), []);
}

#[test]
fn a_continuation_flood_is_limited_by_frames() {
    for payload in [&b""[..], b"\x82", b"\x00"] {
        let mut peer = Peer::new();
        peer.send(&frame(HEADERS, END_STREAM, 1, b""));
        let count = (0..100).take_while(|_| {
            peer.send(&frame(CONTINUATION, 0, 1, payload));
            peer.connection_error().is_none()
        });
        assert!(count.count() <= 5, "{payload:?}");
        assert!(peer.session.is_closed());
    }
}

#[test]
fn a_head_that_is_too_long_is_answered_with_431() {
    let value = "a".repeat(8000);
    let fields: Vec<_> = (0..9).map(|_| ("x", &value[..])).collect();
    let block = block(&[&GET[..], &fields].concat());
    let parts: Vec<_> = block.chunks(16_384).collect();
    let (first, rest) = parts.split_first().unwrap();
    let (last, middle) = rest.split_last().unwrap();
    let mut peer = Peer::new();
    peer.send(&frame(HEADERS, END_STREAM, 1, first));
    for part in middle {
        peer.send(&frame(CONTINUATION, 0, 1, part));
    }
    peer.send(&frame(CONTINUATION, END_HEADERS, 1, last));
    assert_eq!(rejections(&peer), [(1, 431, true)]);
    let response: Vec<_> = peer.frames.iter().map(|frame| (frame.kind, frame.flags, frame.stream)).collect();
    assert_eq!(response[0], (HEADERS, END_HEADERS | END_STREAM, 1));
    assert!(peer.is_alive());
}

#[test]
fn an_hpack_bomb_is_answered_with_431_or_closes_the_connection() {
    // one large entry of the dynamic table, then references to it of one byte each
    let bomb = |references| {
        let entry = [b"\x40\x01x\x7f\xa1\x1e", &[b'a'; 4000][..]].concat();
        frame(HEADERS, 5, 1, [block(&GET), entry, vec![0xbe; references]].concat())
    };
    let mut peer = Peer::new();
    peer.send(&bomb(30));
    assert_eq!(rejections(&peer), [(1, 431, true)]);
    assert!(peer.is_alive());
    let mut peer = Peer::new();
    peer.send(&bomb(12_000)); // 48 MB
    assert_eq!(calm_error(&peer), Error::Connection(Reason::ENHANCE_YOUR_CALM));
}

#[test]
fn many_small_fields_are_limited_too() {
    let references = |count| frame(HEADERS, 5, 1, [block(&GET), vec![0x90; count]].concat()); // accept-encoding
    let mut peer = Peer::new();
    peer.send(&references(101));
    assert_eq!(rejections(&peer), [(1, 431, false)]);
    let mut peer = Peer::new();
    peer.send(&references(2000));
    assert_eq!(rejections(&peer), [(1, 431, true)]);
    assert!(peer.is_alive());
}

#[test]
fn cookies_count_as_one_field_of_their_total_size() {
    let cookies = |number, value| [&GET[..], &vec![("cookie", value); number], &[("x", "y"); 99]].concat();
    let value = "a".repeat(79);
    for (fields, expected) in [
        (cookies(101, "a=b"), None),
        (cookies(100, &value), None), // 81 bytes each, with the separators
        (cookies(102, &value), Some(HeadError::FieldTooLong)),
        ([cookies(1, "a=b"), vec![("z", "")]].concat(), Some(HeadError::TooManyFields)),
    ] {
        let mut peer = Peer::new();
        let block = block(&fields);
        let (first, rest) = block.split_at(block.len() / 2);
        peer.send_all(&[frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, rest)]);
        let found = match &peer.events[0] {
            Event::Rejected { error, is_answered: false, .. } => Some(*error),
            _ => None,
        };
        assert_eq!(found, expected);
        assert_eq!(peer.heads().len(), usize::from(expected.is_none()));
    }
}

#[test]
fn the_heads_of_one_connection_are_limited_together() {
    let value = "a".repeat(7000);
    let fields = [&GET[..], &[("w", &value), ("x", &value)]].concat();
    let mut peer = Peer::new();
    for stream in streams().take(90) {
        peer.send(&get(stream, &fields));
    }
    let accepted = peer.heads().len();
    assert!((70..75).contains(&accepted), "{accepted}");
    assert_eq!(peer.resets().len(), 90 - accepted);
    assert!(peer.resets().iter().all(|(_, reason)| *reason == Reason::REFUSED_STREAM));
    peer.respond(1);
    peer.send(&rst_stream(3, 8));
    peer.send_all(&[get(201, &fields), get(203, &fields), get(205, &fields)]);
    assert_eq!(peer.heads().len(), accepted + 2, "ended and reset streams no longer count");
}

#[test]
fn limits_of_a_request_are_answered_with_a_status() {
    let long = "a".repeat(9000);
    let path = format!("/{long}");
    let limits = Limits { body: 100, ..Limits::default() };
    let replaced = |key: &str, value| {
        GET.iter().map(|&(name, old)| (name, if name == key { value } else { old })).collect::<Vec<_>>()
    };
    let more = |name: &'static str, value| [&GET[..], &[(name, value)]].concat();
    let cases = [
        (replaced(":path", &path), HeadError::RequestLineTooLong),
        (more("x", &long), HeadError::FieldTooLong),
        (more(&long.clone().leak()[..8500], ""), HeadError::FieldTooLong),
        (replaced(":path", "/\u{e9}"), HeadError::Target),
        (replaced(":path", "/a\\b"), HeadError::Target),
        (replaced(":authority", "user@a.example"), HeadError::Host),
        (replaced(":method", &long[..33]), HeadError::MethodTooLong),
        (more("expect", "200-ok"), HeadError::Expectation),
        (vec![(":method", "CONNECT"), (":authority", "a.example:443")], HeadError::Connect),
    ];
    for (fields, expected) in cases {
        let mut peer = Peer::with_limits(limits.clone());
        peer.send(&post(1, &fields));
        peer.send(&frame(DATA, 0, 1, b"discarded"));
        let expected = Event::Rejected { stream: 1, error: expected, is_answered: false, is_head: false };
        assert_eq!(peer.events, [expected]);
        peer.session.respond(1, ResponseHead::new(400).unwrap(), true).expect("the stream is open");
        peer.collect();
        assert!(peer.is_alive());
    }
}

#[test]
fn a_body_that_is_too_large_is_rejected() {
    let limits = Limits { body: 100, ..Limits::default() };
    let mut peer = Peer::with_limits(limits.clone());
    peer.send(&post(1, &with(&POST, &[("content-length", "101")])));
    assert_eq!(rejections(&peer), [(1, 413, false)]);
    let mut peer = Peer::with_limits(limits);
    peer.send_all(&[post(1, &POST), frame(DATA, 0, 1, [0; 60])]);
    assert_eq!(rejections(&peer), []);
    peer.send_all(&[frame(DATA, 0, 1, [0; 41]), frame(DATA, 1, 1, [0; 41])]);
    assert_eq!(rejections(&peer), [(1, 413, false)]);
    assert!(!peer.events.contains(&Event::End { stream: 1 }));
    peer.session.respond(1, ResponseHead::new(413).unwrap(), true).expect("the stream is open");
    assert!(peer.is_alive());
}

#[test]
fn frames_without_progress_are_limited() {
    let floods: [(&str, Vec<u8>, usize); 9] = [
        ("SETTINGS", settings(&[(4, 9)]), 1000),
        ("empty SETTINGS", settings(&[]), 1000),
        ("PING", frame(PING, 0, 0, [0; 8]), 1000),
        ("PING ACK", frame(PING, ACK, 0, [0; 8]), 1000),
        ("PRIORITY", frame(PRIORITY, 0, 9, [0, 0, 0, 1, 9]), 1000),
        ("unknown", frame(0x10, 0, 0, [0; 8]), 1000),
        ("WINDOW_UPDATE", window_update(0, 1), 1000),
        ("WINDOW_UPDATE of a stream", window_update(1, 1), 1000),
        ("empty DATA", frame(DATA, 0, 1, b""), 100), // a limit of h2
    ];
    for (name, flood, accepted) in floods {
        let mut peer = Peer::new();
        peer.send(&post(1, &POST));
        let count = (0..5000).take_while(|_| {
            peer.send(&flood);
            peer.connection_error().is_none()
        });
        let count = count.count();
        assert!((accepted - 10..accepted + 10).contains(&count), "{name}: {count}");
        assert_eq!(calm_error(&peer).reason(), Reason::ENHANCE_YOUR_CALM, "{name}");
    }
}

#[test]
fn control_frames_at_the_rate_are_accepted() {
    let mut peer = Peer::new();
    for _ in 0..20 {
        for _ in 0..100 {
            peer.send(&frame(PING, 0, 0, [0; 8]));
        }
        peer.now += Duration::from_secs(1);
    }
    assert_eq!(peer.connection_error(), None);
    assert_eq!(peer.frames.len(), 2000);
}

#[test]
fn window_updates_that_follow_data_are_not_limited() {
    let mut peer = Peer::new();
    peer.send(&get(1, &GET));
    peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
    for _ in 0..1000 {
        assert_eq!(peer.session.data(1, &[0; 100], false), Ok(100));
        peer.collect();
        peer.send_all(&[window_update(0, 100), window_update(1, 100)]);
    }
    assert_eq!(peer.connection_error(), None);
}

#[test]
fn window_updates_of_one_byte_are_limited() {
    let mut peer = Peer::with_settings(Limits::default(), &[(4, 0)]);
    peer.send(&get(1, &GET));
    peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
    let mut sent = 0;
    while peer.connection_error().is_none() {
        sent += peer.session.data(1, &[0; 100], false).expect("an open stream");
        peer.collect();
        peer.send(&window_update(1, 1));
    }
    assert!((990..1010).contains(&sent), "{sent}");
    assert_eq!(calm_error(&peer), Error::TooManyControlFrames);
}

#[test]
fn input_is_not_read_while_acknowledgements_are_not_taken() {
    let limits = Limits { control_frames: Rate { burst: 1_000_000, per_second: 0 }, ..Limits::default() };
    let mut peer = Peer::with_limits(limits);
    let ping = frame(PING, 0, 0, [0; 8]);
    let pings = ping.repeat(100);
    let mut consumed = 0;
    let stuck_at = loop {
        let read = peer.session.receive(&pings, peer.now);
        consumed += read;
        if read < pings.len() {
            break consumed;
        }
    };
    assert!(stuck_at < 100_000, "{stuck_at} bytes of acknowledgements are held");
    let rest = &pings[stuck_at % pings.len()..];
    for _ in 0..3 {
        assert_eq!(peer.session.receive(rest, peer.now), 0, "nothing is read until the output is taken");
    }
    peer.collect();
    peer.send(rest);
    assert_eq!(peer.frames.len(), (stuck_at + rest.len()) / ping.len(), "none is lost");
    assert!(peer.is_alive());
}

#[test]
fn nothing_is_reported_after_the_end_even_if_the_output_was_full() {
    let mut peer = Peer::with_limits(Limits { output: 1024, header_list_size: 100, ..Limits::default() });
    let pings = frame(PING, 0, 0, [0; 8]).repeat(70);
    let too_long = get(1, &with(&GET, &[("x", "a value")]));
    let bytes = [pings, too_long, frame(DATA, 0, 0, b"an error")].concat();
    assert_eq!(peer.session.receive(&bytes, peer.now), bytes.len());
    assert_eq!(peer.session.next_event(), None, "the response and the error wait for the output");
    peer.collect();
    let error = Some(Error::Connection(Reason::PROTOCOL_ERROR));
    assert_eq!(peer.events.last(), Some(&Event::GoAway { error }));
}

#[test]
fn output_is_bounded_however_much_data_there_is() {
    let window = (1 << 31) - 1;
    let mut peer = Peer::with_settings(Limits::default(), &[(4, window)]);
    peer.send(&window_update(0, window - 65_535));
    for stream in streams().take(50) {
        peer.send(&get(stream, &GET));
        peer.session.respond(stream, ResponseHead::new(200).unwrap(), false).unwrap();
    }
    let data = vec![0; 1 << 20];
    let accepted: usize =
        streams().take(50).map(|stream| peer.session.data(stream, &data, true).unwrap()).sum();
    assert!((60_000..=65_536).contains(&accepted), "{accepted}");
    let mut output = Vec::new();
    peer.session.take_output(&mut output);
    assert!(output.len() <= 65_536);
    let writable = std::iter::from_fn(|| peer.session.next_event());
    assert_eq!(writable.filter(|event| matches!(event, Event::Writable { .. })).count(), 50);
}
