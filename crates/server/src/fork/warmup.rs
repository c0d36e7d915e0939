//! `--fork-warmup`: a request without a client, over a socket pair. What the application does only once need not be
//! repeated in the processes that are forked later.

use std::{
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use mlws_sys::{self as sys, Fork};
use rustix::process::{WaitOptions, waitpid};

use super::process::fork_for_request;
use crate::{
    App,
    connection::socket::ClientSocket,
    connection::{Connection, Next, Phase},
    context::ServerContext,
    peer::Peer,
};

/// Calls `app` for a GET of `target`, and does what a child does before it exits. Returns the status and reason of the
/// response. Blocks as long as the application does.
pub(crate) fn run_warmup_request(
    app: &Arc<dyn App>,
    context: Arc<ServerContext>,
    target: &str,
    host: &str,
) -> io::Result<String> {
    let (ours, mut theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    write!(theirs, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let socket = ClientSocket::new(OwnedFd::from(ours), Peer::unix(true), 0, context);
    let mut connection = Connection::new(0, socket, app, Instant::now());
    let mut next = connection.receive(Instant::now());
    let mut response = Vec::new();
    loop {
        next = match next {
            Next::Run => {
                let mut next = Next::Close;
                app.in_request(&mut || next = connection.run(&**app, None).next);
                next
            }
            Next::Wait if matches!(connection.phase, Phase::Sending) => connection.send(Instant::now()),
            _ => break,
        };
        // Only the status line is needed, but the socket must not become full.
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = theirs.read(&mut piece) {
            if response.is_empty() {
                response.extend_from_slice(&piece[..count]);
            }
        }
    }
    app.before_exit_of_child();
    let line = response.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let status = line.strip_prefix(b"HTTP/1.1 ").unwrap_or(b"no answer");
    Ok(String::from_utf8_lossy(status).into_owned())
}

/// Runs `job` in a forked process and returns its result. All other effects end with that process. Blocks as long as
/// the job does. The calling process must have one thread.
pub fn run_in_discarded_process(app: &dyn App, job: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let (mut reader, writer) = io::pipe()?;
    match fork_for_request(app)? {
        Fork::Child => {
            let done = catch_unwind(AssertUnwindSafe(|| {
                app.after_fork_in_child();
                let result = job();
                (&writer).write_all(&result.len().to_ne_bytes())?;
                (&writer).write_all(&result)
            }));
            sys::exit_now(i32::from(!matches!(done, Ok(Ok(())))))
        }
        Fork::Parent { child: pid } => {
            drop(writer);
            let result = read_result(&mut reader);
            rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()))?;
            if app.wants_child_exits() {
                app.child_exited(pid);
            }
            result
        }
    }
}

/// The length comes first, because processes that the job left behind may hold the pipe open.
fn read_result(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; size_of::<usize>()];
    reader.read_exact(&mut length)?;
    let mut result = vec![0; usize::from_ne_bytes(length)];
    reader.read_exact(&mut result)?;
    Ok(result)
}
