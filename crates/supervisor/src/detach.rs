//! Detaching: the work goes on in a process of a new session, while the calling one waits to hear whether it has started well.
//!
//! The one thing to know: the caller's process learns the outcome by one byte through a pipe. If the byte never comes, because the
//! detached process was killed, the pipe ends, and that is a failure.

use std::io::{self, PipeWriter, Read, Write};

use rustix::process::{WaitOptions, setsid, waitpid};

use crate::ForkHooks;
use crate::sys::{self, Fork};

/// Which process [`detach`] returned in.
#[derive(Debug)]
pub enum Detached {
    /// The calling one. The other is ready if this is 0; else it has ended with this status.
    Starter(i32),
    /// The detached one: leader of nothing, in a session without a terminal. It must not return to the caller's caller.
    Daemon(Launch),
}

/// The duty to tell the starter how the launch went, exactly once. Dropping it says that it failed.
#[derive(Debug)]
pub struct Launch(PipeWriter);

impl Launch {
    /// The exit status with which the starter is to end: 0 if all is ready.
    pub fn tell(mut self, status: i32) {
        // A starter that was interrupted does not listen any more.
        let _ = self.0.write_all(&[status.to_le_bytes()[0]]);
    }
}

/// Forks, starts a session, and forks again, so that no terminal can ever come to control the process that goes on.
///
/// The calling process must not have threads that hold locks which the work will want.
pub fn detach(hooks: &dyn ForkHooks) -> io::Result<Detached> {
    let (mut reader, writer) = io::pipe()?;
    if let Fork::Parent { child } = fork(hooks)? {
        drop(writer);
        let mut status = [1];
        let told = reader.read_exact(&mut status);
        let _ = waitpid(Some(child), WaitOptions::empty()); // it has ended: it only made the second fork
        return Ok(Detached::Starter(told.map_or(1, |()| i32::from(status[0]))));
    }
    drop(reader);
    match setsid().map_err(io::Error::from).and_then(|_| fork(hooks)) {
        Ok(Fork::Child) => Ok(Detached::Daemon(Launch(writer))),
        Ok(Fork::Parent { .. }) => sys::leave(0),
        Err(error) => {
            log::error!("the process cannot be detached: {error}");
            sys::leave(1)
        }
    }
}

fn fork(hooks: &dyn ForkHooks) -> io::Result<Fork> {
    hooks.before();
    let forked = sys::fork();
    if let Ok(Fork::Child) = forked {
        hooks.after_in_child();
    } else {
        hooks.after_in_parent();
    }
    forked
}
