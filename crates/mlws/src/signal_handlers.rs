//! Python-level signal handlers in a worker: the application's own, and the one that stands for the server's handling of TERM.
//!
//! TERM is handled on two levels. The C-level handler is the supervisor's: it writes to a pipe, so that a worker begins to drain
//! even while its main thread is inside a long request. The Python-level handler is [`stop_gracefully`], or what the application
//! installed in its place. It is called once, when the drain begins, wherever the order came from.
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
/// The C-level handler that `signal.signal()` installs, whatever the Python-level one is.
static PYTHONS_HANDLER: OnceLock<SignalHandler> = OnceLock::new();
/// The process in which the application's handler of TERM is still to be called, or 0. A process that the application forks
/// meanwhile inherits the number, but is another process.
static TERM_IS_DUE_IN: AtomicI32 = AtomicI32::new(0);
/// The process that has begun to drain, or 0. It may be told so more than once.
static DRAINS_IN: AtomicI32 = AtomicI32::new(0);
/// What the worker exits with: 0, unless a handler raised `SystemExit` or `KeyboardInterrupt`.
static EXIT_STATUS: AtomicI32 = AtomicI32::new(0);

/// What a shell reports for a process that Ctrl-C ended.
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

/// Shows the server's handling of TERM to Python, so that a library which saves and restores handlers works. Runs in the process
/// that loads the application, before it does.
pub(crate) fn install(py: Python<'_>) {
    if let Err(error) = try_to_install(py) {
        log::warn!("signal.getsignal(SIGTERM) does not show the server's handler: {error}");
    }
}

fn try_to_install(py: Python<'_>) -> PyResult<()> {
    let handler = wrap_pyfunction!(stop_gracefully, py)?.into_any().unbind();
    let handler = STOP_GRACEFULLY.get_or_init(py, || handler);
    py.import(intern!(py, "signal"))?.call_method1(intern!(py, "signal"), (libc::SIGTERM, handler))?;
    if let Some(pythons) = mlws_supervisor::reinstall_term_handler(None) {
        PYTHONS_HANDLER.get_or_init(|| pythons);
    }
    Ok(())
}

/// Puts the C-level handler back if the application has installed a handler of its own since. Not over a handler that is not
/// Python's: `faulthandler.register(SIGTERM, chain=True)` calls the one before it.
pub(crate) fn reinstall_term_handler(py: Python<'_>) {
    let Some(replaced) =
        PYTHONS_HANDLER.get().and_then(|own| mlws_supervisor::reinstall_term_handler(Some(*own)))
    else {
        return;
    };
    let is_ours =
        STOP_GRACEFULLY.get(py).is_some_and(|ours| python_handler(py).is_ok_and(|handler| handler.is(ours)));
    // A process that the application forks inherits its handler, as from any Python program.
    mlws_supervisor::set_forked_term_handler(Some(replaced).filter(|_| !is_ours));
}

/// The worker begins to drain: the application's own handler of TERM is to be called. Any thread may call this, and needs no GIL.
pub(crate) fn on_drain() {
    let pid = std::process::id().cast_signed();
    if DRAINS_IN.swap(pid, Ordering::SeqCst) == pid {
        return;
    }
    TERM_IS_DUE_IN.store(pid, Ordering::SeqCst);
    // If the main thread runs Python code, the handler is called there soon; if it waits for requests, `check` calls it.
    if !ffi::call_on_main_thread(call_term_handler) {
        log::debug!(
            "the main thread has too many pending calls; the handler of TERM is called when it waits"
        );
    }
}

/// Runs the handlers of all signals that came. What they raise ends here. To be called by the main thread.
pub(crate) fn check(py: Python<'_>) {
    reinstall_term_handler(py);
    call_term_handler(py);
    if let Err(error) = guarded(py, "a signal handler", || py.check_signals()) {
        raised(py, &error);
    }
}

/// What the worker is to exit with. Runs when it has finished its requests.
pub(crate) fn exit_status(py: Python<'_>) -> i32 {
    check(py);
    EXIT_STATUS.load(Ordering::SeqCst)
}

/// From now on TERM does nothing. Where a Python-level handler is left, the end of the interpreter would install the default action,
/// and the second TERM of a group that ends would kill its last process.
pub(crate) fn ignore_term(py: Python<'_>) {
    let ignored = py.import(intern!(py, "signal")).and_then(|signal| {
        let ignore = signal.getattr(intern!(py, "SIG_IGN"))?;
        signal.call_method1(intern!(py, "signal"), (libc::SIGTERM, ignore))
    });
    match ignored {
        // The C-level handler does nothing by now, and unlike SIG_IGN it is not inherited by programs that exit handlers start.
        Ok(_) => drop(mlws_supervisor::reinstall_term_handler(None)),
        Err(error) => log::debug!("TERM cannot be ignored: {error}"),
    }
}

/// Runs a pending signal handler where no worker is to be stopped for what it raises: in a master.
pub(crate) fn check_in_master(py: Python<'_>) {
    if let Err(error) = py.check_signals() {
        log_failure(py, &error);
    }
}

fn python_handler(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import(intern!(py, "signal"))?.call_method1(intern!(py, "getsignal"), (libc::SIGTERM,))
}

/// Calls the application's own handler of TERM, once for each drain. What it raises does not reach the request that runs.
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
        // There is no frame where the main thread waits for requests.
        let frame = py.import(intern!(py, "sys"))?.call_method0(intern!(py, "_getframe")).ok();
        guarded(py, "a signal handler", || handler.call1((libc::SIGTERM, frame)).map(drop))
    });
    if let Err(error) = called {
        raised(py, &error);
    }
}

/// A handler that ends the program ends the worker: gracefully, with its status. Any other exception is logged.
fn raised(py: Python<'_>, error: &PyErr) {
    let status = if error.is_instance_of::<PySystemExit>(py) {
        status_of(py, error)
    } else if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        INTERRUPTED
    } else {
        return log_failure(py, error);
    };
    let kind = error.get_type(py).name().map_or_else(|_| "SystemExit".into(), |name| name.to_string());
    log::info!(
        "a signal handler raised {kind}: this worker finishes its requests and exits with status {status}"
    );
    EXIT_STATUS.store(status, Ordering::SeqCst);
    mlws_supervisor::deliver_term();
}

/// As Python has it: no code is 0, a number is the status, and anything else is printed and is 1.
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
    log::error!("a signal handler failed\n{}", traceback.trim_end());
}
