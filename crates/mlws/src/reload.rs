//! `--reload`: watches the files of the application and requests new workers when one of them changes.
//!
//! Each worker has its own watcher. The watcher of a new worker compares the files' times with the start of its load, so a change between
//! the two watchers is not lost.
//!
//! | module | content |
//! |---|---|
//! | [`modules`] | the files of imported modules |
//! | [`error_app`] | the application that is served while the real one cannot be loaded |

mod error_app;
mod modules;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant, SystemTime},
};

use glob::{MatchOptions, Pattern};
use notify::{ErrorKind, Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use pyo3::prelude::*;
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, set_parent_process_death_signal, waitpid,
};

pub(crate) use self::error_app::error_app;
use mlws_config::{DevOptions, Engine};

/// How often the set of directories is updated.
const RESCAN: Duration = Duration::from_secs(1);
/// How often all files are checked if the kernel does not report changes.
const POLL: Duration = Duration::from_millis(500);
/// Changes within this time after each other count as one...
const DEBOUNCE: Duration = Duration::from_millis(50);
/// ...but not for longer than this.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// The pause after a request for new workers. A watcher that was not replaced by then continues.
const COOLDOWN: Duration = Duration::from_secs(3);
/// The granularity of file times.
const TICK: Duration = Duration::from_millis(10);

/// `*` in a pattern matches neither separators nor hidden files.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The current time in the format of file times.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Requests new workers. Called in the thread or process of the watcher.
pub(crate) type ReloadRequest = Box<dyn Fn() + Send>;

/// A running watcher. Dropping it stops it.
pub(crate) enum Watcher {
    Thread(Arc<AtomicBool>),
    Process(Pid),
}

impl Drop for Watcher {
    fn drop(&mut self) {
        match self {
            Self::Thread(stopped) => stopped.store(true, Ordering::Relaxed),
            Self::Process(pid) => {
                // The process was not reaped yet, so the pid is not reused.
                let _ = kill_process(*pid, Signal::KILL);
                let _ = waitpid(Some(*pid), WaitOptions::empty());
            }
        }
    }
}

/// What to watch, and the files found so far.
pub(crate) struct Watch {
    engine: Engine,
    /// The directory in which the server was started. It is always watched, and log messages contain paths relative to it.
    base: PathBuf,
    patterns: Vec<Pattern>,
    /// When loading the application started.
    load_started: Duration,
    /// Whether loading the application failed. Then the cause may be in any file.
    failed: bool,
    /// Files that are watched whatever their names are: those of imported modules and of the failure.
    files: BTreeSet<PathBuf>,
    /// Directories whose modules do not belong to the application.
    ignored_dirs: Vec<PathBuf>,
    directories: BTreeSet<PathBuf>,
    /// The watched files with their last known times.
    seen: BTreeMap<PathBuf, Duration>,
    /// `None` if files are polled.
    notifier: Option<RecommendedWatcher>,
    sender: Sender<notify::Result<Event>>,
    events: Receiver<notify::Result<Event>>,
}

impl Watch {
    /// `failure` is the error if loading the application failed. Patterns of extra files are relative to `base`.
    pub(crate) fn new(
        py: Python<'_>,
        settings: &DevOptions,
        base: &Path,
        load_started: Duration,
        failure: Option<&str>,
    ) -> PyResult<Self> {
        let ignored_dirs = modules::ignored_dirs(py)?;
        let mut files = modules::loaded(py, &ignored_dirs)?;
        files.extend(failure.map(error_app::files).unwrap_or_default());
        let (sender, events) = channel();
        Ok(Self {
            engine: settings.reload_engine,
            base: base.to_owned(),
            patterns: settings.reload_extra_file.iter().filter_map(|text| from_base(base, text)).collect(),
            load_started,
            failed: failure.is_some(),
            files,
            ignored_dirs,
            directories: BTreeSet::new(),
            seen: BTreeMap::new(),
            notifier: None,
            sender,
            events,
        })
    }

    /// Watches in a thread, which also finds modules that are imported later.
    pub(crate) fn in_thread(mut self, request: ReloadRequest) -> PyResult<Watcher> {
        let stopped = Arc::new(AtomicBool::new(false));
        let watcher = Watcher::Thread(Arc::clone(&stopped));
        let work =
            move || self.run(&request, &|| stopped.load(Ordering::Relaxed), &mut Self::refresh_modules);
        std::thread::Builder::new().name("reload".into()).spawn(work)?;
        Ok(watcher)
    }

