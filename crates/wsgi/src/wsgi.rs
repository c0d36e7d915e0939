//! [`Wsgi`]: a WSGI application as an [`App`] of the server.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mlws_server::{App, Record, Request, Response};
use pyo3::{
    IntoPyObjectExt, intern,
    prelude::*,
    types::{IntoPyDict, PyCFunction, PyString},
};
use rustix::process::Pid;

use crate::{
    app_result::{AppResult, ResponseStart},
    environ::{EARLY_HINTS, Environ, EnvironError},
    failure::{self, RequestLabel},
    start_response::{StartResponse, StartResponseState},
};
use crate::{
    ffi,
    forked_process::guarded,
    options::{AccessLogger, RequestHooks, WsgiOptions},
    threads,
};

/// A WSGI application. The server calls it as an [`App`].
pub struct Wsgi {
    application: Py<PyAny>,
    environ: Environ,
    access: Option<Arc<dyn AccessLogger>>,
    hooks: Option<Arc<dyn RequestHooks>>,
    sendfile: bool,
    check_signals: fn(Python<'_>),
    sys: Py<PyModule>,
    has_gil: bool,
    /// Whether this process was forked for one request.
    is_child: AtomicBool,
    /// Whether this process has forked for a request.
    has_forked: AtomicBool,
    /// Objects for the next requests. No application refers to them any more.
    pool: Mutex<Vec<Py<StartResponse>>>,
}

impl Wsgi {
    pub fn new(py: Python<'_>, application: Py<PyAny>, options: WsgiOptions) -> PyResult<Self> {
        let sys = py.import("sys")?;
        let has_gil = match sys.getattr_opt("_is_gil_enabled")? {
            Some(is_gil_enabled) => is_gil_enabled.call0()?.is_truthy()?,
            None => true,
        };
        let environ = Environ::new(py, &options)?;
        Ok(Self {
            application,
            environ,
            access: options.access,
            hooks: options.hooks,
            check_signals: options.check_signals,
            sendfile: options.sendfile,
            sys: sys.unbind(),
            has_gil,
            is_child: AtomicBool::new(false),
            has_forked: AtomicBool::new(false),
            pool: Mutex::default(),
        })
    }

    /// The callable.
    pub fn application(&self) -> &Py<PyAny> {
        &self.application
    }

    fn handle(&self, py: Python<'_>, request: &mut Request) -> Response {
        let is_last = self.is_child.load(Ordering::Relaxed);
        let prepared = self.environ.of(py, request, is_last).and_then(|(environ, input)| {
            let start_response = self.start_response(py)?;
            environ.set_item(intern!(py, EARLY_HINTS), start_response.get().early_hints())?;
            Ok(((environ, input), start_response))
        });
        let ((environ, input), start_response) = match prepared {
            Ok(prepared) => prepared,
            Err(EnvironError::Http(error)) => return failure::reject(request, error),
            Err(EnvironError::Python(error)) => {
                return failure::failed_before_headers(py, &RequestLabel::of(request), &error);
            }
        };
        if let Some(input) = &input {
            input.get().attach(request.take_body());
        }
        let hooks = self.hooks.as_ref().map(|hooks| Arc::clone(hooks).before_request(py, &environ));
        let completion = match hooks.transpose() {
            Ok(completion) => completion.flatten(),
            Err(error) => return failure::failed_before_headers(py, &RequestLabel::of(request), &error),
        };
        let environ_logger = self.access.as_ref().filter(|access| access.wants_environ());
        let logged = environ_logger.map(|environ_logger| (environ_logger, environ.clone()));
        let (outcome, state) = start_response.get().scope(py, request, || {
            guarded(py, "the application", || {
                let returned = self.application.bind(py).call1((environ, &start_response))?;
                start_response.get().expect_events(py);
                AppResult::new(&returned, self.sendfile, &|| start_response.get().is_alive(py))
            })
        });
        self.recycle(py, start_response);
        if let Some((environ_logger, environ)) = logged {
            environ_logger.keep(&environ, request);
        }
        if let Some(input) = input {
            let keeps_running = outcome.as_ref().is_ok_and(|result| result.keeps_running(&state));
            let is_ours = self.has_gil && ffi::is_sole_reference(py, input.as_unbound());
            input.get().detach(py, request, keeps_running && !is_ours);
        }
        let response = into_response(py, outcome, state, request);
        match completion {
            Some(mut completion) => {
                completion.set_head(response.head().unwrap_or_default());
                response.on_complete(Box::new(completion))
            }
            None => response,
        }
    }

    fn start_response(&self, py: Python<'_>) -> PyResult<Py<StartResponse>> {
        let pooled = self.pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
        pooled.map_or_else(|| StartResponse::new(py), Ok)
    }

