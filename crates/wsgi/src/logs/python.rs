//! `--log-config` and its kin: Python's logging has the records of a log that the configuration names, as gunicorn's loggers
//! `gunicorn.error` and `gunicorn.access` do.
//!
//! The one thing to know: what a handler does with a record is its own affair, and takes the time that it takes. So only threads that
//! are attached to the interpreter anyway give records to one ([`tell`]), and while they run the event loop they leave that to the
//! [`handler_thread`].

use std::{
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use log::LevelFilter;
use pyo3::{
    exceptions::PyOSError,
    prelude::*,
    types::{IntoPyDict, PyDict, PyList, PyString},
};

use crate::{
    ffi,
    logs::{handler_thread, logging::Level},
};

const ERROR: &str = "gunicorn.error";
const ACCESS: &str = "gunicorn.access";

/// What is so unless the configuration says otherwise; its outermost keys come in place of these.
const DEFAULTS: &str = r#"{
    "version": 1,
    "disable_existing_loggers": false,
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO", "handlers": ["error_console"], "propagate": true, "qualname": "gunicorn.error"},
        "gunicorn.access": {"level": "INFO", "handlers": ["console"], "propagate": true, "qualname": "gunicorn.access"}
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stdout"},
        "error_console": {"class": "logging.StreamHandler", "formatter": "generic", "stream": "ext://sys.stderr"}
    },
    "formatters": {
        "generic": {
            "class": "logging.Formatter",
            "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
            "datefmt": "[%Y-%m-%d %H:%M:%S %z]"
        }
    }
}"#;

/// A configuration of Python's logging.
pub(crate) enum LogConfig {
    /// A file for `logging.config.fileConfig`.
    Ini(PathBuf),
    /// A file with a dict for `logging.config.dictConfig`.
    Json(PathBuf),
    /// Such a dict.
    Dict(Py<PyDict>),
}

/// The loggers that take our records.
struct Loggers {
    error: Option<Py<PyAny>>,
    access: Option<Py<PyAny>>,
}

static LOGGERS: RwLock<Loggers> = RwLock::new(Loggers { error: None, access: None });

impl LogConfig {
    fn name(&self) -> String {
        match self {
            Self::Ini(path) => format!("--log-config {}", path.display()),
            Self::Json(path) => format!("--log-config-json {}", path.display()),
            Self::Dict(_) => "logconfig_dict".into(),
        }
    }

    fn apply(&self, py: Python<'_>) -> PyResult<()> {
        let config = py.import("logging.config")?;
        let json = py.import("json")?;
        let text = |path: &Path| -> PyResult<String> {
            std::fs::read_to_string(path).map_err(|error| PyOSError::new_err(error.to_string()))
        };
        let given = match self {
            Self::Ini(path) => {
                text(path)?;
                let path = std::path::absolute(path)?;
                let escaped = |path: &Path| path.to_string_lossy().replace('%', "%%");
                let here = path.parent().map(escaped).unwrap_or_default();
                let defaults = [("__file__", escaped(&path)), ("here", here)].into_py_dict(py)?;
                let options = [("defaults", defaults.into_any())].into_py_dict(py)?;
                options.set_item("disable_existing_loggers", false)?;
                config.call_method("fileConfig", (path,), Some(&options))?;
                return Ok(());
            }
            Self::Json(path) => json.call_method1("loads", (text(path)?,))?,
            Self::Dict(dict) => dict.bind(py).clone().into_any(),
        };
        let merged = json.call_method1("loads", (DEFAULTS,))?;
        merged.call_method1("update", (given,))?;
        config.call_method1("dictConfig", (merged,))?;
        Ok(())
    }
}

