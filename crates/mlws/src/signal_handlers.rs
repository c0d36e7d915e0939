//! Python-level signal handlers in a worker: those of the application, and the server's for TERM.
//!
//! TERM is handled on two levels. The C-level handler belongs to the supervisor. It writes to the self-pipe, so a worker starts to drain
//! even while its main thread is in a long request. The Python-level handler is [`stop_gracefully`] or the application's replacement. It
//! is called once, when the drain starts, whatever the reason for the drain is.
//!
//! `signal.signal()` replaces both levels. [`reinstall_term_handler`] puts the C-level handler back and leaves the Python-level one alone.

use std::sync::{
    OnceLock,
    atomic::{AtomicI32, Ordering},
};

use mlws_supervisor::SignalHandler;
use pyo3::{
    exceptions::{PyKeyboardInterrupt, PySystemExit},
    intern,
    prelude::*,
    sync::PyOnceLock,
};

use mlws_wsgi::{ffi, forked_process::guarded, python::traceback};

/// The Python-level handler that the server installs.
static STOP_GRACEFULLY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
/// The C-level handler that `signal.signal()` installs for each Python-level handler.
static PYTHONS_HANDLER: OnceLock<SignalHandler> = OnceLock::new();
/// The pid of the process in which the application's TERM handler must still be called, or 0. A pid and not a flag, because processes
/// forked by the application inherit it.
static TERM_IS_DUE_IN: AtomicI32 = AtomicI32::new(0);
/// The pid of the process that has started to drain, or 0. A drain may be requested more than once.
static DRAINS_IN: AtomicI32 = AtomicI32::new(0);
/// The exit status of the worker: 0 unless a handler raised `SystemExit` or `KeyboardInterrupt`.
static EXIT_STATUS: AtomicI32 = AtomicI32::new(0);

/// The exit status that a shell reports after Ctrl-C.
const INTERRUPTED: i32 = 128 + libc::SIGINT;

/// Stops this worker gracefully, as the signal TERM does.
#[pyfunction]
#[pyo3(signature = (signum=None, frame=None, /))]
#[expect(unused_variables, reason = "Python passes them to every signal handler")]
fn stop_gracefully(signum: Option<&Bound<'_, PyAny>>, frame: Option<&Bound<'_, PyAny>>) {
    if !mlws_server::is_request_process() {
        mlws_supervisor::deliver_term();
    }
}

/// Makes the server's TERM handler visible in Python, for libraries that save and restore handlers. Runs before the application is loaded.
pub(crate) fn install(py: Python<'_>) {
    if let Err(error) = try_install(py) {
        log::warn!("installing the Python-level TERM handler failed: {error}");
    }
}

fn try_install(py: Python<'_>) -> PyResult<()> {
    let handler = wrap_pyfunction!(stop_gracefully, py)?.into_any().unbind();
    let handler = STOP_GRACEFULLY.get_or_init(py, || handler);
    py.import(intern!(py, "signal"))?.call_method1(intern!(py, "signal"), (libc::SIGTERM, handler))?;
    if let Some(pythons) = mlws_supervisor::reinstall_term_handler(None) {
        PYTHONS_HANDLER.get_or_init(|| pythons);
    }
    Ok(())
}

/// Reinstalls the C-level handler if the application has replaced it by `signal.signal()`. A C-level handler that is not Python's stays:
/// `faulthandler.register(SIGTERM, chain=True)` calls the previous one itself.
pub(crate) fn reinstall_term_handler(py: Python<'_>) {
    let Some(replaced) =
        PYTHONS_HANDLER.get().and_then(|own| mlws_supervisor::reinstall_term_handler(Some(*own)))
    else {
        return;
    };
    let is_ours =
        STOP_GRACEFULLY.get(py).is_some_and(|ours| python_handler(py).is_ok_and(|handler| handler.is(ours)));
    // A process forked by the application inherits the application's handler, as in any Python program.
    mlws_supervisor::set_forked_term_handler(Some(replaced).filter(|_| !is_ours));
}

