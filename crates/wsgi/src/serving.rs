//! The master: binds, keeps what its workers share, and does in the master what signals ask for.
//!
//! The one thing to know: [`run`] returns in the master only. A worker ends inside, as a Python process ends, so that
//! nothing a caller would do after `serve()` is done a second time.
//!
//! With `--preload` there is a process between the master and its workers for each generation: it loads the application,
//! and its workers are forked from it. The master itself never imports the application, so a reload sees what changed.
//!
//! | module      | what it holds |
//! |-------------|---|
//! | [`sockets`] | what it listens on, and hands to a second master |
//! | [`loading`] | the application: imported, warmed up, watched |
//! | [`working`] | a worker, from its orders to its end |

mod loading;
mod sockets;
mod working;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mlws_server::{Concurrency, Shares};
use mlws_supervisor::{ForkHooks, News, Owner, Pid, Role, Settings, Worker, supervise, supervise_under};
use pyo3::{exceptions::PySystemExit, prelude::*};
#[cfg(target_os = "linux")]
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::{fs::Mode, process::umask};

use self::sockets::Sockets;
pub(crate) use self::sockets::is_second_master;
use crate::{
    access::AccessLog,
    app::Wsgi,
    environment::Environment,
    ffi,
    hooks::Hooks,
    loader::{Target, extend_path},
    logfile::LogFile,
    logging,
    process::{self, Identity, Pidfile, Surroundings},
    python_logging,
    refusal::Refusal,
    reload::Watch,
    settings::{ErrorFormat, Flags, Sources},
    stacks,
    statsd::Statsd,
};

/// For so many workers there is room to tell each other how many connections they have, even if they were fewer at first.
const FEW: usize = 32;

/// What is served: something to import in each worker, or an object that is there already.
enum Application {
    Named(Target),
    Given(Py<PyAny>),
}

/// Serves until told to end: `given`, or what the flags name. The exit status of the whole, in the master.
pub(crate) fn run(
    py: Python<'_>,
    flags: Flags,
    sources: &Sources,
    given: Option<Py<PyAny>>,
) -> Result<i32, Refusal> {
    logging::start(flags.logs.level(), flags.logs.error_logformat == ErrorFormat::Json);
    let application = match given {
        Some(app) => Application::Given(app),
        None => Application::Named(Target::of(py, &flags)?),
    };
    if flags.development.reload {
        if matches!(application, Application::Given(_)) {
            let text = "to reload, the application has to be given by its name, such as 'module:app'";
            return Err(Refusal::Usage(text.into()));
        }
        log::warn!("--reload is for development: it shows failures to clients, and costs time");
    }
    let again = start_again(py);
    let environment = Environment::set(py, &flags)?;
    let again = again.map(|command| environment.restored(command));
    let flags = Arc::new(flags);
    process::start(py, &Arc::clone(&flags), &PythonFork, |surroundings| {
        let mut house = House::new(py, flags, sources, application, surroundings, again)?;
        house.environment = environment;
        flush_python(py);
        match supervise(house.settings(), &mut house) {
            Role::Master(status) => {
                house.clear_away();
                house.tell(py, "whole", ("on_exit",));
                Ok(status)
            }
            Role::Worker(status) => end_process(py, status),
        }
    })
}

/// Does all that a start does but serve: what is wrong shows.
pub(crate) fn check(py: Python<'_>, flags: &Flags) -> Result<i32, Refusal> {
    if let Some(shown) = &flags.shown {
        // Who does not read it has the status.
        let _ = io::stdout().write_all(shown.as_bytes()).and_then(|()| io::stdout().flush());
    }
    logging::start(flags.logs.level(), flags.logs.error_logformat == ErrorFormat::Json);
    warn(flags);
    let target = Target::of(py, flags)?;
    Identity::of(&flags.process)?;
    Environment::set(py, flags)?;
    target.load(py, &enter_folder(flags, None)?)?;
    log::info!("{} can be served with these settings", flags.name());
    Ok(0)
}

/// What was said of the settings while they were read.
fn warn(flags: &Flags) {
    for warning in &flags.extras.warnings {
        log::warn!("{warning}");
    }
}

