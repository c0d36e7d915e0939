//! `--reload`: watches the files of the application, and asks for new workers when one of them changes.
//!
//! The one thing to know: the watcher lives no longer than its worker, and its successor sees by the files' times what
//! changed between the beginning of its own load and its first look, so that no change falls between the two.
//!
//! | module       | what it holds |
//! |--------------|---|
//! | [`modules`]  | what Python has loaded |
//! | [`error_app`] | what is served while the application cannot be loaded |

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
use mlws_config::process::{DevOptions, Engine};

/// How often it looks for directories to watch that are new.
const RESCAN: Duration = Duration::from_secs(1);
/// How often it looks at all files where the system tells no changes.
const POLL: Duration = Duration::from_millis(500);
/// Changes that follow each other so quickly are one...
const DEBOUNCE: Duration = Duration::from_millis(50);
/// ...unless they go on for longer.
const MAX_DEBOUNCE: Duration = Duration::from_secs(1);
/// How long it waits to be replaced before it asks again, for what has changed meanwhile.
const COOLDOWN: Duration = Duration::from_secs(3);
/// By how much a file's time may be behind the clock.
const TICK: Duration = Duration::from_millis(10);

/// In a pattern, `*` stays in its directory, and leaves alone what editors hide in it.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The time, as files tell it: since 1970.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Asks for new workers. Called by the watcher, in whichever thread or process that runs.
pub(crate) type ReloadRequest = Box<dyn Fn() + Send>;

/// A watcher that runs; it ends when this is dropped.
pub(crate) enum Watcher {
    Thread(Arc<AtomicBool>),
    Process(Pid),
}

impl Drop for Watcher {
    fn drop(&mut self) {
        match self {
            Self::Thread(ended) => ended.store(true, Ordering::Relaxed),
            Self::Process(pid) => {
                // Not waited for yet, so the pid is still its own.
                let _ = kill_process(*pid, Signal::KILL);
                let _ = waitpid(Some(*pid), WaitOptions::empty());
            }
        }
    }
}

/// What to watch, and all that was found so far.
pub(crate) struct Watch {
    engine: Engine,
    /// Where the server was started: watched in any case, and left out of names in the log.
    home: PathBuf,
    patterns: Vec<Pattern>,
    /// When the load of the application began.
    began: Duration,
    /// Whether the application could not be loaded, so that the reason may be anywhere.
    failed: bool,
    /// What Python has loaded, and other files that matter whatever their names are.
    files: BTreeSet<PathBuf>,
    /// Folders whose modules are not the application's.
    ignored_dirs: Vec<PathBuf>,
    directories: BTreeSet<PathBuf>,
    /// Each file that matters, and when it changed, as last seen.
    seen: BTreeMap<PathBuf, Duration>,
    /// None where all files are looked at now and then.
    notifier: Option<RecommendedWatcher>,
    sender: Sender<notify::Result<Event>>,
    events: Receiver<notify::Result<Event>>,
}

