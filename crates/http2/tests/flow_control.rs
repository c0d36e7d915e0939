//! Windows in both directions: what is consumed is returned, whatever happens to the streams.

mod support;

use mlws_http2::{Event, Limits, Rate, Reason, ResponseHead};
use proptest::prelude::*;
use support::*;

const CONNECTION_WINDOW: u32 = 100_000;

static BODY: [u8; 60_000] = [0; 60_000];

fn limits() -> Limits {
    let unlimited = Rate { burst: u32::MAX, per_second: 0 };
    Limits {
        stream_window: 50_000,
        connection_window: CONNECTION_WINDOW,
        resets: unlimited,
        control_frames: unlimited,
        ..Limits::default()
    }
}

/// The part of the connection's window that the client may still use, from the frames of both sides.
struct Window {
    available: u32,
}

impl Window {
    /// A new connection, whose window is raised from the default by an update.
    fn new() -> (Self, Peer) {
        let mut peer = Peer::unconnected(limits());
        peer.send_all(&[mlws_http2::PREFACE.to_vec(), settings(&[]), frame(SETTINGS, ACK, 0, b"")]);
        let mut window = Window { available: 65_535 };
        window.update(&mut peer);
        assert_eq!(window.available, CONNECTION_WINDOW);
        (window, peer)
    }

    fn send(&mut self, peer: &mut Peer, bytes: &[u8]) {
        for frame in parse_frames(bytes).iter().filter(|frame| frame.kind == DATA) {
            self.available -= u32::try_from(frame.payload.len()).unwrap();
        }
        peer.send(bytes);
        self.update(peer);
    }

    fn update(&mut self, peer: &mut Peer) {
        peer.collect();
        for frame in peer.take_frames() {
            if frame.kind == WINDOW_UPDATE && frame.stream == 0 {
                self.available += frame.number(0);
            }
            assert!(frame.kind != GOAWAY || frame.number(4) == 0, "the connection was closed: {frame:?}");
        }
    }

    /// The window is announced again when half of it is used, so that much may be missing.
    fn check(&self, what: &str) {
        assert!(self.available > CONNECTION_WINDOW / 2, "{what}: only {} left", self.available);
    }
}

fn release_data(peer: &mut Peer) {
    for event in peer.take_events() {
        if let Event::Data { stream, data } = event {
            peer.session.release(stream, data.len());
        }
    }
}

