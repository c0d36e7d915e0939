//! The files of imported modules.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyModule},
};

/// The directories of the standard library and of this package, whose files do not change.
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

/// The files of all imported modules, except those in `ignored_dirs`.
pub(super) fn loaded(py: Python<'_>, ignored_dirs: &[PathBuf]) -> PyResult<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    // A copy, because other threads may import modules meanwhile.
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.items();
    for entry in modules {
        let (name, module): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry.extract()?;
        let Ok(module) = module.cast::<PyModule>() else { continue };
        // Not read as an attribute, because that would load a lazy module.
        let file = module.dict().get_item("__file__")?.and_then(|file| file.extract::<PathBuf>().ok());
        files.extend(
            file.filter(|file| name.ne("__main__").unwrap_or(true) && !is_ignored(file, ignored_dirs)),
        );
    }
    Ok(files)
}

/// Installed packages may be inside the standard library's directory, but are not part of it.
fn is_ignored(file: &Path, ignored_dirs: &[PathBuf]) -> bool {
    ignored_dirs
        .iter()
        .filter_map(|directory| file.strip_prefix(directory).ok())
        .any(|inside| !inside.starts_with("site-packages") && !inside.starts_with("dist-packages"))
}
