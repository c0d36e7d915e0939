//! The access log: a line for each finished request, in the combined format that log readers know.
//!
//! Whatever a client sent is escaped, so that no client can end a line, start another, or leave its quotes.

use std::{
    io::{self, Write},
    path::Path,
    time::SystemTime,
};

use jiff::{Timestamp, tz::TimeZone};
use mlws_server::Record;

use crate::{logfile::LogFile, process::Identity};

pub(crate) struct AccessLog {
    /// None is stdout.
    file: Option<LogFile>,
    zone: TimeZone,
}

impl AccessLog {
    /// Opens a file to append to it, for `identity` if there is one; or stdout where `path` is `-`.
    pub(crate) fn open(path: &Path, identity: Option<&Identity>) -> io::Result<Self> {
        let file = (path.as_os_str() != "-").then(|| LogFile::open(path, identity)).transpose()?;
        Ok(Self { file, zone: TimeZone::system() })
    }

    /// Opens the file anew, after something has moved it away. Where that fails, the old one goes on; stdout is left alone.
    pub(crate) fn reopen(&self) {
        if let Some(file) = &self.file {
            file.reopen();
        }
    }

    /// Writes the line of one request, in one piece. A full disk or a broken pipe loses the line and nothing else.
    pub(crate) fn write(&self, record: &Record<'_>) {
        let mut line = Vec::with_capacity(256);
        if self.compose(&mut line, record).is_err() {
            return;
        }
        if let Some(file) = &self.file {
            file.write(&line);
        } else {
            let _ = io::stdout().write_all(&line); // it is a whole line, so it is not held back
        }
    }

    fn compose(&self, line: &mut Vec<u8>, record: &Record<'_>) -> io::Result<()> {
        let request = record.request;
        let peer = Some(request.peer_address()).filter(|address| !address.is_empty()).unwrap_or("-");
        write!(line, "{peer} - - [{}] \"", self.date(record.at))?;
        escape(line, request.method().as_bytes());
        line.push(b' ');
        escape(line, request.target().as_bytes());
        write!(line, " {}\" {} {} \"", request.version().as_str(), record.status, record.sent)?;
        escape(line, request.field("Referer").unwrap_or(b"-"));
        line.extend_from_slice(b"\" \"");
        escape(line, request.field("User-Agent").unwrap_or(b"-"));
        line.extend_from_slice(b"\"\n");
        Ok(())
    }

    fn date(&self, at: SystemTime) -> impl std::fmt::Display {
        let at = Timestamp::try_from(at).unwrap_or_default().to_zoned(self.zone.clone());
        jiff::fmt::strtime::format("%d/%b/%Y:%H:%M:%S %z", &at).unwrap_or_default()
    }
}

/// Appends `text` with everything but harmless ASCII as `\xNN`.
fn escape(line: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b' '..=b'~' if !matches!(byte, b'"' | b'\\') => line.push(byte),
            _ => {
                let digit = |nibble| b"0123456789abcdef"[usize::from(nibble & 15)];
                line.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_can_forge_a_line_or_leave_its_quotes() {
        let mut line = Vec::new();
        escape(&mut line, b"a b\r\n\"\\\x7f\x1b[31m\xc3\xa9\t");
        assert_eq!(line, br"a b\x0d\x0a\x22\x5c\x7f\x1b[31m\xc3\xa9\x09");
    }
}
