//! A process that was forked to answer one request ignores signals that are often sent to a whole process group.

use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, getpid};

use crate::fork::exit_now;

/// In a process that answers one request, its pid. 0 in all others.
static REQUEST_PROCESS: AtomicI32 = AtomicI32::new(0);

/// Whether this process was forked to answer one request. False for a process that the application forks from it.
pub fn is_request_process() -> bool {
    REQUEST_PROCESS.load(Ordering::Relaxed) == getpid().as_raw_pid()
}

/// Ignores the signal in a request's process. This is a handler and not `SIG_IGN`, so that programs that the
/// application starts have the default disposition after exec. A process that the application forks inherits the
/// handler and takes the default action.
extern "C" fn ignore_in_request_process(signal: libc::c_int) {
    if !is_request_process() {
        // SAFETY: both are async-signal-safe. The signal is blocked here, so it takes effect on return.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
}

/// Sets the signal handlers of a child that answers one request, and has it killed when its parent exits.
///
/// Signals that are often sent to the whole process group let the child finish: a graceful stop sends TERM to all
/// processes, a terminal sends INT and QUIT. The parent decides when a child is killed. The parent's handlers write to
/// pipes that the child shares, so all of them are replaced.
pub fn install_child_signal_handlers(parent: Pid) {
    REQUEST_PROCESS.store(getpid().as_raw_pid(), Ordering::Relaxed);
    let ignore = ignore_in_request_process as extern "C" fn(libc::c_int);
    // SAFETY: the handler is async-signal-safe, and programs that the application starts have the default after exec.
    unsafe {
        // Without its parent, a child has no time limit.
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != parent.as_raw_nonzero().get() {
            exit_now(0); // the parent exited before the prctl
        }
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2]
        {
            libc::signal(signal, ignore as libc::sighandler_t);
        }
    }
}