/// Sets up Python's logging, and gives it the records of each log that the configuration has changed. Where it can not, the reason.
pub(crate) fn configure(py: Python<'_>, config: &LogConfig, level: LevelFilter) -> Result<(), String> {
    let configured = (|| {
        let logging = py.import("logging")?;
        // Who still has this handler was not configured.
        let mark = logging.getattr("NullHandler")?.call0()?;
        let loggers = [(ERROR, python_level(level)), (ACCESS, Level::Info as u8)];
        for (name, level) in loggers {
            let logger = logging.call_method1("getLogger", (name,))?;
            logger.setattr("handlers", PyList::new(py, [&mark])?)?;
            logger.setattr("propagate", false)?;
            logger.call_method1("setLevel", (level,))?;
        }
        config.apply(py)?;
        let taker = |name| -> PyResult<Option<Py<PyAny>>> {
            let logger = logging.call_method1("getLogger", (name,))?;
            if !logger.getattr("handlers")?.contains(&mark)? {
                return Ok(Some(logger.unbind()));
            }
            logger.call_method1("removeHandler", (&mark,))?;
            logger.setattr("propagate", true)?;
            Ok(None)
        };
        PyResult::Ok(Loggers { error: taker(ERROR)?, access: taker(ACCESS)? })
    })();
    let loggers = configured.map_err(|error| {
        forget(); // they are half of what they were
        format!("{}: {}", config.name(), with_causes(py, &error))
    })?;
    if let Some(logger) = &loggers.error {
        let level = logger.bind(py).call_method0("getEffectiveLevel").and_then(|level| level.extract());
        log::set_max_level(level_filter(level.unwrap_or(0)));
    }
    *change() = loggers;
    Ok(())
}

/// Python's logging has no record of ours any more.
pub(crate) fn forget() {
    *change() = Loggers { error: None, access: None };
}

/// Without a configuration, lets the application borrow gunicorn's logger all the same, as many do; it writes to the log.
pub(crate) fn lend(py: Python<'_>, level: LevelFilter) {
    if is_configured(|loggers| &loggers.error) {
        return;
    }
    let module = py.import("mylittlewebserver._loggers");
    let lent = module.and_then(|module| module.call_method1("lend", (python_level(level),)));
    if let Err(error) = lent {
        log::warn!("the application cannot borrow the logger {ERROR}: {error}");
    }
}

/// Gives a record to the configured logger, or queues it for that. False if there is none, or this thread would have to wait for the
/// interpreter.
pub(crate) fn tell(level: Level, text: &str) -> bool {
    if !is_configured(|loggers| &loggers.error) {
        return false;
    }
    if mlws_server::runs_event_loop() && handler_thread::is_used() {
        return handler_thread::log(level, text);
    }
    if !ffi::is_attached() {
        return false;
    }
    Python::try_attach(|py| call_handlers(py, level, text)).unwrap_or(false)
}

/// Has the configured logger handle a record. False if there is none, or it fails.
pub(super) fn call_handlers(py: Python<'_>, level: Level, text: &str) -> bool {
    logger(py, |loggers| &loggers.error)
        .is_some_and(|logger| logger.call_method1("log", (level as u8, text)).is_ok())
}

/// Whether Python's logging has either log.
pub(crate) fn is_used() -> bool {
    is_configured(|loggers| &loggers.error) || takes_access()
}

/// Whether Python's logging has the access log.
pub(crate) fn takes_access() -> bool {
    is_configured(|loggers| &loggers.access)
}

/// Gives it a record of the access log: a format, and the atoms to be put into it. They are only asked for where somebody listens.
pub(crate) fn tell_access(
    format: &str,
    atoms: impl for<'py> FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
) {
    if !ffi::is_attached() {
        return;
    }
    let told = Python::try_attach(|py| {
        let Some(logger) = logger(py, |loggers| &loggers.access) else { return Ok(()) };
        if logger.call_method1("isEnabledFor", (Level::Info as u8,))?.is_truthy()? {
            logger.call_method1("info", (format, atoms(py)?))?;
        }
        PyResult::Ok(())
    });
    if let Some(Err(error)) = told {
        log::error!("the access log failed: {error}");
    }
}

/// Opens the files of all handlers again, as gunicorn does; in a worker with threads, not before this returns.
pub(crate) fn reopen() {
    if handler_thread::is_used() {
        handler_thread::reopen();
    } else if is_used() && ffi::is_attached() {
        Python::attach(reopen_handlers);
    }
}

