//! Which files Python has loaded modules from.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pyo3::{
    prelude::*,
    types::{PyDict, PyModule},
};

/// The folders of the standard library and of this package: nobody works on them.
pub(super) fn foreign(py: Python<'_>) -> PyResult<Vec<PathBuf>> {
    let sysconfig = py.import("sysconfig")?;
    let mut folders = Vec::new();
    for name in ["stdlib", "platstdlib"] {
        folders.push(sysconfig.call_method1("get_path", (name,))?.extract()?);
    }
    let own: PathBuf = py.import("mylittlewebserver")?.filename()?.extract()?;
    folders.extend(own.parent().map(Path::to_owned));
    Ok(folders)
}

/// The files of all modules that are loaded now, but for those in `foreign` folders.
pub(super) fn loaded(py: Python<'_>, foreign: &[PathBuf]) -> PyResult<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    // A copy, for another thread may import meanwhile.
    let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?.items();
    for entry in modules {
        let (name, module): (Bound<'_, PyAny>, Bound<'_, PyAny>) = entry.extract()?;
        let Ok(module) = module.cast::<PyModule>() else { continue };
        // Not asked as an attribute, for that would load a lazy module.
        let file = module.dict().get_item("__file__")?.and_then(|file| file.extract::<PathBuf>().ok());
        files.extend(file.filter(|file| name.ne("__main__").unwrap_or(true) && !is_foreign(file, foreign)));
    }
    Ok(files)
}

/// Packages that were installed may lie inside the standard library's folder, but are no part of it.
fn is_foreign(file: &Path, foreign: &[PathBuf]) -> bool {
    foreign
        .iter()
        .filter_map(|folder| file.strip_prefix(folder).ok())
        .any(|inside| !inside.starts_with("site-packages") && !inside.starts_with("dist-packages"))
}
