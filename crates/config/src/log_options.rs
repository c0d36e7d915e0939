//! The error log, the access log, syslog and statsd.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::{io, path::PathBuf};

use clap::{Args, ValueEnum};
use log::LevelFilter;

use mlws_logging::{
    Format,
    remote::RemoteAddress,
    statsd::{self, Statsd},
    syslog::{self, Syslog},
};

const FORMAT: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

#[derive(Args)]
#[command(next_help_heading = "Logging")]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate flag")]
pub struct LogOptions {
    /// Minimum level of the error log
    #[arg(
        long,
        alias = "loglevel",
        value_name = "LEVEL",
        value_enum,
        default_value = "info",
        ignore_case = true
    )]
    pub log_level: LogLevel,

    /// File of the error log; - is stderr
    #[arg(long, alias = "errorlog", visible_alias = "log-file", value_name = "FILE", default_value = "-")]
    pub error_logfile: PathBuf,

    /// Format of the error log: text, or one JSON object per line
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text", ignore_case = true)]
    pub error_logformat: ErrorFormat,

    /// File of the access log; - is stdout [default: no access log]
    #[arg(long, alias = "accesslog", value_name = "FILE")]
    pub access_logfile: Option<PathBuf>,

    /// Format of the access log: gunicorn's atoms, or json
    ///
    /// %(h)s is the client's address, u its user, t the time, r the request line, m the method, U the path, q the query,
    /// H the protocol, s the status, b and B the bytes of the body, f the referer, a the user agent, T, M, D and L the
    /// duration, and p the process. %({NAME}i)s is a request header, %({NAME}o)s a response header, and %({NAME}e)s a
    /// variable of the environ.
    #[arg(long, alias = "access_log_format", value_name = "FORMAT", value_parser = Format::read, default_value = FORMAT)]
    pub access_logformat: Format,

    /// Redirect stdout and stderr of the application to the error log file
    #[arg(long)]
    pub capture_output: bool,

    /// With --daemon: keep stdout and stderr, unless they are a terminal
    #[arg(short = 'R', long)]
    pub enable_stdio_inheritance: bool,

    /// Log through Python's logging, configured by this INI file (`logging.config.fileConfig`)
    #[arg(long, alias = "logconfig", value_name = "FILE")]
    pub log_config: Option<PathBuf>,

    /// Log through Python's logging, configured by this JSON file (`logging.config.dictConfig`)
    ///
    /// Takes precedence over --log-config.
    #[arg(long, alias = "logconfig_json", value_name = "FILE")]
    pub log_config_json: Option<PathBuf>,

    /// Log through a class like gunicorn's Logger: MODULE.CLASS
    ///
    /// Its methods are called as gunicorn calls them. gunicorn's own classes change nothing.
    #[arg(long, value_name = "CLASS")]
    pub logger_class: Option<String>,

    /// Whether a config file has set `logconfig_dict`, which takes precedence over both files.
    #[arg(skip)]
    pub has_log_config_dict: bool,

    /// Also send both logs to syslog
    #[arg(long, alias = "syslog")]
    pub log_syslog: bool,

    /// Address of syslog: udp://HOST:PORT, tcp://HOST:PORT or unix://PATH
    ///
    /// A Unix socket may be followed by #dgram or #stream.
    #[arg(long, alias = "syslog_addr", value_name = "ADDRESS", value_parser = syslog::address, default_value = "udp://localhost:514")]
    pub log_syslog_to: RemoteAddress,

    /// Program names in syslog: gunicorn.PREFIX.error and gunicorn.PREFIX.access
    ///
    /// Defaults to the name of the application.
    #[arg(long, alias = "syslog_prefix", value_name = "PREFIX")]
    pub log_syslog_prefix: Option<String>,

    /// Facility of the messages in syslog
    #[arg(long, alias = "syslog_facility", value_name = "NAME", value_parser = syslog::facility, default_value = "user")]
    pub log_syslog_facility: u8,

    /// Do not send the access log to syslog
    #[arg(long)]
    pub disable_redirect_access_to_syslog: bool,

    /// Send request counts and durations to statsd: HOST:PORT or unix://PATH
    #[arg(long, value_name = "ADDRESS", value_parser = statsd::address)]
    pub statsd_host: Option<RemoteAddress>,

    /// Prefix of metric names, without the dot that follows it
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub statsd_prefix: String,

    /// Tags for every metric (a:1,b:2), for collectors that support DogStatsD
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
            // The crate `log` has no such level; `logging::critical` writes regardless of the level.
            LogLevel::Critical => LevelFilter::Off,
        }
    }

    /// Whether stdout and stderr are redirected to the error log file.
    pub fn captures(&self) -> bool {
        self.capture_output && self.error_logfile.as_os_str() != "-"
    }

    /// Whether log records also go to syslog or to Python's `logging`.
    pub fn goes_elsewhere(&self) -> bool {
        self.log_syslog
            || self.log_config.is_some()
            || self.log_config_json.is_some()
            || self.has_log_config_dict
            || self.custom_logger_class().is_some()
    }

    /// The class of --logger-class, unless it is one of gunicorn's, whose work the server does itself.
    pub fn custom_logger_class(&self) -> Option<&str> {
        let class = self.logger_class.as_deref()?;
        let is_gunicorns = class == "simple" || class.starts_with("gunicorn.");
        (!is_gunicorns && !class.is_empty()).then_some(class)
    }

    /// The syslog connection of the application named `app`, if syslog is enabled.
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
