use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    thread,
};

use super::*;
use crate::{
    Settings,
    settings::House,
    wire::{Peer, Wire},
};

/// An upload whose client is the returned socket, with the framing that the head says and nothing of the body received.
fn upload(
    framing: &str,
    expects_continue: bool,
    change: impl FnOnce(&mut Settings),
) -> (Arc<Upload>, UnixStream, Arc<Wire>) {
    let mut settings = Settings::default();
    change(&mut settings);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let house = Arc::new(House::new(settings, false, false));
    let mut parser = Parser::new(Arc::clone(&house.limits));
    let wire = Arc::new(Wire::new(OwnedFd::from(ours), Peer::default(), 0, house));
    let mut head = Head::default();
    let bytes = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
    assert_eq!(parser.next(bytes.as_bytes(), &mut head), Ok(Some(Event::Head)));
    let missing = missing(head.body, 0);
    let upload = Upload::new(&wire, parser, Vec::new(), missing, expects_continue, (0, Duration::ZERO));
    (Arc::new(upload), theirs, wire)
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
fn a_body_of_known_length_ends_before_the_next_request() {
    let (upload, mut client, wire) = upload("Content-Length: 5", false, |_| ());
    client.write_all(b"helloGET").unwrap();
    assert_eq!(read_all(&upload, 3).unwrap(), b"hello");
    assert!(upload.begin_response());
    let ended = upload.end().unwrap();
    assert!(ended.is_complete && ended.unparsed.is_empty() && ended.parser.is_between_requests());
    let mut next = Vec::with_capacity(10);
    wire.read(&mut next).unwrap();
    assert_eq!(next, b"GET");
}

#[test]
fn a_chunked_body_is_decoded_however_it_is_cut() {
    let body = b"5;a=b\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX: y\r\n\r\n";
    for most in [1, 2, 100] {
        let (upload, mut client, _wire) = upload("Transfer-Encoding: chunked", false, |_| ());
        let sender = thread::spawn(move || {
            for byte in body {
                client.write_all(&[*byte]).unwrap();
            }
            client.write_all(b"GET").unwrap();
            client
        });
        assert_eq!(read_all(&upload, most).unwrap(), b"hello world");
        let mut client = sender.join().unwrap();
        let ended = upload.end().unwrap();
        assert!(ended.is_complete && b"GET".starts_with(&ended.unparsed));
        drop(upload);
        client.write_all(b"!").unwrap();
    }
}

#[test]
fn a_long_chunk_takes_no_more_memory_than_a_read() {
    let (upload, mut client, _wire) = upload("Transfer-Encoding: chunked", false, |_| ());
    let sender = thread::spawn(move || {
        client.write_all(b"400000\r\n").unwrap();
        client.write_all(&vec![b'x'; 4 << 20]).unwrap();
        client.write_all(b"\r\n0\r\n\r\n").unwrap();
        client
    });
    assert_eq!(read_all(&upload, 10_000).unwrap().len(), 4 << 20);
    assert!(upload.lock().received.capacity() <= 4 * READ_SIZE);
    drop(sender.join());
}

#[test]
fn what_was_left_unread_goes_back_to_the_connection() {
    let (upload, mut client, _wire) = upload("Transfer-Encoding: chunked", false, |_| ());
    client.write_all(b"5\r\nhello\r\n4\r\nmo").unwrap();
    assert_eq!(read(&upload, 2).unwrap(), b"he");
    let mut ended = upload.end().unwrap();
    assert!(!ended.is_complete);
    ended.unparsed.extend(b"re\r\n0\r\n\r\n");
    let (mut at, mut rest) = (0, Vec::new());
    while let Some(event) = ended.parser.next(&ended.unparsed[at..], &mut Head::default()).unwrap() {
        match event {
            Event::Data { payload, consumed } => {
                rest.extend(&ended.unparsed[at + payload.start..at + payload.end]);
                at += consumed;
            }
            Event::End { consumed } => {
                at += consumed;
                break;
            }
            Event::Head => unreachable!(),
        }
    }
    assert_eq!((rest.as_slice(), at), (&b"more"[..], ended.unparsed.len()));
    assert!(read(&upload, 1).is_err(), "the request is over");
}

#[test]
fn a_failure_has_a_status_and_stays() {
    let chunked = "Transfer-Encoding: chunked";
    let cases: [(&str, &[u8], bool, u16, ErrorKind); 4] = [
        (chunked, b"2\r\nab\r\nx", false, 400, ErrorKind::InvalidData),
        (chunked, b"2\r\nab\r\nff\r\n", false, 413, ErrorKind::InvalidData),
        ("Content-Length: 9", b"ab", true, 400, ErrorKind::ConnectionAborted),
        ("Content-Length: 9", b"ab", false, 408, ErrorKind::TimedOut),
    ];
    for (framing, sent, closes, status, kind) in cases {
        let (upload, mut client, _wire) = upload(framing, false, |settings| {
            settings.limits.body = 100;
            settings.body_timeout = Duration::from_millis(50);
            settings.body_rate = 0;
        });
        client.write_all(sent).unwrap();
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
    let (asked, mut client, _wire) = upload("Content-Length: 2", true, |_| ());
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

    let (unasked, _client, _wire) = upload("Content-Length: 2", true, |_| ());
    assert!(!unasked.begin_response(), "the client may or may not send the body now");
    assert_eq!(read(&unasked, 10).unwrap_err().kind(), ErrorKind::ConnectionAborted);

    let (unread, _client, _wire) = upload("Content-Length: 2", true, |_| ());
    assert!(unread.end().is_none());
}

#[test]
fn a_thread_that_still_reads_at_the_end_is_not_waited_for() {
    let (upload, mut client, wire) = upload("Content-Length: 9", true, |_| ());
    let reader = thread::spawn({
        let upload = Arc::clone(&upload);
        move || read(&upload, 10)
    });
    client.read_exact(&mut [0; mlws_http1::CONTINUE.len()]).unwrap();
    assert!(!upload.begin_response() && upload.end().is_none());
    assert_eq!(reader.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionAborted);
    drop(wire);
    assert!(upload.wire.upgrade().is_none(), "nothing keeps the socket open");
}

#[test]
fn much_that_is_missing_closes_the_connection() {
    let (little, _client, _wire) = upload(&format!("Content-Length: {DRAIN_LIMIT}"), false, |_| ());
    let (much, _client, _wire) = upload(&format!("Content-Length: {}", DRAIN_LIMIT + 1), false, |_| ());
    assert!(little.begin_response() && !much.begin_response());
    let (chunk, mut client, _wire) = upload("Transfer-Encoding: chunked", false, |_| ());
    client.write_all(b"1000000\r\nbeginning").unwrap();
    assert_eq!(read(&chunk, 100).unwrap(), b"beginning");
    assert!(!chunk.begin_response());
}
