//! One request before the first fork, so that every child starts with a warm application.
//!
//! The one thing to know: a cold application imports, compiles and caches during its first request, and a child throws all that away
//! with itself; what was done once in the parent, every child inherits. The answer is not sent to anybody.

use pyo3::{
    intern,
    prelude::*,
    types::{PyCFunction, PyDict, PyTuple},
};

/// Calls the application once with this environ and path; the status that it answered.
pub(crate) fn answer_once(
    application: &Bound<'_, PyAny>,
    environ: &Bound<'_, PyDict>,
    path: &str,
) -> PyResult<Option<String>> {
    let py = application.py();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    environ.set_item(intern!(py, "PATH_INFO"), path)?;
    environ.set_item(intern!(py, "QUERY_STRING"), query)?;
    environ.set_item(intern!(py, "HTTP_HOST"), environ.get_item(intern!(py, "SERVER_NAME"))?)?;
    let answered = PyDict::new(py);
    let heard = answered.clone().unbind();
    let start_response = PyCFunction::new_closure(
        py,
        None,
        None,
        move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<Py<PyAny>> {
            let py = arguments.py();
            heard.bind(py).set_item(intern!(py, "status"), arguments.get_item(0)?)?;
            // What `write` gets is looked at and forgotten.
            Ok(py.import(intern!(py, "builtins"))?.getattr(intern!(py, "len"))?.unbind())
        },
    )?;
    let iterable = application.call1((environ, start_response))?;
    let used_up = iterable.try_iter().and_then(|mut pieces| pieces.try_for_each(|piece| piece.map(drop)));
    if let Some(close) = iterable.getattr_opt(intern!(py, "close"))? {
        close.call0()?;
    }
    used_up?;
    answered.get_item(intern!(py, "status"))?.map(|status| status.extract()).transpose()
}

/// What lives now lives as long as the process: the collector need not look at it again, so children need not copy its pages.
pub(crate) fn freeze(py: Python<'_>) -> PyResult<()> {
    let collector = py.import("gc")?;
    collector.call_method0("collect")?;
    collector.call_method0("freeze")?;
    Ok(())
}
