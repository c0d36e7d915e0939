//! The two logs: what the server tells its operator, and a line for each request. Files, Python's logging, syslog, a collector.
//!
//! The one thing to know: nothing here waits for a reader. What finds no room is dropped, counted and told.
//!
//! | module      | what it holds |
//! |-------------|---|
//! | [`logging`] | the log, on stderr or in a file |
//! | [`access`]  | a line for each request |
//! | [`python`]  | either in Python's own logging |
//! | [`handler_thread`] | the thread that calls its handlers for the event loop |
//! | [`syslog`]  | both also to syslog |
//! | [`statsd`]  | counts and durations for a collector |
//! | [`remote`]  | a socket to one of these |
//! | [`logfile`] | a file that can be opened anew |
//! | [`sink`]    | writing without waiting |
//! | [`json`]    | strings of JSON |

pub(crate) mod access;
pub(crate) mod handler_thread;
mod json;
pub(crate) mod logfile;
pub(crate) mod logging;
pub(crate) mod python;
pub(crate) mod remote;
mod sink;
pub(crate) mod statsd;
pub(crate) mod syslog;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use pyo3::prelude::*;
use rustix::fs::Mode;

use self::access::AccessLog;
use crate::{loader::extend_path, process::Identity, refusal::Refusal, settings::Flags};

/// Of a new file of the error log; the umask takes from it.
const MODE: Mode = Mode::from_raw_mode(0o666);

/// The logs go where they are to go from here on. The access log, if there is to be one.
pub(crate) fn open(
    flags: &Flags,
    identity: Option<&Identity>,
    configure_python: impl FnOnce() -> Result<(), Refusal>,
) -> Result<Option<AccessLog>, Refusal> {
    let logs = &flags.logs;
    let path = &logs.error_logfile;
    let file = (path.as_os_str() != "-").then(|| logfile::LogFile::open(path, MODE, identity)).transpose();
    let file = file.map_err(|error| cannot(path, &error))?;
    if file.is_none() && flags.process.daemon && !logs.goes_elsewhere() {
        log::warn!(
            "a daemon has no stderr: its log is lost from when it is ready, unless --error-logfile names a file"
        );
    }
    logging::change().file = file;
    let unknown =
        |error: io::Error| Refusal::System(format!("a collector of logs cannot be reached: {error}"));
    let syslog = logs.syslog(flags.name()).transpose().map_err(unknown)?.map(Arc::new);
    let statsd = logs.statsd().transpose().map_err(unknown)?.map(Arc::new);
    let mut outlets = logging::change();
    (outlets.syslog, outlets.statsd) = (syslog, statsd);
    drop(outlets);
    configure_python()?;
    open_access(flags, identity)
}

/// The access log, if there is to be one, beside the collectors that are open already.
pub(crate) fn open_access(flags: &Flags, identity: Option<&Identity>) -> Result<Option<AccessLog>, Refusal> {
    let logs = &flags.logs;
    let outlets = logging::change();
    let (syslog, statsd) = (outlets.syslog.clone(), outlets.statsd.clone());
    drop(outlets);
    let syslog = syslog.filter(|_| !logs.disable_redirect_access_to_syslog);
    let path = logs.access_logfile.as_deref();
    AccessLog::open(path, &logs.access_logformat, identity, syslog, statsd)
        .map_err(|error| cannot(path.unwrap_or(Path::new("-")), &error))
}

fn cannot(path: &Path, error: &io::Error) -> Refusal {
    Refusal::System(format!("cannot open the log {}: {error}", path.display()))
}

/// Sets up Python's logging, if there is a configuration of it, which may name classes of the application's folders.
pub(crate) fn configure_python(py: Python<'_>, flags: &Flags, folders: &[PathBuf]) -> Result<(), Refusal> {
    python::forget();
    let Some(config) = flags.logs.config(py) else { return Ok(()) };
    extend_path(py, folders).map_err(|error| Refusal::System(error.to_string()))?;
    python::configure(py, &config, flags.logs.level()).map_err(Refusal::Usage)
}

/// Something has moved the files away.
pub(crate) fn reopen(access: Option<&AccessLog>) {
    logging::reopen();
    python::reopen();
    if let Some(access) = access {
        access.reopen();
    }
}
