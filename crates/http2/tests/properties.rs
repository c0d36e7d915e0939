//! Property tests: invariants that hold for every input.
//!
//! Most inputs are frames of a valid kind in any order, sometimes mutated, because random bytes fail at the first one.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mlws_http2::{Event, Limits, PREFACE, Rate, Reason, ResponseHead, Session};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use support::*;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_events_and_the_output_do_not_depend_on_how_the_input_is_split(
        bytes in traffic(),
        splits in prop::collection::vec(any::<Index>(), 0..8),
        limits in limits(),
    ) {
        let limits = Arc::new(limits);
        let whole = receive(&limits, [&bytes[..]]);
        prop_assert_eq!(&receive(&limits, split(&bytes, &splits)), &whole);
        prop_assert_eq!(&receive(&limits, bytes.chunks(1)), &whole);
    }

    #[test]
    fn events_of_a_stream_are_in_order_whatever_the_server_does(
        bytes in traffic(),
        splits in prop::collection::vec(any::<Index>(), 0..8),
        actions in prop::collection::vec(action(), 0..40),
        limits in limits(),
    ) {
        let now = Instant::now();
        let mut session = Session::new(Arc::new(limits), now);
        let mut order = Order::default();
        let mut actions = actions.into_iter();
        let mut output = Vec::new();
        for piece in split(&bytes, &splits) {
            let mut rest = piece;
            while !rest.is_empty() {
                let consumed = session.receive(rest, now);
                rest = &rest[consumed..];
                order.check(&mut session);
                for action in actions.by_ref().take(3) {
                    act(&mut session, &action);
                    order.check(&mut session);
                }
                session.take_output(&mut output);
                order.check(&mut session);
            }
        }
        let _ = parse_frames(&drain(&mut session, output));
        order.check(&mut session);
        prop_assert_eq!(order.is_closed, session.is_closed());
        prop_assert!(session.is_idle() || !session.is_closed());
    }

    #[test]
    fn a_request_is_received_as_it_was_sent(
        path in "/[!$-;=?-\\[\\]-_a-~]{0,30}", // without what is no part of a URI
        fields in prop::collection::vec(("[a-z][a-z0-9-]{1,8}", "([!-~]([ -~\\t]{0,10}[!-~])?)?"), 0..10),
        body in prop::collection::vec(any::<u8>(), 0..500),
        size in 1usize..100,
        padding in 0u8..4,
    ) {
        let special = ["te", "connection", "upgrade", "expect", "cookie", "host", "keep-alive"];
        let fields: Vec<_> = fields.iter().filter(|(name, _)| !special.contains(&&name[..])).collect();
        let mut block_fields = vec![(":method", "PUT"), (":scheme", "https"), (":path", &path), (":authority", "a")];
        block_fields.extend(fields.iter().map(|(name, value)| (&name[..], &value[..])));
        let mut peer = Peer::new();
        peer.send(&post(1, &block_fields));
        for data in body.chunks(size) {
            let padded = [&[padding], data, &[0; 4][..usize::from(padding)]].concat();
            peer.send(&frame(DATA, PADDED, 1, padded));
        }
        peer.send(&frame(DATA, END_STREAM, 1, b""));
        let head = peer.heads()[0].1;
        prop_assert_eq!(head.target.of(&head.bytes), path.as_bytes());
        let mut found: Vec<_> =
            head.fields[1..].iter().map(|field| (field.name.of(&head.bytes), field.value.of(&head.bytes))).collect();
        let mut expected: Vec<_> = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        found.sort_by_key(|field| field.0); // stable: the order of fields with one name is kept
        expected.sort_by_key(|field| field.0);
        prop_assert_eq!(found, expected);
        let mut received = Vec::new();
        for event in &peer.events {
            if let Event::Data { data, .. } = event {
                received.extend_from_slice(data);
            }
        }
        prop_assert_eq!(received, body);
        prop_assert_eq!(peer.events.last(), Some(&Event::End { stream: 1 }));
    }

    #[test]
    fn a_response_arrives_whole_whatever_the_windows_are(
        body in prop::collection::vec(any::<u8>(), 0..3000),
        initial in 0u32..2000,
        updates in prop::collection::vec(1u32..1500, 1..20),
    ) {
        let limits = Limits { output: 1024, ..Limits::default() };
        let mut peer = Peer::with_settings(limits, &[(4, initial)]);
        peer.send(&get(1, &GET));
        peer.session.respond(1, ResponseHead::new(200).unwrap(), false).unwrap();
        let mut sent = peer.session.data(1, &body, true).unwrap();
        let mut updates = updates.iter().cycle();
        while !peer.session.is_idle() {
            peer.collect();
            let is_writable = peer.take_events().contains(&Event::Writable { stream: 1 });
            if is_writable {
                sent += peer.session.data(1, &body[sent..], true).unwrap();
            } else {
                peer.send(&window_update(1, *updates.next().unwrap()));
                peer.events.push(Event::Writable { stream: 1 });
                sent += peer.session.data(1, &body[sent..], true).unwrap_or(0);
            }
        }
        peer.collect();
        let data = peer.frames.iter().filter(|frame| frame.kind == DATA);
        prop_assert_eq!(data.flat_map(|frame| frame.payload.clone()).collect::<Vec<_>>(), body);
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Passes the pieces to a session, taking the output after each. Returns all events and the frames in the output, without
/// window updates: those that are due when the connection fails are only sent if the output is taken before.
fn receive<'a>(limits: &Arc<Limits>, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Vec<Frame>) {
    let now = Instant::now();
    let mut session = Session::new(Arc::clone(limits), now);
    let (mut events, mut output) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let consumed = session.receive(piece, now);
            piece = &piece[consumed..];
            session.take_output(&mut output);
            events.extend(std::iter::from_fn(|| session.next_event()));
        }
    }
    let output = drain(&mut session, output);
    events.extend(std::iter::from_fn(|| session.next_event()));
    let mut frames = parse_frames(&output);
    frames.retain(|frame| frame.kind != WINDOW_UPDATE);
    (events, frames)
}

