//! `start_response`, the `write` that it returns, and the state of a response (PEP 3333, "The `start_response()` Callable"). Beside them
//! `environ["wsgi.early_hints"]`, which sends `103 Early Hints` (RFC 8297) before the response.
//!
//! Invariant: no callable owns the request, because the application may keep all of them. They borrow it through a [`ScopedRef`] during the
//! call of the application.

use std::{io, mem, sync::Arc};

use mlws_http1::{InterimHead, ResponseHead, Version};
use mlws_server::{Bytes, Request, Writer};
use pyo3::{
    exceptions::{PyAssertionError, PyTypeError, PyValueError},
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList, PyString, PyTraceback, PyTuple},
};

use crate::ffi::{self, ScopedRef};

/// The progress of a response.
#[derive(Default)]
pub(crate) enum StartResponseState {
    /// `start_response` was not called.
    NotStarted,
    /// `start_response` was called. Nothing is sent.
    HeadersSet(ResponseHead),
    /// `write` has sent the headers. Boxed because a writer is large and rare.
    HeadersSent(Box<Writer>),
    /// The client disconnected during a `write`. `None` if the headers could not be started.
    Disconnected(Option<Box<Writer>>),
    /// The call of the application has ended.
    #[default]
    Closed,
}

/// `start_response(status, headers, exc_info=None)`.
#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct StartResponse {
    exchange: Arc<ScopedRef<StartResponseState, Request>>,
    write: Py<Write>,
    early_hints: Py<EarlyHints>,
}

/// `write(chunk)`: sends immediately.
#[pyclass(frozen, module = "mylittlewebserver")]
struct Write {
    exchange: Arc<ScopedRef<StartResponseState, Request>>,
}

/// `early_hints(headers)`: sends an interim response immediately.
#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct EarlyHints {
    exchange: Arc<ScopedRef<StartResponseState, Request>>,
}

impl StartResponse {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        let exchange = Arc::new(ScopedRef::default());
        let write = Py::new(py, Write { exchange: Arc::clone(&exchange) })?;
        let early_hints = Py::new(py, EarlyHints { exchange: Arc::clone(&exchange) })?;
        Py::new(py, Self { exchange, write, early_hints })
    }

    /// The value of `environ["wsgi.early_hints"]`.
    pub(crate) fn early_hints(&self) -> &Py<EarlyHints> {
        &self.early_hints
    }

    /// Lets the application use the request during `call`. Returns the state of the response afterwards.
    pub(crate) fn scope<R>(
        &self,
        py: Python<'_>,
        request: &mut Request,
        call: impl FnOnce() -> R,
    ) -> (R, StartResponseState) {
        self.exchange.scope(py, request, StartResponseState::NotStarted, call)
    }

    /// Restarts the timeout of the request. Returns false if the client has disconnected.
    pub(crate) fn is_alive(&self, py: Python<'_>) -> bool {
        self.exchange.with(py, |_, request| {
            request.is_some_and(|request| {
                request.restart_timeout();
                !request.client_has_given_up()
            })
        })
    }

    /// After the call: a stream of server-sent events may be silent for any time.
    pub(crate) fn expect_events(&self, py: Python<'_>) {
        self.exchange.with(py, |state, request| {
            if let (StartResponseState::HeadersSet(head), Some(request)) = (state, request)
                && head.is_event_stream()
            {
                request.wait_for_events();
            }
        });
    }

    /// Whether the application keeps none of the callables. Reliable only with a GIL.
    pub(crate) fn is_free(py: Python<'_>, this: &Py<Self>) -> bool {
        let Self { write, early_hints, .. } = this.get();
        ffi::is_sole_reference(py, this)
            && ffi::is_sole_reference(py, write)
            && ffi::is_sole_reference(py, early_hints)
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None))]
    fn __call__(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyString>,
        headers: &Bound<'_, PyAny>,
        exc_info: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<Write>> {
        let buffer = self.exchange.with(py, |_, request| request.map(Request::take_buffer));
        let head = head(buffer.unwrap_or_default(), status, headers)?;
        let error = self.exchange.with(py, |state, _| match state {
            StartResponseState::HeadersSet(_) if exc_info.is_none() => {
                Some("start_response was called again without exc_info")
            }
            StartResponseState::NotStarted | StartResponseState::HeadersSet(_) => {
                *state = StartResponseState::HeadersSet(head);
                None
            }
            StartResponseState::HeadersSent(_)
            | StartResponseState::Disconnected(_)
            | StartResponseState::Closed => Some("start_response was called after the headers were sent"),
        });
        match (error, exc_info) {
            (None, _) => Ok(self.write.clone_ref(py)),
            (Some(_), Some(exc_info)) => Err(exception(exc_info)?),
            (Some(error), None) => Err(PyAssertionError::new_err(error)),
        }
    }
}

#[pymethods]
impl Write {
    fn __call__(&self, py: Python<'_>, chunk: &Bound<'_, PyBytes>) -> PyResult<()> {
        let bytes = PyBackedBytes::from(chunk.clone());
        let sent =
            self.exchange.with(py, |state, request| request.map(|request| send(py, state, request, bytes)));
        match sent {
            Some(sent) => Ok(sent?),
            None => Err(PyAssertionError::new_err(
                "write was called after the application had returned (PEP 3333 forbids this)",
            )),
        }
    }
}

