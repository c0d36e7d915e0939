//! From flags to a running server: the master binds, the workers import the application and serve.
//!
//! The one thing to know: [`run`] returns in the master only. A worker ends inside, as a Python process ends, so that
//! nothing a caller would do after `serve()` is done a second time.

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use mlws_server::{Address, Concurrency, Listener, Order, Server};
use mlws_supervisor::{ForkHooks, News, Role, Worker, supervise};
use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::{
    access::AccessLog,
    app::{Facts, Wsgi},
    cli::Flags,
    ffi,
    loader::Target,
    logging,
    refusal::Refusal,
};

/// What is served: something to import in each worker, or an object that is there already.
pub(crate) enum Application {
    Named(Target),
    Given(Py<PyAny>),
}

/// Serves until told to end. The exit status of the whole, in the master.
pub(crate) fn run(py: Python<'_>, flags: &Flags, application: &Application) -> Result<i32, Refusal> {
    logging::start(flags.logs.level());
    let folders = enter_folder(flags)?;
    let access = flags.logs.access_logfile.as_deref().map(open_access_log).transpose()?;
    let listeners = bind(&flags.sockets.bind, flags.sockets.backlog)?;
    let urls: Vec<String> = listeners.iter().map(Listener::url).collect();

    let settings = mlws_supervisor::Settings {
        workers: flags.running.workers.into(),
        graceful_timeout: flags.running.graceful_timeout,
    };
    // Each worker is forked with its own copy of what only one of them could take. The master has no use for it but to
    // fork, and a socket that it kept open would let clients wait for nobody.
    let outfit = Cell::new(Some((listeners, access)));
    let mut announce = |news| match news {
        News::Ready => {
            log::info!("serving {} on {} ({})", flags.app, urls.join(", "), processes_and_threads(flags));
        }
        News::Ending => drop(outfit.take()),
    };
    let mut work = |worker: Worker| {
        let Some((listeners, access)) = outfit.take() else { return 1 };
        let done =
            load(py, application, &folders).and_then(|app| serve(py, flags, app, listeners, access, worker));
        done.map_or_else(
            |refusal| {
                logging::critical(&refusal.to_string());
                refusal.exit_status()
            },
            |()| 0,
        )
    };
    flush_python(py);
    let role = supervise(&settings, &PythonFork, &mut announce, &mut work);
    match role {
        Role::Master(status) => {
            remove_socket_files(&flags.sockets.bind);
            Ok(status)
        }
        Role::Worker(status) => end_process(py, status),
    }
}

/// What a worker does: serve, and do as it is ordered.
fn serve(
    py: Python<'_>,
    flags: &Flags,
    app: Py<PyAny>,
    listeners: Vec<Listener>,
    access: Option<AccessLog>,
    mut worker: Worker,
) -> Result<(), Refusal> {
    let fork = flags.running.fork;
    let facts = Facts {
        multithread: matches!(flags.concurrency(), Concurrency::Threads(_)),
        multiprocess: fork || flags.running.workers > 1,
        run_once: fork,
        listeners: listeners.iter().map(Listener::server_name_and_port).collect(),
        access,
    };
    let wsgi = Wsgi::new(py, app, facts)
        .map_err(|error| Refusal::raised(py, "the application cannot be served", &error))?;
    let cannot = |error: io::Error| Refusal::System(format!("this worker cannot serve: {error}"));
    if fork {
        wsgi.prepare_to_fork(py, flags.running.fork_warmup.as_deref());
    }
    worker.ready();
    let server = Server::new(listeners, flags.server(), Arc::new(wsgi));
    watch(server, worker).and_then(Server::run).map_err(cannot)
}

/// Orders show on two descriptors, and either may be the one that has news.
fn watch(mut server: Server, worker: Worker) -> io::Result<Server> {
    let mut descriptors = Vec::new();
    for descriptor in worker.orders() {
        descriptors.push(descriptor.try_clone_to_owned()?);
    }
    let worker = Arc::new(Mutex::new(worker));
    for descriptor in descriptors {
        let worker = Arc::clone(&worker);
        let next = move || worker.lock().unwrap_or_else(PoisonError::into_inner).next_order();
        server = server.watch(
            descriptor,
            Box::new(move || {
                next().map(|order| match order {
                    mlws_supervisor::Order::Drain => Order::Drain,
                    mlws_supervisor::Order::Stop => Order::Stop,
                })
            }),
        );
    }
    Ok(server)
}

fn load(py: Python<'_>, application: &Application, folders: &[PathBuf]) -> Result<Py<PyAny>, Refusal> {
    match application {
        Application::Named(target) => target.load(py, folders),
        Application::Given(app) => Ok(app.clone_ref(py)),
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

/// Binds all addresses or none.
fn bind(addresses: &[Address], backlog: i32) -> Result<Vec<Listener>, Refusal> {
    let mut listeners = Vec::new();
    for address in addresses {
        match Listener::bind(address, backlog) {
            Ok(listener) => listeners.push(listener),
            Err(error) => {
                remove_socket_files(&addresses[..listeners.len()]);
                return Err(Refusal::System(format!("cannot listen on {address}: {error}")));
            }
        }
    }
    Ok(listeners)
}

/// A Unix socket outlives its process as a file.
fn remove_socket_files(addresses: &[Address]) {
    for address in addresses {
        let Address::Unix(path) = address else { continue };
        if let Err(error) = std::fs::remove_file(path) {
            log::warn!("cannot remove the socket file {}: {error}", path.display());
        }
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

/// What Python has buffered is written once, by the master, and not again by every worker.
fn flush_python(py: Python<'_>) {
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
