//! How a worker process ended.
//!
//! Only one specific process is waited for at a time. Other children of the master belong to the application, which may
//! want to collect their exit statuses itself.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

use mlws_sys::signal_name;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    Code(i32),
    Signal(i32),
    /// Something else in the master reaped the process and received its status.
    Unknown,
}

impl ExitStatus {
    /// Reaps the process if it has exited. Never blocks. Invariant: not called again for a process that was reaped.
    pub(crate) fn reap(pid: Pid) -> Option<ExitStatus> {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(ExitStatus::Code(code)),
                (_, Some(signal)) => Some(ExitStatus::Signal(signal)),
                _ => None, // stopped or continued, not exited
            },
            Err(Errno::CHILD) => Some(ExitStatus::Unknown),
            Ok(None) | Err(_) => None,
        }
    }

    /// The exit code for a command that fails because of this worker.
    pub(crate) fn code(self) -> i32 {
        match self {
            ExitStatus::Code(code) => code,
            ExitStatus::Signal(_) | ExitStatus::Unknown => 1,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Code(code) => write!(f, "status {code}"),
            ExitStatus::Signal(signal) => write!(f, "killed by SIG{}", signal_name(*signal)),
            ExitStatus::Unknown => f.write_str("status unknown (reaped by other code in the master)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_a_text_and_an_exit_code() {
        for (status, text, code) in [
            (ExitStatus::Code(0), "status 0", 0),
            (ExitStatus::Code(3), "status 3", 3),
            (ExitStatus::Signal(11), "killed by SIGSEGV", 1),
            (ExitStatus::Signal(40), "killed by SIG40", 1),
        ] {
            assert_eq!((status.to_string().as_str(), status.code()), (text, code));
        }
    }
}