    /// With a GIL, an object without other references can be used for the next request.
    fn recycle(&self, py: Python<'_>, start_response: Py<StartResponse>) {
        if self.has_gil && StartResponse::is_free(py, &start_response) {
            self.pool.lock().unwrap_or_else(PoisonError::into_inner).push(start_response);
        }
    }
}

/// The response, from the result of the call and the state of the response after it.
fn into_response(
    py: Python<'_>,
    outcome: PyResult<AppResult>,
    state: StartResponseState,
    request: &Request,
) -> Response {
    let label = || RequestLabel::of(request);
    match (outcome, state) {
        (Ok(result), StartResponseState::HeadersSet(head)) => {
            result.into_response(ResponseStart::Head(head), label)
        }
        (Ok(result), StartResponseState::HeadersSent(writer)) => {
            result.into_response(ResponseStart::Sent(*writer), label)
        }
        (Ok(_), StartResponseState::NotStarted | StartResponseState::Closed) => {
            failure::start_response_missing(&label())
        }
        (
            Err(error),
            StartResponseState::NotStarted | StartResponseState::HeadersSet(_) | StartResponseState::Closed,
        ) => failure::failed_before_headers(py, &label(), &error),
        (Err(error), StartResponseState::HeadersSent(writer)) => {
            failure::failed_after_headers(py, &label(), &error, *writer)
        }
        (outcome, StartResponseState::Disconnected(writer)) => {
            failure::client_disconnected(py, &label(), outcome.err().as_ref(), writer.map(|writer| *writer))
        }
    }
}

impl App for Wsgi {
    fn call(&self, request: &mut Request) -> Response {
        Python::attach(|py| self.handle(py, request))
    }

    fn attached(&self, serve: &mut dyn FnMut()) {
        Python::attach(|_| serve());
    }

    /// Runs in a copy of the thread's context, so that changes of context variables end with the request. So does a line that the
    /// application has begun in `wsgi.errors`.
    fn in_request(&self, run: &mut dyn FnMut()) {
        Python::attach(|py| {
            ffi::in_own_context(py, run);
            log::logger().flush();
        });
    }

    /// Starts a thread of the `threading` module, so that its hooks for profilers and debuggers apply and `current_thread()` has a name.
    fn spawn(&self, name: String, main: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        Python::attach(|py| {
            let main = Mutex::new(Some(main));
            let target = PyCFunction::new_closure(py, None, None, move |_, _| {
                if let Some(main) = main.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    main();
                }
            })?;
            let threading = py.import("threading")?;
            let before = threading.call_method1("stack_size", (mlws_server::STACK_SIZE,))?;
            let settings =
                [("name", name.into_bound_py_any(py)?), ("target", target.into_any())].into_py_dict(py)?;
            settings.set_item("daemon", true)?; // the server joins its threads itself, except those that hang
            let thread = threading.call_method("Thread", (), Some(&settings))?;
            let started = thread.call_method0("start");
            threading.call_method1("stack_size", (before,))?;
            started?;
            // Threads started by requests inherit this. By default, the interpreter joins them at exit.
            thread.setattr("_daemonic", false)
        })
        .map_err(|error: PyErr| io::Error::other(error.to_string()))
    }

    fn detached(&self, wait: &mut (dyn FnMut() + Send)) {
        Python::attach(|py| py.detach(wait));
    }

    fn one_at_a_time(&self) -> bool {
        self.has_gil
    }

    fn check_signals(&self) {
        Python::attach(self.check_signals);
    }

    fn show_stacks(&self) {
        ffi::show_stacks();
    }

    fn wants_log(&self) -> bool {
        self.access.is_some()
    }

    fn wants_head(&self) -> Arc<AtomicBool> {
        self.access.as_ref().map(|access| access.wants_head()).unwrap_or_default()
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(access) = &self.access {
            access.write(record);
        }
    }

    fn can_log_later(&self) -> bool {
        self.access.as_ref().is_some_and(|access| access.can_write_later())
    }

    fn log_later(&self, record: &Record<'_>) {
        if let Some(access) = &self.access {
            access.write_later(record);
        }
    }

    fn before_fork(&self) {
        if !self.has_forked.swap(true, Ordering::Relaxed) {
            Python::attach(warn_of_threads);
        }
        ffi::before_fork();
    }

    fn after_fork_in_parent(&self) {
        ffi::after_fork_in_parent();
    }

    fn after_fork_in_child(&self) {
        ffi::after_fork_in_child();
        self.is_child.store(true, Ordering::Relaxed);
    }

    /// `_exit` skips Python's finalization, so buffered output must be flushed here.
    fn before_exit_of_child(&self) {
        Python::attach(|py| {
            for name in [intern!(py, "stdout"), intern!(py, "stderr")] {
                if let Err(error) = flush(self.sys.bind(py), name) {
                    log::warn!("flushing sys.{name} failed: {error}");
                }
            }
        });
    }

    fn wants_child_exits(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| hooks.wants_child_exits())
    }

    fn child_exited(&self, pid: Pid) {
        if let Some(hooks) = &self.hooks {
            Python::attach(|py| hooks.child_exited(py, pid.as_raw_pid()));
        }
    }

    fn has_background_threads(&self) -> bool {
        Python::attach(threads::has_background_threads).unwrap_or_else(|error| {
            log::warn!("listing the threads of a request failed: {error}");
            false
        })
    }

    fn join_background_threads(&self) {
        if let Err(error) = Python::attach(threads::join_background_threads) {
            log::warn!("joining the threads of a request failed: {error}");
        }
    }
}

/// Before the first fork for a request: logs the threads that will not exist in children.
fn warn_of_threads(py: Python<'_>) {
    let threads = threads::other_threads(py);
    if !threads.is_empty() {
        log::warn!(
            "--fork is used while other threads run in this worker: {}. Requests do not have these threads, and a lock that one \
             of them holds at the fork is never released there; start threads in the request that needs them",
            threads.join(", ")
        );
    }
}

/// Flushes a stream of `sys`, which may be None.
fn flush(sys: &Bound<'_, PyModule>, name: &Bound<'_, PyString>) -> PyResult<()> {
    let stream = sys.getattr(name)?;
    if !stream.is_none() {
        stream.call_method0(intern!(sys.py(), "flush"))?;
    }
    Ok(())
}