fn drain(session: &mut Session, mut output: Vec<u8>) -> Vec<u8> {
    loop {
        let before = output.len();
        session.take_output(&mut output);
        if output.len() == before {
            return output;
        }
    }
}

/// The state of each stream, as its events describe it.
#[derive(Default)]
struct Order {
    streams: BTreeMap<u32, &'static str>,
    is_closed: bool,
}

impl Order {
    fn check(&mut self, session: &mut Session) {
        while let Some(event) = session.next_event() {
            assert!(!self.is_closed, "{event:?} after the last event");
            let (stream, permitted, next): (_, &[_], _) = match event {
                Event::Head { stream, .. } => (stream, &["new"], "open"),
                Event::Data { stream, ref data } => {
                    assert!(!data.is_empty());
                    (stream, &["open"], "open")
                }
                Event::End { stream } => (stream, &["open"], "ended"),
                Event::Rejected { stream, is_answered: true, .. } => (stream, &["new"], "closed"),
                Event::Rejected { stream, is_answered: false, .. } => (stream, &["new", "open"], "rejected"),
                Event::Reset { stream, .. } => (stream, &["open", "ended", "rejected"], "closed"),
                Event::Writable { stream } => {
                    let state = self.streams[&stream];
                    (stream, &["open", "ended", "rejected"], state)
                }
                Event::GoAway { .. } => {
                    self.is_closed = true;
                    continue;
                }
            };
            let state = self.streams.insert(stream, next).unwrap_or("new");
            assert!(permitted.contains(&state), "{event:?} of a stream that is {state}");
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Respond(u32, u16, bool),
    Data(u32, usize, bool),
    Release(u32, usize),
    Reset(u32),
    GoAway,
}

fn act(session: &mut Session, action: &Action) {
    match *action {
        Action::Respond(stream, status @ ..200, end) => {
            let _ = session.respond(stream, ResponseHead::interim(status).unwrap(), end);
        }
        Action::Respond(stream, status, end) => {
            let _ = session.respond(stream, ResponseHead::new(status).unwrap(), end);
        }
        Action::Data(stream, size, end) => {
            let accepted = session.data(stream, &vec![7; size], end);
            assert!(accepted.is_err() || accepted.is_ok_and(|accepted| accepted <= size));
        }
        Action::Release(stream, bytes) => session.release(stream, bytes),
        Action::Reset(stream) => session.reset(stream, Reason::CANCEL),
        Action::GoAway => session.go_away(),
    }
}

fn stream() -> impl Strategy<Value = u32> {
    select(vec![1, 1, 1, 3, 3, 5, 7, 9, 0, 2])
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (stream(), select(vec![200, 404, 103, 100]), any::<bool>()).prop_map(|(a, b, c)| Action::Respond(a, b, c)),
        5 => (stream(), 0usize..100_000, any::<bool>()).prop_map(|(a, b, c)| Action::Data(a, b, c)),
        3 => (stream(), 0usize..100).prop_map(|(a, b)| Action::Release(a, b)),
        2 => stream().prop_map(Action::Reset),
        1 => Just(Action::GoAway),
    ]
}

/// One frame, or the frames of one header block. Most are valid by themselves.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let fields = select(vec![
        GET.to_vec(),
        POST.to_vec(),
        with(&POST, &[("content-length", "3")]),
        with(&GET, &[("x", "y"), ("cookie", "a=b"), ("cookie", "c")]),
        with(&GET, &[("x", " y")]),
        with(&GET, &[("connection", "close")]),
        with(&GET, &[("expect", "100-continue")]),
        vec![("trailer", "x")],
        GET[1..].to_vec(),
    ]);
    let headers = (stream(), fields, any::<bool>(), any::<Index>(), any::<bool>());
    let headers = headers.prop_map(|(stream, fields, end, at, is_split)| {
        let block = block(&fields);
        let (first, rest) = block.split_at(if is_split { at.index(block.len()) } else { block.len() });
        let flags = u8::from(end) | if is_split { 0 } else { END_HEADERS };
        let mut bytes = frame(HEADERS, flags, stream, first);
        if is_split {
            bytes.extend(frame(CONTINUATION, END_HEADERS, stream, rest));
        }
        bytes
    });
    let data = (stream(), prop::collection::vec(any::<u8>(), 0..30), select(vec![0, 0, 1, 8, 9]));
    let code = select(vec![0u32, 1, 8, 0xffff]);
    let value = (select(vec![1u16, 2, 3, 4, 5, 6, 99]), select(vec![0u32, 1, 100, 16_384, 65_535, 1 << 31]));
    prop_oneof![
        8 => headers,
        6 => data.prop_map(|(stream, data, flags)| frame(DATA, flags, stream, data)),
        3 => (stream(), code).prop_map(|(stream, code)| rst_stream(stream, code)),
        2 => prop::collection::vec(value, 0..3).prop_map(|values| settings(&values)),
        2 => (stream(), 1u32..100_000).prop_map(|(stream, increment)| window_update(stream, increment)),
        1 => Just(frame(SETTINGS, ACK, 0, b"")),
        1 => Just(frame(PING, 0, 0, [1; 8])),
        1 => stream().prop_map(|stream| frame(PRIORITY, 0, stream, [0, 0, 0, 1, 7])),
        1 => Just(frame(GOAWAY, 0, 0, [0; 8])),
        1 => (any::<u8>(), any::<u8>(), stream(), prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, payload)),
    ]
}

