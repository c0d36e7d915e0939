//! `start_response` and the `write` that it returns, and the stage that a response is at (PEP 3333, "The
//! `start_response()` Callable").
//!
//! The one thing to know: the application may keep both for ever, so neither holds the request; it is only on [`ScopedRef`] to them while
//! the application is called.

use std::{io, mem, sync::Arc};

use mlws_http1::ResponseHead;
use mlws_server::{Bytes, Request, Writer};
use pyo3::{
    exceptions::{PyAssertionError, PyTypeError, PyValueError},
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList, PyString, PyTraceback, PyTuple},
};

use crate::ffi::{self, ScopedRef};

/// How far the application got with a response.
#[derive(Default)]
pub(crate) enum ResponseState {
    /// It has not called `start_response`.
    NotStarted,
    /// It has; nothing is sent.
    HeadersSet(ResponseHead),
    /// It has called `write`: the head is sent. Boxed, for a writer is large and rare.
    HeadersSent(Box<Writer>),
    /// `write` found the client gone, perhaps while it sent the head.
    Disconnected(Option<Box<Writer>>),
    /// It is not asked any more: the head is sent, or the request is over.
    #[default]
    Closed,
}

/// `start_response(status, headers, exc_info=None)`.
#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct StartResponse {
    exchange: Arc<ScopedRef<ResponseState, Request>>,
    write: Py<Write>,
}

/// `write(piece)`: sends at once.
#[pyclass(frozen, module = "mylittlewebserver")]
struct Write {
    exchange: Arc<ScopedRef<ResponseState, Request>>,
}

impl StartResponse {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Py<Self>> {
        let exchange = Arc::new(ScopedRef::new());
        let write = Py::new(py, Write { exchange: Arc::clone(&exchange) })?;
        Py::new(py, Self { exchange, write })
    }

    /// Lends the request while `call` runs; returns how far the response got.
    pub(crate) fn scope<R>(
        &self,
        py: Python<'_>,
        request: &mut Request,
        call: impl FnOnce() -> R,
    ) -> (R, ResponseState) {
        self.exchange.scope(py, request, ResponseState::NotStarted, call)
    }

    /// The application shows that it is alive. False: its client is gone.
    pub(crate) fn is_alive(&self, py: Python<'_>) -> bool {
        self.exchange.with(py, |_, request| {
            request.is_some_and(|request| {
                request.restart_timeout();
                !request.client_has_given_up()
            })
        })
    }

    /// The application returned an iterable. If it is a stream of server-sent events, it may be start_response_missing for as long as it likes.
    pub(crate) fn expect_events(&self, py: Python<'_>) {
        self.exchange.with(py, |stage, request| {
            if let (ResponseState::HeadersSet(head), Some(request)) = (stage, request)
                && head.is_event_stream()
            {
                request.wait_for_events();
            }
        });
    }

    /// Whether no application holds it, or its `write`. Only true under a GIL.
    pub(crate) fn is_free(py: Python<'_>, this: &Py<Self>) -> bool {
        ffi::is_sole_reference(py, this) && ffi::is_sole_reference(py, &this.get().write)
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info = None))]
    fn __call__(
        &self,
        py: Python<'_>,
        status: &Bound<'_, PyString>,
        headers: &Bound<'_, PyList>,
        exc_info: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<Write>> {
        let buffer = self.exchange.with(py, |_, request| request.map(Request::take_buffer));
        let head = head(buffer.unwrap_or_default(), status, headers)?;
        let refused = self.exchange.with(py, |stage, _| match stage {
            ResponseState::HeadersSet(_) if exc_info.is_none() => {
                Some("start_response was called again without exc_info")
            }
            ResponseState::NotStarted | ResponseState::HeadersSet(_) => {
                *stage = ResponseState::HeadersSet(head);
                None
            }
            ResponseState::HeadersSent(_) | ResponseState::Disconnected(_) | ResponseState::Closed => {
                Some("start_response was called after the response had begun")
            }
        });
        match (refused, exc_info) {
            (None, _) => Ok(self.write.clone_ref(py)),
            (Some(_), Some(exc_info)) => Err(raised(exc_info)?),
            (Some(why), None) => Err(PyAssertionError::new_err(why)),
        }
    }
}

