//! A request that nobody made: it goes the whole way of a request, from its bytes to the last byte of its answer, over a pair
//! of sockets of our own. What an app and its bridge do only once, the processes forked later need not do again.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::Instant,
};

use crate::{
    App,
    connection::{Connection, Next, Phase},
    settings::House,
    wire::{Peer, Wire},
};

/// Lets `app` answer a GET of `target`, and do what a child does before it leaves; the status and reason of the answer. Blocks as long as the app does.
pub(crate) fn rehearse(app: &dyn App, house: Arc<House>, target: &str, host: &str) -> io::Result<String> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    write!(theirs, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let wire = Wire::new(OwnedFd::from(ours), Peer::default(), 0, house);
    let mut connection = Connection::new(0, wire, Instant::now());
    let mut next = connection.receive(Instant::now());
    let mut answer = Vec::new();
    loop {
        next = match next {
            Next::Run => {
                let mut next = Next::Close;
                app.in_request(&mut || next = connection.run(app, None).next);
                next
            }
            Next::Wait if connection.phase == Phase::Sending => connection.send(Instant::now()),
            _ => break,
        };
        // Of the answer only its first line is of interest, but a full socket would take no more of it.
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = theirs.read(&mut piece) {
            if answer.is_empty() {
                answer.extend_from_slice(&piece[..count]);
            }
        }
    }
    app.before_exit_of_child();
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = line.strip_prefix(b"HTTP/1.1 ").unwrap_or(b"no answer");
    Ok(String::from_utf8_lossy(status).into_owned())
}
