//! Where the application comes from, and its environment variables.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::path::PathBuf;

use clap::Args;

use crate::{error::ConfigError, values::pair};

#[derive(Args)]
#[command(next_help_heading = "Application")]
pub struct AppOptions {
    /// APP is a function without parameters that returns the application
    #[arg(long)]
    pub factory: bool,

    /// Load the application from a PasteDeploy file, or from a section of it: production.ini#admin
    ///
    /// If its [server:main] has `use = egg:mylittlewebserver`, the options there apply; the command line overrides
    /// them.
    #[arg(long, visible_alias = "paster", value_name = "FILE[#NAME]")]
    pub paste: Option<String>,

    /// With --paste: set a global variable of the file; may be repeated
    #[arg(long, alias = "raw_paste_global_conf", value_name = "KEY=VALUE", value_parser = pair)]
    pub paste_global: Vec<(String, String)>,

    /// Set an environment variable before the application is loaded; may be repeated
    #[arg(short, long, alias = "raw_env", value_name = "KEY=VALUE", value_parser = pair)]
    pub env: Vec<(String, String)>,

    /// Set environment variables from a file such as .env
    ///
    /// Each line is KEY=VALUE. Quotes, comments and `export` work as in a shell. ${NAME} is replaced by the value of a
    /// variable. A value that contains spaces needs quotes, and one that contains another $ needs single quotes.
    /// Variables that are already set keep their values.
    #[arg(long, value_name = "FILE")]
    pub env_file: Option<PathBuf>,
}

/// The absolute path and the section that `--paste` names. The file must exist.
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
