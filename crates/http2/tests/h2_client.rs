//! A session and the client of `h2`, connected in memory.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::Request;
use mlws_http2::{Event, Limits, ResponseHead, Session};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The client's transport: what it will read, and what it has written.
#[derive(Clone, Default)]
struct Wire(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (incoming, _) = &mut *self.0.lock().unwrap();
        if incoming.is_empty() {
            return Poll::Pending;
        }
        let length = incoming.len().min(buffer.remaining());
        buffer.put_slice(&incoming[..length]);
        incoming.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().unwrap().1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Pair {
    wire: Wire,
    connection: Connection<Wire, Bytes>,
    requests: SendRequest<Bytes>,
    session: Session,
    events: Vec<Event>,
}

fn poll<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Pair {
    fn new() -> Self {
        let wire = Wire::default();
        let Poll::Ready(Ok((requests, connection))) = poll(h2::client::handshake(wire.clone())) else {
            panic!("the handshake waits")
        };
        let session = Session::new(Arc::new(Limits::default()), Instant::now());
        let mut pair = Pair { wire, connection, requests, session, events: Vec::new() };
        pair.exchange();
        pair
    }

    /// Passes bytes in both directions until there are none.
    fn exchange(&mut self) {
        loop {
            let _ = poll(&mut self.connection);
            let sent = std::mem::take(&mut self.wire.0.lock().unwrap().1);
            assert_eq!(self.session.receive(&sent, Instant::now()), sent.len());
            self.events.extend(std::iter::from_fn(|| self.session.next_event()));
            let mut output = Vec::new();
            self.session.take_output(&mut output);
            self.events.extend(std::iter::from_fn(|| self.session.next_event()));
            if sent.is_empty() && output.is_empty() {
                return;
            }
            self.wire.0.lock().unwrap().0.extend_from_slice(&output);
        }
    }
}

fn ready<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("pending"),
    }
}

#[test]
fn a_client_receives_hints_a_head_and_a_body_larger_than_all_windows() {
    let mut pair = Pair::new();
    let request = Request::get("https://a.example/x?y").body(()).unwrap();
    let (mut response, _) = pair.requests.send_request(request, true).unwrap();
    pair.exchange();
    assert!(matches!(&pair.events[..], [Event::Head { stream: 1, .. }, Event::End { stream: 1 }]));

    let mut hints = ResponseHead::interim(103).unwrap();
    hints.field(b"Link", b"</a>").unwrap();
    pair.session.respond(1, hints, false).unwrap();
    pair.exchange();
    let context = &mut Context::from_waker(Waker::noop());
    let hints = ready(response.poll_informational(context)).expect("hints").unwrap();
    assert_eq!((hints.status().as_u16(), hints.headers()["link"].as_bytes()), (103, &b"</a>"[..]));

    let mut head = ResponseHead::new(200).unwrap();
    head.field(b"X-Y", b"z").unwrap();
    pair.session.respond(1, head, false).unwrap();
    let body: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut rest = &body[..];
    let accepted = pair.session.data(1, rest, true).unwrap();
    rest = &rest[accepted..];
    pair.exchange();
    let response = ready(poll(response)).unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["x-y"].as_bytes()), (200, &b"z"[..]));
    let mut stream = response.into_body();
    let mut received = Vec::new();
    loop {
        match stream.poll_data(context) {
            Poll::Ready(Some(data)) => {
                let data = data.unwrap();
                stream.flow_control().release_capacity(data.len()).unwrap();
                received.extend_from_slice(&data);
            }
            Poll::Ready(None) => break,
            Poll::Pending => {
                pair.exchange();
                while pair.events.pop() == Some(Event::Writable { stream: 1 }) && !rest.is_empty() {
                    let accepted = pair.session.data(1, rest, true).unwrap();
                    rest = &rest[accepted..];
                }
                pair.exchange();
            }
        }
    }
    assert!(received == body);
    assert!(pair.session.is_idle());
}

#[test]
fn a_client_uploads_more_than_all_windows() {
    let mut pair = Pair::new();
    let request = Request::post("https://a.example/").body(()).unwrap();
    let (response, mut stream) = pair.requests.send_request(request, false).unwrap();
    let body: Vec<u8> = (0..5_000_000_u32).map(|number| (number % 251) as u8).collect();
    stream.send_data(body.clone().into(), true).unwrap();
    let mut received = Vec::new();
    while !pair.events.contains(&Event::End { stream: 1 }) {
        pair.exchange();
        for event in std::mem::take(&mut pair.events) {
            match event {
                Event::Data { data, .. } => {
                    received.extend_from_slice(&data);
                    pair.session.release(1, data.len());
                }
                Event::End { .. } => pair.events.push(event),
                _ => {}
            }
        }
    }
    assert!(received == body);
    pair.session.respond(1, ResponseHead::new(204).unwrap(), true).unwrap();
    pair.exchange();
    assert_eq!(ready(poll(response)).unwrap().status().as_u16(), 204);
}

#[test]
fn a_client_completes_its_requests_during_a_graceful_shutdown() {
    let mut pair = Pair::new();
    let (response, _) =
        pair.requests.send_request(Request::get("https://a.example/").body(()).unwrap(), true).unwrap();
    pair.exchange();
    pair.session.go_away();
    pair.exchange();
    pair.session.respond(1, ResponseHead::new(204).unwrap(), true).unwrap();
    pair.exchange();
    assert_eq!(ready(poll(response)).unwrap().status().as_u16(), 204);
    assert!(ready(poll(&mut pair.connection)).is_ok());
    assert!(pair.session.is_closed());
}
