//! From APP to the application. Python does it, in `python/mylittlewebserver/_loader.py`.

use std::path::{Path, PathBuf};

use mlws_config::Config;
use mlws_wsgi::forked_process::guarded;
use pyo3::prelude::*;

use crate::{error::StartupError, paste};

const MODULE: &str = "mylittlewebserver._loader";

/// What APP names. Nothing is imported yet.
pub(crate) struct AppSpec(Py<PyAny>);

impl AppSpec {
    /// Parses APP, or `--paste`.
    pub(crate) fn parse(py: Python<'_>, config: &Config) -> Result<Self, StartupError> {
        if let Some(file) = &config.source.paste {
            return paste::spec(py, file, &config.source.paste_global).map(Self);
        }
        if config.app.is_none() {
            return Err(StartupError::Usage(
                "no application: give APP as module:attribute, or wsgi_app in a config file; see --help"
                    .into(),
            ));
        }
        let parse = || py.import(MODULE)?.call_method1("parse", (config.name(), config.source.factory));
        parse()
            .map(|spec| Self(spec.unbind()))
            .map_err(|error| StartupError::Usage(error.value(py).to_string()))
    }

    /// Imports the module, from `directories` first (the last of them before all others), and returns the application.
    pub(crate) fn load(&self, py: Python<'_>, directories: &[PathBuf]) -> Result<Py<PyAny>, StartupError> {
        let directories: Vec<_> = directories.iter().map(|directory| directory.as_os_str()).collect();
        let loader = py.import(MODULE).map_err(|error| StartupError::System(error.to_string()))?;
        let load = || loader.call_method1("load", (&self.0, directories));
        let error = match guarded(py, "the application's module", load) {
            Ok(app) => return Ok(app.unbind()),
            Err(error) => error,
        };
        let is = |class| loader.getattr(class).is_ok_and(|class| error.is_instance(py, &class));
        let message = error.value(py).to_string();
        Err(match error.cause(py) {
            _ if is("UsageError") => StartupError::Usage(message),
            _ if is("MissingError") => StartupError::App(message),
            Some(cause) if is("LoadError") => StartupError::from_exception(py, &message, &cause),
            _ => StartupError::from_exception(py, "the application cannot be loaded", &error),
        })
    }
}

/// Lets Python import from these directories, the last of them before all others.
pub(crate) fn extend_path(py: Python<'_>, directories: &[PathBuf]) -> PyResult<()> {
    let directories: Vec<_> = directories.iter().map(|directory| directory.as_os_str()).collect();
    py.import(MODULE)?.call_method1("extend_path", (directories,)).map(drop)
}

/// The same in the master, for config files and their hooks. As root, only directories and modules that no other user can change are
/// used. Returns why others are not.
pub(crate) fn extend_path_of_master(py: Python<'_>, directories: &[PathBuf]) -> PyResult<Vec<String>> {
    if !rustix::process::geteuid().is_root() {
        return extend_path(py, directories).map(|()| Vec::new());
    }
    let directories: Vec<&Path> = directories.iter().map(PathBuf::as_path).collect();
    py.import("mylittlewebserver._imports")?.call_method1("extend_path", (directories,))?.extract()
}

/// In a worker, or before the application is loaded elsewhere: everything can be imported from now on.
pub(crate) fn end_imports_of_master(py: Python<'_>) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    let module = modules.call_method1("get", ("mylittlewebserver._imports",))?;
    if module.is_none() { Ok(()) } else { module.call_method0("remove_guard").map(drop) }
}
