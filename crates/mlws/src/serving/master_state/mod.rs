//! [`MasterState`]: what the master has, and each worker a copy of.

mod delegate;
mod loading;
mod reload;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mlws_logging::{logger, statsd::Statsd};
use mlws_server::{Concurrency, HandoverQueue, WorkerLoads};
use mlws_supervisor::{MasterSettings, Pid, Role, SignalQueue, Worker, supervise_nested};
use mlws_sys::Credentials;
use mlws_tls::TicketKeys;
use mlws_wsgi::{Wsgi, python::exit_process};
use pyo3::prelude::*;
use rustix::{fs::Mode, process::umask};

use super::{
    application::Application, config_hooks::config_hooks, search_path::chdir_and_search_path,
    shared_sockets::KnownSockets, sockets::Sockets,
};
use crate::{
    config_sources::ConfigSources,
    environment::Environment,
    error::StartupError,
    hooks::Hooks,
    imports::end_imports_of_master,
    loaded_config::LoadedConfig,
    process::{self, Pidfile, ProcessContext, worker_credentials},
    python_logging::{self, PreparedLogs, PythonAccessLog, loggers},
    reload::Watch,
    signal_handlers,
    tls::{self, Certificates},
};

/// The minimum number of workers whose loads can be balanced, so that a reload may add workers.
const MIN_LOAD_SLOTS: usize = 32;

pub(super) struct MasterState<'a> {
    config: Arc<LoadedConfig>,
    sources: &'a ConfigSources,
    application: Application,
    pub(super) environment: Environment,
    hooks: Option<Arc<Hooks>>,
    context: &'a ProcessContext,
    /// The credentials of the workers, unless they keep the master's.
    credentials: Option<Credentials>,
    pidfile: Option<Pidfile>,
    /// The directories that the application is imported from.
    directories: Vec<PathBuf>,
    urls: String,
    sockets: Sockets,
    ticket_keys: TicketKeys,
    certificates: Option<Certificates>,
    access: Option<Arc<PythonAccessLog>>,
    statsd: Option<Arc<Statsd>>,
    /// New workers configure Python's `logging` themselves. After a reload the master keeps its configuration, because the new one may
    /// fail.
    workers_configure_logging: bool,
    loads: Arc<WorkerLoads>,
    handover: Option<Arc<HandoverQueue>>,
    /// In the process of a generation, and in its workers: the application, loaded once for all.
    preloaded: Option<Arc<Wsgi>>,
    /// In a process that loads the application and then forks: connections that do not belong to the application.
    known_sockets: Option<KnownSockets>,
    /// With `--reload`: the files of the application.
    watch: Option<Watch>,
    new_master: Option<Pid>,
    /// The command that starts this server again.
    reexec: PyResult<Command>,
}

impl<'a> MasterState<'a> {
    pub(super) fn new(
        py: Python<'_>,
        config: Arc<LoadedConfig>,
        sources: &'a ConfigSources,
        application: Application,
        context: &'a ProcessContext,
        reexec: PyResult<Command>,
    ) -> Result<(Self, SignalQueue), StartupError> {
        let credentials = worker_credentials(&config.process)?;
        let directories = chdir_and_search_path(&config, None)?;
        if let Some(mask) = config.process.umask {
            umask(Mode::from_raw_mode(mask));
        }
        // A configuration of Python's `logging` can run any code, so workers apply it if the master has more rights.
        let workers_configure_logging = credentials.as_ref().is_some_and(Credentials::gives_up_root);
        PreparedLogs::open(&config, credentials.as_ref())?.commit();
        if workers_configure_logging {
            loggers::connect(py, config.logs.level());
        } else {
            python_logging::configure_python(py, &config, &directories)?;
        }
        let access = python_logging::open_access(&config, credentials.as_ref())?;
        log_start(py, access.is_some());
        config.log_warnings();
        process::name(py, &config.process, "master");
        let hooks = config_hooks(py, &config, &application, &directories)?;
        if let Some(hooks) = &hooks {
            hooks.notify(py, "nworkers_changed", (config.running.workers, None::<u16>));
            hooks.notify(py, "server_hook", ("on_starting",));
        }
        let ticket_keys = tls::ticket_keys()?;
        let certificates = Certificates::load(&config, &ticket_keys)?;
        // From the first connection on, no signal may end this process by default.
        let signals = SignalQueue::install()
            .map_err(|error| StartupError::System(format!("the master cannot receive signals: {error}")))?;
        let mut sockets = Sockets::open(py, &signals, &config, &context.systemd, credentials.as_ref())?;
        sockets.set_tls(certificates.is_some());
        let pidfile = config.process.pid.as_ref().map(|path| match sockets.old_master {
            None => Pidfile::create(path),
            Some(_) => {
                let mut successor = path.clone().into_os_string();
                successor.push(".2");
                Pidfile::create(Path::new(&successor))
            }
        });
        let pidfile = pidfile.transpose().inspect_err(|_| sockets.remove_files())?;
        let loads = new_loads(&config)?;
        let handover = HandoverQueue::new().map_err(|error| {
            StartupError::System(format!("creating the queue for idle connections failed: {error}"))
        })?;
        let mut state = Self {
            config,
            sources,
            application,
            environment: Environment::default(),
            hooks,
            context,
            credentials,
            pidfile,
            directories,
            urls: sockets.urls(),
            sockets,
            ticket_keys,
            certificates,
            access: PythonAccessLog::install(access),
            statsd: logger::targets_mut().statsd.clone(),
            workers_configure_logging,
            loads,
            handover: Some(Arc::new(handover)),
            preloaded: None,
            known_sockets: None,
            watch: None,
            new_master: None,
            reexec,
        };
        state.log_connection_limit();
        state.notify(py, "set_listeners", (state.sockets.py_addresses(), state.sockets.py_listeners()));
        state.notify(py, "server_hook", ("when_ready",));
        state.read_socket_modes();
        Ok((state, signals))
    }

