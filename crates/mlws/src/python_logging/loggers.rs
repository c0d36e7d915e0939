//! The loggers `gunicorn.error` and `gunicorn.access` of Python's `logging`, which get the server's records if a configuration names them, or
//! if a config file or the application has changed them, for example by a filter.
//!
//! A handler may do anything and take any time. So only threads that are attached to the interpreter anyway call handlers ([`log`]), and
//! while they run the event loop they leave that to the [`handler_thread`](super::handler_thread).

use std::{
    cell::Cell,
    sync::{
        PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use log::LevelFilter;
use mlws_logging::{Level, text};
use mlws_wsgi::{ffi, python::traceback};
use pyo3::{
    IntoPyObjectExt,
    prelude::*,
    types::{PyBytes, PyDict},
};

use super::handler_queue::{AccessAtoms, AtomValue, FinishedRequest, QUEUE, Task};
use crate::loaded_config::LoadedConfig;

const MODULE: &str = "mylittlewebserver._logging";

pub(super) const ERROR: &str = "gunicorn.error";
pub(super) const ACCESS: &str = "gunicorn.access";

/// The loggers that get the server's records.
struct Loggers {
    error: Option<LoggerTarget>,
    access: Option<LoggerTarget>,
}

struct LoggerTarget {
    logger: Py<PyAny>,
    route: Route,
}

/// Why records go to a logger.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    /// It was changed. Its handler writes to the log of the server.
    Changed,
    /// By a configuration, so it replaces the log of the server.
    Configured,
    /// The same. It is a `LoggerClass` of `_logger_class.py`, not a logger of `logging`.
    LoggerClass,
}

static LOGGERS: RwLock<Loggers> = RwLock::new(Loggers { error: None, access: None });
/// Whether there is a logger for the access log.
static HANDLES_ACCESS_LOG: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Whether this thread passes a record of the server to a logger.
    static LOGS_RECORD: Cell<bool> = const { Cell::new(false) };
}

/// Configures Python's `logging`, if there is a configuration. The error is a message.
pub(crate) fn configure(py: Python<'_>, config: &LoadedConfig) -> Result<(), String> {
    reset();
    let Some((name, kind, source)) = configuration(py, config) else { return Ok(()) };
    let configure = || {
        let level = python_level(config.logs.level());
        let result = py.import(MODULE)?.call_method1("configure", (kind, source, level))?;
        result.extract::<(Option<Py<PyAny>>, Option<Py<PyAny>>, u8)>()
    };
    let (error, access, level) = configure().map_err(|error| {
        let message =
            py.import(MODULE).and_then(|module| module.call_method1("message_of", (error.value(py),)));
        format!("{name}: {}", message.map_or_else(|_| error.to_string(), |message| message.to_string()))
    })?;
    if error.is_some() {
        log::set_max_level(level_filter(level));
    }
    let route = if kind == "class" { Route::LoggerClass } else { Route::Configured };
    let target = |logger: Option<_>| logger.map(|logger| LoggerTarget { logger, route });
    set(Loggers { error: target(error), access: target(access) });
    Ok(())
}

/// The name of the configuration for messages, its kind, and the configuration.
fn configuration(py: Python<'_>, config: &LoadedConfig) -> Option<(String, &'static str, Py<PyAny>)> {
    let (logs, dict) = (&config.logs, &config.logconfig_dict);
    if let Some(class) = logs.custom_logger_class() {
        let source = (class, &config.hook_settings, dict).into_py_any(py).unwrap_or_else(|_| py.None());
        return Some((format!("--logger-class {class}"), "class", source));
    }
    Some(match (dict, &logs.log_config_json, &logs.log_config) {
        (Some(dict), _, _) => ("logconfig_dict".into(), "dict", dict.clone_ref(py).into_any()),
        (_, Some(path), _) => {
            (format!("--log-config-json {}", path.display()), "json", path_object(py, path))
        }
        (_, _, Some(path)) => (format!("--log-config {}", path.display()), "ini", path_object(py, path)),
        _ => return None,
    })
}

fn path_object(py: Python<'_>, path: &std::path::Path) -> Py<PyAny> {
    path.as_os_str().into_pyobject(py).map_or_else(|_| py.None(), |path| path.into_any().unbind())
}

/// No logger gets records any more.
pub(crate) fn reset() {
    set(Loggers { error: None, access: None });
}

