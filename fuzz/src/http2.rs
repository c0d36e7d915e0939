//! Target `http2`: everything that an HTTP/2 client sends after the connection preface.
//!
//! The input is first received without a server that responds: the events and the output must not depend on how it is
//! split. Then a server responds at pseudorandom times, and each event and each frame that it sends is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use mlws_http2::{Event, Limits, PREFACE, Rate, Reason, ResponseHead, Session};

use crate::rng::Rng;

/// Checks one input.
pub fn check(wire: &[u8]) {
    let mut rng = Rng::from_input(wire);
    for limits in [Limits::default(), small_limits(&mut rng)] {
        let limits = Arc::new(limits);
        let whole = receive(&limits, [wire]);
        assert_eq!(receive(&limits, wire.chunks(1)), whole, "receiving byte by byte gave another result");
        assert_eq!(receive(&limits, rng.split(wire)), whole, "splitting the input gave another result");
        Server::new(limits).run(wire, &mut rng);
    }
}

/// Limits so small that inputs exceed them.
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
fn small_limits(rng: &mut Rng) -> Limits {
    let mut rate = || Rate { burst: rng.at_most(8) as u32, per_second: 0 };
    let (resets, control_frames) = (rate(), rate());
    Limits {
        concurrent_streams: rng.at_most(3) as u32,
        frame_size: 16_384,
        header_list_size: 50 + rng.at_most(300) as u32,
        stream_window: rng.at_most(100) as u32,
        connection_window: 65_535,
        request_line: rng.at_most(60),
        fields: rng.at_most(6),
        field_size: rng.at_most(50),
        body: rng.at_most(30) as u64,
        heads: rng.at_most(600),
        output: 1024,
        resets,
        control_frames,
    }
}

/// A session after the preface.
fn session(limits: &Arc<Limits>, now: Instant) -> Session {
    let mut session = Session::new(Arc::clone(limits), now);
    assert_eq!(session.receive(PREFACE, now), PREFACE.len());
    session
}

/// Type, flags, stream and payload.
type OwnedFrame = (u8, u8, u32, Vec<u8>);

/// Passes the segments to a session, taking the output after each. Returns all events and the frames in the output,
/// without window updates: those that are due when the connection fails are only sent if the output is taken before.
fn receive<'a>(
    limits: &Arc<Limits>,
    segments: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Event>, Vec<OwnedFrame>) {
    let now = Instant::now();
    let mut session = session(limits, now);
    let (mut events, mut output) = (Vec::new(), Vec::new());
    for mut segment in segments {
        while !segment.is_empty() {
            let consumed = session.receive(segment, now);
            segment = &segment[consumed..];
            let taken = take_output(&mut session, limits, &mut output);
            assert!(consumed > 0 || taken > 0, "neither input is consumed nor output produced");
            events.extend(std::iter::from_fn(|| session.next_event()));
        }
    }
    while take_output(&mut session, limits, &mut output) > 0 {}
    events.extend(std::iter::from_fn(|| session.next_event()));
    let frames = frames(&output).filter(|&(kind, ..)| kind != 8);
    (events, frames.map(|(kind, flags, stream, payload)| (kind, flags, stream, payload.to_vec())).collect())
}

/// Appends the output once, which is bounded, and returns its size.
fn take_output(session: &mut Session, limits: &Limits, output: &mut Vec<u8>) -> usize {
    let mut taken = Vec::new();
    session.take_output(&mut taken);
    assert!(taken.len() <= limits.output, "too much output");
    output.extend_from_slice(&taken);
    taken.len()
}

/// A stream as the server sees it.
#[derive(Debug, Default)]
struct Stream {
    has_ended: bool,
    is_rejected: bool,
    has_head: bool,
    head_size: usize,
    unreleased: usize,
}

/// A server that responds at pseudorandom times and checks everything it is given.
struct Server {
    limits: Arc<Limits>,
    session: Session,
    streams: BTreeMap<u32, Stream>,
    last_stream: u32,
    is_closed: bool,
    output: Vec<u8>,
    /// The data that the client's window updates permit: on the connection, and per stream.
    permitted: BTreeMap<u32, u64>,
    largest_initial_window: u64,
}

