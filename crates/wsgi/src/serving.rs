//! The master: binds, keeps what its workers share, and does in the master what signals ask for.
//!
//! The one thing to know: [`run`] returns in the master only. A worker ends inside, as a Python process ends, so that
//! nothing a caller would do after `serve()` is done a second time.
//!
//! With `--preload` there is a process between the master and its workers for each generation: it loads the application,
//! and its workers are forked from it. The master itself never imports the application, so a reload sees what changed.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mlws_server::{Concurrency, Listener, Shares};
use mlws_supervisor::{ForkHooks, News, Owner, Pid, Role, Settings, Worker, supervise, supervise_under};
use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::{
    access::AccessLog,
    app::{Facts, Wsgi},
    cli::Flags,
    ffi,
    loader::Target,
    logging,
    refusal::Refusal,
    sockets::Sockets,
    stacks, working,
};

/// For so many workers there is room to tell each other how many connections they have, even if they were fewer at first.
const FEW: usize = 32;

/// What is served: something to import in each worker, or an object that is there already.
pub(crate) enum Application {
    Named(Target),
    Given(Py<PyAny>),
}

/// Serves until told to end. The exit status of the whole, in the master.
pub(crate) fn run(py: Python<'_>, flags: &Flags, application: &Application) -> Result<i32, Refusal> {
    logging::start(flags.logs.level());
    let again = start_again(py);
    let folders = enter_folder(flags)?;
    let access = flags.logs.access_logfile.as_deref().map(open_access_log).transpose()?;
    let sockets = Sockets::open(py, &flags.sockets.bind, flags.sockets.backlog)?;
    let shares = Shares::new(usize::from(flags.running.workers).max(FEW)).map_err(|error| {
        Refusal::System(format!("no memory for what the workers tell each other: {error}"))
    })?;
    let mut house = House {
        flags,
        application,
        folders,
        urls: sockets.urls(),
        first: sockets.first,
        sockets,
        access: access.map(Arc::new),
        shares: Arc::new(shares),
        preloaded: None,
        second: None,
        again,
    };
    flush_python(py);
    match supervise(house.settings(), &mut house) {
        Role::Master(status) => {
            if house.first.is_none() && house.second.is_none() {
                house.sockets.remove_files();
            }
            Ok(status)
        }
        Role::Worker(status) => end_process(py, status),
    }
}

/// What the master has, and each worker a copy of.
pub(crate) struct House<'a> {
    pub(crate) flags: &'a Flags,
    application: &'a Application,
    folders: Vec<PathBuf>,
    urls: String,
    pub(crate) sockets: Sockets,
    pub(crate) access: Option<Arc<AccessLog>>,
    /// How many connections each worker has.
    pub(crate) shares: Arc<Shares>,
    /// In the process of a generation, and in its workers: the application as it was loaded for all of them.
    preloaded: Option<Arc<Wsgi>>,
    first: Option<Pid>,
    second: Option<Pid>,
    /// The command that starts what runs here once more.
    again: PyResult<Command>,
}

impl House<'_> {
    fn settings(&self) -> Settings {
        let running = &self.flags.running;
        let preloads = running.preload && self.preloaded.is_none();
        Settings {
            workers: if preloads { 1 } else { running.workers.into() },
            graceful_timeout: running.graceful_timeout,
            boot_timeout: running.boot_timeout(),
            tick: None,
            is_above_masters: preloads,
            first: self.first,
        }
    }

    /// Imports the application, or takes it as it was preloaded.
    pub(crate) fn wsgi(&self, py: Python<'_>) -> Result<Arc<Wsgi>, Refusal> {
        if let Some(wsgi) = &self.preloaded {
            return Ok(Arc::clone(wsgi));
        }
        let app = match self.application {
            Application::Named(target) => target.load(py, &self.folders)?,
            Application::Given(app) => app.clone_ref(py),
        };
        let running = &self.flags.running;
        let facts = Facts {
            multithread: matches!(self.flags.concurrency(), Concurrency::Threads(_)),
            multiprocess: running.fork || running.workers > 1,
            run_once: running.fork,
            listeners: self.sockets.listeners.iter().map(Listener::server_name_and_port).collect(),
            access: self.access.clone(),
        };
        let wsgi = Wsgi::new(py, app, facts)
            .map_err(|error| Refusal::raised(py, "the application cannot be served", &error))?;
        if running.fork || running.preload {
            wsgi.prepare_to_fork(py, running.fork_warmup.as_deref());
        }
        Ok(Arc::new(wsgi))
    }

    /// The life of a process that loads the application for the workers of one generation, and is their master.
    fn preload(&mut self, py: Python<'_>, worker: Worker) -> Result<i32, Refusal> {
        self.preloaded = Some(self.wsgi(py)?);
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
            if let Err(error) = stacks::listen(py) {
                log::warn!("a worker that hangs or crashes will not show where: {error}");
            }
            let done = if self.flags.running.preload && self.preloaded.is_none() {
                self.preload(py, worker)
            } else {
                working::work(py, self, worker).map(|()| 0)
            };
            done.unwrap_or_else(|refusal| {
                logging::critical(&refusal.to_string());
                refusal.exit_status()
            })
        })
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Ready { workers } if !self.settings().is_above_masters && self.preloaded.is_some() => {
                log::debug!("{workers} preloaded workers are ready");
            }
            News::Ready { .. } => {
                let (app, how) = (&self.flags.app, processes_and_threads(self.flags));
                log::info!("serving {app} on {} ({how})", self.urls);
            }
            News::Reopen => {
                if let Some(access) = &self.access {
                    access.reopen();
                }
            }
            News::SecondIsGone => self.second = None,
            News::FirstIsGone => self.first = None,
            // A socket that the master kept open would let clients wait for nobody.
            News::Ending => self.sockets.listeners.clear(),
            News::Ended { number } => self.shares.clear(number),
            News::Reloading | News::ReloadFailed | News::Tick => {}
        }
    }

    fn reload(&mut self) -> Result<Settings, String> {
        Ok(self.settings())
    }

    fn start_second(&mut self) -> io::Result<Pid> {
        let again = self.again.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        let mut command = Command::new(again.get_program());
        command.args(again.get_args());
        if let Some(folder) = again.get_current_dir() {
            command.current_dir(folder);
        }
        let second = self.sockets.start_second(command)?;
        self.second = Some(second);
        Ok(second)
    }
}

impl ForkHooks for House<'_> {
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

/// Goes to `--chdir`. The folders to look for modules in, as whole paths; the last is the first to be looked into.
fn enter_folder(flags: &Flags) -> Result<Vec<PathBuf>, Refusal> {
    let cannot = |folder: &Path, error| Refusal::Usage(format!("cannot go to {}: {error}", folder.display()));
    if let Some(folder) = &flags.process.chdir {
        std::env::set_current_dir(folder).map_err(|error| cannot(folder, error))?;
    }
    let here = Path::new(".");
    std::iter::once(here)
        .chain(flags.process.pythonpath.iter().map(PathBuf::as_path))
        .map(|folder| std::path::absolute(folder).map_err(|error| cannot(folder, error)))
        .collect()
}

fn open_access_log(path: &Path) -> Result<AccessLog, Refusal> {
    AccessLog::open(path)
        .map_err(|error| Refusal::System(format!("cannot open the access log {}: {error}", path.display())))
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
fn end_process(py: Python<'_>, status: i32) -> ! {
    PySystemExit::new_err(status).print(py);
    std::process::exit(status)
}
