//! The access log: in a file, syslog and statsd, or in Python's `logging`.

use std::{
    io,
    path::Path,
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::tz::TimeZone;
use mlws_logging::{
    EnvironValues, Format,
    access::atoms::{self, Atom},
    statsd::Statsd,
    syslog::Syslog,
};
use mlws_server::{Record, Request};
use mlws_sys::Credentials;
use mlws_wsgi::AccessLogger;
use pyo3::{
    prelude::*,
    types::{PyDict, PyString},
};

use super::{
    handler_queue::{AccessAtoms, AtomValue, FinishedRequest},
    loggers,
};

pub(crate) struct PythonAccessLog {
    native: mlws_logging::AccessLog,
    /// A configuration of Python's `logging` gets the lines, and nothing else does.
    is_configured: bool,
    wants_head: Arc<AtomicBool>,
}

/// The access log in use. The handler of the logger `gunicorn.access` writes to it.
static IN_USE: RwLock<Weak<PythonAccessLog>> = RwLock::new(Weak::new());

/// The whole environ, kept for Python's `logging` until the request is logged.
struct KeptEnviron(Py<PyDict>);

impl PythonAccessLog {
    /// Opens the access log. `None` if nothing gets its lines.
    pub(crate) fn open(
        path: Option<&Path>,
        format: &Format,
        credentials: Option<&Credentials>,
        syslog: Option<Arc<Syslog>>,
        statsd: Option<Arc<Statsd>>,
    ) -> io::Result<Option<Self>> {
        let is_configured = loggers::configures_access_log();
        let path = path.filter(|_| !is_configured);
        let file = path.map(|path| mlws_logging::AccessLog::open_file(path, credentials)).transpose()?;
        let syslog = syslog.filter(|_| !is_configured);
        if file.is_none() && syslog.is_none() && statsd.is_none() && !is_configured {
            return Ok(None);
        }
        for name in &format.unknown {
            log::warn!("--access-logformat: unknown atom %({name})s, logged as -");
        }
        let (format, zone) = (format.clone(), TimeZone::system());
        let native = mlws_logging::AccessLog { format, zone, file, syslog, statsd };
        Ok(Some(Self { native, is_configured, wants_head: Arc::default() }))
    }

    /// Makes this the access log that the logger `gunicorn.access` writes to. `None` if nothing gets its lines.
    pub(crate) fn install(access: Option<Self>) -> Option<Arc<Self>> {
        let access = access.map(Arc::new);
        let mut in_use = IN_USE.write().unwrap_or_else(PoisonError::into_inner);
        *in_use = access.as_ref().map(Arc::downgrade).unwrap_or_default();
        drop(in_use);
        logger_changed();
        access
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.is_configured
    }

    /// Whether requests are logged by a logger of Python's `logging`: a configured one, or one that was changed. Without an access log
    /// there are no records for its handlers, as in gunicorn.
    fn uses_logger(&self) -> bool {
        loggers::handles_access_log() && (self.is_configured || self.native.has_lines())
    }

    /// Reopens the file, after it was moved away. If that fails, the old file stays in use.
    pub(crate) fn reopen(&self) {
        self.native.reopen();
    }

    /// stdout leads elsewhere now.
    pub(crate) fn reopen_stdio(&self) {
        self.native.reopen_stdio();
    }

    /// The `msg` of a record of Python's `logging`.
    fn message(&self, record: &Record<'_>) -> String {
        let format = &self.native.format;
        if !format.is_json() {
            return format.text.clone();
        }
        let mut line = Vec::new();
        self.native.format_line(&mut line, record);
        String::from_utf8_lossy(&line).replace('%', "%%")
    }

    /// All atoms of a request, as gunicorn's logger has them, but those of the environ.
    fn atoms(&self, record: &Record<'_>) -> AccessAtoms {
        let mut atoms = vec![("l".to_owned(), AtomValue::Text("-".to_owned()))];
        for (letter, atom) in Atom::ATOMS {
            let mut value = Vec::new();
            atom.write(&mut value, record, &self.native.zone);
            let value = String::from_utf8_lossy(&value).into_owned();
            let number = value.parse().ok().filter(|_| matches!(letter, "B" | "T" | "M" | "D"));
            atoms.push((letter.to_owned(), number.map_or(AtomValue::Text(value), AtomValue::Number)));
        }
        let fields = record.request.fields().map(|field| (name(field.0, 'i'), text(field.1)));
        atoms.extend(fields.map(|(name, value)| (name, AtomValue::Text(value))));
        let fields = atoms::fields(record.head).map(|field| (name(field.0, 'o'), text(field.1)));
        atoms.extend(fields.map(|(name, value)| (name, AtomValue::Text(value))));
        atoms
    }

    /// All atoms of a request.
    fn python_atoms<'py>(&self, py: Python<'py>, record: &Record<'_>) -> PyResult<Bound<'py, PyDict>> {
        let atoms = loggers::new_atoms(py, self.atoms(record))?;
        if let Some(environ) = kept_environ(record) {
            for (key, value) in environ.bind(py) {
                if let (Ok(key), Ok(value)) = (key.extract::<String>(), value.cast::<PyString>()) {
                    atoms.set_item(name(key.as_bytes(), 'e'), text(value.to_string_lossy().as_bytes()))?;
                }
            }
        }
        Ok(atoms)
    }
}

fn kept_environ<'a>(record: &Record<'a>) -> Option<&'a Py<PyDict>> {
    let kept = record.request.log_context().and_then(|context| context.downcast_ref::<KeptEnviron>());
    kept.map(|KeptEnviron(environ)| environ)
}