const DEFAULT_WINDOW: u64 = 65_535;

impl Server {
    fn new(limits: Arc<Limits>) -> Self {
        Server {
            session: session(&limits, Instant::now()),
            limits,
            streams: BTreeMap::new(),
            last_stream: 0,
            is_closed: false,
            output: Vec::new(),
            permitted: BTreeMap::from([(0, DEFAULT_WINDOW)]),
            largest_initial_window: DEFAULT_WINDOW,
        }
    }

    fn run(mut self, wire: &[u8], rng: &mut Rng) {
        for (kind, _, stream, payload) in frames(wire) {
            self.permit(kind, stream, payload);
        }
        let now = Instant::now();
        for mut segment in rng.split(wire) {
            while !segment.is_empty() {
                let consumed = self.session.receive(segment, now);
                segment = &segment[consumed..];
                self.process_events();
                for _ in 0..rng.at_most(4) {
                    self.act(rng);
                    self.process_events();
                }
                take_output(&mut self.session, &self.limits, &mut self.output);
                self.process_events();
            }
        }
        while take_output(&mut self.session, &self.limits, &mut self.output) > 0 {}
        self.process_events();
        assert_eq!(self.is_closed, self.session.is_closed());
        assert_eq!(self.streams.is_empty(), self.session.is_idle());
        self.check_output();
    }

    /// An upper bound: what a client permits at any time counts from the start.
    fn permit(&mut self, kind: u8, stream: u32, payload: &[u8]) {
        match (kind, payload) {
            (4, values) => {
                for value in values.as_chunks::<6>().0 {
                    if value[..2] == [0, 4] {
                        let window = u32::from_be_bytes([value[2], value[3], value[4], value[5]]);
                        self.largest_initial_window = self.largest_initial_window.max(window.into());
                    }
                }
            }
            (8, &[a, b, c, d]) => {
                let increment = u32::from_be_bytes([a & 0x7f, b, c, d]);
                *self.permitted.entry(stream).or_default() += u64::from(increment);
            }
            _ => {}
        }
    }

    fn process_events(&mut self) {
        while let Some(event) = self.session.next_event() {
            assert!(!self.is_closed, "{event:?} after the last event");
            self.process(&event);
        }
        assert!(self.streams.len() <= self.limits.concurrent_streams as usize, "too many streams");
        let heads: usize = self.streams.values().map(|stream| stream.head_size).sum();
        assert!(heads <= self.limits.heads, "heads of {heads} bytes");
        let unreleased: usize = self.streams.values().map(|stream| stream.unreleased).sum();
        assert!(unreleased <= self.limits.connection_window as usize, "{unreleased} bytes of data");
    }

    fn process(&mut self, event: &Event) {
        match event {
            Event::Head { stream, head } => {
                let target = head.target.of(&head.bytes);
                assert!(target.iter().all(u8::is_ascii_graphic) && !target.contains(&b'#'));
                assert!(head.fields.len() <= self.limits.fields + 1);
                assert!(head.bytes.iter().all(|&byte| (byte >= b' ' && byte != 0x7f) || byte == b'\t'));
                self.open(*stream, Stream { head_size: head.decoded_size, ..Stream::default() });
            }
            Event::Data { stream, data } => {
                let limit = self.limits.stream_window as usize;
                let stream = self.open_stream(*stream);
                assert!(!stream.has_ended && !stream.is_rejected && !data.is_empty());
                stream.unreleased += data.len();
                assert!(stream.unreleased <= limit.max(65_535));
            }
            Event::End { stream } => {
                let stream = self.open_stream(*stream);
                assert!(!stream.has_ended && !stream.is_rejected);
                stream.has_ended = true;
            }
            Event::Rejected { stream, is_answered: true, .. } => assert!(!self.streams.contains_key(stream)),
            Event::Rejected { stream, is_answered: false, .. } => match self.streams.get_mut(stream) {
                Some(stream) => {
                    assert!(!stream.has_ended && !stream.is_rejected);
                    stream.is_rejected = true;
                }
                None => self.open(*stream, Stream { is_rejected: true, ..Stream::default() }),
            },
            Event::Reset { stream, .. } => {
                self.open_stream(*stream);
                self.streams.remove(stream);
            }
            Event::Writable { stream } => assert!(self.open_stream(*stream).has_head),
            Event::GoAway { .. } => {
                assert!(self.streams.is_empty(), "streams without an end");
                self.is_closed = true;
            }
        }
    }

