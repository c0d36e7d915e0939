//! A worker: loads the application, serves, and carries out commands.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use mlws_server::{Ended, Notice, Server, leave_stuck};
use mlws_supervisor::{Worker, WorkerCommand};
use pyo3::prelude::*;

use super::{flush_python, house::House};
use crate::{
    hooks::Hooks,
    logs::{self, access::AccessLog},
    refusal::Refusal,
    reload::{Ask, Watch, Watcher},
    signal_handlers,
};

/// How long `worker_abort` may take before the process exits.
const WORKER_ABORT_TIMEOUT: Duration = Duration::from_millis(500);

/// Serves until told to exit. Returns the exit status of the worker.
pub(crate) fn run(py: Python<'_>, house: &mut House<'_>, mut worker: Worker) -> Result<i32, Refusal> {
    let hooks = house.hooks.clone();
    let failed = |error| Refusal::raised(py, "a function of the config file failed", &error);
    hooks.as_ref().map_or(Ok(()), |hooks| hooks.call(py, "born", ())).map_err(failed)?;
    let wsgi = house.wsgi(py)?;
    let loaded = |hooks: &Arc<Hooks>| hooks.call(py, "loaded", (wsgi.application(),));
    hooks.as_ref().map_or(Ok(()), loaded).map_err(failed)?;
    let cannot = |error| Refusal::System(format!("this worker cannot serve: {error}"));
    let notifier = worker.notifier().map_err(cannot)?;
    signal_handlers::reinstall_term_handler(py);
    house.settle(py);
    worker.ready();
    let watch = house.watch.take().filter(|_| worker.number == 0);
    let watcher =
        watch.map(|watch| start_watcher(py, watch, &worker, house.flags.running.fork)).transpose()?;
    let listeners = std::mem::take(&mut house.sockets.listeners);
    let shares = Some((Arc::clone(&house.shares), worker.number));
    let handover = house.handover.clone();
    let settings = mlws_server::Settings { shares, handover, ..house.server() };
    let overdue = hooks.clone();
    let server = Server::new(listeners, settings, wsgi).on_notice(Box::new(move |notice| {
        notifier.request_recycle();
        if let (Notice::Overdue, Some(hooks)) = (notice, &overdue) {
            run_worker_abort_hook(hooks);
        }
    }));
    match watch_commands(server, WorkerControl { worker, watcher, access: house.access.clone(), hooks })
        .and_then(Server::run)
        .map_err(cannot)?
    {
        Ended::Finished => Ok(signal_handlers::exit_status(py)),
        Ended::Stuck => {
            flush_python(py);
            leave_stuck()
        }
    }
}

/// A call that takes too long may hold the GIL forever, so the hook runs on its own thread. The process may exit after
/// `WORKER_ABORT_TIMEOUT`.
fn run_worker_abort_hook(hooks: &Arc<Hooks>) {
    let hooks = Arc::clone(hooks);
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    let told = std::thread::Builder::new().spawn(move || {
        Python::attach(|py| hooks.tell(py, "overdue", ()));
        drop(ends);
    });
    match told {
        Ok(_) => drop(ended.recv_timeout(WORKER_ABORT_TIMEOUT)),
        Err(error) => log::error!("worker_abort hook failed: cannot start a thread: {error}"),
    }
}

/// In a worker that forks, the watcher is a process, because the worker must have one thread only.
fn start_watcher(py: Python<'_>, watch: Watch, worker: &Worker, fork: bool) -> Result<Watcher, Refusal> {
    let notifier =
        worker.notifier().map_err(|error| Refusal::System(format!("--reload cannot work: {error}")))?;
    let ask: Ask = Box::new(move || notifier.request_reload());
    let started = if fork { watch.in_process(py, &ask) } else { watch.in_thread(ask) };
    started.map_err(|error| Refusal::raised(py, "the files of the application cannot be watched", &error))
}

/// The commands that the worker receives.
struct WorkerControl {
    worker: Worker,
    watcher: Option<Watcher>,
    access: Option<Arc<AccessLog>>,
    hooks: Option<Arc<Hooks>>,
}

impl WorkerControl {
    /// The next command for the server. Commands that do not concern the server are carried out here.
    fn next_command(&mut self) -> Option<mlws_server::Order> {
        loop {
            let command = match self.worker.next_command()? {
                WorkerCommand::ReopenLogs => {
                    logs::reopen(self.access.as_deref());
                    continue;
                }
                WorkerCommand::IncreaseWorkers | WorkerCommand::DecreaseWorkers => continue, // for a nested master
                WorkerCommand::HandOver => {
                    signal_handlers::drain_begins();
                    mlws_server::Order::HandOver
                }
                WorkerCommand::Drain => {
                    signal_handlers::drain_begins();
                    mlws_server::Order::Drain
                }
                WorkerCommand::Stop => {
                    if let Some(hooks) = self.hooks.take() {
                        Python::attach(|py| hooks.tell(py, "interrupted", ()));
                    }
                    mlws_server::Order::Stop
                }
            };
            self.watcher = None; // a worker that exits does not request a reload
            return Some(command);
        }
    }
}

/// Commands arrive on two descriptors. Either may be the readable one.
fn watch_commands(mut server: Server, control: WorkerControl) -> io::Result<Server> {
    let mut descriptors = Vec::new();
    for descriptor in control.worker.command_fds() {
        descriptors.push(descriptor.try_clone_to_owned()?);
    }
    let control = Arc::new(Mutex::new(control));
    for descriptor in descriptors {
        let control = Arc::clone(&control);
        let next = move || control.lock().unwrap_or_else(PoisonError::into_inner).next_command();
        server = server.watch(descriptor, Box::new(next));
    }
    Ok(server)
}