/// Connects the loggers without a configuration to the logs of the server, for config files and the application, which may change them.
pub(crate) fn connect(py: Python<'_>, level: LevelFilter) {
    let connect = || {
        let levels = PyDict::new(py);
        if !is_configured(|loggers| &loggers.error) {
            levels.set_item(ERROR, python_level(level))?;
        }
        if !configures_access_log() {
            levels.set_item(ACCESS, Level::Info as u8)?;
        }
        py.import(MODULE)?.call_method1("connect", (levels,)).map(drop)
    };
    if let Err(error) = connect() {
        log::warn!("the loggers {ERROR} and {ACCESS} are not available to the application: {error}");
    }
}

/// A connected logger was changed, or its changes were undone (`None`).
pub(super) fn set_changed(name: &str, logger: Option<Py<PyAny>>, level: u8) {
    let target = logger.map(|logger| LoggerTarget { logger, route: Route::Changed });
    let before = {
        let mut loggers = lock();
        let slot = if name == ACCESS { &mut loggers.access } else { &mut loggers.error };
        let before = std::mem::replace(slot, target);
        HANDLES_ACCESS_LOG.store(loggers.access.is_some(), Ordering::Relaxed);
        before
    };
    drop(before); // without the lock, because it may run Python code
    if name == ERROR {
        log::set_max_level(level_filter(level));
    }
}

/// Passes a record to the configured logger, or queues it. Returns false if there is no logger, or this thread would have to wait for the
/// interpreter. The record handler of [`mlws_logging::logger`].
pub(crate) fn log(level: Level, text: &str) -> bool {
    if !is_used_by(|loggers| &loggers.error) {
        return false;
    }
    if mlws_server::runs_event_loop() && QUEUE.is_used() {
        return QUEUE.log(level, text);
    }
    if !ffi::is_attached() {
        return false;
    }
    Python::try_attach(|py| call_handlers(py, level, text)).unwrap_or(false)
}

/// Passes a record to the configured logger. Returns false if there is none, or it fails. The text is escaped, because formatters do not do
/// that.
pub(super) fn call_handlers(py: Python<'_>, level: Level, text: &str) -> bool {
    let Some(logger) = logger(py, |loggers| &loggers.error) else { return false };
    let outer = LOGS_RECORD.replace(true);
    let result = logger.call_method1("log", (level as u8, &*text::escape(text)));
    LOGS_RECORD.set(outer);
    result.is_ok()
}

/// Whether this thread passes a record of the server, not of the application, to a logger. Its text is escaped.
pub(super) fn logs_record() -> bool {
    LOGS_RECORD.get()
}

/// Whether Python's `logging` gets any of the logs.
pub(crate) fn is_used() -> bool {
    is_used_by(|loggers| &loggers.error) || handles_access_log()
}

/// Whether Python's `logging` gets the access log.
pub(crate) fn handles_access_log() -> bool {
    HANDLES_ACCESS_LOG.load(Ordering::Relaxed)
}

/// Whether a configuration of Python's `logging` replaces the access log.
pub(crate) fn configures_access_log() -> bool {
    is_configured(|loggers| &loggers.access)
}

/// Passes a record of the access log to Python: a format and its atoms, which are only created if a handler gets the record.
pub(crate) fn log_access(
    format: &str,
    atoms: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyDict>>,
) {
    if ffi::is_attached() {
        Python::try_attach(|py| call_access_handlers(py, format, atoms));
    }
}

/// Queues a record of the access log of a request that no thread of Python has run. It is dropped if the queue is full.
pub(super) fn log_access_later(format: String, atoms: AccessAtoms) {
    if QUEUE.is_used() {
        QUEUE.push(Task::LogAccess { format, atoms });
    } else {
        log_access(&format, |py| new_atoms(py, atoms));
    }
}

pub(super) fn call_access_handlers<'py>(
    py: Python<'py>,
    format: &str,
    atoms: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyDict>>,
) {
    let log = || {
        let Some(logger) = logger(py, |loggers| &loggers.access) else { return Ok(()) };
        if logger.call_method1("isEnabledFor", (Level::Info as u8,))?.is_truthy()? {
            logger.call_method1("info", (format, atoms(py)?))?;
        }
        PyResult::Ok(())
    };
    if let Err(error) = log() {
        log::error!("the access log failed: {error}");
    }
}

