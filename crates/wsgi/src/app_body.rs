//! From the iterable that an application returned to a body.
//!
//! The first piece is pulled while the application is called, so that whatever fails up to it is a real 500, and a generator may call
//! `start_response` as late as the PEP allows. What follows is pulled by the server in the same thread.

use std::fmt;

use mlws_http1::ResponseHead;
use mlws_server::{Aborted, Body, Bytes, Response, Stream, Writer};
use pyo3::{
    exceptions::PyTypeError,
    intern,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyIterator, PyList, PyTuple},
};

use crate::{
    failure::{self, RequestLabel},
    file_wrapper::FileWrapper,
    start_response::ResponseState,
};
use crate::{ffi, forked_process::guarded};

/// Lists of pieces up to this many bytes in all are sent as one.
const JOINED: usize = 64 * 1024;

/// What an application returned.
pub(crate) enum AppBody {
    /// All of the body is here.
    Complete(Body, Option<CloseGuard>),
    /// The first piece is here.
    Streaming(BodyIterator),
}

/// BodyIterator that are pulled one by one.
pub(crate) struct BodyIterator {
    first: Option<PyBackedBytes>,
    rest: Py<PyIterator>,
    /// The sum of their lengths, where the iterable tells.
    length: Option<u64>,
    closing: CloseGuard,
}

impl AppBody {
    /// `is_alive` is called after each piece that is empty: the application is still at work. False: the client is gone.
    pub(crate) fn of(
        returned: &Bound<'_, PyAny>,
        sendfile: bool,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        if let Ok(list) = returned.cast_exact::<PyList>() {
            return Self::of_list(list, None, is_alive);
        }
        if let Ok(tuple) = returned.cast_exact::<PyTuple>() {
            return Self::of_list(&tuple.to_list(), None, is_alive);
        }
        let closing = CloseGuard { iterable: Some(returned.clone().unbind()), label: None };
        if sendfile
            && let Ok(wrapper) = returned.cast::<FileWrapper>()
            && let Some(body) = wrapper.get().body(returned.py())?
        {
            return Ok(Self::Complete(body, Some(closing)));
        }
        Self::of_iterable(returned, closing, is_alive)
    }

    /// All pieces are here, and no code of the application runs to take them.
    fn of_list(
        list: &Bound<'_, PyList>,
        closing: Option<CloseGuard>,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        match list.len() {
            0 => return Ok(Self::Complete(Body::Empty, closing)),
            1 => return Ok(Self::Complete(Body::Bytes(foreign(bytes(&list.get_item(0)?)?)), closing)),
            _ => {}
        }
        let length = list
            .iter()
            .try_fold(0, |length, piece| PyResult::Ok(length + bytes(&piece)?.as_bytes().len()))?;
        if length > JOINED {
            let length = Some(length as u64);
            return Self::lazy(&list.try_iter()?, false, length, closing.unwrap_or_default(), is_alive);
        }
        let mut joined = Vec::with_capacity(length);
        for piece in list {
            joined.extend_from_slice(bytes(&piece)?.as_bytes());
        }
        Ok(Self::Complete(Body::Bytes(joined.into()), closing))
    }

    fn of_iterable(
        iterable: &Bound<'_, PyAny>,
        closing: CloseGuard,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        let pieces = iterable.try_iter()?;
        // Django's answers give their list's own iterator.
        if ffi::is_list_iterator(&pieces) {
            let list = pieces.py().get_type::<PyList>().call1((pieces,))?;
            return Self::of_list(list.cast()?, Some(closing), is_alive);
        }
        let is_alone = ffi::has_length(iterable) && iterable.len()? == 1;
        Self::lazy(&pieces, is_alone, None, closing, is_alive)
    }

    fn lazy(
        rest: &Bound<'_, PyIterator>,
        is_alone: bool,
        length: Option<u64>,
        closing: CloseGuard,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        let mut pieces = BodyIterator { first: None, rest: rest.clone().unbind(), length, closing };
        let first = loop {
            match pieces.pull(rest.py())? {
                Some(empty) if empty.is_empty() && is_alive() => {}
                Some(empty) if empty.is_empty() => {
                    return Ok(Self::Complete(Body::Empty, Some(pieces.closing)));
                }
                None => return Ok(Self::Complete(Body::Empty, Some(pieces.closing))),
                Some(first) => break first,
            }
        };
        if is_alone {
            pieces.length = Some(first.len() as u64);
        }
        pieces.first = Some(first);
        Ok(Self::Streaming(pieces))
    }

    /// Whether more of it will be pulled, so that the application runs on.
    pub(crate) fn keeps_running(&self, stage: &ResponseState) -> bool {
        match (self, stage) {
            (Self::Streaming(pieces), ResponseState::HeadersSet(head)) => !pieces.is_complete(head),
            (Self::Streaming(_), ResponseState::HeadersSent(_)) => true,
            _ => false,
        }
    }

