//! What is logged, where, and in what form.

use std::{io, path::PathBuf};

use clap::{Args, ValueEnum};
use log::LevelFilter;

use mlws_logging::{
    Format,
    remote::Address,
    statsd::{self, Statsd},
    syslog::{self, Syslog},
};

const FORMAT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

#[derive(Args)]
#[command(next_help_heading = "LogOptions")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct LogOptions {
    /// The least that is worth a line in the log
    #[arg(
        long,
        alias = "loglevel",
        value_name = "LEVEL",
        value_enum,
        default_value = "info",
        ignore_case = true
    )]
    pub log_level: LogLevel,

    /// Where the log goes; `-` is stderr
    #[arg(long, alias = "errorlog", visible_alias = "log-file", value_name = "FILE", default_value = "-")]
    pub error_logfile: PathBuf,

    /// How the log is written: as text, or each record as a JSON object on a line of its own
    #[arg(long, value_name = "FORM", value_enum, default_value = "text", ignore_case = true)]
    pub error_logformat: ErrorFormat,

    /// Where each request gets a line; `-` is stdout
    #[arg(long, alias = "accesslog", value_name = "FILE")]
    pub access_logfile: Option<PathBuf>,

    /// What that line says, in gunicorn's atoms (docs/logs.md has all), or `json`
    #[arg(long, alias = "access_log_format", value_name = "FORMAT", value_parser = Format::read, default_value = FORMAT)]
    pub access_logformat: Format,

    /// What the application writes to stdout and stderr goes to the file of --error-logfile
    #[arg(long)]
    pub capture_output: bool,

    /// With --daemon: stdout and stderr stay what they are, unless they are a terminal
    #[arg(short = 'R', long)]
    pub enable_stdio_inheritance: bool,

    /// Log through Python's logging, configured by this file (`logging.config.fileConfig`)
    #[arg(long, alias = "logconfig", value_name = "FILE")]
    pub log_config: Option<PathBuf>,

    /// The same by a JSON file (`logging.config.dictConfig`), which comes before --log-config
    #[arg(long, alias = "logconfig_json", value_name = "FILE")]
    pub log_config_json: Option<PathBuf>,

    /// A config file has configured Python's logging by a dict, which takes precedence over both files.
    #[arg(skip)]
    pub has_log_config_dict: bool,

    /// Send both logs to syslog, too
    #[arg(long, alias = "syslog")]
    pub log_syslog: bool,

    /// Where syslog is: `udp://HOST:PORT`, `tcp://HOST:PORT` or `unix://PATH`, which may be followed by #dgram or #stream
    #[arg(long, alias = "syslog_addr", value_name = "ADDRESS", value_parser = syslog::address, default_value = "udp://localhost:514")]
    pub log_syslog_to: Address,

    /// The program in syslog is gunicorn.PREFIX.error, or .access; unless given it is the name of the application
    #[arg(long, alias = "syslog_prefix", value_name = "PREFIX")]
    pub log_syslog_prefix: Option<String>,

    /// What the records are for syslog
    #[arg(long, alias = "syslog_facility", value_name = "NAME", value_parser = syslog::facility, default_value = "user")]
    pub log_syslog_facility: u8,

    /// Keep the access log out of syslog
    #[arg(long)]
    pub disable_redirect_access_to_syslog: bool,

    /// Send counts and durations to a statsd collector: `HOST:PORT` or `unix://PATH`
    #[arg(long, value_name = "ADDRESS", value_parser = statsd::address)]
    pub statsd_host: Option<Address>,

    /// What the names of these metrics begin with, before a dot
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub statsd_prefix: String,

    /// Tags to send with each metric, for collectors that know them (`a:1,b:2`)
    #[arg(long, value_name = "TAGS", default_value = "", hide_default_value = true)]
    pub dogstatsd_tags: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum LogLevel {
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ErrorFormat {
    Text,
    Json,
}

impl LogOptions {
    pub fn level(&self) -> LevelFilter {
        match self.log_level {
            LogLevel::Debug => LevelFilter::Debug,
            LogLevel::Info => LevelFilter::Info,
            LogLevel::Warning => LevelFilter::Warn,
            LogLevel::Error => LevelFilter::Error,
            // `log` has no such level; what is critical here is written past it (`logging::critical`).
            LogLevel::Critical => LevelFilter::Off,
        }
    }

    /// Whether stdout and stderr lead into the log's file.
    pub fn captures(&self) -> bool {
        self.capture_output && self.error_logfile.as_os_str() != "-"
    }

    /// Whether the log has another place than its file.
    pub fn goes_elsewhere(&self) -> bool {
        self.log_syslog
            || self.log_config.is_some()
            || self.log_config_json.is_some()
            || self.has_log_config_dict
    }

    /// What goes to syslog from an application of this name, if anything does.
    pub fn syslog(&self, app: &str) -> Option<io::Result<Syslog>> {
        let prefix = self.log_syslog_prefix.clone().unwrap_or_else(|| app.replace(':', "."));
        self.log_syslog.then(|| Syslog::new(&self.log_syslog_to, &prefix, self.log_syslog_facility))
    }

    pub fn statsd(&self) -> Option<io::Result<Statsd>> {
        self.statsd_host
            .as_ref()
            .map(|address| Statsd::new(address, &self.statsd_prefix, &self.dogstatsd_tags))
    }
}
