//! What the server tells its operator: lines such as `[2026-11-22 20:34:20 +0000] [1234] [INFO] text`, or JSON, on stderr or in a file.
//!
//! A record is one write, however many lines it has, so that the lines of several processes do not mix; and a log that
//! is closed, full of errors or not read never stops anything. Until the server is up, errors are shown on stderr in any case.
//!
//! The one thing to know: where Python's logging is to have the records (`--log-config`), it gets those of threads that are attached
//! to the interpreter. Others must not wait for it, for whoever holds it may be what they have to tell of: theirs are written here.
//! What the event loop logs reaches Python's handlers by way of [`handler_thread`](super::handler_thread).

use std::{
    fmt::Arguments,
    fs::File,
    io::{IsTerminal, stderr},
    os::fd::{AsRawFd, IntoRawFd, RawFd},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Zoned;
use log::{LevelFilter, Log, Metadata, Record};

use crate::logs::{json, logfile::LogFile, python, statsd::Statsd, syslog::Syslog};

/// Records with this target tell of an exception.
pub(crate) const EXCEPTION: &str = "exception";

static OUTLETS: RwLock<Outlets> = RwLock::new(Outlets::NONE);
/// Whether somebody may still look at stderr to see the server come up.
static STARTING: AtomicBool = AtomicBool::new(true);

/// Where records go.
pub(crate) struct Outlets {
    stderr: Option<LogFile>,
    /// In place of stderr.
    pub(crate) file: Option<LogFile>,
    /// Beside it.
    pub(crate) syslog: Option<Arc<Syslog>>,
    /// Where they are counted.
    pub(crate) statsd: Option<Arc<Statsd>>,
    json: bool,
    colours: bool,
    captures: bool,
}

/// How bad it is, by the names of Python's logging.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug = 10,
    Info = 20,
    Warning = 30,
    Error = 40,
    Critical = 50,
}

impl Level {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warning => "WARNING",
            Self::Error => "ERROR",
            Self::Critical => "CRITICAL",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Debug => "2",
            Self::Info => "32",
            Self::Warning => "33",
            Self::Error | Self::Critical => "31",
        }
    }
}

impl Outlets {
    const NONE: Self = Self {
        stderr: None,
        file: None,
        syslog: None,
        statsd: None,
        json: false,
        colours: false,
        captures: false,
    };
}

/// Shows records from this level on, on stderr. A second call in the same process begins anew.
pub(crate) fn start(level: LevelFilter, json: bool) {
    keep_standard_descriptors();
    // It fails if there is a logger already: this one, or one that was wanted more.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
    STARTING.store(true, Ordering::Relaxed);
    python::forget();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = !json && !plain && stderr().is_terminal();
    *change() = Outlets { stderr: LogFile::stderr().ok(), json, colours, ..Outlets::NONE };
    // A panic may come from anywhere: it must not wait, for Python or for a reader.
    std::panic::set_hook(Box::new(|panic| put_down(Level::Error, &panic.to_string())));
}

/// Shows records from this level on, in this form.
pub(crate) fn follow(level: LevelFilter, json: bool) {
    log::set_max_level(level);
    change().json = json;
}

/// The places where records go, to be changed by the one thread that starts.
pub(crate) fn change() -> RwLockWriteGuard<'static, Outlets> {
    OUTLETS.write().unwrap_or_else(PoisonError::into_inner)
}

/// The server is up: errors are for the file alone, if there is one.
pub(crate) fn settle() {
    STARTING.store(false, Ordering::Relaxed);
}

/// What this process writes to stdout and stderr goes to the log's file from now on, if there is one. The log itself still finds the
/// stderr that was.
pub(crate) fn capture() {
    let captured = change().file.as_ref().map_or(Ok(()), LogFile::capture);
    match captured {
        Ok(()) => change().captures = true,
        Err(error) => log::error!("what the application writes is not captured: {error}"),
    }
}

/// stdout and stderr lead elsewhere now.
pub(crate) fn follow_streams() {
    if let Some(stderr) = &outlets().stderr {
        stderr.follow();
    }
}

/// Opens the file anew, after something has moved it away. Where that fails, the old one goes on.
pub(crate) fn reopen() {
    let outlets = outlets();
    let Some(file) = &outlets.file else { return };
    file.reopen();
    if outlets.captures {
        drop(outlets);
        capture();
    }
}

/// Where the log goes now; it stays the same number when the file is opened anew.
pub(crate) fn descriptor() -> RawFd {
    let outlets = outlets();
    outlets.file.as_ref().or(outlets.stderr.as_ref()).map_or(2, LogFile::descriptor)
}

fn outlets() -> RwLockReadGuard<'static, Outlets> {
    OUTLETS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a record that no level hides: why a process cannot do its work at all.
pub(crate) fn critical(text: &str) {
    write(Level::Critical, format_args!("{text}"), "");
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

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warning,
            log::Level::Info => Level::Info,
            log::Level::Debug | log::Level::Trace => Level::Debug,
        };
        if self.enabled(record.metadata()) {
            write(level, *record.args(), record.target());
        }
    }

    fn flush(&self) {}
}

fn write(level: Level, text: Arguments<'_>, target: &str) {
    let text = text.to_string();
    let statsd = outlets().statsd.clone();
    if let Some(statsd) = statsd {
        statsd.logged(level, target == EXCEPTION);
    }
    if !python::tell(level, &text) {
        put_down(level, &text);
    }
}

/// Writes a record that Python's logging should have had, but cannot take.
pub(crate) fn write_natively(level: Level, text: &str) {
    put_down(level, text);
}

/// Writes a record where no one can make it wait.
fn put_down(level: Level, text: &str) {
    let outlets = outlets();
    let (now, process) = (Zoned::now(), std::process::id());
    let compose = |name: &str| {
        if outlets.json {
            return as_json(&now, process, name, text);
        }
        format!("[{}] [{process}] [{name}] {text}\n", now.strftime("%Y-%m-%d %H:%M:%S %z")).into_bytes()
    };
    let line = compose(level.name());
    let mut lost = outlets.file.as_ref().and_then(|file| file.write(&line));
    let is_for_all = level >= Level::Error && STARTING.load(Ordering::Relaxed);
    if let Some(stderr) = outlets.stderr.as_ref().filter(|_| outlets.file.is_none() || is_for_all) {
        let coloured =
            outlets.colours.then(|| compose(&format!("\x1b[{}m{}\x1b[0m", level.colour(), level.name())));
        lost = lost.or(stderr.write(coloured.as_ref().unwrap_or(&line)));
    }
    if let Some(syslog) = &outlets.syslog {
        syslog.send(level, "error", text.as_bytes());
    }
    drop(outlets);
    if let Some(lost) = lost {
        put_down(Level::Warning, &format!("{lost} records of this log are lost: there was no room for them"));
    }
}

fn as_json(now: &Zoned, process: u32, level: &str, text: &str) -> Vec<u8> {
    let time = now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z");
    let mut line =
        format!("{{\"time\": \"{time}\", \"level\": \"{level}\", \"pid\": {process}, \"message\": ")
            .into_bytes();
    json::string(&mut line, text.as_bytes());
    line.extend_from_slice(b"}\n");
    line
}