    /// The response, as long as nothing of it is sent.
    pub(crate) fn with_head(self, head: ResponseHead, label: impl FnOnce() -> RequestLabel) -> Response {
        match self {
            Self::Complete(body, closing) => {
                let body = clamp_to_content_length(body, head.content_length());
                with_closing(Response::new(head, body), closing, label)
            }
            Self::Streaming(mut pieces) if pieces.is_complete(&head) => {
                pieces.closing.label = Some(label());
                let body = pieces
                    .first
                    .take()
                    .map_or(Body::Empty, |first| Body::Bytes(Bytes::Foreign(Box::new(first))));
                Response::new(head, body).on_complete(Box::new(DrainOnDrop(pieces)))
            }
            Self::Streaming(pieces) => Response::new(head, pieces.into_body(label())),
        }
    }

    /// The rest of a response whose head is sent.
    pub(crate) fn failed_after_headers(
        self,
        writer: Writer,
        label: impl FnOnce() -> RequestLabel,
    ) -> Response {
        match self {
            Self::Complete(body, closing) => with_closing(Response::rest(writer, body), closing, label),
            Self::Streaming(pieces) => Response::rest(writer, pieces.into_body(label())),
        }
    }
}

impl BodyIterator {
    /// Whether the first piece is all that may be sent. What follows is still asked for, as the PEP wants, but after it is sent.
    fn is_complete(&self, head: &ResponseHead) -> bool {
        let first = self.first.as_ref().map(|first| first.len() as u64);
        head.content_length().or(self.length) == first
    }

    /// The next piece, which may be empty.
    fn pull(&mut self, py: Python<'_>) -> PyResult<Option<PyBackedBytes>> {
        guarded(py, "an iterator of a response", || {
            let piece = self.rest.bind(py).clone().next().transpose()?;
            piece.map(|piece| Ok(bytes(&piece)?.clone().into())).transpose()
        })
    }

    fn into_body(mut self, label: RequestLabel) -> Body {
        self.closing.label = Some(label);
        let length = self.length;
        Body::Stream { stream: Box::new(self), length }
    }
}

impl Stream for BodyIterator {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        let pulled = match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => Python::attach(|py| {
                self.pull(py).map_err(|error| {
                    self.closing.report(py, "the application failed after the response had begun", &error);
                })
            }),
        };
        match pulled {
            Ok(piece) => Ok(piece.map(|piece| Bytes::Foreign(Box::new(piece)))),
            Err(()) => Err(Aborted),
        }
    }
}

/// BodyIterator whose first was all: dropped when it is sent, it lets the application run to its end.
struct DrainOnDrop(BodyIterator);

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        Python::attach(|py| {
            loop {
                match self.0.pull(py) {
                    Ok(Some(empty)) if empty.is_empty() => {}
                    Ok(Some(_)) => {
                        break log::warn!(
                            "{}: the body is longer than its Content-Length; the rest is not sent",
                            self.0.closing.about()
                        );
                    }
                    Ok(None) => break,
                    Err(error) => {
                        break self.0.closing.report(
                            py,
                            "the application failed after its last byte",
                            &error,
                        );
                    }
                }
            }
        });
    }
}

/// Calls an iterable's `close()` when it is dropped.
#[derive(Default)]
pub(crate) struct CloseGuard {
    /// Nothing where there is no `close()` to call.
    iterable: Option<Py<PyAny>>,
    /// Nothing as long as the request is lent to the application.
    label: Option<RequestLabel>,
}

impl CloseGuard {
    fn about(&self) -> &dyn fmt::Display {
        self.label.as_ref().map_or(&"a request", |label| label)
    }

    fn report(&self, py: Python<'_>, what: &str, error: &PyErr) {
        if self.label.as_ref().is_some_and(|label| label.blames_client(py, error)) {
            return;
        }
        failure::report(py, self.about(), what, error);
    }
}

impl Drop for CloseGuard {
    fn drop(&mut self) {
        let Some(iterable) = self.iterable.take() else { return };
        Python::attach(|py| {
            let closed = guarded(py, "close() of a response", || {
                let close = iterable.bind(py).getattr_opt(intern!(py, "close"))?;
                close.map(|close| close.call0()).transpose()
            });
            if let Err(error) = closed {
                self.report(py, "close() of the answer failed", &error);
            }
        });
    }
}

fn with_closing(
    response: Response,
    closing: Option<CloseGuard>,
    label: impl FnOnce() -> RequestLabel,
) -> Response {
    match closing {
        Some(mut closing) => {
            closing.label = Some(label());
            response.on_complete(Box::new(closing))
        }
        None => response,
    }
}

/// A file may be longer than what its Content-Length says of it.
fn clamp_to_content_length(body: Body, content_length: Option<u64>) -> Body {
    match body {
        Body::File { file, offset, length } => {
            Body::File { file, offset, length: content_length.map_or(length, |wanted| length.min(wanted)) }
        }
        other => other,
    }
}

fn bytes<'a, 'py>(piece: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    piece.cast().map_err(|_| {
        let class = piece.get_type();
        PyTypeError::new_err(format!("a piece of the answer is of type {class}, but must be bytes"))
    })
}

fn foreign(piece: &Bound<'_, PyBytes>) -> Bytes {
    Bytes::Foreign(Box::new(PyBackedBytes::from(piece.clone())))
}
