//! What the master has, and each worker a copy of; and what it does when it is told of something.
//!
//! It is the supervisor's delegate, so its methods say in which process they run.

use std::{io, path::PathBuf, process::Command, sync::Arc};

use mlws_server::{HandoverQueue, WorkerLoads};
use mlws_supervisor::{Delegate, ForkHooks, MasterEvent, Pid, Role, Settings, Worker, supervise_nested};
use pyo3::prelude::*;
#[cfg(target_os = "linux")]
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::{fs::Mode, process::umask};

use super::{
    Application, PythonFork, end_process, enter_folder, hooks, processes_and_threads,
    shared_sockets::KnownSockets, sockets::Sockets, warn, warn_of_threads, with_suffix, worker,
};
use crate::{
    app::Wsgi,
    environment::Environment,
    hooks::Hooks,
    loader::{Target, end_imports_of_master},
    logs::{self, access::AccessLog, logging, statsd::Statsd},
    process::{self, Identity, Pidfile, Surroundings},
    refusal::Refusal,
    reload::Watch,
    settings::{ErrorFormat, Flags, Sources},
    signal_handlers, stacks,
};

/// For so many workers there is room to tell each other how many connections they have, even if they were fewer at first.
const FEW: usize = 32;

/// What the master has, and each worker a copy of.
pub(super) struct House<'a> {
    pub(crate) flags: Arc<Flags>,
    /// To read the settings again.
    pub(super) sources: &'a Sources,
    pub(super) application: Application,
    /// What it has set for the application.
    pub(super) environment: Environment,
    pub(crate) hooks: Option<Arc<Hooks>>,
    pub(crate) surroundings: &'a Surroundings,
    /// Whom the workers run as.
    pub(super) identity: Option<Identity>,
    pub(super) pidfile: Option<Pidfile>,
    pub(super) folders: Vec<PathBuf>,
    pub(super) urls: String,
    pub(crate) sockets: Sockets,
    pub(crate) access: Option<Arc<AccessLog>>,
    /// Where the workers, their number, are told.
    pub(super) statsd: Option<Arc<Statsd>>,
    /// Python's logging is to be configured anew in each new worker. The master keeps what it has, for what is new may fail.
    pub(super) reconfigures: bool,
    /// How many connections each worker has.
    pub(crate) shares: Arc<WorkerLoads>,
    /// Where workers that leave put their idle connections.
    pub(crate) handover: Option<Arc<HandoverQueue>>,
    /// In the process of a generation, and in its workers: the application as it was loaded for all of them.
    pub(super) preloaded: Option<Arc<Wsgi>>,
    /// Where the application is loaded and then forked: the connections that are not its own.
    pub(super) known_sockets: Option<KnownSockets>,
    /// With `--reload`: which files the application was loaded from.
    pub(crate) watch: Option<Watch>,
    pub(super) new_master: Option<Pid>,
    /// The command that starts what runs here once more.
    pub(super) again: PyResult<Command>,
}

