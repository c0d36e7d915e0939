//! Processes forked by the application, for example by `os.fork()` for a background job.
//!
//! Such a process is a copy of a worker. When the application's code returns or raises there, the copy would continue as the worker: send a
//! second response, accept requests, run exit hooks. So each call of application code is guarded. A process that was forked during the call
//! exits when the call ends, with the status of a Python program.

use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::{failure::EXCEPTION_TARGET, ffi, python, threads};

/// Runs application code. `what` names it in log records. Returns in the calling process only.
pub fn guarded<R>(py: Python<'_>, what: &str, run: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let guard = ForkGuard::default();
    let result = run();
    guard.check(py, what, result.as_ref().err());
    result
}

/// Identifies the process in which application code is about to run.
pub struct ForkGuard {
    forks: u64,
}

impl Default for ForkGuard {
    fn default() -> Self {
        Self { forks: ffi::forks() }
    }
}

impl ForkGuard {
    /// Runs after application code has returned or raised an exception. Does not return in a process that was forked meanwhile.
    pub fn check(&self, py: Python<'_>, what: &str, raised: Option<&PyErr>) {
        if ffi::forks() != self.forks {
            exit(py, what, raised);
        }
    }
}

/// Exits without exit handlers, because they belong to the process that registered them.
#[cold]
fn exit(py: Python<'_>, what: &str, raised: Option<&PyErr>) -> ! {
    let status = match raised {
        None => {
            log::warn!(
                "Process forked by {what} returned to the server and exits: call os._exit() at its end"
            );
            0
        }
        Some(error) if error.is_instance_of::<PySystemExit>(py) => {
            let status = exit_status(py, error);
            log::info!("Process forked by {what} exits with status {status}");
            status
        }
        Some(error) => {
            let traceback = python::traceback(py, error);
            let text = traceback.trim_end();
            log::error!(target: EXCEPTION_TARGET, "Process forked by {what} failed\n{text}");
            1
        }
    };
    if let Err(error) = threads::join_background_threads(py) {
        log::warn!("joining the threads of a forked process failed: {error}");
    }
    python::flush_streams(py);
    mlws_server::exit_now(status)
}

/// The status of `sys.exit(code)`. Anything but a number is a message.
fn exit_status(py: Python<'_>, error: &PyErr) -> i32 {
    let Ok(code) = error.value(py).getattr("code") else { return 1 };
    if code.is_none() {
        return 0;
    }
    code.extract().unwrap_or_else(|_| {
        // stderr may be None or closed.
        let _ = py
            .import("sys")
            .and_then(|sys| sys.getattr("stderr")?.call_method1("write", (format!("{}\n", code.str()?),)));
        1
    })
}
