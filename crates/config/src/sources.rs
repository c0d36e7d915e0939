//! The environment as a source of settings.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    error::ConfigError,
    layers::{self, ConfigLayer},
};

/// Arguments with a precedence between the config file and the command line, as in gunicorn.
const ENVIRONMENT: &str = "GUNICORN_CMD_ARGS";

pub fn environment() -> Result<ConfigLayer, ConfigError> {
    let Ok(text) = std::env::var(ENVIRONMENT) else { return Ok(ConfigLayer::default()) };
    let words =
        shlex::split(&text).ok_or_else(|| ConfigError(format!("{ENVIRONMENT}: unclosed quote: {text}")))?;
    ConfigLayer::from_args(ENVIRONMENT, words.into_iter().map(OsString::from))
        .map_err(|error| layers::config_error(ENVIRONMENT, &error))
}

/// The working directory by the path in `$PWD`, which may contain symbolic links: a link can point elsewhere at the next reload.
pub fn current_directory() -> PathBuf {
    let known = std::env::var_os("PWD").map(PathBuf::from).filter(|path| {
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        path.is_absolute() && fs::metadata(path).is_ok_and(|a| fs::metadata(".").is_ok_and(|b| same(a, b)))
    });
    // A directory that was removed contains no files.
    known.or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| Path::new(".").to_owned())
}
