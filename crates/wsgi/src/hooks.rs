//! The functions of a config file that are called when something happens: gunicorn's hooks.
//!
//! The one thing to know: a function that fails in the master, or after a request, is logged and all goes on; one that fails
//! while a worker starts ends that worker, and one that fails before a request is that request's failure.
//!
//! What the functions are given is made in Python, in `mylittlewebserver/_hooks.py`.

use std::sync::Arc;

use mlws_server::Response;
use pyo3::{
    exceptions::PyRuntimeError,
    prelude::*,
    types::{PyBytes, PyCFunction, PyDict, PyTuple},
};

use crate::{forked_process::guarded, refusal, refusal::Refusal};

pub(crate) struct Hooks {
    face: Py<PyAny>,
    /// Whether requests are told of, too.
    has_requests: bool,
}

/// A request that a function was told of before, to be told of after it.
pub(crate) struct Told {
    hooks: Arc<Hooks>,
    request: Py<PyAny>,
    environ: Py<PyDict>,
    /// The head of its response.
    head: Vec<u8>,
}

impl Hooks {
    pub(crate) fn new(
        py: Python<'_>,
        functions: &Py<PyDict>,
        settings: Option<&Py<PyDict>>,
        load: impl Fn(Python<'_>) -> Result<Py<PyAny>, Refusal> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, Refusal> {
        let load = move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            load(arguments.py()).map_err(|refusal| PyRuntimeError::new_err(refusal.to_string()))
        };
        let made = || {
            let load = PyCFunction::new_closure(py, None, None, load)?;
            let class = py.import("mylittlewebserver._hooks")?.getattr("Hooks")?;
            let face = class.call1((functions, settings, load))?;
            let has = |name| face.call_method1("has", (name,))?.is_truthy();
            let has_requests = has("pre_request")? || has("post_request")?;
            PyResult::Ok(Self { face: face.unbind(), has_requests })
        };
        let made = made()
            .map_err(|error| Refusal::raised(py, "the hooks of the config file cannot be used", &error))?;
        Ok(Arc::new(made))
    }

    /// Calls a method of `_hooks.Hooks`, which calls the function if there is one.
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) -> PyResult<()> {
        guarded(py, "a hook", || self.face.bind(py).call_method1(method, arguments).map(drop))
    }

    /// The same where nothing can be made of a failure but a line in the log.
    pub(crate) fn tell<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        arguments: impl pyo3::call::PyCallArgs<'py>,
    ) {
        if let Err(error) = self.call(py, method, arguments) {
            let traceback = refusal::traceback(py, &error);
            log::error!("a function of the config file failed ({method})\n{}", traceback.trim_end());
        }
    }

    /// What a Python config file calls itself when it has settings, functions and addresses anew.
    pub(crate) fn follow(&self, py: Python<'_>, before: Option<&Arc<Self>>) {
        if let Some(before) = before {
            self.tell(py, "follows", (&before.face,));
        }
    }

    /// The application, if a function has had it loaded before its time: `server.app.wsgi()`.
    pub(crate) fn application(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let app = self
            .face
            .bind(py)
            .getattr("server")
            .and_then(|server| server.getattr("app")?.getattr("callable"));
        app.ok().filter(|app| !app.is_none()).map(Bound::unbind)
    }

    /// Before a request, if anybody wants to hear of requests.
    pub(crate) fn before_request(
        hooks: &Arc<Self>,
        py: Python<'_>,
        environ: &Bound<'_, PyDict>,
    ) -> PyResult<Option<Told>> {
        if !hooks.has_requests {
            return Ok(None);
        }
        let call = || hooks.face.bind(py).call_method1("before_request", (environ,));
        let request = guarded(py, "the hook pre_request", call)?.unbind();
        Ok(Some(Told {
            hooks: Arc::clone(hooks),
            request,
            environ: environ.clone().unbind(),
            head: Vec::new(),
        }))
    }
}

impl Told {
    /// After the response is sent, or its client lost.
    pub(crate) fn after(mut self, response: Response) -> Response {
        self.head = response.head().map(<[u8]>::to_vec).unwrap_or_default();
        response.on_complete(Box::new(self))
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        Python::attach(|py| {
            let head = PyBytes::new(py, &self.head).call_method1("decode", ("latin-1",));
            let arguments = head.and_then(|head| {
                PyTuple::new(py, [self.request.bind(py).as_any(), self.environ.bind(py).as_any(), &head])
            });
            match arguments {
                Ok(arguments) => self.hooks.tell(py, "after_request", arguments),
                Err(error) => log::error!("post_request could not be called: {error}"),
            }
        });
    }
}
