//! What is served while the application cannot be loaded: the reason, to whoever asks for anything.

use std::path::PathBuf;

use pyo3::{
    prelude::*,
    types::{PyBytes, PyCFunction},
};

/// An application that answers every request 500 with `failure`, the text that the log has too.
pub(crate) fn error_app(py: Python<'_>, failure: &str) -> PyResult<Py<PyAny>> {
    let text = format!(
        "{failure}\n\nThe server waits for the next change of a file, and then loads the application again.\n"
    );
    let app = PyCFunction::new_closure(py, None, None, move |arguments, _| -> PyResult<Py<PyAny>> {
        let headers = vec![("Content-Type", "text/plain; charset=utf-8")];
        arguments.get_item(1)?.call1(("500 Internal Server Error", headers))?;
        Ok([PyBytes::new(arguments.py(), text.as_bytes())].into_pyobject(arguments.py())?.unbind())
    })?;
    Ok(app.into_any().unbind())
}

/// The files that a traceback names. Taken from its text, which has those of a `SyntaxError` and of exceptions behind the
/// last one alike.
pub(super) fn files(failure: &str) -> Vec<PathBuf> {
    let lines = failure.lines().filter_map(|line| line.trim_start().strip_prefix("File \""));
    lines
        .filter_map(|rest| Some(PathBuf::from(rest.split_once('"')?.0)))
        .filter(|file| file.is_absolute())
        .collect()
}