pub(super) fn reopen_handlers(py: Python<'_>) {
    let reopened = (|| {
        let logging = py.import("logging")?;
        let root = logging.getattr("root")?;
        let loggers = root.getattr("manager")?.getattr("loggerDict")?.call_method0("values")?;
        let loggers: Vec<_> = loggers.try_iter()?.chain([Ok(root)]).collect::<PyResult<_>>()?;
        for logger in loggers {
            let Some(handlers) = logger.getattr_opt("handlers")? else { continue };
            for handler in handlers.try_iter()? {
                reopen_handler(&handler?, &logging.getattr("FileHandler")?)?;
            }
        }
        PyResult::Ok(())
    })();
    if let Err(error) = reopened {
        log::error!("a log file of the log configuration cannot be opened anew: {error}");
    }
}

fn reopen_handler(handler: &Bound<'_, PyAny>, class: &Bound<'_, PyAny>) -> PyResult<()> {
    if !handler.is_instance(class)? || !handler.getattr("stream")?.is_truthy()? {
        return Ok(());
    }
    handler.call_method0("acquire")?;
    let opened = handler.call_method0("close").and_then(|_| handler.call_method0("_open"));
    let set = opened.and_then(|stream| handler.setattr("stream", stream));
    handler.call_method0("release")?;
    set
}

fn is_configured(which: fn(&Loggers) -> &Option<Py<PyAny>>) -> bool {
    which(&LOGGERS.read().unwrap_or_else(PoisonError::into_inner)).is_some()
}

fn logger(py: Python<'_>, which: fn(&Loggers) -> &Option<Py<PyAny>>) -> Option<Bound<'_, PyAny>> {
    which(&LOGGERS.read().unwrap_or_else(PoisonError::into_inner))
        .as_ref()
        .map(|logger| logger.bind(py).clone())
}

fn change() -> RwLockWriteGuard<'static, Loggers> {
    LOGGERS.write().unwrap_or_else(PoisonError::into_inner)
}

/// `dictConfig` says which handler is wrong, and only the cause of its error says what about it.
fn with_causes(py: Python<'_>, error: &PyErr) -> String {
    match error.cause(py) {
        Some(cause) => format!("{error}: {}", with_causes(py, &cause)),
        None => error.to_string(),
    }
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

/// The atoms of a request, as `record.args` has them: one that is missing is `-`, and header names may be in any case.
#[pyclass(extends = PyDict, module = "mylittlewebserver")]
#[derive(Default)]
pub(crate) struct Atoms;

#[pymethods]
impl Atoms {
    #[new]
    fn new() -> Self {
        Self
    }

    fn __missing__<'py>(slf: &Bound<'py, Self>, key: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        let lower = key.to_string_lossy().to_lowercase();
        let found = if lower.starts_with('{') { slf.as_super().get_item(lower)? } else { None };
        Ok(found.unwrap_or_else(|| PyString::new(slf.py(), "-").into_any()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dict_changes_the_logs_that_it_names() {
        Python::initialize();
        Python::attach(|py| {
            let dict = |text| {
                let dict = py.import("json").unwrap().call_method1("loads", (text,)).unwrap();
                LogConfig::Dict(dict.cast_into::<PyDict>().unwrap().unbind())
            };
            configure(
                py,
                &dict(r#"{"loggers": {"gunicorn.access": {"handlers": ["console"]}}}"#),
                LevelFilter::Info,
            )
            .unwrap();
            assert!(takes_access() && !tell(Level::Info, "to nobody"));
            let why =
                configure(py, &dict(r#"{"handlers": {"a": {"class": "nothing.Here"}}}"#), LevelFilter::Info);
            assert!(why.unwrap_err().contains("No module named 'nothing'"));
            assert!(!takes_access());
        });
    }

    #[test]
    fn an_atom_that_is_missing_is_a_dash_and_headers_have_any_case() {
        Python::initialize();
        Python::attach(|py| {
            let atoms = py.get_type::<Atoms>().call0().unwrap();
            atoms.set_item("{x-id}i", "7").unwrap();
            let text = PyString::new(py, "%({X-Id}i)s %(X)s").as_any().rem(atoms).unwrap();
            assert_eq!(text.to_string(), "7 -");
        });
    }
}