/// A dict of atoms (`_logging.Atoms`).
pub(super) fn new_atoms(py: Python<'_>, atoms: AccessAtoms) -> PyResult<Bound<'_, PyDict>> {
    let dict = py.import(MODULE)?.getattr("Atoms")?.call0()?.cast_into::<PyDict>()?;
    for (name, value) in atoms {
        match value {
            AtomValue::Text(text) => dict.set_item(name, text)?,
            AtomValue::Number(number) => dict.set_item(name, number)?,
        }
    }
    Ok(dict)
}

/// Whether requests are logged by the method `access` of a `logger_class`.
pub(super) fn has_logger_class() -> bool {
    route(|loggers| &loggers.access) == Some(Route::LoggerClass)
}

/// Passes a request to a `logger_class`, with its environ if the application was called.
pub(super) fn log_request(request: FinishedRequest, environ: Option<&Py<PyDict>>) {
    if ffi::is_attached() {
        Python::try_attach(|py| call_access(py, request, environ));
    }
}

/// Queues a request for a `logger_class`. It is dropped if the queue is full.
pub(super) fn log_request_later(request: FinishedRequest) {
    if QUEUE.is_used() {
        QUEUE.push(Task::LogRequest(request));
    } else {
        log_request(request, None);
    }
}

pub(super) fn call_access(py: Python<'_>, request: FinishedRequest, environ: Option<&Py<PyDict>>) {
    let FinishedRequest { variables, status, head, sent, took } = request;
    let call = || {
        let Some(logger) = logger(py, |loggers| &loggers.access) else { return Ok(()) };
        let known = PyDict::new(py);
        for (name, value) in variables {
            known.set_item(name, value)?;
        }
        let arguments = (environ, known, status, PyBytes::new(py, &head), sent, took.as_secs_f64());
        logger.call_method1("access", arguments).map(drop)
    };
    if let Err(error) = call() {
        log::error!("the access log failed\n{}", traceback(py, &error).trim_end());
    }
}

/// Reopens the files of all handlers. In a worker with threads, the handler thread does it later.
pub(crate) fn reopen() {
    if QUEUE.is_used() {
        QUEUE.reopen();
    } else if is_used() && ffi::is_attached() {
        Python::attach(reopen_handlers);
    }
}

pub(super) fn reopen_handlers(py: Python<'_>) {
    if let Err(error) = py.import(MODULE).and_then(|module| module.call_method0("reopen")) {
        log::error!("reopening a file of the log configuration failed: {error}");
    }
}

fn is_used_by(which: fn(&Loggers) -> &Option<LoggerTarget>) -> bool {
    which(&LOGGERS.read().unwrap_or_else(PoisonError::into_inner)).is_some()
}

fn is_configured(which: fn(&Loggers) -> &Option<LoggerTarget>) -> bool {
    route(which).is_some_and(|route| route != Route::Changed)
}

fn route(which: fn(&Loggers) -> &Option<LoggerTarget>) -> Option<Route> {
    let loggers = LOGGERS.read().unwrap_or_else(PoisonError::into_inner);
    which(&loggers).as_ref().map(|target| target.route)
}

fn logger(py: Python<'_>, which: fn(&Loggers) -> &Option<LoggerTarget>) -> Option<Bound<'_, PyAny>> {
    which(&LOGGERS.read().unwrap_or_else(PoisonError::into_inner))
        .as_ref()
        .map(|target| target.logger.bind(py).clone())
}

fn set(loggers: Loggers) {
    HANDLES_ACCESS_LOG.store(loggers.access.is_some(), Ordering::Relaxed);
    *lock() = loggers;
}

fn lock() -> RwLockWriteGuard<'static, Loggers> {
    LOGGERS.write().unwrap_or_else(PoisonError::into_inner)
}

fn python_level(level: LevelFilter) -> u8 {
    (match level {
        LevelFilter::Off => Level::Critical,
        LevelFilter::Error => Level::Error,
        LevelFilter::Warn => Level::Warning,
        LevelFilter::Info => Level::Info,
        LevelFilter::Debug | LevelFilter::Trace => Level::Debug,
    }) as u8
}

fn level_filter(level: u8) -> LevelFilter {
    match level {
        0..=10 => LevelFilter::Debug,
        11..=20 => LevelFilter::Info,
        21..=30 => LevelFilter::Warn,
        31..=40 => LevelFilter::Error,
        _ => LevelFilter::Off,
    }
}
