//! The settings for hooks: a dict with all names of each setting, including gunicorn's.

use clap::{Arg, ArgAction};
use mlws_config::{Config, MergedConfig};
use pyo3::{IntoPyObjectExt, prelude::*, types::PyDict};

pub(crate) fn of(py: Python<'_>, merged: &MergedConfig) -> PyResult<Py<PyDict>> {
    let (definition, settings) = (Config::command_definition(), PyDict::new(py));
    for argument in definition.get_arguments() {
        let flag = argument.get_long().unwrap_or("wsgi_app");
        if matches!(flag, "help" | "version") {
            continue;
        }
        let value = object(py, merged, argument)?;
        for name in argument.get_all_aliases().unwrap_or_default().into_iter().chain([flag]) {
            settings.set_item(name.replace('-', "_"), &value)?;
        }
    }
    Ok(settings.unbind())
}

fn object<'py>(py: Python<'py>, merged: &MergedConfig, argument: &Arg) -> PyResult<Bound<'py, PyAny>> {
    let id = argument.get_id().as_str();
    if id == "workers" {
        return merged.config.running.workers.into_bound_py_any(py); // the raw value may be `auto`
    }
    if !argument.get_action().takes_values() {
        return merged.matches.get_flag(id).into_bound_py_any(py);
    }
    let texts = merged.matches.get_raw(id).into_iter().flatten().map(|text| {
        let text = text.to_string_lossy();
        match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => number.into_bound_py_any(py),
            (_, Ok(number)) => number.into_bound_py_any(py),
            _ => text.into_bound_py_any(py),
        }
    });
    let mut texts = texts.collect::<PyResult<Vec<_>>>()?;
    match argument.get_action() {
        ArgAction::Append => texts.into_bound_py_any(py),
        _ => texts.pop().map_or_else(|| Ok(py.None().into_bound(py)), Ok),
    }
}
