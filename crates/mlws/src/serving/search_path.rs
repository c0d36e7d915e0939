use std::path::{Path, PathBuf};

use mlws_config::Config;

use crate::error::StartupError;

/// Changes to the directory in which the server was started, if it has been left, and from there to `--chdir`. Returns the directories to
/// import from, as absolute paths. The last one is searched first; the first is where the server was started.
pub(super) fn chdir_and_search_path(
    config: &Config,
    start: Option<&Path>,
) -> Result<Vec<PathBuf>, StartupError> {
    let failed = |directory: &Path, error| {
        StartupError::Usage(format!("cannot change to {}: {error}", directory.display()))
    };
    let enter = |directory: Option<&Path>| {
        let directory = directory.unwrap_or(Path::new("."));
        std::env::set_current_dir(directory)
            .and_then(|()| std::path::absolute("."))
            .map_err(|error| failed(directory, error))
    };
    let mut directories = vec![enter(start)?];
    directories.extend(config.process.chdir.as_deref().map(|directory| enter(Some(directory))).transpose()?);
    for directory in &config.process.pythonpath {
        directories.push(std::path::absolute(directory).map_err(|error| failed(directory, error))?);
    }
    Ok(directories)
}
