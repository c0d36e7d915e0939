use std::{
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use super::*;
use crate::{Response, Settings, peer::Peer};

struct NoApp;

impl App for NoApp {
    fn call(&self, _: &mut Request) -> Response {
        Response::plain(200, "")
    }
}

/// An idle connection after a first request, and its client.
fn idle() -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let context = Arc::new(ServerContext::new(Settings::default(), false, Arc::default()));
    let socket = ClientSocket::new(OwnedFd::from(ours), Peer::default(), 0, context);
    let app: Arc<dyn App> = Arc::new(NoApp);
    let mut connection = Connection::new(0, socket, &app, Instant::now());
    connection.phase = Phase::Idle;
    connection.readiness.readable = false;
    (connection, theirs)
}

#[test]
fn a_request_that_has_arrived_when_keep_alive_ends_is_not_lost() {
    let (mut connection, mut client) = idle();
    client.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(matches!(connection.time_out(Instant::now()), Next::Run));
    let (mut connection, mut client) = idle();
    client.write_all(b"GET / HT").unwrap();
    assert!(matches!(connection.time_out(Instant::now()), Next::Wait));
    assert!(!connection.is_idle());
}

#[test]
fn a_connection_without_a_request_is_closed_when_keep_alive_ends() {
    let (mut connection, _client) = idle();
    assert!(matches!(connection.time_out(Instant::now()), Next::Close));
    let (mut connection, client) = idle();
    drop(client);
    assert!(matches!(connection.time_out(Instant::now()), Next::Close));
}
