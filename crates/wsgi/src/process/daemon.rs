//! What `--daemon` does with the standard streams: they stay those of the starter until all is ready, so that whoever starts the
//! daemon sees why it cannot.
//!
//! The one thing to know: each process has its own descriptors, so each worker lets go of the terminal by itself, before it says that
//! it is ready; and the master after the last of them.

use std::{fs::File, io};

use pyo3::prelude::*;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

/// Turns stdin, stdout and stderr to /dev/null.
pub(super) fn leave_terminal(py: Python<'_>) {
    crate::serving::flush_python(py);
    if let Err(error) = to_null() {
        log::warn!("the terminal is kept: {error}");
    }
}

fn to_null() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    Ok(dup2_stderr(&null)?)
}
