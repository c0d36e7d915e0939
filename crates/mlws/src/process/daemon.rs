//! What `--daemon` does with the standard streams: they stay those of the starter until all is ready, so that whoever starts the
//! daemon sees why it cannot.
//!
//! The one thing to know: each process has its own descriptors, so each worker lets go of the terminal by itself, before it says that
//! it is ready; and the master after the last of them.

use std::{fs::File, io, os::fd::BorrowedFd};

use pyo3::prelude::*;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdout};

/// Turns stdin to /dev/null, and stdout and stderr too, unless they are captured or to be inherited.
pub(super) fn redirect_stdio(py: Python<'_>, streams: StdioMode) {
    mlws_wsgi::python::flush_streams(py);
    if let Err(error) = to_null(streams) {
        log::warn!("Failed to leave the terminal: {error}");
    }
}

/// What becomes of stdout and stderr.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StdioMode {
    Null,
    /// They lead into the log.
    Captured,
    /// They stay, but for a terminal.
    Inherited,
}

fn to_null(streams: StdioMode) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    let goes = |stream: BorrowedFd<'_>| match streams {
        StdioMode::Null => true,
        StdioMode::Captured => false,
        StdioMode::Inherited => rustix::termios::isatty(stream),
    };
    if goes(stdout()) {
        dup2_stdout(&null)?;
    }
    if goes(stderr()) {
        dup2_stderr(&null)?;
    }
    Ok(())
}