impl<'a> House<'a> {
    pub(super) fn new(
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
        // A configuration of Python's logging can run any code, so that is left to the workers where the master has more rights.
        let configures_late = identity.as_ref().is_some_and(Identity::gives_up_root);
        let configure =
            || if configures_late { Ok(()) } else { logs::configure_python(py, &flags, &folders) };
        let access = logs::open(&flags, identity.as_ref(), configure)?;
        warn(&flags);
        process::name(py, &flags.process, "master");
        let hooks = hooks(py, &flags, &application, &folders)?;
        if let Some(hooks) = &hooks {
            hooks.tell(py, "resized", (flags.running.workers, None::<u16>));
            hooks.tell(py, "whole", ("on_starting",));
        }
        let sockets = Sockets::open(py, &flags, &surroundings.systemd, identity.as_ref())?;
        let pidfile = flags.process.pid.as_ref().map(|path| match sockets.old_master {
            None => Pidfile::create(path),
            Some(_) => Pidfile::create(&with_suffix(path, ".2")),
        });
        let pidfile = pidfile.transpose().inspect_err(|_| sockets.remove_files())?;
        let shares = new_shares(&flags)?;
        let handover = HandoverQueue::new().map_err(|error| {
            Refusal::System(format!(
                "creating the queue for connections that workers hand over failed: {error}"
            ))
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
            reconfigures: configures_late,
            shares,
            handover: Some(Arc::new(handover)),
            preloaded: None,
            known_sockets: None,
            watch: None,
            new_master: None,
            again,
        };
        house.log_bound();
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

    /// Takes settings that were read again. Where one of them cannot be had, all is as it was.
    fn take_over(&mut self, py: Python<'_>, flags: Flags) -> Result<(), Refusal> {
        self.environment.undo(py);
        self.environment = Environment::default();
        let before = self.flags.running.workers;
        if let Err(refusal) = self.take(py, flags) {
            self.environment.undo(py);
            self.environment = Environment::set(py, &self.flags)?;
            enter_folder(&self.flags, Some(&self.sources.folder))?;
            return Err(refusal);
        }
        self.tell(py, "listening", (self.sockets.places(),));
        self.tell(py, "resized", (self.flags.running.workers, before)); // also where it is the same, as gunicorn does
        self.tell(py, "whole", ("on_reload",));
        Ok(())
    }

    /// First all that may fail, the sockets and the logs at last, for both are in use.
    fn take(&mut self, py: Python<'_>, flags: Flags) -> Result<(), Refusal> {
        let application = match &self.application {
            Application::Named(_) => Application::Named(Target::of(py, &flags)?),
            Application::Given(app) => Application::Given(app.clone_ref(py)),
        };
        let identity = Identity::of(&flags.process)?;
        self.environment = Environment::set(py, &flags)?;
        let folders = enter_folder(&flags, Some(&self.sources.folder))?;
        let hooks = hooks(py, &flags, &application, &folders)?;
        let has_other_pidfile =
            self.sockets.old_master.is_none() && flags.process.pid != self.flags.process.pid;
        let pidfile = flags.process.pid.as_deref().filter(|_| has_other_pidfile);
        let pidfile = pidfile.map(Pidfile::create).transpose()?;
        let has_slots = usize::from(flags.running.workers) <= self.shares.slots();
        let shares = if has_slots { Arc::clone(&self.shares) } else { new_shares(&flags)? };
        let access = logs::open(&flags, identity.as_ref(), || Ok(()))?;
        let followed = self.sockets.follow(&flags, &self.surroundings.systemd, identity.as_ref());
        if let Err(refusal) = followed {
            logs::open(&self.flags, self.identity.as_ref(), || Ok(()))?;
            return Err(refusal);
        }
        if has_other_pidfile {
            self.pidfile = pidfile; // and the old one goes
        }
        if let Some(mask) = flags.process.umask {
            umask(Mode::from_raw_mode(mask));
        }
        logging::follow(flags.logs.level(), flags.logs.error_logformat == ErrorFormat::Json);
        self.reconfigures = true;
        self.statsd.clone_from(&logging::change().statsd);
        warn(&flags);
        if let Some(hooks) = &hooks {
            hooks.follow(py, self.hooks.as_ref());
        }
        (self.application, self.folders, self.hooks, self.identity) = (application, folders, hooks, identity);
        self.shares = shares; // workers of before have those that they were forked with
        (self.access, self.urls) = (access.map(Arc::new), self.sockets.urls());
        self.flags = Arc::new(flags);
        Ok(())
    }

    /// Runs at exit, unless another master still serves on the sockets.
    pub(super) fn clear_away(&self) {
        if self.sockets.old_master.is_none() && self.new_master.is_none() {
            self.sockets.remove_files();
        }
    }

    /// In a new worker, before anything of the application runs.
    fn prepare(&mut self, py: Python<'_>) -> Result<(), Refusal> {
        self.pidfile = None; // the lock on it ends with the master
        if self.flags.logs.captures() {
            logging::capture(); // with the rights of the master
        }
        // The workers of a preloaded application have given up their rights already.
        if let Some(identity) = self.identity.take() {
            identity.assume()?;
        }
        end_imports_of_master(py).map_err(|error| Refusal::System(error.to_string()))?;
        if std::mem::take(&mut self.reconfigures) {
            logs::configure_python(py, &self.flags, &self.folders)?;
            let was_pythons = self.access.as_ref().is_some_and(|access| access.is_pythons());
            if was_pythons != logs::python::takes_access() {
                self.access = logs::open_access(&self.flags, None)?.map(Arc::new);
            }
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

    pub(super) fn settings(&self) -> Settings {
        let running = &self.flags.running;
        let preloads = running.preload && self.preloaded.is_none();
        Settings {
            workers: if preloads { 1 } else { running.workers.into() },
            graceful_timeout: running.graceful_timeout,
            boot_timeout: running.boot_timeout(),
            heartbeat_interval: if self.preloaded.is_none() {
                self.surroundings.systemd.watchdog_interval()
            } else {
                None
            },
            manages_masters: preloads,
            old_master: self.sockets.old_master,
            workers_may_reload: self.flags.development.reload,
        }
    }

    /// Runs the nested master of one generation, which loads the application for its workers.
    fn preload(&mut self, py: Python<'_>, worker: Worker) -> Result<i32, Refusal> {
        let wsgi = self.wsgi(py)?;
        self.tell(py, "leads", (wsgi.application(),));
        self.preloaded = Some(wsgi);
        signal_handlers::reinstall_term_handler(py);
        warn_of_threads();
        match supervise_nested(worker, self.settings(), self) {
            Role::Master(status) => Ok(status),
            Role::Worker(status) => end_process(py, status),
        }
    }
}

fn new_shares(flags: &Flags) -> Result<Arc<WorkerLoads>, Refusal> {
    let shares = WorkerLoads::new(usize::from(flags.running.workers).max(FEW));
    shares.map(Arc::new).map_err(|error| {
        Refusal::System(format!("no memory for the numbers of connections that workers share: {error}"))
    })
}

impl Delegate for House<'_> {
    fn run_worker(&mut self, worker: Worker) -> i32 {
        Python::attach(|py| {
            let is_worker = self.forks_workers();
            process::name(
                py,
                &self.flags.process,
                if is_worker { "worker" } else { "master of a generation" },
            );
            if let Err(refusal) = self.prepare(py) {
                logging::critical(&refusal.to_string());
                return refusal.exit_status();
            }
            // Without its master, nothing enforces a worker's timeouts, and one that is stuck in the application cannot notice.
            #[cfg(target_os = "linux")]
            let _ = set_parent_process_death_signal(Some(Signal::KILL)); // a master that has exited already shows as a closed control channel
            if let Err(error) = stacks::listen(py) {
                log::warn!(
                    "Failed to enable stack dumps: {error}, a worker that hangs or crashes shows no stacks"
                );
            }
            if self.preloaded.is_none() {
                if self.flags.running.fork || self.flags.running.preload {
                    self.known_sockets = Some(KnownSockets::new(py));
                }
                signal_handlers::install(py);
            }
            let done = if is_worker {
                let done = worker::run(py, self, worker);
                self.tell(py, "leaves", ());
                done
            } else {
                self.preload(py, worker)
            };
            signal_handlers::ignore_term(py);
            done.unwrap_or_else(|refusal| {
                logging::critical(&refusal.to_string());
                refusal.exit_status()
            })
        })
    }

    fn on_event(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::WorkersReady { .. } if self.preloaded.is_some() => {
                Python::attach(|py| self.settle(py));
            }
            MasterEvent::WorkersReady { .. } => {
                let concurrency = processes_and_threads(&self.flags);
                log::info!("Listening at: {} ({}, {concurrency})", self.urls, self.flags.name());
                Python::attach(|py| {
                    self.settle(py);
                    self.surroundings.ready(&format!("serving on {} ({concurrency})", self.urls));
                });
            }
            MasterEvent::ReopenLogs => {
                logs::reopen(self.access.as_deref());
            }
            MasterEvent::WorkerCountChanged { from, to } => {
                Python::attach(|py| self.tell(py, "resized", (to, from)));
            }
            MasterEvent::WorkerForking { age } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "forking", (age,)));
            }
            MasterEvent::WorkerForked { pid } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "forked", (pid.as_raw_pid(),)));
            }
            MasterEvent::WorkerReaped { pid } if self.forks_workers() => {
                Python::attach(|py| self.tell(py, "gone", (pid.as_raw_pid(),)));
            }
            MasterEvent::WorkerForking { .. }
            | MasterEvent::WorkerForked { .. }
            | MasterEvent::WorkerReaped { .. } => {}
            MasterEvent::WorkerCrashed { number } => self.shares.clear(number),
            MasterEvent::Stopping => {
                if self.preloaded.is_none() {
                    self.surroundings.systemd.stopping();
                }
                // Clients would wait in the backlog of a socket that the master kept open.
                self.sockets.listeners.clear();
                self.handover = None;
            }
            MasterEvent::ServingCount { serving } => {
                if let Some(statsd) = &self.statsd {
                    statsd.workers(serving);
                }
            }
            MasterEvent::Reloading => self.surroundings.systemd.reloading(),
            MasterEvent::ReloadFailed => {
                // The new logging configuration may be what failed. But if the master has not configured logging, the workers have to.
                self.reconfigures = self.identity.as_ref().is_some_and(Identity::gives_up_root);
                self.surroundings.systemd.ready("reload failed, previous workers keep serving");
            }
            MasterEvent::Heartbeat => self.surroundings.systemd.alive(),
            MasterEvent::NewMasterExited => {
                self.new_master = None;
                self.surroundings.systemd.main_pid();
            }
            MasterEvent::OldMasterExited => {
                self.sockets.old_master = None;
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

    /// A config file may have started threads, which run while the master waits, and installed signal handlers.
    fn while_idle(&mut self, wait: &mut (dyn FnMut() + Send)) {
        Python::attach(|py| {
            py.detach(wait);
            signal_handlers::check_in_master(py);
        });
    }

    fn spawn_upgrade(&mut self) -> io::Result<Pid> {
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
        let new_master = self.sockets.spawn_upgrade(command)?;
        self.new_master = Some(new_master);
        Ok(new_master)
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
