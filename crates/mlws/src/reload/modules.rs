//! Which files Python has loaded modules from.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyModule},
};

/// The directories of the standard library and of this package: nobody works on them.
pub(super) fn ignored_dirs(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    let sysconfig = py.import("sysconfig")?;
    let mut directories = Vec::new();
    for name in ["stdlib", "platstdlib"] {
        directories.push(sysconfig.call_method1("get_path", (name,))?.extract()?);
    }
    let own: PathBuf = py.import("mylittlewebserver")?.filename()?.extract()?;
    directories.extend(own.parent().map(Path::to_owned));
    Ok(directories)
}

/// The files of all modules that are loaded now, but for those in `ignored_dirs` directories.
pub(super) fn loaded(py: Python<'_>, ignored_dirs: &[PathBuf]) -> PyResult<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    // A copy, for another thread may import meanwhile.
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.items();
    for entry in modules {
        let (name, module): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry.extract()?;
        let Ok(module) = module.cast::<PyModule>() else { continue };
        // Not asked as an attribute, for that would load a lazy module.
        let file = module.dict().get_item("__file__")?.and_then(|file| file.extract::<PathBuf>().ok());
        files.extend(
            file.filter(|file| name.ne("__main__").unwrap_or(true) && !is_ignored_dirs(file, ignored_dirs)),
        );
    }
    Ok(files)
}

/// Packages that were installed may lie inside the standard library's directory, but are no part of it.
fn is_ignored_dirs(file: &Path, ignored_dirs: &[PathBuf]) -> bool {
    ignored_dirs
        .iter()
        .filter_map(|directory| file.strip_prefix(directory).ok())
        .any(|inside| !inside.starts_with("site-packages") && !inside.starts_with("dist-packages"))
}
