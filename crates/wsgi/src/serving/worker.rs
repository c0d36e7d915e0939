//! A worker: loads the application, serves, and carries out commands.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use mlws_server::{Outcome, Server, ServerEvent, exit_stuck};
use mlws_supervisor::{Worker, WorkerCommand};
use pyo3::prelude::*;

use super::{flush_python, house::House};
use crate::{
    hooks::Hooks,
    logs::{self, access::AccessLog, handler_thread},
    refusal::Refusal,
    reload::{Ask, Watch, Watcher},
    signal_handlers,
};

/// How long the worker's exit waits for `worker_int`, `worker_abort` and log handlers.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// Serves until told to exit. Returns the exit status of the worker.
pub(crate) fn run(py: Python<'_>, house: &mut House<'_>, worker: Worker) -> Result<i32, Refusal> {
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
    let watch = house.watch.take().filter(|_| worker.number == 0);
    let watcher =
        watch.map(|watch| start_watcher(py, watch, &worker, house.flags.running.fork)).transpose()?;
    let listeners = std::mem::take(&mut house.sockets.listeners);
    let shares = Some((Arc::clone(&house.shares), worker.number));
    let handover = house.handover.clone();
    let settings = mlws_server::Settings { shares, handover, ..house.server() };
    if !house.flags.running.fork {
        handler_thread::start(&*wsgi).map_err(cannot)?;
    }
    let (overdue, worker_int) = (hooks.clone(), WorkerInt::default());
    let leaving = worker_int.clone();
    let control = WorkerControl {
        worker,
        watcher,
        access: house.access.clone(),
        hooks,
        worker_int: worker_int.clone(),
    };
    let control = Arc::new(Mutex::new(control));
    let ready = Arc::clone(&control);
    let server = Server::new(listeners, settings, wsgi).on_event(Box::new(move |notice| match notice {
        ServerEvent::Serving => ready.lock().unwrap_or_else(PoisonError::into_inner).worker.ready(),
        ServerEvent::CallTimedOut => {
            notifier.request_recycle();
            if let Some(hooks) = &overdue {
                run_worker_abort_hook(hooks);
            }
        }
        ServerEvent::RecycleLimitReached => notifier.request_recycle(),
        ServerEvent::Exiting => finish(&leaving),
    }));
    let ended = watch_commands(server, &control).and_then(Server::run);
    py.detach(|| finish(&worker_int));
    match ended.map_err(cannot)? {
        Outcome::Finished => Ok(signal_handlers::exit_status(py)),
        Outcome::Stuck => {
            flush_python(py);
            exit_stuck()
        }
    }
}

/// A hook that runs in a thread of its own, because the thread that starts it must not wait for the GIL: the thread that holds it may be
/// waiting for the event loop, or be the one that is stuck.
struct RunningHook {
    name: &'static str,
    ended: Receiver<()>,
    deadline: Instant,
}

impl RunningHook {
    /// Calls the function of the config file that is named `name`, by this method of `_hooks.Hooks`.
    fn start(hooks: &Arc<Hooks>, name: &'static str, method: &'static str) -> Option<Self> {
        let hooks = Arc::clone(hooks);
        let (ends, ended) = mpsc::channel::<()>();
        let main = move || {
            // None: Python is about to end.
            let _ = Python::try_attach(|py| hooks.tell(py, method, ()));
            drop(ends);
        };
        match thread::Builder::new().name(format!("mlws-{name}")).spawn(main) {
            Ok(_) => Some(Self { name, ended, deadline: Instant::now() + EXIT_GRACE }),
            Err(error) => {
                log::error!("{name} hook failed: cannot start a thread: {error}");
                None
            }
        }
    }

    /// Waits for its end until [`EXIT_GRACE`] has passed since its start.
    fn wait(&self) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            log::warn!(
                "{} takes longer than {EXIT_GRACE:?}: the worker exits without waiting for it",
                self.name
            );
        }
    }
}

/// `worker_int`, once it was called.
type WorkerInt = Arc<Mutex<Option<RunningHook>>>;

/// Runs before the process exits. The caller must not hold the GIL.
fn finish(worker_int: &WorkerInt) {
    let worker_int = worker_int.lock().unwrap_or_else(PoisonError::into_inner).take();
    let deadline = worker_int.as_ref().map_or_else(|| Instant::now() + EXIT_GRACE, |hook| hook.deadline);
    if let Some(hook) = worker_int {
        hook.wait();
    }
    handler_thread::close(deadline);
}

fn run_worker_abort_hook(hooks: &Arc<Hooks>) {
    if let Some(hook) = RunningHook::start(hooks, "worker_abort", "overdue") {
        hook.wait();
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
    worker_int: WorkerInt,
}

impl WorkerControl {
    /// The next command for the server. Commands that do not concern the server are carried out here. Runs on the event loop, so
    /// it must neither wait nor take the GIL.
    fn next_command(&mut self) -> Option<mlws_server::Command> {
        loop {
            let command = match self.worker.next_command()? {
                WorkerCommand::ReopenLogs => {
                    logs::reopen(self.access.as_deref());
                    continue;
                }
                WorkerCommand::IncreaseWorkers | WorkerCommand::DecreaseWorkers => continue, // for a nested master
                WorkerCommand::HandOver => {
                    signal_handlers::drain_begins();
                    mlws_server::Command::HandOver
                }
                WorkerCommand::Drain => {
                    signal_handlers::drain_begins();
                    mlws_server::Command::Drain
                }
                WorkerCommand::Stop => {
                    if let Some(hooks) = self.hooks.take() {
                        *self.worker_int.lock().unwrap_or_else(PoisonError::into_inner) =
                            RunningHook::start(&hooks, "worker_int", "interrupted");
                    }
                    mlws_server::Command::Stop
                }
            };
            self.watcher = None; // a worker that exits does not request a reload
            return Some(command);
        }
    }
}

/// Commands arrive on two descriptors. Either may be the readable one.
fn watch_commands(mut server: Server, control: &Arc<Mutex<WorkerControl>>) -> io::Result<Server> {
    let mut descriptors = Vec::new();
    for descriptor in control.lock().unwrap_or_else(PoisonError::into_inner).worker.command_fds() {
        descriptors.push(descriptor.try_clone_to_owned()?);
    }
    for descriptor in descriptors {
        let control = Arc::clone(control);
        let next = move || control.lock().unwrap_or_else(PoisonError::into_inner).next_command();
        server = server.watch(descriptor, Box::new(next));
    }
    Ok(server)
}
