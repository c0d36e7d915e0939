//! The bridge: a request becomes a call of the application (PEP 3333), and what it answers a response.
//!
//! The one thing to know: whatever the application does ends here as a [`Response`]; no exception leaves this floor, and none is
//! lost: what happened before the head was sent is a 500, what happened later an abort, and both are in the log.
//!
//! | module             | what it holds |
//! |--------------------|---|
//! | [`environ`]        | the environ: a prepared dict, copied and completed for each request |
//! | [`names`]          | from the name of a field to its key in the environ |
//! | [`proxies`]        | what is believed of the fields, and of whom |
//! | [`input`]          | `wsgi.input` |
//! | [`start_response`] | `start_response` and `write` |
//! | [`answer`]         | from the iterable that the application returned to a body |
//! | [`file_wrapper`]   | `wsgi.file_wrapper` |
//! | [`client_gone`]    | whether the client has left |
//! | [`failure`]        | what the log and the client hear when the application fails |

mod answer;
mod client_gone;
mod environ;
mod failure;
mod file_wrapper;
mod input;
mod names;
mod proxies;
mod start_response;

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

pub(crate) use self::proxies::{HeaderMap, Proxies};
use self::{
    answer::Answer,
    environ::{Environ, Unprepared},
    failure::Label,
    start_response::{Stage, StartResponse},
};
use crate::{ffi, forked_process::guarded, hooks::Hooks, logs::access::AccessLog, signal_handlers, threads};

/// A WSGI application, as the server calls it.
pub(crate) struct Wsgi {
    application: Py<PyAny>,
    environ: Environ,
    access: Option<Arc<AccessLog>>,
    hooks: Option<Arc<Hooks>>,
    sendfile: bool,
    /// The same, if it wants something of the environ.
    keeper: Option<Arc<AccessLog>>,
    sys: Py<PyModule>,
    has_gil: bool,
    /// Set in a child that was forked for one request.
    is_child: AtomicBool,
    /// Set once this process has forked for a request.
    has_forked: AtomicBool,
    /// Those that no application holds any longer, for the next requests.
    spare: Mutex<Vec<Py<StartResponse>>>,
}

/// What is the same for all requests.
#[expect(clippy::struct_excessive_bools, reason = "four facts, not one state")]
pub(crate) struct Facts {
    /// Whether another thread of this process may call the application at the same time.
    pub(crate) multithread: bool,
    /// Whether another process may.
    pub(crate) multiprocess: bool,
    /// Whether this process calls it only once.
    pub(crate) run_once: bool,
    /// `SERVER_NAME` and `SERVER_PORT` of each listener; at least one.
    pub(crate) listeners: Vec<(String, u16)>,
    /// What proxies may say.
    pub(crate) proxies: Arc<Proxies>,
    /// Where finished requests are logged.
    pub(crate) access: Option<Arc<AccessLog>>,
    /// Who wants to hear of requests.
    pub(crate) hooks: Option<Arc<Hooks>>,
    /// Whether the system may send files by itself.
    pub(crate) sendfile: bool,
}

impl Wsgi {
    pub(crate) fn new(py: Python<'_>, application: Py<PyAny>, facts: Facts) -> PyResult<Self> {
        let sys = py.import("sys")?;
        let has_gil = match sys.getattr_opt("_is_gil_enabled")? {
            Some(is_gil_enabled) => is_gil_enabled.call0()?.is_truthy()?,
            None => true,
        };
        let environ = Environ::new(py, &facts)?;
        Ok(Self {
            application,
            environ,
            keeper: facts.access.clone().filter(|access| access.wants_environ()),
            access: facts.access,
            hooks: facts.hooks,
            sendfile: facts.sendfile,
            sys: sys.unbind(),
            has_gil,
            is_child: AtomicBool::new(false),
            has_forked: AtomicBool::new(false),
            spare: Mutex::default(),
        })
    }

    /// What it calls.
    pub(crate) fn application(&self) -> &Py<PyAny> {
        &self.application
    }