    /// Watches in a child process.
    pub(crate) fn in_process(mut self, py: Python<'_>, request: &ReloadRequest) -> PyResult<Watcher> {
        let worker = getpid();
        let os = py.import("os")?;
        if let Some(pid) = Pid::from_raw(os.call_method0("fork")?.extract()?) {
            return Ok(Watcher::Process(pid));
        }
        // The child exits with the worker, even if the worker has exited already, and never returns.
        let watched = catch_unwind(AssertUnwindSafe(|| {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map(|()| self.run(request, &|| getppid() != Some(worker), &mut |_| true))
        }));
        if !matches!(watched, Ok(Ok(()))) {
            log::error!("--reload: the watcher failed, changes of files are not noticed any more");
        }
        let _ = os.call_method1("_exit", (0,));
        std::process::abort()
    }

    fn run(
        &mut self,
        request: &ReloadRequest,
        is_stopped: &dyn Fn() -> bool,
        refresh_modules: &mut dyn FnMut(&mut Self) -> bool,
    ) {
        if !matches!(self.engine, Engine::Poll) {
            match notify::recommended_watcher(self.sender.clone()) {
                Ok(notifier) => self.notifier = Some(notifier),
                Err(error) => {
                    warn_about_polling(&format!("{error} (see sysctl fs.inotify.max_user_instances)"));
                }
            }
        }
        let mut since = self.load_started.saturating_sub(TICK);
        while !is_stopped() && refresh_modules(self) {
            let start = now().saturating_sub(TICK);
            let changed = self.watch_new_directories(since).or_else(|| self.wait());
            since = start;
            let Some(path) = changed else { continue };
            let burst = Instant::now() + MAX_DEBOUNCE;
            while Instant::now() < burst && self.next_change(DEBOUNCE).is_some() {}
            if !is_stopped() {
                let name = path.strip_prefix(&self.base).unwrap_or(&path);
                log::info!("{} has changed: reloading", name.display());
                request();
                std::thread::sleep(COOLDOWN);
            }
        }
    }

    /// Adds the files of modules that were imported since. Returns false if the interpreter is finalizing.
    fn refresh_modules(&mut self) -> bool {
        let loaded = Python::try_attach(|py| modules::loaded(py, &self.ignored_dirs));
        match loaded {
            Some(Ok(files)) => self.files.extend(files),
            Some(Err(error)) => log::debug!("--reload: listing the imported modules failed: {error}"),
            None => return false,
        }
        true
    }

    /// Watches new directories. Returns a file in them that has changed after `since`.
    fn watch_new_directories(&mut self, since: Duration) -> Option<PathBuf> {
        let mut wanted = BTreeSet::from([self.base.clone()]);
        wanted.extend(self.files.iter().filter_map(|file| file.parent()).map(Path::to_owned));
        for pattern in &self.patterns {
            wanted.extend(fixed_part(pattern));
            let found = glob::glob_with(pattern.as_str(), MATCHING).into_iter().flatten().flatten();
            wanted.extend(found.filter_map(|file| file.parent().map(Path::to_owned)));
        }
        if self.failed {
            // A missing module may be created in a package that does not exist yet.
            wanted.extend(fs::read_dir(&self.base).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        let mut changed = None;
        for directory in wanted {
            if !directory.is_dir() || self.directories.contains(&directory) {
                continue;
            }
            self.watch_directory(&directory);
            let files = self.scan(&directory);
            // A time in the future comes from another clock and would stay newer forever.
            let recent = since..=now();
            let newer = files.iter().find(|(_, time)| recent.contains(time)).map(|(path, _)| path);
            let is_gone = |file: &&PathBuf| file.parent() == Some(&*directory) && !file.exists();
            let gone = || {
                // A module's file may never have existed. Then its directory has not changed.
                fs::metadata(&directory).ok().filter(|directory| recent.contains(&changed_at(directory)))?;
                self.files.iter().find(is_gone)
            };
            changed = changed.or_else(|| newer.or_else(gone).cloned());
            self.seen.extend(files);
            self.directories.insert(directory);
        }
        changed
    }

    fn watch_directory(&mut self, directory: &Path) {
        let Some(notifier) = &mut self.notifier else { return };
        match notifier.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                warn_about_polling(
                    "the limit on watched directories is reached (see sysctl fs.inotify.max_user_watches)",
                );
                self.notifier = None;
            }
            Err(error) => log::debug!("--reload: cannot watch {}: {error}", directory.display()),
        }
    }

