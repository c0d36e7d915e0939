//! A fork by the application, which the supervisor does not know of.
#![allow(unsafe_code)]

use rustix::process::Pid;

/// Forks a child that waits for a line.
pub(crate) fn fork_a_reader() -> Pid {
    // SAFETY: the process has one thread, and the child only reads and exits.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::read(0, [0_u8; 1].as_mut_ptr().cast(), 1);
            libc::_exit(0);
        }
        Pid::from_raw(child).unwrap()
    }
}
