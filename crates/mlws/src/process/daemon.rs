//! Standard streams with `--daemon`. They are redirected only when the server is ready, so that errors of the start are visible in the
//! terminal.
//!
//! Each process redirects its own descriptors: each worker before it reports that it is ready, then the master.

use std::{fs::File, io, os::fd::BorrowedFd};

use pyo3::prelude::*;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stderr, stdout};

/// Redirects stdin to /dev/null, and stdout and stderr according to `mode`.
pub(super) fn redirect_stdio(py: Python<'_>, mode: StdioMode) {
    mlws_wsgi::python::flush_streams(py);
    if let Err(error) = to_null(mode) {
        log::warn!("Failed to redirect standard streams: {error}");
    }
}

/// Where stdout and stderr of a daemon go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StdioMode {
    /// To /dev/null.
    Null,
    /// Into the log.
    Captured,
    /// Unchanged, or to /dev/null if they are a terminal.
    Inherited,
}

fn to_null(mode: StdioMode) -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    let is_redirected = |stream: BorrowedFd<'_>| match mode {
        StdioMode::Null => true,
        StdioMode::Captured => false,
        StdioMode::Inherited => rustix::termios::isatty(stream),
    };
    if is_redirected(stdout()) {
        dup2_stdout(&null)?;
    }
    if is_redirected(stderr()) {
        dup2_stderr(&null)?;
    }
    Ok(())
}
