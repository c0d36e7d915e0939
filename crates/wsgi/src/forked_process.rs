//! Processes that the application forks itself, for example by `os.fork()` for a job in the background.
//!
//! Such a process is a copy of a worker. Once the application's code in it is done, by `sys.exit()`, an exception or a plain
//! `return`, it would go on as that worker: send a second response, take requests, end as the worker ends. So each call of
//! application code is guarded: a process that was forked within it is ended instead, with the status that a Python
//! program would have.

use pyo3::{exceptions::PySystemExit, prelude::*};

use crate::{failure::EXCEPTION_TARGET, ffi, python, threads};

/// Runs application code, `what`. Returns in the calling process only.
pub fn guarded<R>(py: Python<'_>, what: &str, run: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    let guard = ForkGuard::new();
    let result = run();
    guard.check(py, what, result.as_ref().err());
    result
}

/// Remembers in which process application code is about to run.
pub struct ForkGuard {
    forks: u64,
}

impl ForkGuard {
    pub fn new() -> Self {
        Self { forks: ffi::forks() }
    }

    /// Application code is done, or has raised this. Does not return in a process that was forked since.
    pub fn check(&self, py: Python<'_>, what: &str, raised: Option<&PyErr>) {
        if ffi::forks() != self.forks {
            exit(py, what, raised);
        }
    }
}

/// Exit handlers do not run: they belong to the process that registered them.
#[cold]
fn exit(py: Python<'_>, what: &str, raised: Option<&PyErr>) -> ! {
    let status = match raised {
        None => {
            log::warn!(
                "a process that {what} forked has returned into the server and is ended; it should end with os._exit()"
            );
            0
        }
        Some(error) if error.is_instance_of::<PySystemExit>(py) => {
            let status = exit_status(py, error);
            log::info!("a process that {what} forked exits with status {status}");
            status
        }
        Some(error) => {
            let traceback = python::traceback(py, error);
            let text = traceback.trim_end();
            log::error!(target: EXCEPTION_TARGET, "a process that {what} forked has failed\n{text}");
            1
        }
    };
    if let Err(error) = threads::join_background_threads(py) {
        log::warn!("the threads of a forked process could not be joined: {error}");
    }
    python::flush_streams(py);
    mlws_server::exit_now(status)
}

/// What Python makes of `sys.exit(code)`: anything but a number is a message.
fn exit_status(py: Python<'_>, error: &PyErr) -> i32 {
    let Ok(code) = error.value(py).getattr("code") else { return 1 };
    if code.is_none() {
        return 0;
    }
    code.extract().unwrap_or_else(|_| {
        // There may be no stderr, or nobody may read it.
        let _ = py
            .import("sys")
            .and_then(|sys| sys.getattr("stderr")?.call_method1("write", (format!("{}\n", code.str()?),)));
        1
    })
}
