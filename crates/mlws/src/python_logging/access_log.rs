//! The access log: in a file, syslog and statsd, or in Python's `logging`.

use std::{io, path::Path, sync::Arc};

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
    handler_queue::{AccessAtoms, AtomValue},
    loggers,
};

pub(crate) struct AccessLog {
    native: mlws_logging::AccessLog,
    /// Python's `logging` gets the lines, and nothing else does.
    is_python: bool,
}

/// The whole environ, kept for Python's `logging` until the request is logged.
struct KeptEnviron(Py<PyDict>);

impl AccessLog {
    /// Opens the access log. `None` if nothing gets its lines.
    pub(crate) fn open(
        path: Option<&Path>,
        format: &Format,
        credentials: Option<&Credentials>,
        syslog: Option<Arc<Syslog>>,
        statsd: Option<Arc<Statsd>>,
    ) -> io::Result<Option<Self>> {
        let is_python = loggers::handles_access_log();
        let path = path.filter(|_| !is_python);
        let file = path.map(|path| mlws_logging::AccessLog::open_file(path, credentials)).transpose()?;
        let syslog = syslog.filter(|_| !is_python);
        if file.is_none() && syslog.is_none() && statsd.is_none() && !is_python {
            return Ok(None);
        }
        for name in &format.unknown {
            log::warn!("--access-logformat: unknown atom %({name})s, logged as -");
        }
        let (format, zone) = (format.clone(), TimeZone::system());
        Ok(Some(Self { native: mlws_logging::AccessLog { format, zone, file, syslog, statsd }, is_python }))
    }

    pub(crate) fn is_python(&self) -> bool {
        self.is_python
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
        let kept = record.request.log_context().and_then(|context| context.downcast_ref::<KeptEnviron>());
        if let Some(KeptEnviron(environ)) = kept {
            for (key, value) in environ.bind(py) {
                if let (Ok(key), Ok(value)) = (key.extract::<String>(), value.cast::<PyString>()) {
                    atoms.set_item(name(key.as_bytes(), 'e'), text(value.to_string_lossy().as_bytes()))?;
                }
            }
        }
        Ok(atoms)
    }
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

impl AccessLogger for AccessLog {
    fn wants_environ(&self) -> bool {
        self.is_python || !self.native.format.environ.is_empty()
    }

    fn wants_head(&self) -> bool {
        self.native.wants_head() || self.is_python
    }

    fn keep(&self, environ: &Bound<'_, PyDict>, request: &mut Request) {
        if self.is_python {
            request.set_log_context(Box::new(KeptEnviron(environ.clone().unbind())));
        } else if !self.native.format.environ.is_empty() {
            let values = self.native.format.environ.iter().map(|name| variable(environ, name)).collect();
            request.set_log_context(Box::new(EnvironValues(values)));
        }
    }

    fn write(&self, record: &Record<'_>) {
        if self.is_python {
            self.native.count(record);
            loggers::log_access(&self.message(record), |py| self.python_atoms(py, record));
        } else {
            self.native.write(record);
        }
    }

    fn can_write_later(&self) -> bool {
        !self.is_python
    }

    fn write_later(&self, record: &Record<'_>) {
        if self.is_python {
            self.native.count(record);
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
