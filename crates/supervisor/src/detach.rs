//! Daemonizing: the work continues in a process of a new session, while the calling process waits until it is ready.
//!
//! The daemon reports its outcome as one byte through a pipe (a ready pipe). If the daemon is killed first, the pipe closes
//! without a byte, which counts as a failure.

use std::io::{self, PipeWriter, Read, Write};

use rustix::process::{WaitOptions, setsid, waitpid};

use crate::fork_hooks::{ForkHooks, fork};
use crate::messages;
use mlws_sys::{self as sys, Fork};

/// Which process [`detach`] returned in.
#[derive(Debug)]
pub enum Daemonized {
    /// The calling process. The status is 0 if the daemon is ready, else the exit status of the daemon.
    Parent(i32),
    /// The daemon, in a session without a terminal. It must not return to its caller's caller.
    Daemon(ReadyPipe),
}

/// Reports to the parent whether the daemon has started. Dropping it reports a failure.
#[derive(Debug)]
pub struct ReadyPipe(PipeWriter);

impl ReadyPipe {
    /// Reports the status with which the parent exits: 0 if the daemon is ready.
    pub fn notify(mut self, status: i32) {
        // This fails only if the parent was interrupted, and then nothing waits for the status.
        let _ = self.0.write_all(&[status.to_le_bytes()[0]]);
    }
}

/// Forks, starts a session, and forks again, so that the daemon can never acquire a controlling terminal.
///
/// The calling process must not have threads that hold locks which the daemon needs.
pub fn detach(hooks: &dyn ForkHooks) -> io::Result<Daemonized> {
    let (mut reader, writer) = io::pipe()?;
    if let Fork::Parent { child } = fork(hooks, || ())? {
        drop(writer);
        let mut status = [1];
        let received = reader.read_exact(&mut status);
        let _ = waitpid(Some(child), WaitOptions::empty()); // it exits right after the second fork
        return Ok(Daemonized::Parent(received.map_or(1, |()| i32::from(status[0]))));
    }
    drop(reader);
    match setsid().map_err(io::Error::from).and_then(|_| fork(hooks, || ())) {
        Ok(Fork::Child) => Ok(Daemonized::Daemon(ReadyPipe(writer))),
        Ok(Fork::Parent { .. }) => sys::exit_now(0),
        Err(error) => {
            messages::daemonize_failed(error);
            sys::exit_now(1)
        }
    }
}
