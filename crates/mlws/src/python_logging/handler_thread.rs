//! The thread that passes log records of the event loop to Python's logging handlers.
//!
//! A handler needs the GIL and may block, and the event loop must wait for neither. So what the event loop logs is queued for this thread,
//! `mlws-log`. It also reopens the handlers' files, because that takes the lock of a handler, which may be blocked. With `--fork` a worker
//! must have one thread, so the thread that logs does all this itself.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mlws_logging::logger;
use mlws_server::App;
use pyo3::prelude::*;

use super::{
    handler_queue::{QUEUE, Stage, Task},
    loggers,
};

/// Starts the thread, until it has started.
static APP: Mutex<Option<Arc<dyn App>>> = Mutex::new(None);

/// Starts the thread as soon as Python's `logging` gets any of the logs.
pub(crate) fn start(app: Arc<dyn App>) -> io::Result<()> {
    *APP.lock().unwrap_or_else(PoisonError::into_inner) = Some(app);
    if loggers::is_used() { start_now() } else { Ok(()) }
}

/// Starts the thread in a worker that may have one, unless it was started.
pub(super) fn start_now() -> io::Result<()> {
    let Some(app) = APP.lock().unwrap_or_else(PoisonError::into_inner).take() else { return Ok(()) };
    QUEUE.open();
    app.spawn("mlws-log".into(), Box::new(run)).inspect_err(|_| QUEUE.end(Stage::Unused))
}

/// Waits until all records are handled, at most until `until`, and writes the rest without Python. The caller must not hold the GIL. A
/// record that a handler has started with stays with that handler.
pub(crate) fn close(until: Instant) {
    for task in QUEUE.close(until) {
        if let Task::Log { level, text } = task {
            logger::write_directly(level, &text);
        }
    }
}

fn run() {
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            QUEUE.end(Stage::Closed);
        }
    }

    let _end = End;
    Python::attach(|py| {
        while py.detach(|| QUEUE.wait()) {
            while let Some(task) = QUEUE.pop() {
                match task {
                    Task::Log { level, text } if !loggers::call_handlers(py, level, &text) => {
                        logger::write_directly(level, &text);
                    }
                    Task::Log { .. } => {}
                    Task::LogAccess { format, atoms } => {
                        loggers::call_access_handlers(py, &format, |py| loggers::new_atoms(py, atoms));
                    }
                    Task::LogRequest(request) => loggers::call_access(py, request, None),
                    Task::Reopen => loggers::reopen_handlers(py),
                }
            }
        }
    });
}
