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
//! | [`house`]   | what the master has, and does when it is told of something |
//! | [`sockets`] | what it listens on, and passes on to a new master |
//! | [`loading`] | the application: imported, warmed up, watched |
//! | [`shared_sockets`] | connections that forked processes would share |
//! | [`warmup`]  | the request before the first fork |
//! | [`worker`]  | a worker, from its start to its exit |

mod house;
mod loading;
mod shared_sockets;
mod sockets;
mod warmup;
mod worker;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use mlws_server::Concurrency;
use mlws_supervisor::{ForkHooks, Role, supervise};
use pyo3::{exceptions::PySystemExit, prelude::*};
use rustix::process::geteuid;

use self::house::House;
pub(crate) use self::sockets::is_new_master;
use crate::{
    environment::Environment,
    ffi,
    hooks::Hooks,
    loader::{Target, end_imports_of_master, extend_path_of_master},
    logs::logging,
    process::{self, Identity, descriptors},
    refusal::Refusal,
    settings::{ErrorFormat, Flags, Sources},
};

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
    let _raised = descriptors::Raised::new(py);
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
    let identity = Identity::of(&flags.process)?;
    Environment::set(py, flags)?;
    let folders = enter_folder(flags, None)?;
    if let Some(identity) = identity {
        identity.assume()?; // the application never runs with other rights than those of the workers
    }
    end_imports_of_master(py).map_err(|error| Refusal::System(error.to_string()))?;
    target.load(py, &folders)?;
    log::info!("{} can be served with these settings", flags.name());
    Ok(0)
}

/// What was said of the settings while they were read.
fn warn(flags: &Flags) {
    for warning in &flags.extras.warnings {
        log::warn!("{warning}");
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

fn hooks(
    py: Python<'_>,
    flags: &Flags,
    application: &Application,
    folders: &[PathBuf],
) -> Result<Option<Arc<Hooks>>, Refusal> {
    let Some(functions) = &flags.extras.hooks else { return Ok(None) };
    let (folders_of_hooks, folders) = (folders, folders.to_vec());
    let application = match application {
        Application::Given(app) => Application::Given(app.clone_ref(py)),
        Application::Named(_) => Application::Named(Target::of(py, flags)?),
    };
    let gives_up_root = Identity::of(&flags.process)?.is_some_and(|identity| identity.gives_up_root());
    let load = move |py: Python<'_>| match &application {
        Application::Given(app) => Ok(app.clone_ref(py)),
        Application::Named(_) if gives_up_root && geteuid().is_root() => Err(Refusal::App(
            "with --user, the application is not loaded as root: call wsgi() in post_fork or later".into(),
        )),
        Application::Named(target) => target.load(py, &folders),
    };
    extend_path_of_master(py, folders_of_hooks)
        .map_err(|error| Refusal::raised(py, "modules cannot be looked for", &error))?;
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
