//! The first process of a container: a small init that has the real master as its child.
//!
//! The one thing to know: the kernel gives every orphan of a container to process 1. If that were the master, it would have to wait
//! for processes that are not its own; so another process does, which passes signals on and ends as the master ended.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::ForkHooks;
use crate::signals::CAUGHT;
use crate::sys::{self, Blocked, Fork};

/// What [`become_init_if_pid_1`] made of the process it returns in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// It is not process 1, and nothing was done.
    NotNeeded,
    /// It is process 1, and its child has ended; this process must end with the same status (128 + N if signal N killed the child).
    Ended(i32),
    /// It is the child of process 1: the work is its to do, and it must not return to the caller's caller a second time.
    Child,
}

/// If this is process 1, forks the process that does the work, and tends it until it ends: see [`Init`]. Fails if it cannot fork.
///
/// The calling process must not have threads that hold locks which the work will want.
pub fn become_init_if_pid_1(hooks: &dyn ForkHooks) -> io::Result<Init> {
    if !getpid().is_init() {
        return Ok(Init::NotNeeded);
    }
    hooks.before();
    // Blocked signals wait for `tend`, even those that the kernel would not let reach a process 1 without handlers.
    let blocked = Blocked::all();
    match sys::fork() {
        Ok(Fork::Child) => {
            drop(blocked);
            hooks.after_in_child();
            Ok(Init::Child)
        }
        Ok(Fork::Parent { child }) => {
            hooks.after_in_parent();
            Ok(Init::Ended(tend(child)))
        }
        Err(error) => {
            hooks.after_in_parent();
            Err(error)
        }
    }
}

/// Passes signals on and reaps every orphan, until `child` has ended. Its exit status. All signals are blocked.
fn tend(child: Pid) -> i32 {
    loop {
        match sys::take_signal() {
            Some((Signal::CHILD, _)) => {
                if let Some(status) = reap(child) {
                    return status;
                }
            }
            // A terminal sends its signals to the child, too; a second INT would make it stop fast.
            Some((signal, from_kernel)) if CAUGHT.contains(&signal) && !from_kernel => {
                let _ = kill_process(child, signal); // at worst it is a zombie, of which CHLD tells next
            }
            Some(_) | None => {}
        }
    }
}

/// Frees the entries of all that have ended. The exit status of `child`, if it is among them.
fn reap(child: Pid) -> Option<i32> {
    let mut found = None;
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let killed_by = status.terminating_signal().map(|signal| 128 + signal);
                found = status.exit_status().or(killed_by);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return found,
        }
    }
}
