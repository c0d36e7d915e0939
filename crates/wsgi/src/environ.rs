//! The environ of PEP 3333: a dict that is prepared once for each listener, then copied and completed for each request.
//!
//! The prepared dict holds the values of most requests (`GET`, `/`, no query, no body, HTTP/1.1), so only differences are written. Header
//! values and the decoded path are latin-1 (PEP 3333, "Unicode Issues").
//!
//! A chunked body is decoded and complete when the application is called, so the environ describes it like a body with a
//! Content-Length (RFC 9112, section 7.1.3).

use std::sync::Arc;

use mlws_http1::{Forwarded, Node, Version};
use mlws_server::{Request, SessionFacts};
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::ffi;
use crate::{
    WsgiOptions,
    client_gone::ClientGone,
    file_wrapper::FileWrapper,
    forwarding::{ForwardedInfo, ForwardingError, ForwardingPolicy, split_port},
    header_key_cache::HeaderKeyCache,
    input::Input,
};

/// The key of [`ClientGone`].
const CLIENT_GONE: &str = "mylittlewebserver.client_gone";
/// The key of [`EarlyHints`](crate::start_response::EarlyHints).
pub(crate) const EARLY_HINTS: &str = "wsgi.early_hints";

/// Creates environs.
pub(crate) struct Environ {
    /// The prepared dict of each listener.
    prepared: Vec<Py<PyDict>>,
    keys: HeaderKeyCache,
    policy: Arc<ForwardingPolicy>,
}

/// The environ of one request, and its `wsgi.input` if the request has a body.
pub(crate) type PreparedEnviron<'py> = (Bound<'py, PyDict>, Option<Bound<'py, Input>>);

/// Why creating an environ failed.
pub(crate) enum EnvironError {
    Python(PyErr),
    Http(ForwardingError),
}

impl From<PyErr> for EnvironError {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<ForwardingError> for EnvironError {
    fn from(error: ForwardingError) -> Self {
        Self::Http(error)
    }
}

impl Environ {
    pub(crate) fn new(py: Python<'_>, options: &WsgiOptions) -> PyResult<Self> {
        if options.listeners.is_empty() {
            return Err(PyValueError::new_err("there is no listener"));
        }
        let prepared = options
            .listeners
            .iter()
            .map(|(name, port)| prepare(py, options, name, *port))
            .collect::<PyResult<_>>()?;
        let policy = Arc::clone(&options.forwarding);
        Ok(Self { prepared, keys: HeaderKeyCache::new(py, Arc::clone(&policy))?, policy })
    }

