//! Why the server does not start, with an exit status for scripts.

use std::{
    fmt,
    io::{self, Write},
};

use mlws_config::ConfigError;
use mlws_wsgi::python::traceback;
use pyo3::prelude::*;

#[derive(Debug)]
pub(crate) enum StartupError {
    /// The system reports an error: a port in use, a file that cannot be opened. Exit status 1.
    System(String),
    /// A setting or APP is invalid. Exit status 2.
    Usage(String),
    /// The application cannot be imported or created. Exit status 3.
    App(String),
}

impl StartupError {
    /// An exception of the application: its traceback, then the message.
    pub(crate) fn from_exception(py: Python<'_>, what: &str, error: &PyErr) -> Self {
        let traceback = traceback(py, error);
        let kind = error.get_type(py).name().map_or_else(|_| "error".into(), |name| name.to_string());
        Self::App(format!("{traceback}{what}: it raised the {kind} above"))
    }

    pub(crate) fn exit_status(&self) -> i32 {
        match self {
            Self::System(_) => 1,
            Self::Usage(_) => 2,
            Self::App(_) => 3,
        }
    }

    /// Prints the error to stderr. Returns the exit status.
    pub(crate) fn report(&self) -> i32 {
        // If stderr is closed, the status is all that is left.
        let _ = writeln!(io::stderr(), "error: {self}");
        self.exit_status()
    }
}

impl fmt::Display for StartupError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::System(text) | Self::Usage(text) | Self::App(text)) = self;
        to.write_str(text)
    }
}

impl From<ConfigError> for StartupError {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.0)
    }
}
