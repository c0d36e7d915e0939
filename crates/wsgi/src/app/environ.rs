//! The environ of PEP 3333: a dict that is prepared once for each listener, and copied and completed for each request.
//!
//! The one thing to know: the prepared dict holds what most requests have (`GET`, `/`, no query, no body, HTTP/1.1), so only what
//! differs is written. Header values and the decoded path are latin-1, as the PEP wants.
//!
//! A chunked body is complete when the application sees it, so it gets the `CONTENT_LENGTH` that many frameworks read by;
//! `HTTP_TRANSFER_ENCODING` still tells how it was sent.

use mlws_http1::Version;
use mlws_server::Request;
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use super::{Facts, client_gone::ClientGone, file_wrapper::FileWrapper, input::Input, names::Names};
use crate::ffi;

/// The key of what an application can call to hear whether its client has gone.
const CLIENT_GONE: &str = "mylittlewebserver.client_gone";

/// Makes environs.
pub(crate) struct Environ {
    /// One for each listener.
    prepared: Vec<Py<PyDict>>,
    names: Names,
}

/// The environ of one request, and its `wsgi.input` if there is a body to fill it with.
pub(crate) type Prepared<'py> = (Bound<'py, PyDict>, Option<Bound<'py, Input>>);

impl Environ {
    pub(crate) fn new(py: Python<'_>, facts: &Facts) -> PyResult<Self> {
        if facts.listeners.is_empty() {
            return Err(PyValueError::new_err("there is no listener"));
        }
        let prepared = facts
            .listeners
            .iter()
            .map(|(name, port)| prepare(py, facts, name, *port))
            .collect::<PyResult<_>>()?;
        Ok(Self { prepared, names: Names::new(py)? })
    }

    /// The last environ of this process may be the prepared dict itself: a copy counts one more reference in every key and value, and
    /// each such count copies a page of a forked child's memory.
    pub(crate) fn of<'py>(
        &self,
        py: Python<'py>,
        request: &mut Request,
        is_last: bool,
    ) -> PyResult<Prepared<'py>> {
        let prepared = self.prepared[request.listener().min(self.prepared.len() - 1)].bind(py);
        let environ = if is_last { prepared.clone() } else { prepared.copy()? };
        if let Some(method) = method(py, request.method()) {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        if request.version() == Version::Http10 {
            environ.set_item(intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.0"))?;
        }
        set_target(&environ, request)?;
        if request.peer_port() != 0 {
            environ
                .set_item(intern!(py, "REMOTE_ADDR"), ffi::latin1(py, request.peer_address().as_bytes())?)?;
            environ.set_item(intern!(py, "REMOTE_PORT"), decimal(py, request.peer_port())?)?;
        }
        self.set_fields(&environ, request)?;
        environ.set_item(intern!(py, CLIENT_GONE), Bound::new(py, ClientGone::new(request.client()))?)?;
        let length = request.body().length();
        if length == 0 {
            return Ok((environ, None));
        }
        environ.set_default(intern!(py, "CONTENT_LENGTH"), PyString::new(py, &length.to_string()))?;
        let input = Bound::new(py, Input::default())?;
        environ.set_item(intern!(py, "wsgi.input"), &input)?;
        Ok((environ, Some(input)))
    }

    fn set_fields(&self, environ: &Bound<'_, PyDict>, request: &Request) -> PyResult<()> {
        let py = environ.py();
        let host = intern!(py, "HTTP_HOST");
        // The target's authority, where it has one, stands for the Host field (RFC 9112, section 3.2.2).
        if let Some(value) = request.host() {
            environ.set_item(host, ffi::latin1(py, value)?)?;
        }
        for (name, value) in request.fields() {
            let Some(key) = self.names.key(py, name)? else { continue };
            if key.is(host) {
                continue;
            }
            let value = ffi::latin1(py, value)?;
            if !environ.set_default(&key, &value)? {
                let separator = if key == "HTTP_COOKIE" { "; " } else { "," };
                let before = environ.as_any().get_item(&key)?;
                environ.set_item(key, before.add(separator)?.add(value)?)?;
            }
        }
        Ok(())
    }
}

