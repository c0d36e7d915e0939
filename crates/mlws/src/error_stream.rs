//! `wsgi.errors`: a text stream to the error log. The stream itself is in Python, in `mylittlewebserver/_errors.py`.

use mlws_logging::app_output;
use pyo3::{
    prelude::*,
    types::{PyBytes, PyString},
};

/// A new stream, for all requests of this process.
pub(crate) fn new(py: Python<'_>) -> PyResult<Py<PyAny>> {
    Ok(py.import("mylittlewebserver._errors")?.getattr("ErrorStream")?.call0()?.unbind())
}

/// Writes text to the error log: each line once it is complete. Like `sys.stderr`, escapes lone surrogates.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn write_errors(text: &Bound<'_, PyString>) -> PyResult<()> {
    if let Ok(text) = text.to_str() {
        app_output::write(text);
        return Ok(());
    }
    let escaped = text.call_method1("encode", ("utf-8", "backslashreplace"))?;
    app_output::write(&String::from_utf8_lossy(escaped.cast::<PyBytes>()?.as_bytes()));
    Ok(())
}

/// Ends the line that this thread has begun.
#[pyfunction]
pub(crate) fn flush_errors() {
    app_output::end_line();
}
