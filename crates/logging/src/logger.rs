//! What the server tells its operator: lines such as `[2026-11-22 20:34:20 +0000] [1234] [INFO] text`, or JSON, on stderr or in a file.
//!
//! A record is one write, however many lines it has, so that the lines of several processes do not mix; and a log that
//! is closed, full of errors or not read never stops anything. Until the server is up, errors are shown on stderr in any case.
//!
//! The one thing to know: where Python's logging is to have the records (`--log-config`), it gets those of threads that are attached
//! to the interpreter. Others must not wait for it, for whoever holds it may be what they have to tell of: theirs are written here.
//! What the event loop logs reaches Python's handlers by way of the handler thread of the crate `mlws`.

use std::{
    fmt::Arguments,
    fs::File,
    io::{IsTerminal, stderr},
    os::fd::{AsRawFd, IntoRawFd, RawFd},
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::Zoned;
use log::{LevelFilter, Log, Metadata, Record};

use crate::{json, level::Level, log_file::LogFile, statsd::Statsd, syslog::Syslog};

/// Records with this target tell of an exception.
pub const EXCEPTION: &str = "exception";

/// Gets each record first. Returns whether it has handled the record.
pub type RecordHandler = fn(Level, &str) -> bool;

static RECORD_HANDLER: OnceLock<RecordHandler> = OnceLock::new();
static TARGETS: RwLock<LogTargets> = RwLock::new(LogTargets::NONE);
/// Whether somebody may still look at stderr to see the server come up.
static STARTUP: AtomicBool = AtomicBool::new(true);

/// Where records go.
pub struct LogTargets {
    stderr: Option<LogFile>,
    /// In place of stderr.
    pub file: Option<LogFile>,
    /// Beside it.
    pub syslog: Option<Arc<Syslog>>,
    /// Where they are counted.
    pub statsd: Option<Arc<Statsd>>,
    json: bool,
    colours: bool,
    captures: bool,
}

impl LogTargets {
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
pub fn start(level: LevelFilter, json: bool) {
    keep_standard_descriptors();
    // It fails if there is a logger already: this one, or one that was wanted more.
    let _ = log::set_logger(&Logger);
    log::set_max_level(level);
    STARTUP.store(true, Ordering::Relaxed);
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = !json && !plain && stderr().is_terminal();
    *targets_mut() = LogTargets { stderr: LogFile::stderr().ok(), json, colours, ..LogTargets::NONE };
    // A panic may come from anywhere: it must not wait, for Python or for a reader.
    std::panic::set_hook(Box::new(|panic| write_record(Level::Error, &panic.to_string())));
}

/// Sets the function that gets each record first, once for the process.
pub fn set_record_handler(handler: RecordHandler) {
    let _ = RECORD_HANDLER.set(handler);
}

/// Shows records from this level on, in this form.
pub fn reconfigure(level: LevelFilter, json: bool) {
    log::set_max_level(level);
    targets_mut().json = json;
}

/// The places where records go, to be changed by the one thread that starts.
pub fn targets_mut() -> RwLockWriteGuard<'static, LogTargets> {
    TARGETS.write().unwrap_or_else(PoisonError::into_inner)
}

/// The server is up: errors are for the file alone, if there is one.
pub fn startup_finished() {
    STARTUP.store(false, Ordering::Relaxed);
}

/// What this process writes to stdout and stderr goes to the log's file from now on, if there is one. The log itself still finds the
/// stderr that was.
pub fn capture() {
    let captured = targets_mut().file.as_ref().map_or(Ok(()), LogFile::capture);
    match captured {
        Ok(()) => targets_mut().captures = true,
        Err(error) => log::error!("what the application writes is not captured: {error}"),
    }
}

/// stdout and stderr lead elsewhere now.
pub fn reopen_stdio() {
    if let Some(stderr) = &targets().stderr {
        stderr.reopen_if_stdio();
    }
}

/// Opens the file anew, after something has moved it away. Where that fails, the old one goes on.
pub fn reopen() {
    let targets = targets();
    let Some(file) = &targets.file else { return };
    file.reopen();
    if targets.captures {
        drop(targets);
        capture();
    }
}

/// Where the log goes now; it stays the same number when the file is opened anew.
pub fn descriptor() -> RawFd {
    let targets = targets();
    targets.file.as_ref().or(targets.stderr.as_ref()).map_or(2, LogFile::descriptor)
}

fn targets() -> RwLockReadGuard<'static, LogTargets> {
    TARGETS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a record that no level hides: why a process cannot do its work at all.
pub fn critical(text: &str) {
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
    let statsd = targets().statsd.clone();
    if let Some(statsd) = statsd {
        statsd.logged(level, target == EXCEPTION);
    }
    if !RECORD_HANDLER.get().is_some_and(|handle| handle(level, &text)) {
        write_record(level, &text);
    }
}

/// Writes a record that Python's logging should have had, but cannot take.
pub fn write_directly(level: Level, text: &str) {
    write_record(level, text);
}

/// Writes a record where no one can make it wait.
fn write_record(level: Level, text: &str) {
    let targets = targets();
    let (now, process) = (Zoned::now(), std::process::id());
    let compose = |name: &str| {
        if targets.json {
            return as_json(&now, process, name, text);
        }
        format!("[{}] [{process}] [{name}] {text}\n", now.strftime("%Y-%m-%d %H:%M:%S %z")).into_bytes()
    };
    let line = compose(level.name());
    let mut lost = targets.file.as_ref().and_then(|file| file.write(&line));
    let is_for_all = level >= Level::Error && STARTUP.load(Ordering::Relaxed);
    if let Some(stderr) = targets.stderr.as_ref().filter(|_| targets.file.is_none() || is_for_all) {
        let coloured =
            targets.colours.then(|| compose(&format!("\x1b[{}m{}\x1b[0m", level.colour(), level.name())));
        lost = lost.or(stderr.write(coloured.as_ref().unwrap_or(&line)));
    }
    if let Some(syslog) = &targets.syslog {
        syslog.send(level, "error", text.as_bytes());
    }
    drop(targets);
    if let Some(lost) = lost {
        write_record(
            Level::Warning,
            &format!("{lost} records of this log are lost: there was no room for them"),
        );
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
