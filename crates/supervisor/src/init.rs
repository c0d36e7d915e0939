//! The init process of a container, which runs the master as its child.
//!
//! The kernel reparents every orphan of a container to process 1. If that were the master, it would have to reap processes
//! that are not its own. Instead a small init forwards signals, reaps orphans, and exits with the status of the master.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::fork_hooks::{ForkHooks, fork};
use crate::signal_queue::HANDLED;
use mlws_sys::{self as sys, Fork, SignalsBlocked};

/// Which process [`become_init_if_pid_1`] returned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitRole {
    /// The calling process is not process 1. Nothing was done.
    NotNeeded,
    /// Process 1, after its child has exited. It must exit with the same status (128 + N if signal N killed the child).
    Init(i32),
    /// The child of process 1, which does the work. It must not return to its caller's caller a second time.
    Child,
}

/// If this is process 1, forks a child that does the work, and acts as its init until it exits. Fails if it cannot fork.
///
/// The calling process must not have threads that hold locks which the child needs.
pub fn become_init_if_pid_1(hooks: &dyn ForkHooks) -> io::Result<InitRole> {
    if !getpid().is_init() {
        return Ok(InitRole::NotNeeded);
    }
    // In the init, all signals stay blocked and are read synchronously. That includes those which the kernel would otherwise
    // not deliver to a process 1 without handlers.
    let blocked = SignalsBlocked::all();
    match fork(hooks, || ())? {
        Fork::Parent { child } => Ok(InitRole::Init(forward_signals_and_reap(child))),
        Fork::Child => {
            drop(blocked);
            Ok(InitRole::Child)
        }
    }
}

/// Forwards signals and reaps orphans until `child` has exited. Returns its exit status. All signals are blocked.
fn forward_signals_and_reap(child: Pid) -> i32 {
    loop {
        match sys::wait_for_signal() {
            Some((Signal::CHILD, _)) => {
                if let Some(status) = reap_all(child) {
                    return status;
                }
            }
            // A terminal sends its signals to the child too. A second INT would make it stop immediately.
            Some((signal, from_kernel)) if HANDLED.contains(&signal) && !from_kernel => {
                let _ = kill_process(child, signal); // it fails only if the child has exited, and CHLD follows
            }
            Some(_) | None => {}
        }
    }
}

/// Reaps all children that have exited. Returns the exit status of `child`, if it is among them.
fn reap_all(child: Pid) -> Option<i32> {
    let mut child_status = None;
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => {
                let killed_by = status.terminating_signal().map(|signal| 128 + signal);
                child_status = status.exit_status().or(killed_by);
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return child_status,
        }
    }
}