#[pymethods]
impl Write {
    fn __call__(&self, py: Python<'_>, piece: &Bound<'_, PyBytes>) -> PyResult<()> {
        let bytes = PyBackedBytes::from(piece.clone());
        let sent =
            self.exchange.with(py, |stage, request| request.map(|request| send(py, stage, request, bytes)));
        match sent {
            Some(sent) => Ok(sent?),
            None => Err(PyAssertionError::new_err(
                "write was called after the application had returned its answer, which PEP 3333 forbids",
            )),
        }
    }
}

/// Sends a piece, and before the first one the head. The client's absence is an error, which the application may handle.
fn send(
    py: Python<'_>,
    stage: &mut ResponseState,
    request: &mut Request,
    piece: PyBackedBytes,
) -> io::Result<()> {
    request.restart_timeout();
    if piece.is_empty() {
        return Ok(());
    }
    let mut writer = match mem::replace(stage, ResponseState::Disconnected(None)) {
        ResponseState::HeadersSet(head) => Box::new(request.start(head)),
        ResponseState::HeadersSent(writer) => writer,
        other => {
            *stage = other;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    };
    let sent = writer.write(Bytes::Foreign(Box::new(piece)), |wait| py.detach(wait));
    *stage = if sent.is_ok() {
        ResponseState::HeadersSent(writer)
    } else {
        ResponseState::Disconnected(Some(writer))
    };
    sent
}

/// The exception of an `exc_info`, with its traceback, to be raised again.
fn raised(exc_info: &Bound<'_, PyTuple>) -> PyResult<PyErr> {
    let error = PyErr::from_value(exc_info.get_item(1)?);
    error.set_traceback(exc_info.py(), exc_info.get_item(2)?.extract::<Option<Bound<'_, PyTraceback>>>()?);
    Ok(error)
}

fn head(
    buffer: Vec<u8>,
    status: &Bound<'_, PyString>,
    headers: &Bound<'_, PyList>,
) -> PyResult<ResponseHead> {
    let (code, reason) = status_and_reason(bytes(status)?).ok_or_else(|| {
        PyValueError::new_err(format!(
            "the status must be like \"200 OK\", not {:?}",
            status.to_string_lossy()
        ))
    })?;
    let invalid = |error: mlws_http1::ResponseError| PyValueError::new_err(error.to_string());
    let mut head = ResponseHead::with_buffer(buffer, code, reason).map_err(invalid)?;
    for pair in headers {
        let (name, value) = name_and_value(&pair)
            .ok_or_else(|| PyTypeError::new_err("headers must be a list of tuples of two strings"))?;
        head.field(bytes(&name)?, bytes(&value)?).map_err(invalid)?;
    }
    Ok(head)
}

/// Splits `200 OK` into its parts. A status without a reason is accepted.
fn status_and_reason(status: &[u8]) -> Option<(u16, &[u8])> {
    let (digits, rest) = status.split_first_chunk::<3>()?;
    let reason = if rest.is_empty() { rest } else { rest.strip_prefix(b" ")? };
    let code = digits
        .iter()
        .try_fold(0, |code, digit| digit.is_ascii_digit().then(|| code * 10 + u16::from(digit - b'0')))?;
    Some((code, reason))
}

fn name_and_value<'py>(pair: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, Bound<'py, PyString>)> {
    let pair = pair.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2)?;
    Some((pair.get_item(0).ok()?.cast_into().ok()?, pair.get_item(1).ok()?.cast_into().ok()?))
}

fn bytes<'a>(text: &'a Bound<'_, PyString>) -> PyResult<&'a [u8]> {
    ffi::latin1_bytes(text)?.ok_or_else(|| {
        PyValueError::new_err(format!("{:?} has characters beyond latin-1", text.to_string_lossy()))
    })
}

#[cfg(test)]
mod tests {
    use super::status_and_reason;

    #[test]
    fn a_status_is_three_digits_and_perhaps_a_reason() {
        assert_eq!(status_and_reason(b"200 OK"), Some((200, &b"OK"[..])));
        assert_eq!(status_and_reason(b"404 Not Found"), Some((404, &b"Not Found"[..])));
        assert_eq!(status_and_reason(b"204"), Some((204, &b""[..])));
        assert_eq!(status_and_reason(b"204 "), Some((204, &b""[..])));
        for bad in ["", "20", "2000", "200OK", "OK", "2x0 OK", " 200 OK", "+20 OK", "-20"] {
            assert_eq!(status_and_reason(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
