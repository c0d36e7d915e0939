use std::{ffi::OsString, path::PathBuf, process::Command};

use mlws_config::sources::current_directory;
use pyo3::prelude::*;

/// The command line of this process, to be started in the same directory. If that is a symbolic link to a release, a new master follows
/// the link to the new release, like a reload.
pub(super) fn reexec_command(py: Python<'_>) -> PyResult<Command> {
    let sys = py.import("sys")?;
    let mut command = Command::new(sys.getattr("executable")?.extract::<PathBuf>()?);
    let arguments: Vec<OsString> = sys.getattr("orig_argv")?.extract()?;
    command.args(arguments.into_iter().skip(1)).current_dir(current_directory());
    Ok(command)
}
