//! Options for development.

use clap::{Args, ValueEnum};

#[derive(Args)]
#[command(next_help_heading = "Development")]
pub struct DevOptions {
    /// Restart the workers when the application's source files change
    ///
    /// While the application fails to load, requests are answered with the error.
    #[arg(long)]
    pub reload: bool,

    /// With --reload: how to detect changes
    ///
    /// `inotify` uses the kernel's notifications. `poll` checks all files twice a second. `auto` polls only where
    /// inotify is not available.
    #[arg(long, value_name = "ENGINE", value_enum, default_value = "auto")]
    pub reload_engine: Engine,

    /// With --reload: watch this file or glob pattern, too; may be repeated
    ///
    /// Example: --reload-extra-file 'templates/**/*.html'
    #[arg(long, value_name = "FILE", alias = "reload_extra_files")]
    pub reload_extra_file: Vec<glob::Pattern>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Engine {
    Auto,
    Poll,
    Inotify,
}
