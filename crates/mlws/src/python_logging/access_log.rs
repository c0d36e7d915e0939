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

use super::loggers;

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

    fn write_to_python(&self, record: &Record<'_>) {
        let format = &self.native.format;
        if !format.is_json() {
            return loggers::log_access(&format.text, |py| Ok(self.atoms(py, record)?.into_any()));
        }
        let mut line = Vec::new();
        self.native.format_line(&mut line, record);
        let line = String::from_utf8_lossy(&line).replace('%', "%%");
        loggers::log_access(&line, |py| Ok(self.atoms(py, record)?.into_any()));
    }

    /// All atoms of a request, as gunicorn's logger has them.
    fn atoms<'py>(&self, py: Python<'py>, record: &Record<'_>) -> PyResult<Bound<'py, PyDict>> {
        let atoms = loggers::new_atoms(py)?;
        let text = |value: &[u8]| {
            let mut escaped = Vec::new();
            atoms::escape(&mut escaped, value);
            String::from_utf8_lossy(&escaped).into_owned()
        };
        let name = |name: &[u8], kind| format!("{{{}}}{kind}", String::from_utf8_lossy(name).to_lowercase());
        atoms.set_item("l", "-")?;
        for (letter, atom) in Atom::ATOMS {
            let mut value = Vec::new();
            atom.write(&mut value, record, &self.native.zone);
            let value = String::from_utf8_lossy(&value).into_owned();
            match value.parse::<u64>() {
                Ok(number) if matches!(letter, "B" | "T" | "M" | "D") => atoms.set_item(letter, number)?,
                _ => atoms.set_item(letter, value)?,
            }
        }
        for field in record.request.fields() {
            atoms.set_item(name(field.0, 'i'), text(field.1))?;
        }
        for field in atoms::fields(record.head) {
            atoms.set_item(name(field.0, 'o'), text(field.1))?;
        }
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
            self.write_to_python(record);
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
