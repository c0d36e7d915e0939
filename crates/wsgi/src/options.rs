//! Options of the bridge, and the interfaces of the access log and of hooks.

use std::sync::{Arc, atomic::AtomicBool};

use mlws_server::{Record, Request};
use pyo3::{prelude::*, types::PyDict};

use crate::forwarding::ForwardingPolicy;

/// How a [`Wsgi`](crate::Wsgi) calls its application.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state")]
pub struct WsgiOptions {
    /// `wsgi.multithread`: other threads of this process may call the application concurrently.
    pub multithread: bool,
    /// `wsgi.multiprocess`: other processes may.
    pub multiprocess: bool,
    /// `wsgi.run_once`: this process calls the application only once.
    pub run_once: bool,
    /// `SERVER_NAME` and `SERVER_PORT` of each listener; at least one.
    pub listeners: Vec<(String, u16)>,
    pub forwarding: Arc<ForwardingPolicy>,
    /// `wsgi.errors`: a text stream that belongs to the server. [`log::Log::flush`] ends a line that a thread has begun in it.
    pub errors: Py<PyAny>,
    pub access: Option<Arc<dyn AccessLogger>>,
    pub hooks: Option<Arc<dyn RequestHooks>>,
    /// Runs pending signal handlers.
    pub check_signals: fn(Python<'_>),
    /// Whether files are sent by sendfile(2).
    pub sendfile: bool,
}

/// The access log.
pub trait AccessLogger: Send + Sync {
    /// Whether the environ is needed, so that [`keep`](Self::keep) must be called. May differ between requests.
    fn wants_environ(&self) -> bool;

    /// Whether the head of each response is needed. May change at any time.
    fn wants_head(&self) -> Arc<AtomicBool>;

    /// Stores with the request what the access log needs of the environ.
    fn keep(&self, environ: &Bound<'_, PyDict>, request: &mut Request);

    /// Logs a finished request, in the thread that ran it.
    fn write(&self, record: &Record<'_>);

    /// Whether every request may be logged by [`write_later`](Self::write_later).
    fn can_write_later(&self) -> bool;

    /// Logs a request in any thread, without waiting for anything, not even for the interpreter.
    fn write_later(&self, record: &Record<'_>);
}

/// Hooks for each request: gunicorn's `pre_request` and `post_request`, and `child_exit` for the processes of requests.
pub trait RequestHooks: Send + Sync {
    /// Runs before the application. The returned value runs the hook after the response when it is dropped.
    ///
    /// # Errors
    ///
    /// An exception of the hook, which fails the request.
    fn before_request(
        self: Arc<Self>,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Box<dyn Completion>>>;

    /// Whether there is a hook for the exit of a process that ran a request.
    fn wants_child_exits(&self) -> bool;

    /// Runs that hook, in the parent.
    fn child_exited(&self, py: Python<'_>, pid: i32);
}

/// Runs a hook when it is dropped: after the response was sent, or the client has disconnected.
pub trait Completion: Send {
    /// Stores the status line and the fields that the application has set. Empty if `write` has sent them.
    fn set_head(&mut self, head: &[u8]);
}
