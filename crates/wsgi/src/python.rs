//! Tracebacks, flushing and the exit of a Python process.

use pyo3::{exceptions::PySystemExit, prelude::*, types::PyString};

/// The traceback as Python prints it, or the message if formatting fails.
pub fn traceback(py: Python<'_>, error: &PyErr) -> String {
    format_exception(py, error).unwrap_or_else(|_| format!("{error}\n"))
}

fn format_exception(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let parts = (error.get_type(py), error.value(py), error.traceback(py));
    let lines = py.import("traceback")?.call_method1("format_exception", parts)?;
    let joined = PyString::new(py, "").call_method1("join", (lines,))?;
    Ok(joined.cast::<PyString>()?.to_string_lossy().into_owned())
}

/// Flushes `sys.stdout`, `sys.stderr` and `wsgi.errors`, so that a fork or an exit without exit handlers neither duplicates nor loses output.
pub fn flush_streams(py: Python<'_>) {
    log::logger().flush();
    for stream in ["stdout", "stderr"] {
        // The stream may be None or closed.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)?.call_method0("flush"));
    }
}

/// Exits as `sys.exit(status)` would at the end of a script: joins threads, runs exit handlers, flushes streams. Printing a `SystemExit` is
/// Python's way to do that from C.
pub fn exit_process(py: Python<'_>, status: i32) -> ! {
    PySystemExit::new_err(status).print(py);
    std::process::exit(status)
}
