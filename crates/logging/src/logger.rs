//! The error log: lines such as `[2026-11-22 20:34:20 +0000] [1234] [INFO] text`, or JSON, to stderr or to a file.
//!
//! A message cannot forge a record: in text logs its further lines are indented and its control characters escaped.
//!
//! A record is a single write, even if it has several lines, so that the records of several processes do not mix. A log
//! that is closed, broken or not read never blocks the server. Until startup has finished, errors also go to stderr.
//!
//! With `--log-config`, records go to Python's `logging`, but only from threads that are attached to the interpreter.
//! Other threads must not wait for the GIL, because its holder may be the reason for the record; their records are
//! written here. Records of the event loop reach Python's handlers through the handler thread of the crate `mlws`.

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

use crate::{
    app_output, json, level::Level, log_file::LogFile, statsd::Statsd, syslog::Syslog, text::escape,
};

/// Target of records that describe a Python exception.
pub const EXCEPTION: &str = "exception";

/// Receives each record first. Returns whether it has handled the record.
pub type RecordHandler = fn(Level, &str) -> bool;

static RECORD_HANDLER: OnceLock<RecordHandler> = OnceLock::new();
static TARGETS: RwLock<LogTargets> = RwLock::new(LogTargets::NONE);
/// Whether the server is still starting, so that errors also go to stderr.
static STARTUP: AtomicBool = AtomicBool::new(true);

/// Where records go.
pub struct LogTargets {
    stderr: Option<LogFile>,
    /// Replaces stderr.
    pub file: Option<LogFile>,
    /// In addition to the file or stderr.
    pub syslog: Option<Arc<Syslog>>,
    /// Counts records by level.
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

/// Starts logging to stderr. A second call in the same process resets the settings.
pub fn start(level: LevelFilter, json: bool) {
    keep_standard_descriptors();
    // Fails if the process already has a logger, which then stays in use.
    let _ = log::set_logger(&Logger);
    app_output::set_writer(write_app_output);
    log::set_max_level(level);
    STARTUP.store(true, Ordering::Relaxed);
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = !json && !plain && stderr().is_terminal();
    *targets_mut() = LogTargets { stderr: LogFile::stderr().ok(), json, colours, ..LogTargets::NONE };
    // A panic can occur in any thread, so this must not wait for the GIL or for a reader.
    std::panic::set_hook(Box::new(|panic| write_record(Level::Error, &panic.to_string())));
}

/// Sets the function that receives each record first, once per process.
pub fn set_record_handler(handler: RecordHandler) {
    let _ = RECORD_HANDLER.set(handler);
}

/// Changes the level and the format.
pub fn reconfigure(level: LevelFilter, json: bool) {
    log::set_max_level(level);
    targets_mut().json = json;
}

/// The targets, for the thread that starts or reloads the server.
pub fn targets_mut() -> RwLockWriteGuard<'static, LogTargets> {
    TARGETS.write().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the startup phase: from now on errors go only to the file, if there is one.
pub fn startup_finished() {
    STARTUP.store(false, Ordering::Relaxed);
}

/// Redirects stdout and stderr of this process to the log file, if there is one. Without a file, the log keeps the
/// original stderr.
pub fn capture() {
    let captured = targets_mut().file.as_ref().map_or(Ok(()), LogFile::capture);
    match captured {
        Ok(()) => targets_mut().captures = true,
        Err(error) => log::error!("--capture-output failed: {error}"),
    }
}

/// Follows stdout and stderr to their new targets.
pub fn reopen_stdio() {
    if let Some(stderr) = &targets().stderr {
        stderr.reopen_if_stdio();
    }
}

/// Reopens the file after rotation. If that fails, the old file stays in use.
pub fn reopen() {
    let targets = targets();
    let Some(file) = &targets.file else { return };
    file.reopen();
    if targets.captures {
        drop(targets);
        capture();
    }
}

/// The descriptor of the log. It keeps its number when the file is reopened.
pub fn descriptor() -> RawFd {
    let targets = targets();
    targets.file.as_ref().or(targets.stderr.as_ref()).map_or(2, LogFile::descriptor)
}

fn targets() -> RwLockReadGuard<'static, LogTargets> {
    TARGETS.read().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a record regardless of the level.
pub fn critical(text: &str) {
    write(Level::Critical, format_args!("{text}"), "");
}

/// Opens /dev/null for closed standard descriptors. Otherwise a client's socket would get such a number and then
/// receive log lines.
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

    /// Ends the line that this thread has written to `wsgi.errors`.
    fn flush(&self) {
        app_output::end_line();
    }
}

fn write(level: Level, text: Arguments<'_>, target: &str) {
    let text = text.to_string();
    count(level, target == EXCEPTION);
    if !RECORD_HANDLER.get().is_some_and(|handle| handle(level, &text)) {
        write_record(level, &text);
    }
}

/// Counts a record for statsd.
pub fn count(level: Level, is_exception: bool) {
    let statsd = targets().statsd.clone();
    if let Some(statsd) = statsd {
        statsd.logged(level, is_exception);
    }
}

/// Writes a record that Python's `logging` cannot take.
pub fn write_directly(level: Level, text: &str) {
    write_record(level, text);
}

/// Writes complete lines of the application, regardless of the level: unchanged to a text log, otherwise as one record.
fn write_app_output(lines: &str) {
    let text = lines.trim_end_matches(['\r', '\n']);
    if !text.is_empty() && RECORD_HANDLER.get().is_some_and(|handle| handle(Level::Error, text)) {
        return;
    }
    if !targets().json {
        write_lines(Level::Error, lines);
    } else if !text.is_empty() {
        write_record(Level::Error, text);
    }
}

/// Writes a record whose text is escaped already.
pub fn write_escaped(level: Level, text: &str) {
    write_composed(level, text, text);
}

/// Writes a text that a formatter of Python's `logging` has made of a record, in place of the time, the process and the level. In a JSON
/// log it is the message. Without `is_escaped`, it is escaped.
pub fn write_formatted(level: Level, text: &str, is_escaped: bool) {
    if targets().json {
        write_record(level, text);
    } else {
        let escaped = if is_escaped { text.into() } else { escape(text) };
        write_lines(level, &format!("{escaped}\n"));
    }
}

/// Writes lines without waiting for anything.
fn write_lines(level: Level, lines: &str) {
    let targets = targets();
    let lost =
        targets.file.as_ref().or(targets.stderr.as_ref()).and_then(|file| file.write(lines.as_bytes()));
    if let Some(syslog) = &targets.syslog {
        syslog.send(level, "error", lines.trim_end_matches(['\r', '\n']).as_bytes());
    }
    drop(targets);
    report_lost(lost);
}

/// Writes a record without waiting for anything.
fn write_record(level: Level, text: &str) {
    write_composed(level, text, &escape(text));
}

/// Writes a record with this text in JSON logs, and the escaped text in others.
fn write_composed(level: Level, text: &str, escaped: &str) {
    let targets = targets();
    let (now, process) = (Zoned::now(), std::process::id());
    let compose = |name: &str| {
        if targets.json {
            return as_json(&now, process, name, text);
        }
        format!("[{}] [{process}] [{name}] {escaped}\n", now.strftime("%Y-%m-%d %H:%M:%S %z")).into_bytes()
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
        syslog.send(level, "error", escaped.as_bytes());
    }
    drop(targets);
    report_lost(lost);
}

fn report_lost(lost: Option<u64>) {
    if let Some(lost) = lost {
        write_record(Level::Warning, &format!("{lost} log records lost: the reader of the log is too slow"));
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