#[test]
fn the_receive_window_adds_up_after_any_end_of_a_stream() {
    type End = fn(&mut Window, &mut Peer, u32);
    let ends: [(&str, End); 10] = [
        ("released", |window, peer, stream| {
            release_data(peer);
            window.send(peer, &frame(DATA, END_STREAM, stream, b""));
            peer.respond(stream);
        }),
        ("released in parts", |window, peer, stream| {
            for _ in 0..100 {
                peer.session.release(stream, 300);
            }
            window.send(peer, &frame(DATA, END_STREAM, stream, b""));
            peer.respond(stream);
        }),
        ("released more than received", |_, peer, stream| {
            peer.session.release(stream, usize::MAX);
            peer.session.release(stream, 1);
            peer.respond(stream);
        }),
        ("not released", |_, peer, stream| peer.respond(stream)),
        ("reset by the client", |window, peer, stream| window.send(peer, &rst_stream(stream, 8))),
        ("reset by the server", |_, peer, stream| peer.session.reset(stream, Reason::INTERNAL_ERROR)),
        ("data after a reset by the server", |window, peer, stream| {
            peer.session.reset(stream, Reason::CANCEL);
            peer.collect();
            window.send(peer, &frame(DATA, 0, stream, [0; 10_000]));
        }),
        ("data after an early response", |window, peer, stream| {
            peer.respond(stream);
            window.send(peer, &frame(DATA, END_STREAM, stream, [0; 10_000]));
        }),
        ("data after the reset of the client", |window, peer, stream| {
            window.send(peer, &rst_stream(stream, 8));
            window.send(peer, &frame(DATA, 0, stream, [0; 10_000]));
        }),
        ("a mistake of the client", |window, peer, stream| {
            window.send(peer, &frame(HEADERS, END_HEADERS, stream, block(&[("a", "b")])));
        }),
    ];
    for (name, end) in ends {
        let (mut window, mut peer) = Window::new();
        for stream in (1..60).step_by(2) {
            window.send(&mut peer, &post(stream, &POST));
            window.send(&mut peer, &frame(DATA, PADDED, stream, [&[100], &[0; 15_000][..]].concat()));
            window.send(&mut peer, &frame(DATA, 0, stream, [0; 15_000]));
            end(&mut window, &mut peer, stream);
            window.update(&mut peer);
            window.check(name);
            peer.events.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_receive_window_adds_up_after_any_order_of_events(
        steps in prop::collection::vec((0usize..4, 0u8..12, 0usize..15_000), 0..120),
    ) {
        let (mut window, mut peer) = Window::new();
        let mut open = [0; 4];
        let mut next = 1;
        for (slot, step, size) in steps {
            if open[slot] == 0 {
                open[slot] = next;
                window.send(&mut peer, &post(next, &POST));
                next += 2;
            }
            let stream = open[slot];
            match step {
                0..=2 if window.available >= 15_000 => window.send(&mut peer, &frame(DATA, 0, stream, &BODY[..size])),
                3 | 4 if window.available >= 15_256 => {
                    let padded = [&[200], &BODY[..size], &[0; 200]].concat();
                    window.send(&mut peer, &frame(DATA, PADDED, stream, padded));
                }
                5 | 6 => release_data(&mut peer),
                7 => {
                    let _ = peer.session.respond(stream, ResponseHead::new(204).unwrap(), true);
                }
                8 => peer.session.reset(stream, Reason::CANCEL),
                9 => {
                    window.send(&mut peer, &rst_stream(stream, 8));
                    open[slot] = 0;
                }
                10 => {
                    peer.session.reset(stream, Reason::CANCEL);
                    open[slot] = 0;
                }
                11 if size < 1000 => {
                    peer.session.go_away();
                    peer.collect();
                    let pings: Vec<_> = peer.frames.iter().filter(|frame| frame.kind == PING).cloned().collect();
                    for ping in pings {
                        window.send(&mut peer, &frame(PING, ACK, 0, &ping.payload));
                    }
                }
                _ => {}
            }
            window.update(&mut peer);
        }
        for stream in open.into_iter().filter(|stream| *stream > 0) {
            window.send(&mut peer, &rst_stream(stream, 8));
        }
        window.update(&mut peer);
        if !peer.session.is_closed() {
            window.check("after all streams");
        }
    }
}

#[test]
fn data_of_rejected_requests_and_padding_is_released_automatically() {
    let padding = [255; 256]; // the length of the padding, and the padding
    let (mut window, mut peer) = Window::new();
    window.send(&mut peer, &post(1, &with(&POST, &[("expect", "x")])));
    window.send(&mut peer, &post(3, &POST));
    for _ in 0..20 {
        window.send(&mut peer, &frame(DATA, 0, 1, [0; 15_000]));
    }
    for _ in 0..90 {
        window.send(&mut peer, &frame(DATA, PADDED, 3, padding));
    }
    window.check("rejected and padded");
}

#[test]
fn data_of_streams_after_goaway_is_ignored_and_released() {
    let (mut window, mut peer) = Window::new();
    window.send(&mut peer, &post(1, &POST));
    peer.session.go_away();
    peer.collect();
    let ping = peer.take_frames().into_iter().find(|frame| frame.kind == PING).expect("a PING");
    window.send(&mut peer, &frame(PING, ACK, 0, &ping.payload));
    for stream in (3..60).step_by(2) {
        window.send(&mut peer, &post(stream, &POST));
        window.send(&mut peer, &frame(DATA, 0, stream, [0; 15_000]));
        window.check("after GOAWAY");
    }
    assert_eq!(peer.heads().len(), 1);
}

#[test]
fn more_data_than_a_window_is_an_error() {
    let (mut window, mut peer) = Window::new();
    window.send(&mut peer, &post(1, &POST));
    for _ in 0..3 {
        window.send(&mut peer, &frame(DATA, 0, 1, [0; 16_384]));
    }
    peer.send(&frame(DATA, 0, 1, [0; 1000]));
    assert_eq!(peer.resets(), [(1, Reason::FLOW_CONTROL_ERROR)]);
    assert_eq!(peer.events.last(), Some(&Event::Reset { stream: 1, reason: Reason::FLOW_CONTROL_ERROR }));

    let (mut window, mut peer) = Window::new();
    for stream in [1, 3, 5] {
        window.send(&mut peer, &post(stream, &POST));
        for _ in 0..2 {
            window.send(&mut peer, &frame(DATA, 0, stream, [0; 16_000]));
        }
    }
    peer.send(&frame(DATA, 0, 5, [0; 16_000]));
    assert_eq!(peer.connection_error(), Some(Reason::FLOW_CONTROL_ERROR));
}

/// Starts responses on streams 1, 3, … to a client with these windows.
fn responding(streams: u32, stream_window: u32) -> Peer {
    let mut peer = Peer::with_settings(Limits::default(), &[(4, stream_window)]);
    for stream in (1..2 * streams).step_by(2) {
        peer.send(&get(stream, &GET));
        peer.session.respond(stream, ResponseHead::new(200).unwrap(), false).unwrap();
    }
    peer.collect();
    peer.frames.clear();
    peer.events.clear();
    peer
}

fn sent(peer: &Peer, stream: u32) -> usize {
    let data = peer.frames.iter().filter(|frame| frame.kind == DATA && frame.stream == stream);
    data.map(|frame| frame.payload.len()).sum()
}

fn writable(stream: u32) -> Event {
    Event::Writable { stream }
}

#[test]
fn data_is_sent_as_far_as_the_window_of_the_stream_allows() {
    let mut peer = responding(1, 10);
    assert_eq!(peer.session.data(1, b"0123456789abc", true), Ok(10));
    assert_eq!(peer.session.data(1, b"abc", true), Ok(0));
    peer.collect();
    assert_eq!((sent(&peer, 1), &peer.events[..]), (10, &[][..]));
    peer.send(&window_update(1, 2));
    assert_eq!(peer.events, [writable(1)]);
    assert_eq!(peer.session.data(1, b"abc", true), Ok(2));
    peer.send(&window_update(1, 1));
    assert_eq!(peer.events, [writable(1), writable(1)]);
    assert_eq!(peer.session.data(1, b"c", true), Ok(1));
    peer.collect();
    let last = peer.frames.last().expect("a frame");
    assert_eq!((last.kind, last.flags, sent(&peer, 1)), (DATA, END_STREAM, 13));
    assert!(peer.session.is_idle());
}

#[test]
fn the_end_of_a_response_needs_no_window() {
    let mut peer = responding(1, 0);
    assert_eq!(peer.session.data(1, b"", true), Ok(0));
    peer.collect();
    assert_eq!(peer.frames, [Frame { kind: DATA, flags: END_STREAM, stream: 1, payload: vec![] }]);
}

#[test]
fn settings_change_the_windows_of_open_streams() {
    let mut peer = responding(1, 10);
    assert_eq!(peer.session.data(1, &[0; 30], true), Ok(10));
    peer.send(&settings(&[(4, 4)])); // the window is now -6
    peer.send(&window_update(1, 6));
    assert_eq!(peer.events, [], "the window is 0");
    peer.send(&window_update(1, 1));
    assert_eq!(peer.events, [writable(1)]);
    assert_eq!(peer.session.data(1, &[0; 20], true), Ok(1));
    peer.send(&settings(&[(4, 100)]));
    assert_eq!(peer.session.data(1, &[0; 19], true), Ok(19));
}

#[test]
fn the_connection_window_is_shared_and_returned_by_reset_streams() {
    let mut peer = responding(3, 60_000);
    assert_eq!(peer.session.data(1, &BODY, false), Ok(60_000));
    peer.collect();
    assert_eq!(peer.session.data(3, &[0; 10_000], false), Ok(5_535));
    peer.collect();
    assert_eq!(peer.session.data(5, &[0; 10_000], false), Ok(0));
    peer.collect();
    peer.send(&rst_stream(1, 8)); // its data was sent, so this returns nothing
    assert_eq!(peer.take_events(), [Event::Reset { stream: 1, reason: Reason::CANCEL }]);
    peer.send(&window_update(0, 1000));
    let events = peer.take_events();
    assert!(!events.is_empty());
    let mut accepted = 0;
    for _ in 0..4 {
        for stream in [3, 5] {
            accepted += peer.session.data(stream, &[0; 10_000], false).unwrap();
        }
    }
    assert_eq!(accepted, 1000);
    peer.collect();
    peer.send_all(&[rst_stream(3, 8), window_update(0, 500)]);
    assert_eq!(peer.take_events(), [Event::Reset { stream: 3, reason: Reason::CANCEL }, writable(5)]);
    assert_eq!(peer.session.data(5, &[0; 10_000], false), Ok(500));
}

#[test]
fn window_that_a_stream_has_reserved_is_given_to_others_when_it_is_reset() {
    type End = fn(&mut Peer, u32);
    let ends: [(&str, End); 3] = [
        ("by the server", |peer, stream| peer.session.reset(stream, Reason::INTERNAL_ERROR)),
        ("by the client", |peer, stream| peer.send(&rst_stream(stream, 8))),
        ("because of a mistake", |peer, stream| {
            peer.send(&frame(DATA, 0, stream, b"more than content-length"));
        }),
    ];
    for (name, end) in ends {
        let mut peer = Peer::with_settings(Limits::default(), &[(4, 60_000)]);
        for stream in [1, 3] {
            peer.send(&post(stream, &with(&POST, &[("content-length", "1")])));
            peer.session.respond(stream, ResponseHead::new(200).unwrap(), false).unwrap();
        }
        assert_eq!(peer.session.data(1, &BODY, false), Ok(60_000));
        peer.collect();
        peer.session.data(3, &[0; 5_535], false).unwrap(); // the connection's window is 0
        for stream in [1, 3] {
            assert_eq!(peer.session.data(stream, &[0; 100], false), Ok(0));
        }
        peer.collect();
        peer.events.clear();
        peer.send_all(&[window_update(1, 60_000), window_update(0, 1)]);
        let [Event::Writable { stream: first }] = peer.take_events()[..] else { panic!("{name}") };
        end(&mut peer, first);
        peer.collect();
        assert_eq!(peer.take_events().last(), Some(&writable(4 - first)), "{name}");
    }
}

#[test]
fn large_frames_are_used_only_if_the_client_permits_them() {
    for (value, largest) in [(16_384, 16_384), (40_000, 40_000)] {
        let mut peer = Peer::with_settings(Limits::default(), &[(5, value), (4, 1 << 20)]);
        peer.send(&get(1, &GET));
        peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
        assert_eq!(peer.session.data(1, &BODY[..50_000], true), Ok(50_000));
        peer.collect();
        let sizes = peer.frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len());
        assert_eq!(sizes.max(), Some(largest));
    }
}