    /// The last environ of this process is the prepared dict itself. A copy would increment the reference count of each key and value,
    /// and so copy pages of a forked child's memory.
    pub(crate) fn of<'py>(
        &self,
        py: Python<'py>,
        request: &mut Request,
        is_last: bool,
    ) -> Result<PreparedEnviron<'py>, EnvironError> {
        let prepared = self.prepared[request.listener().min(self.prepared.len() - 1)].bind(py);
        let environ = if is_last { prepared.clone() } else { prepared.copy()? };
        if let Some(method) = method(py, request.method()) {
            environ.set_item(intern!(py, "REQUEST_METHOD"), method)?;
        }
        match request.version() {
            Version::Http11 => {}
            version => environ.set_item(intern!(py, "SERVER_PROTOCOL"), version.as_str())?,
        }
        let is_https = request.tls().map(|tls| set_tls(&environ, tls)).transpose()?.is_some();
        let mut info = self.set_fields(&environ, request)?;
        let forwarded = info.forwarded(&self.policy)?;
        if let Some(https) = info.https {
            let scheme = if https { intern!(py, "https") } else { intern!(py, "http") };
            environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        }
        let prefix = forwarded.as_ref().and_then(|forwarded| forwarded.prefix);
        self.set_target(&environ, request, &info, prefix)?;
        let client = forwarded.as_ref().and_then(|forwarded| forwarded.client);
        if let Some(forwarded) = forwarded {
            set_host(&environ, request, &forwarded, info.https.unwrap_or(is_https))?;
        }
        set_client(&environ, request, client)?;
        environ.set_item(intern!(py, CLIENT_GONE), Bound::new(py, ClientGone::new(request.client()))?)?;
        let length = request.body().length();
        if request.is_chunked() {
            set_decoded(&environ, length)?;
        }
        if length == 0 {
            return Ok((environ, None));
        }
        let input = Bound::new(py, Input::default())?;
        environ.set_item(intern!(py, "wsgi.input"), &input)?;
        Ok((environ, Some(input)))
    }

    /// Returns the meaning of forwarding fields.
    fn set_fields<'a>(
        &self,
        environ: &Bound<'_, PyDict>,
        request: &'a Request,
    ) -> Result<ForwardedInfo<'a>, EnvironError> {
        let py = environ.py();
        let mut info = ForwardedInfo::default();
        let host = intern!(py, "HTTP_HOST");
        // The authority of an absolute-form target replaces the Host field (RFC 9112, section 3.2.2).
        if let Some(value) = request.host() {
            environ.set_item(host, ffi::latin1(py, value)?)?;
        }
        for (name, value) in request.fields() {
            let (key, rule) = self.keys.key(py, name)?;
            if let Some(rule) = rule
                && !info.apply(&self.policy, rule, value, request.peer_is_trusted())?
            {
                continue;
            }
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
        Ok(info)
    }

    /// `PATH_INFO` is percent-decoded, `QUERY_STRING` is not. `REQUEST_URI` and `RAW_URI` are the target as sent.
    fn set_target(
        &self,
        environ: &Bound<'_, PyDict>,
        request: &Request,
        info: &ForwardedInfo<'_>,
        prefix: Option<&[u8]>,
    ) -> Result<(), EnvironError> {
        let py = environ.py();
        let (target, path, query) = (request.target().as_bytes(), request.path(), request.query());
        let (script, path_info) = info.split_script_name(&self.policy, path)?;
        if script != self.policy.root.as_bytes() || prefix.is_some() {
            let script = [prefix.unwrap_or_default(), script].concat();
            environ.set_item(intern!(py, "SCRIPT_NAME"), ffi::latin1(py, &script)?)?;
        }
        if target != b"/" {
            let uri = ffi::latin1(py, target)?;
            environ.set_item(intern!(py, "REQUEST_URI"), &uri)?;
            environ.set_item(intern!(py, "RAW_URI"), &uri)?;
            if !query.is_empty() {
                environ.set_item(intern!(py, "QUERY_STRING"), ffi::latin1(py, query)?)?;
            }
            if !path.is_empty() {
                let path_info = path_info_of(py, path_info, &uri, target)?;
                environ.set_item(intern!(py, "PATH_INFO"), path_info)?;
            }
        }
        Ok(())
    }
}

/// Replaces the coding `chunked` by the length of the decoded body. The application must decode other codings, which only
/// `--http-compat gunicorn` accepts.
fn set_decoded(environ: &Bound<'_, PyDict>, length: u64) -> PyResult<()> {
    let py = environ.py();
    environ.set_item(intern!(py, "CONTENT_LENGTH"), PyString::new(py, &length.to_string()))?;
    let key = intern!(py, "HTTP_TRANSFER_ENCODING");
    let Some(sent) = environ.get_item(key)? else { return Ok(()) };
    let sent = sent.extract::<String>()?;
    let codings = sent.split(',').map(str::trim).filter(|coding| !coding.eq_ignore_ascii_case("chunked"));
    let others = codings.collect::<Vec<_>>().join(", ");
    if others.is_empty() { environ.del_item(key) } else { environ.set_item(key, others) }
}

fn path_info_of<'py>(
    py: Python<'py>,
    path: &[u8],
    uri: &Bound<'py, PyString>,
    target: &[u8],
) -> PyResult<Bound<'py, PyString>> {
    if memchr::memchr(b'%', path).is_some() {
        let mut decoded = Vec::new();
        mlws_http1::percent_decode(path, &mut decoded);
        ffi::latin1(py, &decoded)
    } else if path.len() == target.len() {
        Ok(uri.clone())
    } else {
        ffi::latin1(py, path)
    }
}