    fn open(&mut self, id: u32, stream: Stream) {
        assert!(id % 2 == 1 && id > self.last_stream, "stream {id} after {}", self.last_stream);
        self.last_stream = id;
        self.streams.insert(id, stream);
    }

    fn open_stream(&mut self, id: u32) -> &mut Stream {
        self.streams.get_mut(&id).unwrap_or_else(|| panic!("an event of stream {id}, which is not open"))
    }

    /// Does something to one of the open streams, or to the connection.
    fn act(&mut self, rng: &mut Rng) {
        let which = rng.at_most(self.streams.len());
        let Some((&id, stream)) = self.streams.iter_mut().nth(which) else {
            if rng.at_most(20) == 0 {
                self.session.go_away();
            }
            return;
        };
        let end = rng.at_most(1) == 0;
        match rng.at_most(6) {
            0 => {
                let interim = ResponseHead::interim(103).expect("a valid status");
                assert_eq!(self.session.respond(id, interim, end).is_ok(), !stream.has_head);
            }
            1 | 2 => {
                let head = ResponseHead::new(200).expect("a valid status");
                assert_eq!(self.session.respond(id, head, end).is_ok(), !stream.has_head);
                if !stream.has_head && end {
                    self.streams.remove(&id);
                } else {
                    stream.has_head = true;
                }
            }
            3 | 4 => {
                let data = vec![7; rng.at_most(3000)];
                let accepted = self.session.data(id, &data, end);
                assert_eq!(accepted.is_ok(), stream.has_head);
                if accepted == Ok(data.len()) && end {
                    self.streams.remove(&id);
                }
            }
            5 => {
                let bytes = rng.at_most(stream.unreleased);
                stream.unreleased -= bytes;
                self.session.release(id, bytes);
            }
            _ => {
                self.session.reset(id, Reason::INTERNAL_ERROR);
                self.streams.remove(&id);
            }
        }
    }

    /// The output consists of complete frames, no more than the client permits.
    fn check_output(&self) {
        let mut sent: BTreeMap<u32, u64> = BTreeMap::new();
        let mut end = 0;
        let mut ended = BTreeSet::new();
        for (kind, flags, stream, payload) in frames(&self.output) {
            end += 9 + payload.len();
            if matches!(kind, 0 | 1) {
                assert!(!ended.contains(&stream), "a frame after the last of stream {stream}");
                if flags & 1 != 0 {
                    ended.insert(stream);
                }
            }
            if kind == 0 {
                *sent.entry(0).or_default() += payload.len() as u64;
                *sent.entry(stream).or_default() += payload.len() as u64;
            }
        }
        assert_eq!(end, self.output.len(), "an incomplete frame");
        for (stream, sent) in sent {
            let initial = if stream == 0 { 0 } else { self.largest_initial_window };
            let permitted = initial + self.permitted.get(&stream).copied().unwrap_or(0);
            assert!(sent <= permitted, "{sent} bytes on stream {stream}, {permitted} permitted");
        }
    }
}

/// The complete frames in `bytes`: type, flags, stream and payload.
fn frames(mut bytes: &[u8]) -> impl Iterator<Item = (u8, u8, u32, &[u8])> {
    std::iter::from_fn(move || {
        let (&[l2, l1, l0, kind, flags, s3, s2, s1, s0], rest) = bytes.split_first_chunk()?;
        let length = u32::from_be_bytes([0, l2, l1, l0]) as usize;
        let payload = rest.get(..length)?;
        bytes = &rest[length..];
        Some((kind, flags, u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]), payload))
    })
}
