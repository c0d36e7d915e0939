//! Where Python imports modules from.

use std::path::{Path, PathBuf};

use pyo3::prelude::*;

/// Lets Python import from these directories, the last of them before all others.
pub(crate) fn extend_path(py: Python<'_>, directories: &[PathBuf]) -> PyResult<()> {
    let directories: Vec<_> = directories.iter().map(|directory| directory.as_os_str()).collect();
    py.import("mylittlewebserver._loader")?.call_method1("extend_path", (directories,)).map(drop)
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
