//! Python's own `faulthandler`, so that the log shows where a process crashed, or where a request is stuck.
//!
//! The one thing to know: it listens to URG, because nobody else uses that signal, and who does not listen ignores it. The lookout raises
//! it when a request takes too long (`ffi::show_stacks`), and `kill -URG` asks any worker at any time.

use pyo3::{intern, prelude::*, types::IntoPyDict};

use mlws_logging::logger;

/// For a worker, before anything of the application runs. What the application sets up later comes in place of this.
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