#[pymethods]
impl EarlyHints {
    /// As in gunicorn, nothing happens after the response has begun, and over HTTP/1.0.
    fn __call__(&self, py: Python<'_>, headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let can_send = |state: &StartResponseState, request: &Request| {
            let has_not_begun =
                matches!(state, StartResponseState::NotStarted | StartResponseState::HeadersSet(_));
            has_not_begun && request.version() != Version::Http10
        };
        let is_useful =
            self.exchange.with(py, |state, request| request.is_some_and(|request| can_send(state, request)));
        if !is_useful {
            return Ok(());
        }
        let mut head = InterimHead::early_hints();
        for pair in headers.try_iter().map_err(|_| invalid_headers())? {
            add_hint(&mut head, &pair?)?;
        }
        self.exchange.with(py, |state, request| {
            if let Some(request) = request.filter(|request| can_send(state, request)) {
                request.send_interim(head, |wait| py.detach(wait));
            }
        });
        Ok(())
    }
}

/// Like gunicorn's callable, accepts bytes as well as strings.
fn add_hint(head: &mut InterimHead, pair: &Bound<'_, PyAny>) -> PyResult<()> {
    let (name, value) = two_items(pair).ok_or_else(invalid_headers)?;
    let (name, value) = (text_or_bytes(&name)?, text_or_bytes(&value)?);
    head.field(name, value).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn text_or_bytes<'a>(item: &'a Bound<'_, PyAny>) -> PyResult<&'a [u8]> {
    match item.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes()),
        Err(_) => bytes(item.cast::<PyString>().map_err(|_| invalid_headers())?),
    }
}

/// Sends a chunk, and the headers before the first one. Fails if the client has disconnected, which the application may handle.
fn send(
    py: Python<'_>,
    state: &mut StartResponseState,
    request: &mut Request,
    chunk: PyBackedBytes,
) -> io::Result<()> {
    request.restart_timeout();
    if chunk.is_empty() {
        return Ok(());
    }
    let mut writer = match mem::replace(state, StartResponseState::Disconnected(None)) {
        StartResponseState::HeadersSet(head) => Box::new(request.start(head)),
        StartResponseState::HeadersSent(writer) => writer,
        other => {
            *state = other;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    };
    let sent = writer.write(Bytes::Foreign(Box::new(chunk)), |wait| py.detach(wait));
    *state = if sent.is_ok() {
        StartResponseState::HeadersSent(writer)
    } else {
        StartResponseState::Disconnected(Some(writer))
    };
    sent
}

/// The exception of an `exc_info` with its traceback, to raise it again.
fn exception(exc_info: &Bound<'_, PyTuple>) -> PyResult<PyErr> {
    let error = PyErr::from_value(exc_info.get_item(1)?);
    error.set_traceback(exc_info.py(), exc_info.get_item(2)?.extract::<Option<Bound<'_, PyTraceback>>>()?);
    Ok(error)
}

fn head(buffer: Vec<u8>, status: &Bound<'_, PyString>, headers: &Bound<'_, PyAny>) -> PyResult<ResponseHead> {
    let (code, reason) = status_and_reason(bytes(status)?).ok_or_else(|| {
        PyValueError::new_err(format!(
            "invalid status {:?}: expected three digits and a reason, such as \"200 OK\"",
            status.to_string_lossy()
        ))
    })?;
    let invalid = |error: mlws_http1::ResponseError| PyValueError::new_err(error.to_string());
    let mut head = ResponseHead::with_buffer(buffer, code, reason).map_err(invalid)?;
    let mut add = |pair: Bound<'_, PyAny>| {
        let (name, value) = name_and_value(&pair).ok_or_else(invalid_headers)?;
        head.field(bytes(&name)?, bytes(&value)?).map_err(invalid)
    };
    match headers.cast::<PyList>() {
        Ok(list) => list.iter().try_for_each(add)?,
        Err(_) => headers.try_iter().map_err(|_| invalid_headers())?.try_for_each(|pair| add(pair?))?,
    }
    Ok(head)
}

/// Splits `200 OK` into status and reason. The reason is optional.
fn status_and_reason(status: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = status.split_first_chunk::<3>()?;
    let reason = if rest.is_empty() { rest } else { rest.strip_prefix(b" ")? };
    let code = digits
        .iter()
        .try_fold(0, |code, digit| digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0')))?;
    Some((code, reason))
}

fn invalid_headers() -> PyErr {
    PyTypeError::new_err("invalid headers: expected a list of tuples of two strings")
}

/// PEP 3333 requires a list of tuples. Like other servers, this one accepts other iterables, and lists instead of tuples.
fn name_and_value<'py>(pair: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, Bound<'py, PyString>)> {
    let (name, value) = two_items(pair)?;
    Some((name.cast_into().ok()?, value.cast_into().ok()?))
}

fn two_items<'py>(pair: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let converted;
    let pair = match pair.cast::<PyTuple>() {
        Ok(tuple) => tuple,
        Err(_) => {
            converted = pair.cast::<PyList>().ok()?.to_tuple();
            &converted
        }
    };
    if pair.len() != 2 {
        return None;
    }
    Some((pair.get_item(0).ok()?, pair.get_item(1).ok()?))
}

fn bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    ffi::latin1_bytes(text)?.ok_or_else(|| {
        PyValueError::new_err(format!(
            "{:?} contains characters that latin-1 cannot represent",
            text.to_string_lossy()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::status_and_reason;

    #[test]
    fn a_status_is_three_digits_and_an_optional_reason() {
        assert_eq!(status_and_reason(b"200 OK"), Some((200, &b"OK"[..])));
        assert_eq!(status_and_reason(b"404 Not Found"), Some((404, &b"Not Found"[..])));
        assert_eq!(status_and_reason(b"204"), Some((204, &b""[..])));
        assert_eq!(status_and_reason(b"204 "), Some((204, &b""[..])));
        for bad in ["", "20", "2000", "200OK", "OK", "2x0 OK", " 200 OK", "+20 OK", "-20"] {
            assert_eq!(status_and_reason(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