impl Watch {
    /// `began` is when the application's load did, `failure` why it failed, if so. Extra files are looked for from `home`.
    pub(crate) fn new(
        py: Python<'_>,
        settings: &DevOptions,
        home: &Path,
        began: Duration,
        failure: Option<&str>,
    ) -> PyResult<Self> {
        let ignored_dirs = modules::ignored_dirs(py)?;
        let mut files = modules::loaded(py, &ignored_dirs)?;
        files.extend(failure.map(error_app::files).unwrap_or_default());
        let (sender, events) = channel();
        Ok(Self {
            engine: settings.reload_engine,
            home: home.to_owned(),
            patterns: settings.reload_extra_file.iter().filter_map(|text| from_home(home, text)).collect(),
            began,
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

    /// Watches from a thread of this process, and hears there of modules that are loaded later.
    pub(crate) fn in_thread(mut self, ask: ReloadRequest) -> PyResult<Watcher> {
        let ended = Arc::new(AtomicBool::new(false));
        let watcher = Watcher::Thread(Arc::clone(&ended));
        let work = move || self.run(&ask, &|| ended.load(Ordering::Relaxed), &mut Self::ask_python);
        std::thread::Builder::new().name("reload".into()).spawn(work)?;
        Ok(watcher)
    }

    /// Watches from a process of its own.
    pub(crate) fn in_process(mut self, py: Python<'_>, ask: &ReloadRequest) -> PyResult<Watcher> {
        let worker = getpid();
        let os = py.import("os")?;
        if let Some(pid) = Pid::from_raw(os.call_method0("fork")?.extract()?) {
            return Ok(Watcher::Process(pid));
        }
        // From here on in the child, which ends with the worker, also if that has ended already, and never returns.
        let watched = catch_unwind(AssertUnwindSafe(|| {
            set_parent_process_death_signal(Some(Signal::KILL))
                .map(|()| self.run(ask, &|| getppid() != Some(worker), &mut |_| true))
        }));
        if !matches!(watched, Ok(Ok(()))) {
            log::error!("--reload: nobody watches the files any more");
        }
        let _ = os.call_method1("_exit", (0,));
        std::process::abort()
    }

    fn run(
        &mut self,
        ask: &ReloadRequest,
        ended: &dyn Fn() -> bool,
        look_around: &mut dyn FnMut(&mut Self) -> bool,
    ) {
        if !matches!(self.engine, Engine::Poll) {
            match notify::recommended_watcher(self.sender.clone()) {
                Ok(notifier) => self.notifier = Some(notifier),
                Err(error) => warn_of_polling(&format!("{error} (see sysctl fs.inotify.max_user_instances)")),
            }
        }
        let mut since = self.began.saturating_sub(TICK);
        while !ended() && look_around(self) {
            let start = now().saturating_sub(TICK);
            let changed = self.look_for_folders(since).or_else(|| self.wait());
            since = start;
            let Some(path) = changed else { continue };
            let burst = Instant::now() + MAX_DEBOUNCE;
            while Instant::now() < burst && self.next_change(DEBOUNCE).is_some() {}
            if !ended() {
                let name = path.strip_prefix(&self.home).unwrap_or(&path);
                log::info!("{} has changed: reloading", name.display());
                ask();
                std::thread::sleep(COOLDOWN);
            }
        }
    }

    /// Hears which modules were loaded since. False if Python is about to end.
    fn ask_python(&mut self) -> bool {
        let loaded = Python::try_attach(|py| modules::loaded(py, &self.ignored_dirs));
        match loaded {
            Some(Ok(files)) => self.files.extend(files),
            Some(Err(error)) => log::debug!("--reload: cannot tell which modules are loaded: {error}"),
            None => return false,
        }
        true
    }

    /// Watches the directories that it does not watch yet. A file that changed in one of them after `since`.
    fn look_for_folders(&mut self, since: Duration) -> Option<PathBuf> {
        let mut wanted = BTreeSet::from([self.home.clone()]);
        wanted.extend(self.files.iter().filter_map(|file| file.parent()).map(Path::to_owned));
        for pattern in &self.patterns {
            wanted.extend(fixed_part(pattern));
            let found = glob::glob_with(pattern.as_str(), MATCHING).into_iter().flatten().flatten();
            wanted.extend(found.filter_map(|file| file.parent().map(Path::to_owned)));
        }
        if self.failed {
            // What is missing may be made in a package, and the package be made first.
            wanted.extend(fs::read_dir(&self.home).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        let mut changed = None;
        for directory in wanted {
            if !directory.is_dir() || self.directories.contains(&directory) {
                continue;
            }
            self.listen_to(&directory);
            let files = self.look_into(&directory);
            // A time that has not come yet is that of another clock, and would be newer for ever.
            let recent = since..=now();
            let newer = files.iter().find(|(_, time)| recent.contains(time)).map(|(path, _)| path);
            let is_gone = |file: &&PathBuf| file.parent() == Some(&*directory) && !file.exists();
            let gone = || {
                // A module may name a file that there never was, but then its directory is as it was.
                fs::metadata(&directory).ok().filter(|directory| recent.contains(&changed_at(directory)))?;
                self.files.iter().find(is_gone)
            };
            changed = changed.or_else(|| newer.or_else(gone).cloned());
            self.seen.extend(files);
            self.directories.insert(directory);
        }
        changed
    }

    fn listen_to(&mut self, directory: &Path) {
        let Some(notifier) = &mut self.notifier else { return };
        match notifier.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                warn_of_polling(
                    "the system watches no more directories (sysctl fs.inotify.max_user_watches says how many)",
                );
                self.notifier = None;
            }
            Err(error) => log::debug!("--reload: cannot watch {}: {error}", directory.display()),
        }
    }

    /// The files of a directory that matter, and when each of them changed.
    fn look_into(&self, directory: &Path) -> Vec<(PathBuf, Duration)> {
        let paths = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        paths
            .filter(|path| self.matters(path))
            .filter_map(|path| {
                let file = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
                Some((path, changed_at(&file)))
            })
            .collect()
    }

    fn matters(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let of_an_editor = name.starts_with('#') || name.starts_with(".#") || name.ends_with('~');
        let is_python = !name.starts_with('.') && path.extension().is_some_and(|extension| extension == "py");
        let is_extra = || self.patterns.iter().any(|pattern| pattern.matches_path_with(path, MATCHING));
        self.files.contains(path) || (!of_an_editor && (is_python || is_extra()))
    }

    /// Waits until a file changes, or until it is time to look for directories again.
    fn wait(&mut self) -> Option<PathBuf> {
        if self.notifier.is_some() {
            return self.next_change(RESCAN);
        }
        std::thread::sleep(POLL);
        let files = self.directories.iter().flat_map(|directory| self.look_into(directory)).collect();
        let before = std::mem::replace(&mut self.seen, files);
        let mut differ = self.seen.iter().filter(|(path, changed)| before.get(*path) != Some(changed));
        let mut gone = before.keys().filter(|path| !self.seen.contains_key(*path));
        differ.next().map(|(path, _)| path).or_else(|| gone.next()).cloned()
    }

    /// The next change that matters, if the system tells of one in time.
    fn next_change(&self, patience: Duration) -> Option<PathBuf> {
        let deadline = Instant::now() + patience;
        loop {
            let event = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            match event {
                Ok(event) if event.need_rescan() => return Some("more than the system could tell".into()),
                Ok(event) if event.kind.is_access() => {}
                Ok(event) => match event.paths.into_iter().find(|path| self.matters(path)) {
                    None => {}
                    changed => return changed,
                },
                Err(error) => log::debug!("--reload: {error}"),
            }
        }
    }
}

/// Not when its content changed: this time tells also that it was renamed to replace another.
fn changed_at(file: &fs::Metadata) -> Duration {
    let seconds = file.ctime().try_into().unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(file.ctime_nsec().try_into().unwrap_or_default())
}

fn warn_of_polling(why: &str) {
    log::warn!("--reload: {why}; files are looked at every {POLL:?} instead");
}

/// The pattern as a whole path.
fn from_home(home: &Path, pattern: &Pattern) -> Option<Pattern> {
    let path = Path::new(&Pattern::escape(&home.to_string_lossy())).join(pattern.as_str());
    let path: PathBuf = path.components().collect();
    Pattern::new(&path.to_string_lossy()).ok()
}

/// The directory under which a pattern finds all it can ever find.
fn fixed_part(pattern: &Pattern) -> Option<PathBuf> {
    let text = pattern.as_str();
    let fixed = text.find(['*', '?', '[']).map_or(text, |wild| &text[..wild]);
    fixed.rfind('/').map(|slash| PathBuf::from(&fixed[..=slash]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Pattern {
        from_home(Path::new("/home/me/[shop]"), &Pattern::new(text).unwrap()).unwrap()
    }

    #[test]
    fn a_pattern_is_taken_from_the_folder_of_the_start() {
        let matches = |text, path: &str| whole(text).matches_path_with(Path::new(path), MATCHING);
        assert!(matches("pages/*.html", "/home/me/[shop]/pages/a.html"));
        assert!(!matches("pages/*.html", "/home/me/[shop]/pages/deep/a.html"));
        assert!(matches("./pages/**/*.html", "/home/me/[shop]/pages/deep/a.html"));
        assert!(matches("/etc/shop.toml", "/etc/shop.toml"));
        assert!(matches(".env", "/home/me/[shop]/.env") && !matches("*", "/home/me/[shop]/.env"));
    }

    #[test]
    fn what_a_pattern_may_find_lies_under_its_fixed_part() {
        let under = |text| fixed_part(&Pattern::new(text).unwrap());
        assert_eq!(under("/srv/pages/**/*.html"), Some("/srv/pages".into()));
        assert_eq!(under("/srv/pages/a.html"), Some("/srv/pages".into()));
        assert_eq!(under("/*/a.html"), Some("/".into()));
    }
}