/// Sets what the TLS handshake has negotiated, under the names of Apache's `mod_ssl`.
fn set_tls(environ: &Bound<'_, PyDict>, tls: &SessionFacts) -> PyResult<()> {
    let py = environ.py();
    environ.set_item(intern!(py, "wsgi.url_scheme"), intern!(py, "https"))?;
    environ.set_item(intern!(py, "HTTPS"), intern!(py, "on"))?;
    environ.set_item(intern!(py, "SSL_PROTOCOL"), tls.protocol)?;
    environ.set_item(intern!(py, "SSL_CIPHER"), &tls.cipher)?;
    environ.set_item(intern!(py, "SSL_TLS_SNI"), tls.server_name.as_deref().unwrap_or_default())?;
    let resumed = if tls.is_resumed { intern!(py, "Resumed") } else { intern!(py, "Initial") };
    environ.set_item(intern!(py, "SSL_SESSION_RESUMED"), resumed)?;
    let Some(certificate) = &tls.client_certificate else {
        return environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), intern!(py, "NONE"));
    };
    environ.set_item(intern!(py, "SSL_CLIENT_VERIFY"), intern!(py, "SUCCESS"))?;
    for (name, value) in &certificate.variables {
        environ.set_item(name.as_ref(), value)?;
    }
    Ok(())
}

/// The host that the client used, according to a proxy. A forwarded port replaces the port of the host.
fn set_host(
    environ: &Bound<'_, PyDict>,
    request: &Request,
    forwarded: &Forwarded<'_>,
    https: bool,
) -> PyResult<()> {
    let py = environ.py();
    let default_port = if https { 443 } else { 80 };
    let text = |bytes: &[u8]| ffi::latin1(py, bytes);
    if let Some(authority) = &forwarded.host {
        let (name, port) = split_port(authority);
        environ.set_item(intern!(py, "HTTP_HOST"), text(authority)?)?;
        environ.set_item(intern!(py, "SERVER_NAME"), text(name)?)?;
        let port = port.map_or_else(|| decimal(py, default_port), text)?;
        environ.set_item(intern!(py, "SERVER_PORT"), port)?;
    }
    if let Some(port) = forwarded.port {
        environ.set_item(intern!(py, "SERVER_PORT"), decimal(py, port)?)?;
        if let Some(authority) = forwarded.host.as_deref().or(request.host()) {
            let mut authority = split_port(authority).0.to_vec();
            if port != default_port {
                authority.extend(format!(":{port}").into_bytes());
            }
            environ.set_item(intern!(py, "HTTP_HOST"), text(&authority)?)?;
        }
    }
    Ok(())
}

/// The client: the peer, or the address in a PROXY header or in forwarding fields.
fn set_client(environ: &Bound<'_, PyDict>, request: &mut Request, client: Option<Node>) -> PyResult<()> {
    let py = environ.py();
    if let Some(client) = client {
        request.set_remote_addr(client.address, client.port.unwrap_or(0));
    }
    if !request.peer_address().is_empty() {
        environ.set_item(intern!(py, "REMOTE_ADDR"), ffi::latin1(py, request.peer_address().as_bytes())?)?;
    }
    if request.peer_port() != 0 {
        environ.set_item(intern!(py, "REMOTE_PORT"), decimal(py, request.peer_port())?)?;
    }
    if let Some(destination) = request.proxy_destination() {
        let family = if destination.is_ipv4() { intern!(py, "TCP4") } else { intern!(py, "TCP6") };
        environ.set_item(intern!(py, "PROXY_PROTOCOL"), family)?;
        environ.set_item(intern!(py, "PROXY_ADDR"), PyString::new(py, &destination.ip().to_string()))?;
        environ.set_item(intern!(py, "PROXY_PORT"), decimal(py, destination.port())?)?;
    }
    Ok(())
}

/// The method. `None` for the prepared one, `GET`.
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

fn prepare(py: Python<'_>, options: &WsgiOptions, name: &str, port: u16) -> PyResult<Py<PyDict>> {
    let environ = PyDict::new(py);
    let text =
        |key: &str, value: &str| environ.set_item(PyString::intern(py, key), PyString::intern(py, value));
    text("REQUEST_METHOD", "GET")?;
    text("SCRIPT_NAME", &options.forwarding.root)?;
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
    other("wsgi.errors", options.errors.bind(py).clone())?;
    other("wsgi.file_wrapper", py.get_type::<FileWrapper>().into_any())?;
    flag("wsgi.multithread", options.multithread)?;
    flag("wsgi.multiprocess", options.multiprocess)?;
    flag("wsgi.run_once", options.run_once)?;
    flag("wsgi.input_terminated", true)?;
    // A copy has the capacity of the original. One more key makes it large enough for the fields of a request.
    flag(CLIENT_GONE, false)?;
    flag(EARLY_HINTS, false)?;
    flag("reserved", true)?;
    environ.del_item("reserved")?;
    Ok(environ.unbind())
}