/// The worker starts to drain, so the application's TERM handler must be called. Any thread may call this, without the GIL.
pub(crate) fn on_drain() {
    let pid = std::process::id().cast_signed();
    if DRAINS_IN.swap(pid, Ordering::SeqCst) == pid {
        return;
    }
    TERM_IS_DUE_IN.store(pid, Ordering::SeqCst);
    // The main thread calls the handler soon if it runs Python code. If it waits for requests, `check` calls it.
    if !ffi::call_on_main_thread(call_term_handler) {
        log::debug!("queue of pending calls is full: the TERM handler is called when the main thread waits");
    }
}

/// Runs the handlers of pending signals, and handles what they raise. Must be called by the main thread.
pub(crate) fn check(py: Python<'_>) {
    reinstall_term_handler(py);
    call_term_handler(py);
    if let Err(error) = guarded(py, "a signal handler", || py.check_signals()) {
        handle_exception(py, &error);
    }
}

/// The exit status of the worker. Called when it has finished its requests.
pub(crate) fn exit_status(py: Python<'_>) -> i32 {
    check(py);
    EXIT_STATUS.load(Ordering::SeqCst)
}

/// Ignores TERM from now on. If a Python-level handler were left, the interpreter would install the default action when it finalizes, and
/// a second TERM would kill the process during its exit.
pub(crate) fn ignore_term(py: Python<'_>) {
    let ignored = py.import(intern!(py, "signal")).and_then(|signal| {
        let ignore = signal.getattr(intern!(py, "SIG_IGN"))?;
        signal.call_method1(intern!(py, "signal"), (libc::SIGTERM, ignore))
    });
    match ignored {
        // The C-level handler has no effect by now. Unlike SIG_IGN, it is not inherited by programs that exit handlers start.
        Ok(_) => drop(mlws_supervisor::reinstall_term_handler(None)),
        Err(error) => log::debug!("ignoring TERM failed: {error}"),
    }
}

/// The same in a master, where an exception of a handler is only logged.
pub(crate) fn check_in_master(py: Python<'_>) {
    if let Err(error) = py.check_signals() {
        log_failure(py, &error);
    }
}

fn python_handler(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "signal"))?.call_method1(intern!(py, "getsignal"), (libc::SIGTERM,))
}

/// Calls the application's TERM handler, once per drain. Its exceptions do not reach the running request.
fn call_term_handler(py: Python<'_>) {
    let pid = std::process::id().cast_signed();
    if TERM_IS_DUE_IN.compare_exchange(pid, 0, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        return;
    }
    let called = python_handler(py).and_then(|handler| {
        let is_ours = STOP_GRACEFULLY.get(py).is_some_and(|ours| handler.is(ours));
        if is_ours || !handler.is_callable() {
            return Ok(());
        }
        // There is no frame while the main thread waits for requests.
        let frame = py.import(intern!(py, "sys"))?.call_method0(intern!(py, "_getframe")).ok();
        guarded(py, "a signal handler", || handler.call1((libc::SIGTERM, frame)).map(drop))
    });
    if let Err(error) = called {
        handle_exception(py, &error);
    }
}

/// `SystemExit` and `KeyboardInterrupt` stop the worker gracefully, with their status. Other exceptions are logged.
fn handle_exception(py: Python<'_>, error: &PyErr) {
    let status = if error.is_instance_of::<PySystemExit>(py) {
        status_of(py, error)
    } else if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        INTERRUPTED
    } else {
        return log_failure(py, error);
    };
    let kind = error.get_type(py).name().map_or_else(|_| "SystemExit".into(), |name| name.to_string());
    log::info!("Signal handler raised {kind}: draining, then exiting with status {status}");
    EXIT_STATUS.store(status, Ordering::SeqCst);
    mlws_supervisor::deliver_term();
}

/// The status of a `SystemExit`: 0 for none, a number as it is, anything else is logged and means 1.
fn status_of(py: Python<'_>, exit: &PyErr) -> i32 {
    match exit.value(py).getattr(intern!(py, "code")) {
        Ok(code) if code.is_none() => 0,
        Ok(code) => code.extract::<i32>().map_or_else(
            |_| {
                log::error!("{code}");
                1
            },
            |status| status & 0xff,
        ),
        Err(_) => 1,
    }
}

fn log_failure(py: Python<'_>, error: &PyErr) {
    let traceback = traceback(py, error);
    log::error!("Signal handler failed\n{}", traceback.trim_end());
}