    /// The modes of Unix sockets decide whether their peers are trusted. Hooks may have changed them.
    fn read_socket_modes(&mut self) {
        self.sockets.read_modes();
        self.sockets.warn_of_untrusted_peers(&self.config.proxies);
    }

    /// Calls a method of the hooks, if the config file has any.
    pub(super) fn notify<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) {
        if let Some(hooks) = &self.hooks {
            hooks.notify(py, method, arguments);
        }
    }

    /// Whether the processes that this one forks are workers, not masters of a generation.
    fn forks_workers(&self) -> bool {
        !self.config.running.preload || self.preloaded.is_some()
    }

    /// At exit: removes the files of Unix sockets, unless another master still serves on them.
    pub(super) fn remove_socket_files(&self) {
        if self.sockets.old_master.is_none() && self.new_master.is_none() {
            self.sockets.remove_files();
        }
    }

    /// In a new worker, before any code of the application runs.
    fn prepare_worker(&mut self, py: Python<'_>) -> Result<(), StartupError> {
        self.pidfile = None; // its lock belongs to the master
        if self.config.logs.captures() {
            logger::capture(); // with the rights of the master
        }
        // The workers of a preloaded application have dropped their privileges already.
        if let Some(credentials) = self.credentials.take() {
            credentials.drop_privileges().map_err(|error| {
                let (user, group) = credentials.ids();
                StartupError::System(format!("cannot change to user {user} and group {group}: {error}"))
            })?;
        }
        end_imports_of_master(py).map_err(|error| StartupError::System(error.to_string()))?;
        if std::mem::take(&mut self.workers_configure_logging) {
            python_logging::configure_python(py, &self.config, &self.directories)?;
            let was_configured = self.access.as_ref().is_some_and(|access| access.is_configured());
            if was_configured != loggers::configures_access_log() {
                self.access = PythonAccessLog::install(python_logging::open_access(&self.config, None)?);
            }
        }
        Ok(())
    }

    /// The server is ready: errors go to the log only, and a daemon leaves its terminal. In the master and in each worker.
    fn startup_finished(&self, py: Python<'_>) {
        self.context.startup_finished(py);
        if let Some(access) = self.access.as_ref().filter(|_| self.context.redirects_stdio()) {
            access.reopen_stdio();
        }
    }

    /// The settings of the supervisor.
    pub(super) fn settings(&self) -> MasterSettings {
        let running = &self.config.running;
        let preloads = running.preload && self.preloaded.is_none();
        MasterSettings {
            workers: if preloads { 1 } else { running.workers.into() },
            graceful_timeout: running.graceful_timeout,
            boot_timeout: running.boot_timeout(),
            heartbeat_interval: if self.preloaded.is_none() {
                self.context.systemd.watchdog_interval()
            } else {
                None
            },
            refresh_interval: self
                .certificates
                .as_ref()
                .filter(|_| self.preloaded.is_none())
                .map(|_| tls::CHECK_INTERVAL),
            manages_masters: preloads,
            accepts_forwarded_signals: !self.credentials.as_ref().is_some_and(Credentials::gives_up_root),
            old_master: self.sockets.old_master,
            workers_may_reload: self.config.development.reload,
        }
    }

    /// Runs the nested master of one generation, which loads the application for its workers.
    fn run_preloaded_generation(&mut self, py: Python<'_>, worker: Worker) -> Result<i32, StartupError> {
        let wsgi = self.load_app(py)?;
        self.notify(py, "preloaded", (wsgi.application(),));
        self.preloaded = Some(wsgi);
        signal_handlers::reinstall_term_handler(py);
        warn_about_threads();
        match supervise_nested(worker, self.settings(), self) {
            Role::Master(status) => Ok(status),
            Role::Worker(status) => exit_process(py, status),
        }
    }

    /// How requests run, for the log.
    fn concurrency_summary(&self) -> String {
        let count = |number: usize, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
        let each = match self.config.concurrency() {
            Concurrency::Inline => "1 thread each".into(),
            Concurrency::Threads(threads) => format!("{} each", count(threads, "thread")),
            Concurrency::Fork { .. } => "each request in its own process".into(),
        };
        format!("{}, {each}", count(self.config.running.workers.into(), "worker"))
    }
}

/// The first lines of the log.
fn log_start(py: Python<'_>, logs_requests: bool) {
    let python = py.version_info();
    log::info!(
        "Starting mlws {} with Python {}.{}.{}",
        env!("CARGO_PKG_VERSION"),
        python.major,
        python.minor,
        python.patch
    );
    if !logs_requests {
        log::info!("Access log is off: add --access-logfile - to log requests to stdout");
    }
}

fn new_loads(config: &LoadedConfig) -> Result<Arc<WorkerLoads>, StartupError> {
    let loads = WorkerLoads::new(usize::from(config.running.workers).max(MIN_LOAD_SLOTS));
    loads
        .map(Arc::new)
        .map_err(|error| StartupError::System(format!("no shared memory for balancing connections: {error}")))
}

/// Only the thread that forks exists in a worker.
fn warn_about_threads() {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads > 1 {
        log::warn!(
            "the application has started {} threads while it was preloaded; its workers do not have them",
            threads - 1
        );
    }
}
