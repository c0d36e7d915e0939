//! `--paste`: the application of a `PasteDeploy` file, and what the file says to the server.
//!
//! What knows such files is Python's: `python/mylittlewebserver/paste.py`, which is imported only then.

use std::path::{Path, PathBuf};

use pyo3::{
    prelude::*,
    types::{IntoPyDict, PyDict, PyTuple},
};

use super::{Object, Target};
use crate::{
    process::privileged::read_settings,
    refusal::Refusal,
    settings::{Layer, of_python},
};

const MODULE: &str = "mylittlewebserver.paste";

/// What `FILE[#NAME]` names, as seen from the folder where the command was started: as in gunicorn, `--chdir` comes later.
pub(super) fn target(py: Python<'_>, text: &str, variables: &[(String, String)]) -> Result<Target, Refusal> {
    let (file, name) = divide(text)?;
    let arguments = PyDict::new(py);
    let made = arguments.set_item("name", name).and_then(|()| {
        arguments.set_item("variables", variables.to_vec().into_py_dict(py)?)?;
        PyTuple::new(py, [file])
    });
    let made = made.map_err(|error| Refusal::Usage(error.to_string()))?;
    let object =
        Object::Factory { path: vec!["load".into()], arguments: made.unbind(), keywords: arguments.unbind() };
    Ok(Target { text: text.to_owned(), module: MODULE.into(), object })
}

/// What `[server:main]` of the file says, if it is meant for us.
pub(crate) fn settings(py: Python<'_>, text: &str, variables: &[(String, String)]) -> Result<Layer, Refusal> {
    let (file, _) = divide(text)?;
    read_settings(&file).map_err(|error| Refusal::Usage(format!("--paste {}: {error}", file.display())))?;
    let found = || -> PyResult<_> {
        let variables = variables.to_vec().into_py_dict(py)?;
        let found = py.import(MODULE)?.call_method1("settings", (&file, variables))?;
        let said = found.cast::<PyDict>()?.iter();
        said.map(|(name, value)| Ok((name.extract()?, of_python(&value)?))).collect::<PyResult<Vec<_>>>()
    };
    let said = found().map_err(|error| in_section(&file, &error.value(py).to_string()))?;
    Layer::of_values(&format!("[server:main] of {}", file.display()), said)
}

/// The file, to be watched with the modules of its application.
pub(crate) fn file(text: &str) -> Option<glob::Pattern> {
    let (file, _) = divide(text).ok()?;
    glob::Pattern::new(&glob::Pattern::escape(&file.to_string_lossy())).ok()
}

fn in_section(file: &Path, what: &str) -> Refusal {
    Refusal::Usage(format!("[server:main] of {}: {what}", file.display()))
}

/// The file, which has to be there, and the name of the section.
fn divide(text: &str) -> Result<(PathBuf, Option<&str>), Refusal> {
    let (file, name) = match text.split_once('#') {
        Some((file, name)) => (file, Some(name)),
        None => (text, None),
    };
    match std::path::absolute(file) {
        Ok(path) if path.is_file() => Ok((path, name)),
        _ => Err(Refusal::Usage(format!("--paste: there is no file '{file}'"))),
    }
}
