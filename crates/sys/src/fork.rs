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

/// Forks this process. Signals are blocked until the guard is dropped, so that the child can set its own dispositions before one arrives.
///
/// Other threads do not exist in the child, and locks that they held stay locked there. So call this from a process with one thread, or
/// use only what no other thread can have locked. The C library repairs its own locks (malloc, stdio).
///
/// # Errors
///
/// If the kernel cannot create a process.
pub fn fork() -> io::Result<(Fork, SignalsBlocked)> {
    let blocked = SignalsBlocked::all();
    // SAFETY: fork(2) may be called at any time; the documentation states what holds in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok((Pid::from_raw(pid).map_or(Fork::Child, |child| Fork::Parent { child }), blocked)),
    }
}

/// Exits immediately, without exit handlers: those of a child belong to its parent, and those of a process with a stuck thread might
/// wait for it.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}
