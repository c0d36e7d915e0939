//! The environment as a source of settings, and the options that choose a config file.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{
    config::Config,
    error::ConfigError,
    layers::{self, ConfigLayer},
};

/// Words that stand between the config file and the command line, as gunicorn has them.
const ENVIRONMENT: &str = "GUNICORN_CMD_ARGS";

#[derive(Args)]
#[command(next_help_heading = "ConfigOptions")]
pub struct ConfigOptions {
    /// Read settings from this file first: Python as gunicorn's, TOML where its name
    /// ends so, or python:MODULE. Unless given: mlws.toml, gunicorn.conf.py, or [tool.mylittlewebserver] in pyproject.toml, if there is one
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,

    /// Load the settings and the application, say what is wrong with them, and serve nothing
    #[arg(long)]
    pub check_config: bool,

    /// Show each setting, as it would be said in an mlws.toml, and where it comes from; and do as --check-config does
    #[arg(long)]
    pub print_config: bool,

    /// Show what completes the options of this command in a shell; such as: source <(mlws --completions bash)
    #[arg(long, value_name = "SHELL", value_enum)]
    pub completions: Option<Shell>,
}

/// What only a command can be config_error; a program that calls `serve()` has no use for it.
pub const CLI_ONLY: [&str; 3] = ["check_config", "print_config", "completions"];

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

/// Shows what a shell needs to complete the command.
pub fn show_completions(shell: Shell) {
    clap_complete::generate(shell, &mut Config::command(), "mlws", &mut std::io::stdout());
}