/// Everything that a client sends, sometimes with a changed byte or without its end.
fn traffic() -> impl Strategy<Value = Vec<u8>> {
    let frames = prop::collection::vec(frames(), 0..20);
    let change = prop::option::weighted(0.3, (any::<Index>(), any::<u8>(), any::<bool>()));
    (frames, change).prop_map(|(frames, change)| {
        let mut bytes = [&PREFACE[..], &settings(&[]), &frames.concat()].concat();
        if let Some((at, byte, is_cut)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if is_cut {
                bytes.truncate(at);
            }
        }
        bytes
    })
}

fn split<'a>(bytes: &'a [u8], splits: &[Index]) -> Vec<&'a [u8]> {
    let mut ends: Vec<usize> = splits.iter().map(|split| split.index(bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}

/// The default limits, or limits so small that inputs exceed them.
fn limits() -> impl Strategy<Value = Limits> {
    let rate = || (0u32..6).prop_map(|burst| Rate { burst, per_second: 0 });
    let small = (0u32..3, 60u32..300, 0u32..40, 0usize..60, 0usize..4, 0u64..20, rate(), rate());
    let small =
        small.prop_map(|(streams, list, window, line, fields, body, resets, control_frames)| Limits {
            concurrent_streams: streams,
            header_list_size: list,
            stream_window: window,
            request_line: line,
            fields,
            body,
            heads: 400,
            output: 1024,
            resets,
            control_frames,
            ..Limits::default()
        });
    prop_oneof![Just(Limits::default()), small]
}
