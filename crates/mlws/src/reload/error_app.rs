//! The application that is served while the real one cannot be loaded. Each response contains the error.

use std::path::PathBuf;

use pyo3::{
    prelude::*,
    types::{PyBytes, PyCFunction},
};

/// An application that responds to every request with 500 and `failure`, the text in the log.
pub(crate) fn error_app(py: Python<'_>, failure: &str) -> PyResult<Py<PyAny>> {
    let text =
        format!("{failure}\n\nThe server loads the application again after the next change of a file.\n");
    let app = PyCFunction::new_closure(py, None, None, move |arguments, _| -> PyResult<Py<PyAny>> {
        let headers = vec![("Content-Type", "text/plain; charset=utf-8")];
        arguments.get_item(1)?.call1(("500 Internal Server Error", headers))?;
        Ok([PyBytes::new(arguments.py(), text.as_bytes())].into_pyobject(arguments.py())?.unbind())
    })?;
    Ok(app.into_any().unbind())
}

/// The files in a traceback. Parsed from its text, which also has the file of a `SyntaxError` and those of chained exceptions.
pub(super) fn files(failure: &str) -> Vec<PathBuf> {
    let lines = failure.lines().filter_map(|line| line.trim_start().strip_prefix("File \""));
    lines
        .filter_map(|rest| Some(PathBuf::from(rest.split_once('"')?.0)))
        .filter(|file| file.is_absolute())
        .collect()
}
