//! What the loggers and handlers of `mylittlewebserver/_loggers.py` call: the way of a record from Python to the logs of the server, and of
//! a change of a logger to the server.

use mlws_logging::{Level, logger};
use pyo3::{prelude::*, types::PyString};

use super::{access_log, handler_thread, loggers};

/// Passes the records of the server to a logger that was changed. `None`: its changes were undone.
#[pyfunction]
#[pyo3(signature = (name, logger, level, /))]
pub(crate) fn set_logger(name: &str, logger: Option<Py<PyAny>>, level: u8) {
    // Before the event loop logs anything that handlers get.
    let started = if logger.is_some() { handler_thread::start_now() } else { Ok(()) };
    if let Err(error) = started {
        log::error!(
            "changes of the logger {name} have no effect: cannot start a thread for its handlers: {error}"
        );
        return;
    }
    loggers::set_changed(name, logger, level);
    access_log::logger_changed();
}

/// Writes a record of the logger `gunicorn.error` to the error log. Surrogates are replaced.
#[pyfunction]
#[pyo3(signature = (level, text, is_formatted, /))]
pub(crate) fn write_record(level: u32, text: &Bound<'_, PyString>, is_formatted: bool) {
    let text = &*text.to_string_lossy();
    let level = match level {
        50.. => Level::Critical,
        40.. => Level::Error,
        30.. => Level::Warning,
        20.. => Level::Info,
        _ => Level::Debug,
    };
    let is_of_server = loggers::logs_record();
    if !is_of_server {
        logger::count(level, false);
    }
    match (is_formatted, is_of_server) {
        (true, is_escaped) => logger::write_formatted(level, text, is_escaped),
        (false, true) => logger::write_escaped(level, text),
        (false, false) => logger::write_directly(level, text),
    }
}

/// Writes a record of the logger `gunicorn.access` to the access log. Surrogates are replaced.
#[pyfunction]
#[pyo3(signature = (text, /))]
pub(crate) fn write_access(text: &Bound<'_, PyString>) {
    access_log::write_line(&text.to_string_lossy());
}
