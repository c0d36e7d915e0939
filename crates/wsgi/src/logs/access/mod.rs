//! The access log: a line for each finished request, in the format that was asked for; and what else hears of each request.
//!
//! | module     | what it holds |
//! |------------|---|
//! | [`format`] | from a format to a line |
//! | [`atoms`]  | what a format can name, escaped |

mod atoms;
mod format;

use std::{io, path::Path, sync::Arc};

use jiff::tz::TimeZone;
use mlws_server::{Record, Request};
use pyo3::{
    prelude::*,
    types::{PyDict, PyString},
};
use rustix::fs::Mode;

use self::atoms::Atom;
pub(crate) use self::format::Format;
use crate::{
    logs::{
        logfile::LogFile,
        logging::Level,
        python::{self, Atoms},
        statsd::Statsd,
        syslog::Syslog,
    },
    process::Identity,
};

/// Of a new file, which holds addresses and what clients have asked for.
const MODE: Mode = Mode::from_raw_mode(0o640);

pub(crate) struct AccessLog {
    format: Format,
    zone: TimeZone,
    file: Option<LogFile>,
    syslog: Option<Arc<Syslog>>,
    statsd: Option<Arc<Statsd>>,
    /// Python's logging has the lines, and nobody else.
    is_pythons: bool,
}

/// What is kept of the environ until the request is logged.
enum Kept {
    /// What the format names.
    Values(Vec<Option<String>>),
    /// All of it, for Python's logging.
    All(Py<PyDict>),
}

impl AccessLog {
    /// Opens a file to append to it, for `identity` if there is one; or stdout where `path` is `-`. Nothing where nobody would hear of
    /// requests.
    pub(crate) fn open(
        path: Option<&Path>,
        format: &Format,
        identity: Option<&Identity>,
        syslog: Option<Arc<Syslog>>,
        statsd: Option<Arc<Statsd>>,
    ) -> io::Result<Option<Self>> {
        let is_pythons = python::takes_access();
        let file = path.filter(|_| !is_pythons).map(|path| match path.as_os_str() {
            dash if dash == "-" => LogFile::stdout(),
            _ => LogFile::open(path, MODE, identity),
        });
        let (file, syslog) = (file.transpose()?, syslog.filter(|_| !is_pythons));
        if file.is_none() && syslog.is_none() && statsd.is_none() && !is_pythons {
            return Ok(None);
        }
        for name in &format.unknown {
            log::warn!("--access-logformat: there is no atom %({name})s, so it is always -");
        }
        Ok(Some(Self { format: format.clone(), zone: TimeZone::system(), file, syslog, statsd, is_pythons }))
    }

    pub(crate) fn is_pythons(&self) -> bool {
        self.is_pythons
    }

    /// Opens the file anew, after something has moved it away. Where that fails, the old one goes on.
    pub(crate) fn reopen(&self) {
        if let Some(file) = &self.file {
            file.reopen();
        }
    }

    /// stdout leads elsewhere now.
    pub(crate) fn follow_stdout(&self) {
        if let Some(file) = &self.file {
            file.follow();
        }
    }

    /// Whether the heads of responses are wanted.
    pub(crate) fn wants_head(&self) -> bool {
        self.format.wants_head || self.is_pythons
    }

    /// Keeps with the request what is wanted of its environ, if anything is.
    pub(crate) fn keep(&self, environ: &Bound<'_, PyDict>, request: &mut Request) {
        if self.is_pythons {
            request.keep(Box::new(Kept::All(environ.clone().unbind())));
        } else if !self.format.environ.is_empty() {
            let values = self.format.environ.iter().map(|name| variable(environ, name)).collect();
            request.keep(Box::new(Kept::Values(values)));
        }
    }

    /// Whether [`keep`](Self::keep) would keep anything.
    pub(crate) fn wants_environ(&self) -> bool {
        self.is_pythons || !self.format.environ.is_empty()
    }

    /// Tells of one request. A full disk or a broken pipe loses the line and nothing else.
    pub(crate) fn write(&self, record: &Record<'_>) {
        if let Some(statsd) = &self.statsd {
            statsd.answered(record.status, record.took);
        }
        if self.is_pythons {
            return self.tell_python(record);
        }
        if self.file.is_none() && self.syslog.is_none() {
            return;
        }
        let mut line = Vec::with_capacity(256);
        self.format.write(&mut line, record, &self.zone);
        if let Some(syslog) = &self.syslog {
            syslog.send(Level::Info, "access", &line);
        }
        line.push(b'\n');
        if let Some(lost) = self.file.as_ref().and_then(|file| file.write(&line)) {
            log::warn!("{lost} lines of the access log are lost: there was no room for them");
        }
    }

    fn tell_python(&self, record: &Record<'_>) {
        if self.format.is_json() {
            let mut line = Vec::new();
            self.format.write(&mut line, record, &self.zone);
            let line = String::from_utf8_lossy(&line).replace('%', "%%");
            return python::tell_access(&line, |py| Ok(self.atoms(py, record)?.into_any()));
        }
        python::tell_access(&self.format.text, |py| Ok(self.atoms(py, record)?.into_any()));
    }

    /// All atoms there are, as gunicorn's logger has them.
    fn atoms<'py>(&self, py: Python<'py>, record: &Record<'_>) -> PyResult<Bound<'py, PyDict>> {
        let atoms = py.get_type::<Atoms>().call0()?.cast_into::<PyDict>()?;
        let text = |value: &[u8]| {
            let mut escaped = Vec::new();
            atoms::escape(&mut escaped, value);
            String::from_utf8_lossy(&escaped).into_owned()
        };
        let name = |name: &[u8], kind| format!("{{{}}}{kind}", String::from_utf8_lossy(name).to_lowercase());
        atoms.set_item("l", "-")?;
        for (letter, atom) in Atom::LETTERS {
            let mut value = Vec::new();
            atom.write(&mut value, record, &self.zone);
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
        if let Some(Kept::All(environ)) = Kept::of(record) {
            for (key, value) in environ.bind(py) {
                if let (Ok(key), Ok(value)) = (key.extract::<String>(), value.cast::<PyString>()) {
                    atoms.set_item(name(key.as_bytes(), 'e'), text(value.to_string_lossy().as_bytes()))?;
                }
            }
        }
        Ok(atoms)
    }
}

impl Kept {
    fn of<'a>(record: &Record<'a>) -> Option<&'a Self> {
        record.request.kept()?.downcast_ref()
    }
}

/// A variable of the environ as text. Those who write formats for gunicorn write its name in lower case.
fn variable(environ: &Bound<'_, PyDict>, name: &str) -> Option<String> {
    let found = |name: &str| environ.get_item(name).ok().flatten();
    let value =
        found(name).or_else(|| found(&name.to_uppercase())).or_else(|| found(&name.to_lowercase()))?;
    value.str().ok().map(|text| text.to_string_lossy().into_owned())
}