/// A request for a `logger_class`.
fn finished_request(record: &Record<'_>) -> FinishedRequest {
    let request = record.request;
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let variables = vec![
        ("REQUEST_METHOD", request.method().to_owned()),
        ("RAW_URI", text(request.target().as_bytes())),
        ("PATH_INFO", text(request.path())),
        ("QUERY_STRING", text(request.query())),
        ("SERVER_PROTOCOL", request.version().as_str().to_owned()),
        ("REMOTE_ADDR", request.peer_address().to_owned()),
        ("REMOTE_PORT", request.peer_port().to_string()),
        ("wsgi.url_scheme", "http".to_owned()),
    ];
    let Record { status, sent, took, .. } = *record;
    FinishedRequest { variables, status, head: record.head.to_vec(), sent, took }
}

/// The name of an atom in braces.
fn name(name: &[u8], kind: char) -> String {
    format!("{{{}}}{kind}", String::from_utf8_lossy(name).to_lowercase())
}

fn text(value: &[u8]) -> String {
    let mut escaped = Vec::new();
    atoms::escape(&mut escaped, value);
    String::from_utf8_lossy(&escaped).into_owned()
}

/// Writes a line of the logger `gunicorn.access`, if there is an access log.
pub(super) fn write_line(text: &str) {
    if let Some(access) = in_use() {
        access.native.write_line(text.as_bytes().to_vec());
    }
}

/// Other records are needed now.
pub(super) fn logger_changed() {
    if let Some(access) = in_use() {
        access.wants_head.store(access.native.wants_head() || access.uses_logger(), Ordering::Relaxed);
    }
}

fn in_use() -> Option<Arc<PythonAccessLog>> {
    IN_USE.read().unwrap_or_else(PoisonError::into_inner).upgrade()
}

impl AccessLogger for PythonAccessLog {
    fn wants_environ(&self) -> bool {
        self.uses_logger() || !self.native.format.environ.is_empty()
    }

    fn wants_head(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.wants_head)
    }

    fn keep(&self, environ: &Bound<'_, PyDict>, request: &mut Request) {
        if self.uses_logger() {
            request.set_log_context(Box::new(KeptEnviron(environ.clone().unbind())));
        } else if !self.native.format.environ.is_empty() {
            let values = self.native.format.environ.iter().map(|name| variable(environ, name)).collect();
            request.set_log_context(Box::new(EnvironValues(values)));
        }
    }

    fn write(&self, record: &Record<'_>) {
        if self.uses_logger() {
            self.native.count(record);
            if loggers::has_logger_class() {
                return loggers::log_request(finished_request(record), kept_environ(record));
            }
            loggers::log_access(&self.message(record), |py| self.python_atoms(py, record));
        } else {
            self.native.write(record);
        }
    }

    fn can_write_later(&self) -> bool {
        !self.uses_logger()
    }

    fn write_later(&self, record: &Record<'_>) {
        if self.uses_logger() {
            self.native.count(record);
            if loggers::has_logger_class() {
                return loggers::log_request_later(finished_request(record));
            }
            loggers::log_access_later(self.message(record), self.atoms(record));
        } else {
            self.native.write(record);
        }
    }
}

/// A variable of the environ as text. Formats written for gunicorn have its name in lower case.
fn variable(environ: &Bound<'_, PyDict>, name: &str) -> Option<String> {
    let found = |name: &str| environ.get_item(name).ok().flatten();
    let value =
        found(name).or_else(|| found(&name.to_uppercase())).or_else(|| found(&name.to_lowercase()))?;
    value.str().ok().map(|text| text.to_string_lossy().into_owned())
}