    fn respond(&self, py: Python<'_>, request: &mut Request) -> Response {
        let is_last = self.is_child.load(Ordering::Relaxed);
        let prepared =
            self.environ.of(py, request, is_last).and_then(|environ| Ok((environ, self.start_response(py)?)));
        let ((environ, input), start_response) = match prepared {
            Ok(prepared) => prepared,
            Err(Unprepared::Refused(refused)) => return failure::refuse(request, refused),
            Err(Unprepared::Raised(error)) => return failure::before_head(py, &Label::of(request), &error),
        };
        if let Some(input) = &input {
            input.get().fill(request.take_body());
        }
        let told = self.hooks.as_ref().map(|hooks| Hooks::before_request(hooks, py, &environ));
        let told = match told.transpose() {
            Ok(told) => told.flatten(),
            Err(error) => return failure::before_head(py, &Label::of(request), &error),
        };
        let kept = self.keeper.as_ref().map(|keeper| (keeper, environ.clone()));
        let (outcome, stage) = start_response.get().lend(py, request, || {
            guarded(py, "the application", || {
                let returned = self.application.bind(py).call1((environ, &start_response))?;
                start_response.get().expect_events(py);
                Answer::of(&returned, self.sendfile, &|| start_response.get().is_alive(py))
            })
        });
        self.keep(py, start_response);
        if let Some((keeper, environ)) = kept {
            keeper.keep(&environ, request);
        }
        if let Some(input) = input {
            let goes_on = outcome.as_ref().is_ok_and(|answer| answer.goes_on(&stage));
            let is_ours = self.has_gil && ffi::is_sole_reference(py, input.as_unbound());
            input.get().give_back(py, request, goes_on && !is_ours);
        }
        let response = conclude(py, outcome, stage, request);
        match told {
            Some(told) => told.after(response),
            None => response,
        }
    }

    fn start_response(&self, py: Python<'_>) -> PyResult<Py<StartResponse>> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.map_or_else(|| StartResponse::new(py), Ok)
    }

    /// Under a GIL, what nobody else refers to can be used again.
    fn keep(&self, py: Python<'_>, start_response: Py<StartResponse>) {
        if self.has_gil && StartResponse::is_free(py, &start_response) {
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(start_response);
        }
    }
}

/// The response, from how the call ended and how far the response was by then.
fn conclude(py: Python<'_>, outcome: PyResult<Answer>, stage: Stage, request: &Request) -> Response {
    let label = || Label::of(request);
    match (outcome, stage) {
        (Ok(answer), Stage::Started(head)) => answer.with_head(head, label),
        (Ok(answer), Stage::Sent(writer)) => answer.after_head(*writer, label),
        (Ok(_), Stage::Silent | Stage::Over) => failure::silent(&label()),
        (Err(error), Stage::Silent | Stage::Started(_) | Stage::Over) => {
            failure::before_head(py, &label(), &error)
        }
        (Err(error), Stage::Sent(writer)) => failure::after_head(py, &label(), &error, *writer),
        (outcome, Stage::Lost(writer)) => {
            failure::lost(py, &label(), outcome.err().as_ref(), writer.map(|writer| *writer))
        }
    }
}

impl App for Wsgi {
    fn call(&self, request: &mut Request) -> Response {
        Python::attach(|py| self.respond(py, request))
    }

    fn attached(&self, serve: &mut dyn FnMut()) {
        Python::attach(|_| serve());
    }

    /// In a copy of the thread's context, so that what a request sets in context variables ends with it.
    fn in_request(&self, run: &mut dyn FnMut()) {
        Python::attach(|py| ffi::in_own_context(py, run));
    }

    /// As a thread of the `threading` module, so that its hooks for profilers and debuggers apply, and `current_thread()` has a name.
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
            settings.set_item("daemon", true)?; // the server waits for its threads itself, and not for one that is stuck
            let thread = threading.call_method("Thread", (), Some(&settings))?;
            let started = thread.call_method0("start");
            threading.call_method1("stack_size", (before,))?;
            started?;
            // Threads that requests start inherit this, and are to be waited for unless the application says otherwise.
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
        Python::attach(signal_handlers::check);
    }

    fn show_stacks(&self) {
        ffi::show_stacks();
    }

    fn wants_log(&self) -> bool {
        self.access.is_some()
    }

    fn wants_head(&self) -> bool {
        self.access.as_ref().is_some_and(|access| access.wants_head())
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(access) = &self.access {
            access.write(record);
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

    /// Leaving by `_exit` skips what Python does at its end; of that the application's output is worth keeping.
    fn before_exit_of_child(&self) {
        Python::attach(|py| {
            for name in [intern!(py, "stdout"), intern!(py, "stderr")] {
                if let Err(error) = flush(self.sys.bind(py), name) {
                    log::warn!("sys.{name} could not be flushed: {error}");
                }
            }
        });
    }

    fn has_background_threads(&self) -> bool {
        Python::attach(threads::has_background_threads).unwrap_or_else(|error| {
            log::warn!("the threads of a request could not be listed: {error}");
            false
        })
    }

    fn join_background_threads(&self) {
        if let Err(error) = Python::attach(threads::join_background_threads) {
            log::warn!("the threads of a request could not be joined: {error}");
        }
    }
}

/// Before the first fork for a request: names the threads that no child will have.
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
