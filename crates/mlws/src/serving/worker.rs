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

use mlws_server::{Listener, Outcome, Server, ServerEvent, Settings, exit_stuck};
use mlws_supervisor::{Worker, WorkerCommand};
use pyo3::prelude::*;

use mlws_wsgi::{Wsgi, python::flush_streams};

use crate::{
    error::StartupError,
    hooks::Hooks,
    python_logging::{self, PythonAccessLog, handler_thread},
    reload::{ReloadRequest, Watch, Watcher},
    signal_handlers,
    tls::Certificates,
};

/// How long the worker's exit waits for `worker_int`, `worker_abort` and log handlers.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// What a worker serves.
pub(super) struct WorkerSetup {
    pub(super) listeners: Vec<Listener>,
    pub(super) settings: Settings,
    pub(super) wsgi: Arc<Wsgi>,
    pub(super) hooks: Option<Arc<Hooks>>,
    pub(super) access: Option<Arc<PythonAccessLog>>,
    pub(super) certificates: Option<Certificates>,
    /// The files to watch, in the worker that does so.
    pub(super) watch: Option<Watch>,
    /// Requests run in child processes.
    pub(super) forks: bool,
}

/// Serves until the master stops the worker. Returns the exit status.
pub(super) fn run(py: Python<'_>, worker: Worker, setup: WorkerSetup) -> Result<i32, StartupError> {
    let WorkerSetup { listeners, settings, wsgi, hooks, access, certificates, watch, forks } = setup;
    let failed = |error| StartupError::System(format!("this worker cannot serve: {error}"));
    let notifier = worker.notifier().map_err(failed)?;
    let watcher = watch.map(|watch| start_watcher(py, watch, &worker, forks)).transpose()?;
    if !forks {
        handler_thread::start(Arc::clone(&wsgi) as _).map_err(failed)?;
    }
    let (abort_hooks, worker_int) = (hooks.clone(), WorkerInt::default());
    let exit_hook = worker_int.clone();
    let control =
        WorkerControl { worker, watcher, access, certificates, hooks, worker_int: worker_int.clone() };
    let control = Arc::new(Mutex::new(control));
    let ready = Arc::clone(&control);
    let server = Server::new(listeners, settings, wsgi).on_event(Box::new(move |event| match event {
        ServerEvent::Serving => ready.lock().unwrap_or_else(PoisonError::into_inner).worker.ready(),
        ServerEvent::CallTimedOut => {
            notifier.request_recycle();
            if let Some(hooks) = &abort_hooks {
                run_worker_abort_hook(hooks);
            }
        }
        ServerEvent::RecycleLimitReached => notifier.request_recycle(),
        ServerEvent::Exiting => finish(&exit_hook),
    }));
    let ended = watch_commands(server, &control).and_then(Server::run);
    py.detach(|| finish(&worker_int));
    match ended.map_err(failed)? {
        Outcome::Finished => Ok(signal_handlers::exit_status(py)),
        Outcome::Stuck => {
            flush_streams(py);
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
            let _ = Python::try_attach(|py| hooks.notify(py, method, ()));
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

/// The hook `worker_int`, once it was started.
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
    if let Some(hook) = RunningHook::start(hooks, "worker_abort", "worker_abort") {
        hook.wait();
    }
}

/// In a worker that forks, the watcher is a process, because the worker must have one thread only.
fn start_watcher(py: Python<'_>, watch: Watch, worker: &Worker, fork: bool) -> Result<Watcher, StartupError> {
    let notifier =
        worker.notifier().map_err(|error| StartupError::System(format!("--reload failed: {error}")))?;
    let request: ReloadRequest = Box::new(move || notifier.request_reload());
    let started = if fork { watch.in_process(py, &request) } else { watch.in_thread(request) };
    started.map_err(|error| {
        StartupError::from_exception(py, "watching the files of the application failed", &error)
    })
}

/// The commands that the worker receives.
struct WorkerControl {
    worker: Worker,
    watcher: Option<Watcher>,
    access: Option<Arc<PythonAccessLog>>,
    certificates: Option<Certificates>,
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
                    python_logging::reopen(self.access.as_deref());
                    continue;
                }
                WorkerCommand::Refresh => {
                    if let Some(certificates) = &mut self.certificates {
                        certificates.refresh();
                    }
                    continue;
                }
                WorkerCommand::IncreaseWorkers | WorkerCommand::DecreaseWorkers => continue, // for a nested master
                WorkerCommand::HandOver => {
                    signal_handlers::on_drain();
                    mlws_server::Command::HandOver
                }
                WorkerCommand::Drain => {
                    signal_handlers::on_drain();
                    mlws_server::Command::Drain
                }
                WorkerCommand::Stop => {
                    if let Some(hooks) = self.hooks.take() {
                        *self.worker_int.lock().unwrap_or_else(PoisonError::into_inner) =
                            RunningHook::start(&hooks, "worker_int", "worker_int");
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
        server = server.command_source(descriptor, Box::new(next));
    }
    Ok(server)
}