/// What the master has, and each worker a copy of.
pub(crate) struct House<'a> {
    pub(crate) flags: Arc<Flags>,
    /// To read the settings again.
    sources: &'a Sources,
    application: Application,
    /// What it has set for the application.
    environment: Environment,
    pub(crate) hooks: Option<Arc<Hooks>>,
    pub(crate) surroundings: &'a Surroundings,
    /// Whom the workers run as.
    identity: Option<Identity>,
    pidfile: Option<Pidfile>,
    folders: Vec<PathBuf>,
    urls: String,
    pub(crate) sockets: Sockets,
    pub(crate) access: Option<Arc<AccessLog>>,
    /// Where the workers, their number, are told.
    statsd: Option<Arc<Statsd>>,
    /// Python's logging is to be configured anew in each new worker. The master keeps what it has, for what is new may fail.
    reconfigures: bool,
    /// How many connections each worker has.
    pub(crate) shares: Arc<Shares>,
    /// In the process of a generation, and in its workers: the application as it was loaded for all of them.
    preloaded: Option<Arc<Wsgi>>,
    /// With `--reload`: which files the application was loaded from.
    pub(crate) watch: Option<Watch>,
    second: Option<Pid>,
    /// The command that starts what runs here once more.
    again: PyResult<Command>,
}

impl<'a> House<'a> {
    fn new(
        py: Python<'_>,
        flags: Arc<Flags>,
        sources: &'a Sources,
        application: Application,
        surroundings: &'a Surroundings,
        again: PyResult<Command>,
    ) -> Result<Self, Refusal> {
        let identity = Identity::of(&flags.process)?;
        let folders = enter_folder(&flags, None)?;
        if let Some(mask) = flags.process.umask {
            umask(Mode::from_raw_mode(mask));
        }
        let access = open_logs(&flags, identity.as_ref(), || configure_python(py, &flags, &folders))?;
        warn(&flags);
        process::name(py, &flags.process, "master");
        let hooks = hooks(py, &flags, &application, &folders)?;
        if let Some(hooks) = &hooks {
            hooks.tell(py, "resized", (flags.running.workers, None::<u16>));
            hooks.tell(py, "whole", ("on_starting",));
        }
        let sockets = Sockets::open(py, &flags, &surroundings.systemd, identity.as_ref())?;
        let pidfile = flags.process.pid.as_ref().map(|path| match sockets.first {
            None => Pidfile::create(path),
            Some(_) => Pidfile::create(&with_suffix(path, ".2")),
        });
        let pidfile = pidfile.transpose().inspect_err(|_| sockets.remove_files())?;
        let shares = Shares::new(usize::from(flags.running.workers).max(FEW)).map_err(|error| {
            Refusal::System(format!("no memory for what the workers tell each other: {error}"))
        })?;
        let house = Self {
            flags,
            sources,
            application,
            environment: Environment::default(),
            hooks,
            surroundings,
            identity,
            pidfile,
            folders,
            urls: sockets.urls(),
            sockets,
            access: access.map(Arc::new),
            statsd: logging::change().statsd.clone(),
            reconfigures: false,
            shares: Arc::new(shares),
            preloaded: None,
            watch: None,
            second: None,
            again,
        };
        house.tell(py, "listening", (house.sockets.places(),));
        house.tell(py, "whole", ("when_ready",));
        Ok(house)
    }

