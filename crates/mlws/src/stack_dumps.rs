//! Stack dumps in the log, by Python's `faulthandler`: after a crash, and on the signal URG.
//!
//! The watchdog raises URG when a request times out (`ffi::show_stacks`), and `kill -URG PID` works for any worker at any time. URG was
//! chosen because applications do not use it and its default action is to ignore it.

use pyo3::{intern, prelude::*, types::IntoPyDict};

use mlws_logging::logger;

/// Runs in a worker before any code of the application, which may configure `faulthandler` differently.
pub(crate) fn enable(py: Python<'_>) -> PyResult<()> {
    let faulthandler = py.import(intern!(py, "faulthandler"))?;
    let options = [("file", logger::descriptor().into_pyobject(py)?.into_any())].into_py_dict(py)?;
    options.set_item("all_threads", true)?;
    if !faulthandler.call_method0(intern!(py, "is_enabled"))?.is_truthy()? {
        faulthandler.call_method(intern!(py, "enable"), (), Some(&options))?;
    }
    options.set_item("chain", false)?;
    faulthandler.call_method(intern!(py, "register"), (libc::SIGURG,), Some(&options))?;
    Ok(())
}