    /// The watched files of a directory with their times.
    fn scan(&self, directory: &Path) -> Vec<(PathBuf, Duration)> {
        let paths = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        paths
            .filter(|path| self.is_watched(path))
            .filter_map(|path| {
                let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
                Some((path, changed_at(&file)))
            })
            .collect()
    }

    fn is_watched(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_editor_file = name.starts_with('#') || name.starts_with(".#") || name.ends_with('~');
        let is_python = !name.starts_with('.') && path.extension().is_some_and(|extension| extension == "py");
        let is_extra = || self.patterns.iter().any(|pattern| pattern.matches_path_with(path, MATCHING));
        self.files.contains(path) || (!is_editor_file && (is_python || is_extra()))
    }

    /// Waits until a file changes, but not longer than until the next update of the directories.
    fn wait(&mut self) -> Option<PathBuf> {
        if self.notifier.is_some() {
            return self.next_change(RESCAN);
        }
        std::thread::sleep(POLL);
        let files = self.directories.iter().flat_map(|directory| self.scan(directory)).collect();
        let before = std::mem::replace(&mut self.seen, files);
        let mut differ = self.seen.iter().filter(|(path, changed)| before.get(*path) != Some(changed));
        let mut gone = before.keys().filter(|path| !self.seen.contains_key(*path));
        differ.next().map(|(path, _)| path).or_else(|| gone.next()).cloned()
    }

    /// The next change of a watched file that the kernel reports within `timeout`.
    fn next_change(&self, timeout: Duration) -> Option<PathBuf> {
        let deadline = Instant::now() + timeout;
        loop {
            let event = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            match event {
                Ok(event) if event.need_rescan() => {
                    return Some("a file (the queue of events overflowed)".into());
                }
                Ok(event) if event.kind.is_access() => {}
                Ok(event) => match event.paths.into_iter().find(|path| self.is_watched(path)) {
                    None => {}
                    changed => return changed,
                },
                Err(error) => log::debug!("--reload: {error}"),
            }
        }
    }
}

/// The time of the last status change, which unlike the modification time also changes when the file replaces another.
fn changed_at(file: &fs::Metadata) -> Duration {
    let seconds = file.ctime().try_into().unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(file.ctime_nsec().try_into().unwrap_or_default())
}

fn warn_about_polling(why: &str) {
    log::warn!("--reload: {why}, polling files every {POLL:?} instead");
}

/// The pattern as an absolute path.
fn from_base(base: &Path, pattern: &Pattern) -> Option<Pattern> {
    let path = Path::new(&Pattern::escape(&base.to_string_lossy())).join(pattern.as_str());
    let path: PathBuf = path.components().collect();
    Pattern::new(&path.to_string_lossy()).ok()
}

/// The longest directory of a pattern without wildcards.
fn fixed_part(pattern: &Pattern) -> Option<PathBuf> {
    let text = pattern.as_str();
    let fixed = text.find(['*', '?', '[']).map_or(text, |wild| &text[..wild]);
    fixed.rfind('/').map(|slash| PathBuf::from(&fixed[..=slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Pattern {
        from_base(Path::new("/home/me/[shop]"), &Pattern::new(text).unwrap()).unwrap()
    }

    #[test]
    fn a_pattern_is_relative_to_the_directory_of_the_start() {
        let matches = |text, path: &str| whole(text).matches_path_with(Path::new(path), MATCHING);
        assert!(matches("pages/*.html", "/home/me/[shop]/pages/a.html"));
        assert!(!matches("pages/*.html", "/home/me/[shop]/pages/deep/a.html"));
        assert!(matches("./pages/**/*.html", "/home/me/[shop]/pages/deep/a.html"));
        assert!(matches("/etc/shop.toml", "/etc/shop.toml"));
        assert!(matches(".env", "/home/me/[shop]/.env") && !matches("*", "/home/me/[shop]/.env"));
    }

    #[test]
    fn the_fixed_part_of_a_pattern_is_its_directory_without_wildcards() {
        let under = |text| fixed_part(&Pattern::new(text).unwrap());
        assert_eq!(under("/srv/pages/**/*.html"), Some("/srv/pages".into()));
        assert_eq!(under("/srv/pages/a.html"), Some("/srv/pages".into()));
        assert_eq!(under("/*/a.html"), Some("/".into()));
    }
}
