use std::io;

use rustix::process::Pid;

use crate::signals::SignalsBlocked;

/// Which side of a fork this is.
pub enum Fork {
    /// The process that called [`fork`].
    Parent {
        /// The new process.
        child: Pid,
    },
    /// The new process.
    Child,
}

/// Forks this process. Signals are blocked until the guard is dropped, so that the child can set its own dispositions
/// before one arrives.
///
/// # Errors
///
/// If the kernel cannot create a process.
///
/// # Safety
///
/// Only the calling thread exists in the child. Whatever other threads were changing stays half changed there, and
/// locks that they held stay locked. So either this process has no other thread, or the child uses nothing that another
/// thread may have been changing, except what the C library (malloc, stdio) or a function called before the fork
/// (`PyOS_BeforeFork`) protects.
pub unsafe fn fork() -> io::Result<(Fork, SignalsBlocked)> {
    let blocked = SignalsBlocked::all();
    // SAFETY: the caller's contract.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok((Pid::from_raw(pid).map_or(Fork::Child, |child| Fork::Parent { child }), blocked)),
    }
}

/// Exits immediately, without exit handlers: those of a child belong to its parent, and those of a process with a stuck
/// thread might wait for it.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}
