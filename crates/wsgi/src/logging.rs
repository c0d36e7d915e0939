//! What the server tells its operator: lines such as `[2026-11-22 20:34:20 +0000] [1234] [INFO] text`, on stderr or in a file.
//!
//! A record is one write, however many lines it has, so that the lines of several processes do not mix; and a stderr
//! that is closed or full of errors never stops anything. Until the server is up, errors are shown on stderr in any case.

use std::{
    fmt::{Arguments, Write as _},
    fs::File,
    io::Write as _,
    os::fd::{AsRawFd, IntoRawFd, RawFd},
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Zoned;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::logfile::LogFile;

/// Where records go; stderr where there is none.
static FILE: RwLock<Option<LogFile>> = RwLock::new(None);
/// Whether somebody may still look at stderr to see the server come up.
static STARTING: AtomicBool = AtomicBool::new(true);

/// Shows records from this level on, on stderr. A second call in the same process begins anew.
pub(crate) fn start(level: LevelFilter) {
    keep_standard_descriptors();
    // It fails if there is a logger already: this one, or one that was wanted more.
    let _ = log::set_logger(&Stderr);
    log::set_max_level(level);
    STARTING.store(true, Ordering::Relaxed);
    *FILE.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Shows records from this level on.
pub(crate) fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// From now on records go to this file, and errors to stderr as well until [`settle`].
pub(crate) fn write_to(file: LogFile) {
    *FILE.write().unwrap_or_else(PoisonError::into_inner) = Some(file);
}

/// The server is up: errors are for the file alone, if there is one.
pub(crate) fn settle() {
    STARTING.store(false, Ordering::Relaxed);
}

/// Opens the file anew, after something has moved it away. Where that fails, the old one goes on.
pub(crate) fn reopen() {
    if let Some(file) = &*file() {
        file.reopen();
    }
}

/// Where the log goes now; it stays the same number when the file is opened anew.
pub(crate) fn descriptor() -> RawFd {
    file().as_ref().map_or(2, LogFile::descriptor)
}

fn file() -> RwLockReadGuard<'static, Option<LogFile>> {
    FILE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a record that no level hides: why a process cannot do its work at all.
pub(crate) fn critical(text: &str) {
    write("CRITICAL", format_args!("{text}"));
}

/// Where the process was started with stdin, stdout or stderr closed, a client's socket would get that number, and then
/// our lines.
fn keep_standard_descriptors() {
    while let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > 2 {
            break;
        }
        let _kept_open = null.into_raw_fd();
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Error => "ERROR",
            Level::Warn => "WARNING",
            Level::Info => "INFO",
            Level::Debug | Level::Trace => "DEBUG",
        };
        if self.enabled(record.metadata()) {
            write(level, *record.args());
        }
    }

    fn flush(&self) {}
}

fn write(level: &str, text: Arguments<'_>) {
    let (now, process) = (Zoned::now(), std::process::id());
    let mut line = String::with_capacity(128);
    let written = writeln!(line, "[{}] [{process}] [{level}] {text}", now.strftime("%Y-%m-%d %H:%M:%S %z"));
    debug_assert!(written.is_ok(), "a value in a record failed to show itself");
    let file = file();
    if let Some(file) = &*file {
        file.write(line.as_bytes());
    }
    if file.is_none() || (matches!(level, "ERROR" | "CRITICAL") && STARTING.load(Ordering::Relaxed)) {
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
