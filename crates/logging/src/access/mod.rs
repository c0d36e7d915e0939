//! The access log: a line for each finished request.

pub mod atoms;
mod environ_values;
mod format;

use std::{io, path::Path, sync::Arc};

use jiff::tz::TimeZone;
use mlws_server::Record;
use mlws_sys::Credentials;
use rustix::fs::Mode;

pub use self::{atoms::Atom, environ_values::EnvironValues, format::Format};
use crate::{level::Level, log_file::LogFile, statsd::Statsd, syslog::Syslog};

/// The mode of a new file. It contains addresses and what clients have requested.
const MODE: Mode = Mode::from_raw_mode(0o640);

/// Where finished requests are logged.
pub struct AccessLog {
    pub format: Format,
    pub zone: TimeZone,
    pub file: Option<LogFile>,
    pub syslog: Option<Arc<Syslog>>,
    pub statsd: Option<Arc<Statsd>>,
}

impl AccessLog {
    /// Opens the file of an access log, or stdout if `path` is `-`. A new file belongs to `owner`.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn open_file(path: &Path, owner: Option<&Credentials>) -> io::Result<LogFile> {
        if path.as_os_str() == "-" { LogFile::stdout() } else { LogFile::open(path, MODE, owner) }
    }

    /// Whether the format needs the head of the response.
    pub fn wants_head(&self) -> bool {
        self.format.wants_head
    }

    /// Appends the line of a request, without a line break.
    pub fn format_line(&self, line: &mut Vec<u8>, record: &Record<'_>) {
        self.format.write(line, record, &self.zone);
    }

    /// Logs a request. A full disk or a broken pipe loses the line and nothing else.
    pub fn write(&self, record: &Record<'_>) {
        self.count(record);
        if !self.has_lines() {
            return;
        }
        let mut line = Vec::with_capacity(256);
        self.format_line(&mut line, record);
        self.write_line(line);
    }

    /// Whether anything gets lines.
    pub fn has_lines(&self) -> bool {
        self.file.is_some() || self.syslog.is_some()
    }

    /// Writes a line, which has no line break at its end.
    pub fn write_line(&self, mut line: Vec<u8>) {
        if let Some(syslog) = &self.syslog {
            syslog.send(Level::Info, "access", &line);
        }
        line.push(b'\n');
        if let Some(lost) = self.file.as_ref().and_then(|file| file.write(&line)) {
            log::warn!("access log: {lost} lines lost: the reader is too slow");
        }
    }

    /// Sends the metrics of a request to statsd.
    pub fn count(&self, record: &Record<'_>) {
        if let Some(statsd) = &self.statsd {
            statsd.answered(record.status, record.took);
        }
    }

    /// Follows stdout to its new target.
    pub fn reopen_stdio(&self) {
        if let Some(file) = &self.file {
            file.reopen_if_stdio();
        }
    }

    /// Reopens the file, after it was moved away.
    pub fn reopen(&self) {
        if let Some(file) = &self.file {
            file.reopen();
        }
    }
}
