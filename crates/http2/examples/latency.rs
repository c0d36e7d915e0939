//! Measures the time per request and the memory per connection: `cargo run --release -p mlws-http2 --example latency`.
//!
//! Each time is the minimum over several rounds, because disturbances only ever make a round slower. Memory is the growth
//! of the resident set of this process, so Linux only.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use mlws_http2::{Event, Limits, PREFACE, ResponseHead, Session};

const ROUNDS: usize = 200;
const REQUESTS: u32 = 1280;
const BODY: &[u8] = b"Hello, world!";

/// GET / as curl sends it, with all fields in the static table or as literals.
const SMALL: &[u8] = b"\x82\x87\x84\x01\x0elocalhost:8000\x0f\x2b\x0bcurl/8.14.1\x0f\x04\x03*/*";

fn main() {
    for batch in [1, 32] {
        println!("{:>6} ns  request and response, {batch} at a time", requests(batch));
    }
    println!("{:>6} ns  per 16 KB of a response", downloads());
    println!("{:>6} ns  per 16 KB of a request body", uploads());
    for requests in [0, 1, 32] {
        println!(
            "{:>6} B   idle connection, after {requests} concurrent requests",
            idle_connection(requests)
        );
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A session after the exchange of settings.
fn session(limits: &Arc<Limits>) -> Session {
    let now = Instant::now();
    let mut session = Session::new(Arc::clone(limits), now);
    let windows = [&4_u16.to_be_bytes()[..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let settings =
        [frame(4, 0, 0, &windows), frame(4, 1, 0, b""), frame(8, 0, 0, &0x7fff_0000_u32.to_be_bytes())];
    let hello = [&PREFACE[..], &settings.concat()].concat();
    assert_eq!(session.receive(&hello, now), hello.len());
    session.take_output(&mut Vec::new());
    session
}

fn respond(session: &mut Session, stream: u32) {
    let mut head = ResponseHead::new(200).expect("a valid status");
    for (name, value) in [
        ("Content-Type", "text/plain"),
        ("Content-Length", "13"),
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Server", "mylittlewebserver"),
    ] {
        head.field(name.as_bytes(), value.as_bytes()).expect("a valid field");
    }
    session.respond(stream, head, false).expect("an open stream");
    assert_eq!(session.data(stream, BODY, true), Ok(BODY.len()));
}

/// Serves a batch of requests in one input and one output.
fn serve(session: &mut Session, input: &[u8], output: &mut Vec<u8>, now: Instant) {
    assert_eq!(session.receive(input, now), input.len());
    while let Some(event) = session.next_event() {
        match event {
            Event::End { stream } => respond(session, stream),
            Event::GoAway { error } => panic!("{error:?}"),
            other => drop(black_box(other)),
        }
    }
    output.clear();
    session.take_output(output);
}

fn requests(batch: usize) -> u128 {
    let limits = Arc::new(Limits::default());
    let inputs: Vec<Vec<u8>> = (0..REQUESTS).map(|number| frame(1, 5, 2 * number + 1, SMALL)).collect();
    let inputs: Vec<Vec<u8>> = inputs.chunks(batch).map(<[_]>::concat).collect();
    let mut output = Vec::new();
    let round = || {
        let mut session = session(&limits);
        let start = Instant::now();
        for input in &inputs {
            serve(&mut session, input, &mut output, start);
        }
        start.elapsed().as_nanos() / u128::from(REQUESTS)
    };
    std::iter::repeat_with(round).take(ROUNDS).min().expect("a round")
}

fn downloads() -> u128 {
    let limits = Arc::new(Limits::default());
    let data = vec![7; 16_384];
    let mut output = Vec::new();
    let round = || {
        let mut session = session(&limits);
        session.receive(&frame(1, 5, 1, SMALL), Instant::now());
        session.respond(1, ResponseHead::new(200).expect("a valid status"), false).expect("an open stream");
        let start = Instant::now();
        for _ in 0..50 {
            assert_eq!(session.data(1, &data, false), Ok(data.len()));
            output.clear();
            session.take_output(&mut output);
        }
        start.elapsed().as_nanos() / 50
    };
    std::iter::repeat_with(round).take(ROUNDS).min().expect("a round")
}

fn uploads() -> u128 {
    let limits = Arc::new(Limits::default());
    let data = frame(0, 0, 1, &[7; 16_384]);
    let mut output = Vec::new();
    let round = || {
        let mut session = session(&limits);
        session.receive(&frame(1, 4, 1, SMALL), Instant::now());
        let start = Instant::now();
        for _ in 0..50 {
            assert_eq!(session.receive(&data, start), data.len());
            while let Some(event) = session.next_event() {
                if let Event::Data { stream, data } = event {
                    session.release(stream, data.len());
                }
            }
            output.clear();
            session.take_output(&mut output);
        }
        start.elapsed().as_nanos() / 50
    };
    std::iter::repeat_with(round).take(ROUNDS).min().expect("a round")
}

fn idle_connection(requests: u32) -> usize {
    const CONNECTIONS: usize = 1000;
    let limits = Arc::new(Limits::default());
    let input: Vec<u8> = (0..requests).flat_map(|number| frame(1, 5, 2 * number + 1, SMALL)).collect();
    let mut output = Vec::new();
    let before = resident_set();
    let sessions: Vec<Session> = std::iter::repeat_with(|| {
        let mut session = session(&limits);
        serve(&mut session, &input, &mut output, Instant::now());
        session
    })
    .take(CONNECTIONS)
    .collect();
    let bytes = (resident_set() - before) / CONNECTIONS;
    drop(sessions);
    bytes
}

/// The resident set of this process in bytes.
fn resident_set() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}
