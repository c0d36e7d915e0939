//! How a worker ended, in words for the log and as an exit code.
//!
//! The one thing to know: only the very process that is asked about is waited for, so that the children of the
//! application, which may live beside the workers, keep their exit statuses for the application.

use std::fmt;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Killed(i32),
    /// Somebody else in the master waited for it, and so got what it ended with.
    Stolen,
}

impl Ending {
    /// How the worker ended, if it has; this also frees its entry in the process table. Never blocks.
    pub(crate) fn of(pid: Pid) -> Option<Ending> {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(Ending::Exited(code)),
                (_, Some(signal)) => Some(Ending::Killed(signal)),
                _ => None, // stopped or continued: it lives
            },
            Err(Errno::CHILD) => Some(Ending::Stolen),
            Ok(None) | Err(_) => None,
        }
    }

    /// The exit code for a command that ends because this worker did.
    pub(crate) fn code(self) -> i32 {
        match self {
            Ending::Exited(code) => code,
            Ending::Killed(_) | Ending::Stolen => 1,
        }
    }
}

/// Completes the sentence "worker 123 ...".
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exited(code) => write!(f, "ended with status {code}"),
            Ending::Killed(signal) => write!(f, "was killed by {}", name_of(*signal)),
            Ending::Stolen => {
                f.write_str("ended, with a status that something else in the master has collected")
            }
        }
    }
}

fn name_of(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_reads_as_a_sentence_and_has_a_code() {
        assert_eq!(format!("worker 12 {}", Ending::Exited(3)), "worker 12 ended with status 3");
        assert_eq!(format!("worker 12 {}", Ending::Killed(11)), "worker 12 was killed by SIGSEGV");
        assert_eq!(format!("worker 12 {}", Ending::Killed(40)), "worker 12 was killed by signal 40");
        assert_eq!((Ending::Exited(3).code(), Ending::Killed(9).code()), (3, 1));
    }
}
