use std::{ffi::OsString, path::PathBuf, process::Command};

use pyo3::prelude::*;

/// The command line that started this process, with the directory in which it was started.
pub(super) fn reexec_command(py: Python<'_>) -> PyResult<Command> {
    let sys = py.import("sys")?;
    let mut command = Command::new(sys.getattr("executable")?.extract::<PathBuf>()?);
    let arguments: Vec<OsString> = sys.getattr("orig_argv")?.extract()?;
    command.args(arguments.into_iter().skip(1)).current_dir(std::env::current_dir()?);
    Ok(command)
}
