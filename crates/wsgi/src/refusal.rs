//! Why nothing is served: a sentence for a person and an exit status for a script.

use std::fmt;

use pyo3::{prelude::*, types::PyString};

#[derive(Debug)]
pub(crate) enum Refusal {
    /// The system refuses: a port in use, a file that cannot be opened.
    System(String),
    /// What was asked for makes no sense.
    Usage(String),
    /// The application cannot be imported or made.
    App(String),
}

impl Refusal {
    /// An application that failed by itself: its own traceback, then the sentence.
    pub(crate) fn raised(py: Python<'_>, what: &str, error: &PyErr) -> Self {
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
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::System(text) | Self::Usage(text) | Self::App(text)) = self;
        to.write_str(text)
    }
}

/// An exception as Python would print it, or at least what it says of itself.
pub(crate) fn traceback(py: Python<'_>, error: &PyErr) -> String {
    formatted(py, error).unwrap_or_else(|_| format!("{error}\n"))
}

fn formatted(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
    let joined = PyString::new(py, "").call_method1("join", (lines,))?;
    Ok(joined.cast::<PyString>()?.to_string_lossy().into_owned())
}