/// `PATH_INFO` is decoded once, and `QUERY_STRING` not at all; `REQUEST_URI` and `RAW_URI` are the target as sent.
fn set_target(environ: &Bound<'_, PyDict>, request: &Request) -> PyResult<()> {
    let py = environ.py();
    let (target, path, query) = (request.target().as_bytes(), request.path(), request.query());
    if target == b"/" {
        return Ok(());
    }
    let uri = ffi::latin1(py, target)?;
    environ.set_item(intern!(py, "REQUEST_URI"), &uri)?;
    environ.set_item(intern!(py, "RAW_URI"), &uri)?;
    if !query.is_empty() {
        environ.set_item(intern!(py, "QUERY_STRING"), ffi::latin1(py, query)?)?;
    }
    let path_info = if memchr::memchr(b'%', path).is_some() {
        let mut decoded = Vec::new();
        mlws_http1::percent_decode(path, &mut decoded);
        ffi::latin1(py, &decoded)?
    } else if path.len() == target.len() {
        uri
    } else if path.is_empty() {
        return Ok(());
    } else {
        ffi::latin1(py, path)?
    };
    environ.set_item(intern!(py, "PATH_INFO"), path_info)
}

/// The method, unless it is the prepared one.
fn method<'py>(py: Python<'py>, method: &str) -> Option<Bound<'py, PyString>> {
    let interned = match method {
        "GET" => return None,
        "HEAD" => intern!(py, "HEAD"),
        "POST" => intern!(py, "POST"),
        "PUT" => intern!(py, "PUT"),
        "PATCH" => intern!(py, "PATCH"),
        "DELETE" => intern!(py, "DELETE"),
        "OPTIONS" => intern!(py, "OPTIONS"),
        other => return Some(PyString::new(py, other)),
    };
    Some(interned.clone())
}

fn decimal(py: Python<'_>, number: u16) -> PyResult<Bound<'_, PyString>> {
    let mut digits = [b'0'; 5];
    let (mut rest, mut first) = (number, digits.len());
    while rest > 0 || first == digits.len() {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    ffi::latin1(py, &digits[first..])
}

fn prepare(py: Python<'_>, facts: &Facts, name: &str, port: u16) -> PyResult<Py<PyDict>> {
    let environ = PyDict::new(py);
    let text =
        |key: &str, value: &str| environ.set_item(PyString::intern(py, key), PyString::intern(py, value));
    text("REQUEST_METHOD", "GET")?;
    text("SCRIPT_NAME", "")?;
    text("PATH_INFO", "/")?;
    text("QUERY_STRING", "")?;
    text("REQUEST_URI", "/")?;
    text("RAW_URI", "/")?;
    text("SERVER_NAME", name)?;
    text("SERVER_PORT", &port.to_string())?;
    text("SERVER_PROTOCOL", "HTTP/1.1")?;
    text("SERVER_SOFTWARE", concat!("mylittlewebserver/", env!("CARGO_PKG_VERSION")))?;
    text("REMOTE_ADDR", "")?;
    text("REMOTE_PORT", "")?;
    text("wsgi.url_scheme", "http")?;
    let other = |key: &str, value: Bound<'_, PyAny>| environ.set_item(PyString::intern(py, key), value);
    let flag = |key: &str, value: bool| environ.set_item(PyString::intern(py, key), value);
    other("wsgi.version", (1, 0).into_pyobject(py)?.into_any())?;
    other("wsgi.input", Bound::new(py, Input::default())?.into_any())?;
    other("wsgi.errors", py.import("sys")?.getattr("stderr")?)?;
    other("wsgi.file_wrapper", py.get_type::<FileWrapper>().into_any())?;
    flag("wsgi.multithread", facts.multithread)?;
    flag("wsgi.multiprocess", facts.multiprocess)?;
    flag("wsgi.run_once", facts.run_once)?;
    flag("wsgi.input_terminated", true)?;
    // A copy is made as large as the original, and this makes it large enough to take a request's fields without growing.
    flag(CLIENT_GONE, false)?;
    flag("one more", true)?;
    environ.del_item("one more")?;
    Ok(environ.unbind())
}
