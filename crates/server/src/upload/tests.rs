use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use super::*;
use crate::{Settings, context::ServerContext, peer::Peer};
use mlws_sys::append_to;

/// An upload of this length, none of it received yet, and the socket of its client.
fn upload(
    length: u64,
    expects_continue: bool,
    change: impl FnOnce(&mut Settings),
) -> (Arc<Upload>, UnixStream, Arc<ClientSocket>) {
    let mut settings = Settings::default();
    change(&mut settings);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let context = Arc::new(ServerContext::new(settings, false, Arc::default()));
    let socket = Arc::new(ClientSocket::new(OwnedFd::from(ours), Peer::default(), 0, context));
    let upload = Upload::new(&socket, length, expects_continue, (0, Duration::ZERO));
    (Arc::new(upload), theirs, socket)
}

fn read(upload: &Upload, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    append_to(&mut bytes, most, |buffer| upload.read(buffer)).map(|()| bytes)
}

fn read_all(upload: &Upload, most: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        match read(upload, most)? {
            piece if piece.is_empty() => return Ok(all),
            piece => all.extend(piece),
        }
    }
}

#[test]
fn a_body_ends_before_the_next_request() {
    let (upload, mut client, socket) = upload(5, false, |_| ());
    client.write_all(b"helloGET").unwrap();
    assert_eq!(read_all(&upload, 3).unwrap(), b"hello");
    assert!(upload.begin_response());
    assert_eq!(upload.end(), Some(0));
    let mut next = Vec::with_capacity(10);
    socket.read(&mut next).unwrap();
    assert_eq!(next, b"GET");
}

#[test]
fn unread_data_is_left_to_the_connection() {
    let (upload, mut client, socket) = upload(9, false, |_| ());
    client.write_all(b"hello").unwrap();
    assert_eq!(read(&upload, 2).unwrap(), b"he");
    assert_eq!(upload.end(), Some(7));
    assert!(read(&upload, 1).is_err(), "the request is over");
    let mut rest = Vec::with_capacity(10);
    socket.read(&mut rest).unwrap();
    assert_eq!(rest, b"llo");
}

#[test]
fn a_failure_has_a_status_and_is_permanent() {
    let cases = [(true, 400, ErrorKind::ConnectionAborted), (false, 408, ErrorKind::TimedOut)];
    for (closes, status, kind) in cases {
        let (upload, mut client, _wire) = upload(9, false, |settings| {
            settings.body_timeout = Duration::from_millis(50);
            settings.body_rate = 0;
        });
        client.write_all(b"ab").unwrap();
        if closes {
            client.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(read(&upload, 100).unwrap(), b"ab");
        assert!(upload.failure().is_none());
        for _ in 0..2 {
            assert_eq!(read(&upload, 100).unwrap_err().kind(), kind);
        }
        assert_eq!(upload.failure().map(|failure| failure.status), Some(status));
        assert!(!upload.begin_response() && upload.end().is_none());
    }
}

#[test]
fn the_client_is_asked_for_the_body_by_the_first_read_and_only_before_the_response() {
    let (asked, mut client, _wire) = upload(2, true, |_| ());
    let reader = thread::spawn({
        let asked = Arc::clone(&asked);
        move || read(&asked, 10)
    });
    let mut interim = [0; mlws_http1::CONTINUE.len()];
    client.read_exact(&mut interim).unwrap();
    assert_eq!(interim, mlws_http1::CONTINUE);
    client.write_all(b"ok").unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), b"ok");
    assert!(asked.begin_response());

    let (unasked, _client, _wire) = upload(2, true, |_| ());
    assert!(!unasked.begin_response(), "the client may or may not send the body now");
    assert_eq!(read(&unasked, 10).unwrap_err().kind(), ErrorKind::ConnectionAborted);

    let (unread, _client, _wire) = upload(2, true, |_| ());
    assert!(unread.end().is_none());
}

#[test]
fn the_end_does_not_wait_for_a_thread_that_still_reads() {
    let (upload, mut client, socket) = upload(9, true, |_| ());
    let reader = thread::spawn({
        let upload = Arc::clone(&upload);
        move || read(&upload, 10)
    });
    client.read_exact(&mut [0; mlws_http1::CONTINUE.len()]).unwrap();
    assert!(!upload.begin_response() && upload.end().is_none());
    assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    drop(socket);
    assert!(upload.socket.upgrade().is_none(), "nothing keeps the socket open");
}

#[test]
fn a_long_missing_rest_closes_the_connection() {
    let (little, _client, _wire) = upload(DRAIN_LIMIT, false, |_| ());
    let (much, _client, _wire) = upload(DRAIN_LIMIT + 1, false, |_| ());
    assert!(little.begin_response() && !much.begin_response());
}