    /// Tells the functions of the config file, if there are any.
    pub(crate) fn tell<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) {
        if let Some(hooks) = &self.hooks {
            hooks.tell(py, method, arguments);
        }
    }

    /// Whether the processes that are forked here are workers, and not masters of workers.
    fn forks_workers(&self) -> bool {
        !self.flags.running.preload || self.preloaded.is_some()
    }

    /// Takes settings that were read again. What cannot be had leaves all as it was, as far as anybody serves by it.
    fn take_over(&mut self, py: Python<'_>, flags: Flags) -> Result<(), Refusal> {
        if let Application::Named(target) = &mut self.application {
            *target = Target::of(py, &flags)?;
        }
        let identity = Identity::of(&flags.process)?;
        self.environment.undo(py);
        self.environment = Environment::set(py, &flags).or_else(|refusal| {
            self.environment = Environment::set(py, &self.flags)?;
            Err(refusal)
        })?;
        self.folders = enter_folder(&flags, Some(&self.sources.folder))?;
        let hooks = hooks(py, &flags, &self.application, &self.folders)?;
        self.sockets.follow(&flags, &self.surroundings.systemd, identity.as_ref())?;
        if self.sockets.first.is_none() && flags.process.pid != self.flags.process.pid {
            self.pidfile = flags.process.pid.as_deref().map(Pidfile::create).transpose()?; // and the old one goes
        }
        if let Some(mask) = flags.process.umask {
            umask(Mode::from_raw_mode(mask));
        }
        logging::follow(flags.logs.level(), flags.logs.error_logformat == ErrorFormat::Json);
        self.access = open_logs(&flags, identity.as_ref(), || Ok(()))?.map(Arc::new);
        self.reconfigures = true;
        self.statsd.clone_from(&logging::change().statsd);
        warn(&flags);
        if let Some(hooks) = &hooks {
            hooks.follow(py, self.hooks.as_ref());
        }
        (self.hooks, self.identity, self.urls) = (hooks, identity, self.sockets.urls());
        let before = self.flags.running.workers;
        self.flags = Arc::new(flags);
        self.tell(py, "listening", (self.sockets.places(),));
        self.tell(py, "resized", (self.flags.running.workers, before)); // also where it is the same, as gunicorn does
        self.tell(py, "whole", ("on_reload",));
        Ok(())
    }

    /// At the end, unless another master goes on with it.
    fn clear_away(&self) {
        if self.sockets.first.is_none() && self.second.is_none() {
            self.sockets.remove_files();
        }
    }

    /// In a new worker, before anything of the application runs, and with the rights of the master.
    fn prepare_logs(&mut self, py: Python<'_>) -> Result<(), Refusal> {
        if std::mem::take(&mut self.reconfigures) {
            configure_python(py, &self.flags, &self.folders)?;
        }
        if self.flags.logs.captures() {
            logging::capture();
        }
        Ok(())
    }

    /// All is well: errors stand in the log, and a daemon has no terminal. Runs in the master and in each worker.
    pub(crate) fn settle(&self, py: Python<'_>) {
        self.surroundings.settle(py);
        if let Some(access) = self.access.as_ref().filter(|_| self.surroundings.moves_streams()) {
            access.follow_stdout();
        }
    }

    fn settings(&self) -> Settings {
        let running = &self.flags.running;
        let preloads = running.preload && self.preloaded.is_none();
        Settings {
            workers: if preloads { 1 } else { running.workers.into() },
            graceful_timeout: running.graceful_timeout,
            boot_timeout: running.boot_timeout(),
            tick: if self.preloaded.is_none() { self.surroundings.systemd.watchdog_interval() } else { None },
            is_above_masters: preloads,
            first: self.sockets.first,
        }
    }

    /// The life of a process that loads the application for the workers of one generation, and is their master.
    fn preload(&mut self, py: Python<'_>, worker: Worker) -> Result<i32, Refusal> {
        let wsgi = self.wsgi(py)?;
        self.tell(py, "leads", (wsgi.application(),));
        self.preloaded = Some(wsgi);
        warn_of_threads();
        match supervise_under(worker, self.settings(), self) {
            Role::Master(status) => Ok(status),
            Role::Worker(status) => end_process(py, status),
        }
    }
}

