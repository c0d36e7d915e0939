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

/// Words that stand between the config file and the command line, as gunicorn has them.
const ENVIRONMENT: &str = "GUNICORN_CMD_ARGS";

pub fn environment() -> Result<ConfigLayer, ConfigError> {
    let Ok(text) = std::env::var(ENVIRONMENT) else { return Ok(ConfigLayer::default()) };
    let words = shlex::split(&text)
        .ok_or_else(|| ConfigError(format!("{ENVIRONMENT} has a quote that does not end: {text}")))?;
    ConfigLayer::from_args(ENVIRONMENT, words.into_iter().map(OsString::from))
        .map_err(|error| layers::config_error(ENVIRONMENT, &error))
}

/// The folder this process is in, by the name that the shell has for it: a link in that may lead elsewhere by the time of a reload.
pub fn current_directory() -> PathBuf {
    let known = std::env::var_os("PWD").map(PathBuf::from).filter(|path| {
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        path.is_absolute() && fs::metadata(path).is_ok_and(|a| fs::metadata(".").is_ok_and(|b| same(a, b)))
    });
    // A folder that is gone has no files either.
    known.or_else(|| std::env::current_dir().ok()).unwrap_or_else(|| Path::new(".").to_owned())
}
