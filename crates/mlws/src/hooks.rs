//! The hooks of a config file: gunicorn's, called in the process in which gunicorn would call them.
//!
//! An exception of a hook in the master or after a request is logged. While a worker starts it ends the worker, and before a request it
//! fails the request. The arguments of hooks are created in Python, in `mylittlewebserver/_hooks.py`.

use std::sync::Arc;

use mlws_wsgi::{Completion, RequestHooks, forked_process::guarded, python::traceback};
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyBytes, PyCFunction, PyDict, PyTuple},
};

use crate::error::StartupError;

pub(crate) struct Hooks {
    py_object: Py<PyAny>,
    /// Whether there are hooks for requests.
    has_requests: bool,
    has_child_exit: bool,
}

/// Calls `post_request` on drop.
pub(crate) struct PostRequest {
    hooks: Arc<Hooks>,
    request: Py<PyAny>,
    environ: Py<PyDict>,
    /// The head of the response.
    head: Vec<u8>,
}

impl Hooks {
    pub(crate) fn new(
        py: Python<'_>,
        functions: &Py<PyDict>,
        settings: Option<&Py<PyDict>>,
        load: impl Fn(Python<'_>) -> Result<Py<PyAny>, StartupError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, StartupError> {
        let load = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            load(arguments.py()).map_err(|error| PyRuntimeError::new_err(error.to_string()))
        };
        let create = || {
            let load = PyCFunction::new_closure(py, None, None, load)?;
            let class = py.import("mylittlewebserver._hooks")?.getattr("Hooks")?;
            let py_object = class.call1((functions, settings, load))?;
            let has = |name| py_object.call_method1("has", (name,))?.is_truthy();
            let has_requests = has("pre_request")? || has("post_request")?;
            let has_child_exit = has("child_exit")?;
            PyResult::Ok(Self { py_object: py_object.unbind(), has_requests, has_child_exit })
        };
        let hooks = create().map_err(|error| {
            StartupError::from_exception(py, "preparing the hooks of the config file failed", &error)
        })?;
        Ok(Arc::new(hooks))
    }

    /// Calls a method of `_hooks.Hooks`, which calls the hook if the config file has it.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyResult<()> {
        guarded(py, "a hook", || self.py_object.bind(py).call_method1(method, arguments).map(drop))
    }

    /// The same. An exception is logged.
    pub(crate) fn notify<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) {
        if let Err(error) = self.call(py, method, arguments) {
            let traceback = traceback(py, &error);
            log::error!("hook failed: {method}\n{}", traceback.trim_end());
        }
    }

    /// Takes over the state of the hooks that a reload replaces.
    pub(crate) fn inherit(&self, py: Python<'_>, before: Option<&Arc<Self>>) {
        if let Some(before) = before {
            self.notify(py, "inherit", (&before.py_object,));
        }
    }

    /// The application, if a hook has loaded it by `server.app.wsgi()`.
    pub(crate) fn application(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let app = self
            .py_object
            .bind(py)
            .getattr("server")
            .and_then(|server| server.getattr("app")?.getattr("callable"));
        app.ok().filter(|app| !app.is_none()).map(Bound::unbind)
    }
}

impl RequestHooks for Hooks {
    fn before_request(
        self: Arc<Self>,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Box<dyn Completion>>> {
        if !self.has_requests {
            return Ok(None);
        }
        let call = || self.py_object.bind(py).call_method1("before_request", (environ,));
        let request = guarded(py, "the hook pre_request", call)?.unbind();
        let environ = environ.clone().unbind();
        Ok(Some(Box::new(PostRequest { hooks: self, request, environ, head: Vec::new() })))
    }

    fn wants_child_exits(&self) -> bool {
        self.has_child_exit
    }

    fn child_exited(&self, py: Python<'_>, pid: i32) {
        self.notify(py, "process_exit", (pid,));
    }
}

impl Completion for PostRequest {
    fn set_head(&mut self, head: &[u8]) {
        self.head = head.to_vec();
    }
}

impl Drop for PostRequest {
    fn drop(&mut self) {
        Python::attach(|py| {
            let head = PyBytes::new(py, &self.head).call_method1("decode", ("latin-1",));
            let arguments = head.and_then(|head| {
                PyTuple::new(py, [self.request.bind(py).as_any(), self.environ.bind(py).as_any(), &head])
            });
            match arguments {
                Ok(arguments) => self.hooks.notify(py, "after_request", arguments),
                Err(error) => log::error!("hook failed: post_request: {error}"),
            }
        });
    }
}
