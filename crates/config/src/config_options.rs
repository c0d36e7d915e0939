//! Options about configuration itself.

use clap::Args;
use clap_complete::Shell;

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
