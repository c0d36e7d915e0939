//! `--paste`: the application of a `PasteDeploy` file, and the settings in its `[server:main]`. Python reads such files, in
//! `python/mylittlewebserver/paste.py`, which is imported only then.

use mlws_config::{ConfigLayer, paste_file};
use mlws_sys::read_settings;
use pyo3::{
    prelude::*,
    types::{IntoPyDict, PyDict},
};

use crate::{error::StartupError, python_config::value_of};

const MODULE: &str = "mylittlewebserver.paste";

/// The loader's specification for `FILE[#NAME]`. The file is relative to the directory in which the command was started: as with gunicorn,
/// `--chdir` comes later.
pub(crate) fn spec(
    py: Python<'_>,
    text: &str,
    variables: &[(String, String)],
) -> Result<Py<PyAny>, StartupError> {
    let (file, section) = paste_file(text)?;
    let spec = || -> PyResult<_> {
        let keywords = PyDict::new(py);
        keywords.set_item("name", section)?;
        keywords.set_item("variables", variables.to_vec().into_py_dict(py)?)?;
        Ok((text, MODULE, ("load",), (file,), keywords).into_pyobject(py)?.into_any().unbind())
    };
    spec().map_err(|error| StartupError::Usage(error.to_string()))
}

/// The settings in `[server:main]`, if it is meant for this server.
pub(crate) fn settings(
    py: Python<'_>,
    text: &str,
    variables: &[(String, String)],
) -> Result<ConfigLayer, StartupError> {
    let (file, _) = paste_file(text)?;
    read_settings(&file)
        .map_err(|error| StartupError::Usage(format!("--paste {}: {error}", file.display())))?;
    let read = || -> PyResult<_> {
        let variables = variables.to_vec().into_py_dict(py)?;
        let settings = py.import(MODULE)?.call_method1("settings", (&file, variables))?;
        let settings = settings.cast::<PyDict>()?.iter();
        settings.map(|(name, value)| Ok((name.extract()?, value_of(&value)?))).collect::<PyResult<Vec<_>>>()
    };
    let settings = read().map_err(|error| {
        StartupError::Usage(format!("[server:main] of {}: {}", file.display(), error.value(py)))
    })?;
    Ok(ConfigLayer::from_values(&format!("[server:main] of {}", file.display()), settings)?)
}