impl Owner for House<'_> {
    fn work(&mut self, worker: Worker) -> i32 {
        Python::attach(|py| {
            let is_worker = self.forks_workers();
            process::name(
                py,
                &self.flags.process,
                if is_worker { "worker" } else { "master of a generation" },
            );
            if let Err(refusal) = self.prepare_logs(py) {
                logging::critical(&refusal.to_string());
                return refusal.exit_status();
            }
            let identity = self.identity.take(); // the workers of a preloaded application have it already
            if let Err(refusal) = identity.map_or(Ok(()), |identity| identity.assume()) {
                logging::critical(&refusal.to_string());
                return refusal.exit_status();
            }
            // Nobody would bound its time any more; and who is stuck in the application does not hear it otherwise.
            #[cfg(target_os = "linux")]
            let _ = set_parent_process_death_signal(Some(Signal::KILL)); // one that is gone already shows by the end of the line
            if let Err(error) = stacks::listen(py) {
                log::warn!("a worker that hangs or crashes will not show where: {error}");
            }
            let done = if is_worker {
                let done = working::work(py, self, worker).map(|()| 0);
                self.tell(py, "leaves", ());
                done
            } else {
                self.preload(py, worker)
            };
            done.unwrap_or_else(|refusal| {
                logging::critical(&refusal.to_string());
                refusal.exit_status()
            })
        })
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Ready { .. } if self.preloaded.is_some() => {
                Python::attach(|py| self.settle(py));
            }
            News::Ready { .. } => {
                let on = format!("on {} ({})", self.urls, processes_and_threads(&self.flags));
                log::info!("serving {} {on}", self.flags.name());
                Python::attach(|py| {
                    self.settle(py);
                    self.surroundings.ready(&format!("serving {on}"));
                });
            }
            News::Reopen => {
                reopen_logs(self.access.as_deref());
            }
            News::Resized { from, to } => Python::attach(|py| self.tell(py, "resized", (to, from))),
            News::Forking { age } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "forking", (age,)));
            }
            News::Forked { pid } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "forked", (pid.as_raw_pid(),)));
            }
            News::Gone { pid } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "gone", (pid.as_raw_pid(),)));
            }
            News::Forking { .. } | News::Forked { .. } | News::Gone { .. } => {}
            News::Ended { number } => self.shares.clear(number),
            News::Ending => {
                if self.preloaded.is_none() {
                    self.surroundings.systemd.stopping();
                }
                // A socket that the master kept open would let clients wait for nobody.
                self.sockets.listeners.clear();
            }
            News::Workers { serving } => {
                if let Some(statsd) = &self.statsd {
                    statsd.workers(serving);
                }
            }
            News::Reloading => self.surroundings.systemd.reloading(),
            News::ReloadFailed => {
                self.reconfigures = false; // what the others need may be what has failed
                self.surroundings.systemd.ready("the last reload has failed; serving as before");
            }
            News::Tick => self.surroundings.systemd.alive(),
            News::SecondIsGone => {
                self.second = None;
                self.surroundings.systemd.main_pid();
            }
            News::FirstIsGone => {
                self.sockets.first = None;
                if let (Some(pidfile), Some(path)) = (&mut self.pidfile, &self.flags.process.pid)
                    && let Err(refusal) = pidfile.rename_to(path)
                {
                    log::error!("{refusal}");
                }
            }
        }
    }

    fn reload(&mut self) -> Result<Settings, String> {
        Python::attach(|py| {
            let flags = self.sources.read(py).map_err(|unread| unread.to_string())?;
            self.take_over(py, flags).map_err(|refusal| refusal.to_string())
        })?;
        Ok(self.settings())
    }

    /// A config file may have started threads, which want to run while the master waits.
    fn idle(&mut self, wait: &mut (dyn FnMut() + Send)) {
        Python::attach(|py| py.detach(wait));
    }

    fn start_second(&mut self) -> io::Result<Pid> {
        Python::attach(|py| self.tell(py, "whole", ("pre_exec",)));
        let again = self.again.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        let mut command = Command::new(again.get_program());
        command.args(again.get_args());
        if let Some(folder) = again.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in again.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.surroundings.systemd.pass_on(&mut command);
        let second = self.sockets.start_second(command)?;
        self.second = Some(second);
        Ok(second)
    }
}

impl ForkHooks for House<'_> {
    fn before(&self) {
        PythonFork.before();
    }
    fn after_in_parent(&self) {
        PythonFork.after_in_parent();
    }
    fn after_in_child(&self) {
        PythonFork.after_in_child();
    }
}

struct PythonFork;

impl ForkHooks for PythonFork {
    fn before(&self) {
        ffi::before_fork();
    }
    fn after_in_parent(&self) {
        ffi::after_fork_in_parent();
    }
    fn after_in_child(&self) {
        ffi::after_fork_in_child();
    }
}

/// Goes to `--chdir`, and before that to where this process was started, if it has gone elsewhere since. The folders to look for
/// modules in, as whole paths; the last is the first to be looked into, and the first is where this process was started.
fn enter_folder(flags: &Flags, started: Option<&Path>) -> Result<Vec<PathBuf>, Refusal> {
    let cannot = |folder: &Path, error| Refusal::Usage(format!("cannot go to {}: {error}", folder.display()));
    let enter = |folder: Option<&Path>| {
        let folder = folder.unwrap_or(Path::new("."));
        std::env::set_current_dir(folder)
            .and_then(|()| std::path::absolute("."))
            .map_err(|error| cannot(folder, error))
    };
    let mut folders = vec![enter(started)?];
    folders.extend(flags.process.chdir.as_deref().map(|folder| enter(Some(folder))).transpose()?);
    for folder in &flags.process.pythonpath {
        folders.push(std::path::absolute(folder).map_err(|error| cannot(folder, error))?);
    }
    Ok(folders)
}

