//! Where the application comes from, and what it finds in its environment.

#![expect(clippy::doc_markdown, reason = "doc comments here are the help, which is shown as it stands")]

use std::path::PathBuf;

use clap::Args;

use crate::{error::ConfigError, values::pair};

#[derive(Args)]
#[command(next_help_heading = "Application")]
pub struct AppOptions {
    /// APP names a function that takes no arguments and returns the application
    #[arg(long)]
    pub factory: bool,

    /// Take the application from a PasteDeploy file, or from a section of it: production.ini#admin. Where its
    /// [server:main] has `use = egg:mylittlewebserver`, the options there hold unless the command line says otherwise
    #[arg(long, visible_alias = "paster", value_name = "FILE[#NAME]")]
    pub paste: Option<String>,

    /// With --paste: a variable that the file and its application are given; may be repeated
    #[arg(long, alias = "raw_paste_global_conf", value_name = "KEY=VALUE", value_parser = pair)]
    pub paste_global: Vec<(String, String)>,

    /// Set a variable in the environment before the application is loaded; may be repeated
    #[arg(short, long, alias = "raw_env", value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,

    /// Set the variables that this file lists, such as .env, but for those that are set already. A line is KEY=VALUE;
    /// quotes, comments and `export` are as in a shell, but nothing is expanded
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// The file that `--paste` names, which must exist, and its section.
pub fn paste_file(text: &str) -> Result<(PathBuf, Option<&str>), ConfigError> {
    let (file, section) = match text.split_once('#') {
        Some((file, section)) => (file, Some(section)),
        None => (text, None),
    };
    match std::path::absolute(file) {
        Ok(path) if path.is_file() => Ok((path, section)),
        _ => Err(ConfigError(format!("--paste: no such file: '{file}'"))),
    }
}
