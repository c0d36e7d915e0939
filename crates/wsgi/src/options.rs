//! What is the same for all requests of an application, and who observes them.

use std::sync::Arc;

use mlws_server::{Record, Request};
use pyo3::{prelude::*, types::PyDict};

use crate::forwarding::ForwardingPolicy;

/// How a [`Wsgi`](crate::Wsgi) calls its application.
#[expect(clippy::struct_excessive_bools, reason = "four facts, not one state")]
pub struct WsgiOptions {
    /// `wsgi.multithread`: another thread of this process may call the application at the same time.
    pub multithread: bool,
    /// `wsgi.multiprocess`: another process may.
    pub multiprocess: bool,
    /// `wsgi.run_once`: this process calls it only once.
    pub run_once: bool,
    /// `SERVER_NAME` and `SERVER_PORT` of each listener; at least one.
    pub listeners: Vec<(String, u16)>,
    pub forwarding: Arc<ForwardingPolicy>,
    pub access: Option<Arc<dyn AccessLogger>>,
    pub hooks: Option<Arc<dyn RequestHooks>>,
    /// Runs pending signal handlers.
    pub check_signals: fn(Python<'_>),
    /// Whether files are sent by sendfile(2).
    pub sendfile: bool,
}

/// The access log.
pub trait AccessLogger: Send + Sync {
    /// Whether [`keep`](Self::keep) is to be called.
    fn wants_environ(&self) -> bool;

    /// Whether the head of each response is needed.
    fn wants_head(&self) -> bool;

    /// Stores what the log needs of the environ with the request.
    fn keep(&self, environ: &Bound<'_, PyDict>, request: &mut Request);

    /// Logs a finished request.
    fn write(&self, record: &Record<'_>);
}

/// What observes requests: gunicorn's `pre_request` and `post_request`.
pub trait RequestHooks: Send + Sync {
    /// Called before the application. Returns what is to be called after the response, on drop.
    ///
    /// # Errors
    ///
    /// An exception of the hook, which fails the request.
    fn before_request(
        self: Arc<Self>,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Box<dyn Completion>>>;
}

/// What is called when the response is sent or its client is gone, on drop.
pub trait Completion: Send {
    /// Stores the status line and the fields that the application has set. Empty if `write` has sent them.
    fn set_head(&mut self, head: &[u8]);
}
