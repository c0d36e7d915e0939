//! What is logged, where, and in what form.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use log::LevelFilter;

#[derive(Args)]
#[command(next_help_heading = "Logs")]
pub(crate) struct Logs {
    /// The least that is worth a line in the log
    #[arg(
        long,
        alias = "loglevel",
        value_name = "LEVEL",
        value_enum,
        default_value = "info",
        ignore_case = true
    )]
    log_level: Level,

    /// Where the log goes; `-` is stderr
    #[arg(long, visible_alias = "log-file", alias = "errorlog", value_name = "FILE", default_value = "-")]
    pub(crate) error_logfile: PathBuf,

    /// Where each request gets a line, in the combined format; `-` is stdout
    #[arg(long, value_name = "FILE", alias = "accesslog")]
    pub(crate) access_logfile: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl Logs {
    pub(crate) fn level(&self) -> LevelFilter {
        match self.log_level {
            Level::Debug => LevelFilter::Debug,
            Level::Info => LevelFilter::Info,
            Level::Warning => LevelFilter::Warn,
            Level::Error => LevelFilter::Error,
            // `log` has no such level; what is critical here is written past it (`logging::critical`).
            Level::Critical => LevelFilter::Off,
        }
    }
}
