//! Options about the configuration itself.

use clap::Args;
use clap_complete::Shell;

#[derive(Args)]
#[command(next_help_heading = "Configuration")]
pub struct ConfigOptions {
    /// Config file: Python, TOML, or python:MODULE
    ///
    /// Python files work as in gunicorn. Files whose name ends in .toml are TOML. Defaults to the first of mlws.toml,
    /// gunicorn.conf.py, and pyproject.toml with a table `tool.mylittlewebserver` that exists.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<String>,

    /// Check the configuration, load the application, and exit
    #[arg(long)]
    pub check_config: bool,

    /// Print every setting with its source, as an mlws.toml, and check it as --check-config does
    #[arg(long)]
    pub print_config: bool,

    /// Print the completion script for a shell, and exit
    ///
    /// Example: source <(mlws --completions bash)
    #[arg(long, value_name = "SHELL", value_enum)]
    pub completions: Option<Shell>,
}

/// Options of the command that `serve()` does not have.
pub(crate) const CLI_ONLY: [&str; 3] = ["check_config", "print_config", "completions"];
