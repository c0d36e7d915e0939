//! Opens the logs: files and collectors through `mlws-logging`, and Python's own `logging` (`--log-config` and similar).
//!
//! | module | content |
//! |---|---|
//! | [`loggers`] | the loggers of Python's `logging` |
//! | [`handler_thread`] | the thread that calls their handlers for the event loop |
//! | [`handler_queue`] | the records for that thread |
//! | [`access_log`] | the access log, in a file or in Python's `logging` |
//! | [`connection`] | what the loggers without a configuration call |

mod access_log;
pub(crate) mod connection;
mod handler_queue;
pub(crate) mod handler_thread;
pub(crate) mod loggers;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use mlws_config::Config;
use mlws_logging::{log_file::LogFile, logger, statsd::Statsd, syslog::Syslog};
use mlws_sys::Credentials;
use pyo3::prelude::*;
use rustix::fs::Mode;

pub(crate) use self::access_log::PythonAccessLog;
use crate::{error::StartupError, imports::extend_path, loaded_config::LoadedConfig};

/// The mode of a new file. It contains addresses of clients and tracebacks of the application.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Logs that are open but not in use.
pub(crate) struct PreparedLogs {
    file: Option<LogFile>,
    syslog: Option<Arc<Syslog>>,
    statsd: Option<Arc<Statsd>>,
}

impl PreparedLogs {
    /// Opens the file of the log, and connects to the collectors.
    pub(crate) fn open(config: &Config, credentials: Option<&Credentials>) -> Result<Self, StartupError> {
        let logs = &config.logs;
        let path = &logs.error_logfile;
        let file = (path.as_os_str() != "-").then(|| LogFile::open(path, MODE, credentials)).transpose();
        let file = file.map_err(|error| cannot_open(path, &error))?;
        if file.is_none() && config.process.daemon && !logs.goes_elsewhere() {
            log::warn!("a daemon has no stderr: set --error-logfile, or its log is lost when it is ready");
        }
        let failed = |error: io::Error| {
            StartupError::System(format!("connecting to syslog or statsd failed: {error}"))
        };
        let syslog = logs.syslog(config.name()).transpose().map_err(failed)?.map(Arc::new);
        let statsd = logs.statsd().transpose().map_err(failed)?.map(Arc::new);
        Ok(Self { file, syslog, statsd })
    }

    /// Opens the access log of the same settings, if there is one.
    pub(crate) fn open_access(
        &self,
        config: &Config,
        credentials: Option<&Credentials>,
    ) -> Result<Option<PythonAccessLog>, StartupError> {
        let collectors = (self.syslog.clone(), self.statsd.clone());
        open_access_log(config, credentials, collectors)
    }

    /// Replaces the logs that are in use.
    pub(crate) fn commit(self) {
        let mut targets = logger::targets_mut();
        (targets.file, targets.syslog, targets.statsd) = (self.file, self.syslog, self.statsd);
    }
}

/// Opens the access log with the collectors in use, if there is one.
pub(crate) fn open_access(
    config: &Config,
    credentials: Option<&Credentials>,
) -> Result<Option<PythonAccessLog>, StartupError> {
    let targets = logger::targets_mut();
    let collectors = (targets.syslog.clone(), targets.statsd.clone());
    drop(targets);
    open_access_log(config, credentials, collectors)
}

fn open_access_log(
    config: &Config,
    credentials: Option<&Credentials>,
    (syslog, statsd): (Option<Arc<Syslog>>, Option<Arc<Statsd>>),
) -> Result<Option<PythonAccessLog>, StartupError> {
    let logs = &config.logs;
    let syslog = syslog.filter(|_| !logs.disable_redirect_access_to_syslog);
    let path = logs.access_logfile.as_deref();
    PythonAccessLog::open(path, &logs.access_logformat, credentials, syslog, statsd)
        .map_err(|error| cannot_open(path.unwrap_or(Path::new("-")), &error))
}

fn cannot_open(path: &Path, error: &io::Error) -> StartupError {
    StartupError::System(format!("cannot open the log {}: {error}", path.display()))
}

/// Configures Python's `logging`, if there is a configuration, and connects the loggers that it does not name. It may name classes in the application's directories.
pub(crate) fn configure_python(
    py: Python<'_>,
    config: &LoadedConfig,
    directories: &[PathBuf],
) -> Result<(), StartupError> {
    if config.logs.has_log_config_dict
        || config.logs.custom_logger_class().is_some()
        || config.logs.log_config.is_some()
        || config.logs.log_config_json.is_some()
    {
        extend_path(py, directories).map_err(|error| StartupError::System(error.to_string()))?;
    }
    loggers::configure(py, config).map_err(StartupError::Usage)?;
    loggers::connect(py, config.logs.level());
    Ok(())
}

/// Reopens all log files, after they were moved away.
pub(crate) fn reopen(access: Option<&PythonAccessLog>) {
    logger::reopen();
    loggers::reopen();
    if let Some(access) = access {
        access.reopen();
    }
}