/// The logs go where they are to go from here on. The access log, if there is to be one.
fn open_logs(
    flags: &Flags,
    identity: Option<&Identity>,
    configure_python: impl FnOnce() -> Result<(), Refusal>,
) -> Result<Option<AccessLog>, Refusal> {
    let cannot =
        |path: &Path, error| Refusal::System(format!("cannot open the log {}: {error}", path.display()));
    let logs = &flags.logs;
    let path = &logs.error_logfile;
    let file = (path.as_os_str() != "-").then(|| LogFile::open(path, identity)).transpose();
    let file = file.map_err(|error| cannot(path, error))?;
    if file.is_none() && flags.process.daemon && !logs.goes_elsewhere() {
        log::warn!(
            "a daemon has no stderr: its log is lost from when it is ready, unless --error-logfile names a file"
        );
    }
    logging::change().file = file;
    let unknown =
        |error: io::Error| Refusal::System(format!("a collector of logs cannot be reached: {error}"));
    let syslog = logs.syslog(flags.name()).transpose().map_err(unknown)?.map(Arc::new);
    let statsd = logs.statsd().transpose().map_err(unknown)?.map(Arc::new);
    let mut outlets = logging::change();
    (outlets.syslog, outlets.statsd) = (syslog.clone(), statsd.clone());
    drop(outlets);
    configure_python()?;
    let syslog = syslog.filter(|_| !logs.disable_redirect_access_to_syslog);
    let path = logs.access_logfile.as_deref();
    AccessLog::open(path, &logs.access_logformat, identity, syslog, statsd)
        .map_err(|error| cannot(path.unwrap_or(Path::new("-")), error))
}

/// Sets up Python's logging, if there is a configuration of it, which may name classes of the application's folders.
fn configure_python(py: Python<'_>, flags: &Flags, folders: &[PathBuf]) -> Result<(), Refusal> {
    python_logging::forget();
    let Some(config) = flags.logs.config(py) else { return Ok(()) };
    extend_path(py, folders).map_err(|error| Refusal::System(error.to_string()))?;
    python_logging::configure(py, &config, flags.logs.level()).map_err(Refusal::Usage)
}

fn hooks(
    py: Python<'_>,
    flags: &Flags,
    application: &Application,
    folders: &[PathBuf],
) -> Result<Option<Arc<Hooks>>, Refusal> {
    let Some(functions) = &flags.extras.hooks else { return Ok(None) };
    let folders = folders.to_vec();
    let application = match application {
        Application::Given(app) => Application::Given(app.clone_ref(py)),
        Application::Named(_) => Application::Named(Target::of(py, flags)?),
    };
    let load = move |py: Python<'_>| match &application {
        Application::Given(app) => Ok(app.clone_ref(py)),
        Application::Named(target) => target.load(py, &folders),
    };
    Hooks::new(py, functions, flags.seen.as_ref(), load).map(Some)
}

/// The command line that started this process, in the folder it was started in.
fn start_again(py: Python<'_>) -> PyResult<Command> {
    let sys = py.import("sys")?;
    let mut command = Command::new(sys.getattr("executable")?.extract::<PathBuf>()?);
    let words: Vec<std::ffi::OsString> = match sys.getattr_opt("orig_argv")? {
        Some(words) => words.extract()?,
        None => {
            sys.getattr("argv")?.extract::<Vec<_>>().map(|words| [vec!["python".into()], words].concat())?
        } // before 3.10
    };
    command.args(words.into_iter().skip(1)).current_dir(std::env::current_dir()?);
    Ok(command)
}

/// Something has moved the files away.
fn reopen_logs(access: Option<&AccessLog>) {
    logging::reopen();
    python_logging::reopen();
    if let Some(access) = access {
        access.reopen();
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Only the thread that forks lives on in a worker.
fn warn_of_threads() {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        log::warn!(
            "the application has started {} threads while it was preloaded; its workers do not have them",
            threads - 1
        );
    }
}

/// What the start line says about how requests run.
fn processes_and_threads(flags: &Flags) -> String {
    let count = |number: usize, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let each = match flags.concurrency() {
        Concurrency::Inline => "1 thread each".into(),
        Concurrency::Threads(threads) => format!("{} each", count(threads, "thread")),
        Concurrency::Fork { .. } => "each request in its own process".into(),
    };
    format!("{}, {each}", count(flags.running.workers.into(), "worker"))
}

/// What Python has buffered is written once, by the master, and not again by every worker.
pub(crate) fn flush_python(py: Python<'_>) {
    for stream in ["stdout", "stderr"] {
        // There may be no such stream, or nobody may read it.
        let _ = py.import("sys").and_then(|sys| sys.getattr(stream)?.call_method0("flush"));
    }
}

/// Ends this process as `sys.exit(status)` would at the end of a script: threads joined, exit handlers run, streams
/// flushed. To print a `SystemExit` is Python's own way to do that from C.
pub(crate) fn end_process(py: Python<'_>, status: i32) -> ! {
    PySystemExit::new_err(status).print(py);
    std::process::exit(status)
}
