//! `--paste`: the application of a `PasteDeploy` file, and what the file says to the server.
//!
//! What knows such files is Python's: `python/mylittlewebserver/paste.py`, which is imported only then.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use pyo3::{
    prelude::*,
    types::{IntoPyDict, PyDict, PyTuple},
};

use super::{Object, Target};
use crate::{
    command::{sentence, words},
    refusal::Refusal,
    settings::Flags,
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

/// The flags again, with what the file of `--paste` says below what these words say.
pub(crate) fn with_settings(py: Python<'_>, flags: Flags, said: Vec<OsString>) -> Result<Flags, Refusal> {
    let Some(text) = &flags.source.paste else { return Ok(flags) };
    let (file, _) = divide(text)?;
    let below = settings_of_paste(py, &file, &flags.source.paste_global)?;
    let told = Flags::read_over(below, said).map_err(|told| in_section(&file, &sentence(&told)));
    told.map(|mut flags| {
        let pattern = glob::Pattern::new(&glob::Pattern::escape(&file.to_string_lossy()));
        flags.development.reload_extra_file.extend(pattern);
        flags
    })
}

/// What `[server:main]` of the file says, if it is meant for us: for each keyword the words that say it.
fn settings_of_paste(
    py: Python<'_>,
    file: &Path,
    variables: &[(String, String)],
) -> Result<Vec<(String, Vec<OsString>)>, Refusal> {
    let found = || -> PyResult<_> {
        let variables = variables.to_vec().into_py_dict(py)?;
        let found = py.import(MODULE)?.call_method1("settings", (file, variables))?;
        words(Some(found.cast()?))
    };
    found().map_err(|error| in_section(file, &error.value(py).to_string()))
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
