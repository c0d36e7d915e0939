//! From the iterable that an application returned to the body of the response (PEP 3333, "Specification Details" and "Handling the
//! Content-Length Header").
//!
//! The first non-empty chunk is pulled during the call. So every failure up to it is a 500, and a generator may call `start_response` as
//! late as the PEP allows. The server pulls the rest, in the same thread.
//!
//! | returned | body if the headers are not sent yet | `close()` is called |
//! |---|---|---|
//! | empty list or tuple | empty | – |
//! | list or tuple up to 64 KiB, or with one chunk | one buffer, `Content-Length` known | – |
//! | longer list or tuple | stream, `Content-Length` known | – |
//! | `file_wrapper` around a plain file | the file, by sendfile(2), `Content-Length` known | after the file |
//! | iterable whose iterator is a list iterator | as the list | after the body |
//! | other iterable of `len()` 1, or first chunk as long as `Content-Length` | that chunk; the rest is drained | after the drain |
//! | other iterable without chunks | empty | after the headers |
//! | other iterable | stream, chunked unless the application set `Content-Length` | after the last chunk |
//!
//! | state of the response | framing | error |
//! |---|---|---|
//! | [`NotStarted`](StartResponseState::NotStarted) | – | 500, then `close()` |
//! | [`HeadersSet`](StartResponseState::HeadersSet) | as above | 500 before the first chunk, abort after it |
//! | [`HeadersSent`](StartResponseState::HeadersSent), by `write` | that of the headers; the body follows as above | abort |
//! | [`Disconnected`](StartResponseState::Disconnected) | – | abort, then `close()` |
//!
//! Invariant: `close()` is called exactly once, by [`CloseGuard`], whatever happens to the response.

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
    ffi,
    file_wrapper::FileWrapper,
    forked_process::guarded,
    start_response::StartResponseState,
};

/// Lists up to this many bytes are copied into one buffer.
const JOIN_LIMIT: usize = 64 * 1024;

/// What an application returned. The fields are dropped in this order.
pub(crate) struct AppResult {
    /// The whole body, or the first chunk of it.
    first: Body,
    rest: Option<Rest>,
    on_complete: CloseGuard,
}

/// The chunks after the first one.
struct Rest {
    iterator: Py<PyIterator>,
    /// The length of the body with the first chunk, if it is known.
    length: Option<u64>,
}

/// Where the body goes.
pub(crate) enum ResponseStart {
    Head(ResponseHead),
    /// `write` has sent the headers.
    Sent(Writer),
}

impl AppResult {
    /// `is_alive` is called after each empty chunk, which shows that the application is at work. It returns false if the client has
    /// disconnected.
    pub(crate) fn new(
        returned: &Bound<'_, PyAny>,
        sendfile: bool,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        if let Ok(list) = returned.cast_exact::<PyList>() {
            return Self::from_list(list, CloseGuard::default(), is_alive);
        }
        if let Ok(tuple) = returned.cast_exact::<PyTuple>() {
            return Self::from_list(&tuple.to_list(), CloseGuard::default(), is_alive);
        }
        let on_complete = CloseGuard { iterable: Some(returned.clone().unbind()), label: None };
        if sendfile
            && let Ok(wrapper) = returned.cast::<FileWrapper>()
            && let Some(file) = wrapper.get().body(returned.py())?
        {
            return Ok(Self::complete(file, on_complete));
        }
        Self::from_iterable(returned, on_complete, is_alive)
    }

    fn complete(body: Body, on_complete: CloseGuard) -> Self {
        Self { first: body, rest: None, on_complete }
    }

    /// All chunks exist already, so taking them runs no code of the application.
    fn from_list(
        list: &Bound<'_, PyList>,
        on_complete: CloseGuard,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        match list.len() {
            0 => return Ok(Self::complete(Body::Empty, on_complete)),
            1 => {
                let chunk = PyBackedBytes::from(chunk(&list.get_item(0)?)?.clone());
                return Ok(Self::complete(borrowed_bytes(chunk), on_complete));
            }
            _ => {}
        }
        let length =
            list.iter().try_fold(0, |length, item| PyResult::Ok(length + chunk(&item)?.as_bytes().len()))?;
        if length > JOIN_LIMIT {
            return Self::from_iterator(&list.try_iter()?, false, Some(length as u64), on_complete, is_alive);
        }
        let mut joined = Vec::with_capacity(length);
        for item in list {
            joined.extend_from_slice(chunk(&item)?.as_bytes());
        }
        Ok(Self::complete(Body::Bytes(joined.into()), on_complete))
    }

    fn from_iterable(
        iterable: &Bound<'_, PyAny>,
        on_complete: CloseGuard,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        let iterator = iterable.try_iter()?;
        // Django's responses return the iterator of a list.
        if ffi::is_list_iterator(&iterator) {
            let list = iterator.py().get_type::<PyList>().call1((iterator,))?;
            return Self::from_list(list.cast()?, on_complete, is_alive);
        }
        // A `__len__` that raises only leaves the length unknown.
        let is_alone = ffi::has_length(iterable) && iterable.len().is_ok_and(|length| length == 1);
        Self::from_iterator(&iterator, is_alone, None, on_complete, is_alive)
    }

    /// Pulls the first chunk that is not empty.
    fn from_iterator(
        iterator: &Bound<'_, PyIterator>,
        is_alone: bool,
        length: Option<u64>,
        on_complete: CloseGuard,
        is_alive: &dyn Fn() -> bool,
    ) -> PyResult<Self> {
        let first = loop {
            match next_chunk(iterator)? {
                Some(chunk) if !chunk.is_empty() => break chunk,
                Some(_) if is_alive() => {}
                Some(_) | None => return Ok(Self::complete(Body::Empty, on_complete)),
            }
        };
        let length = if is_alone { Some(first.len() as u64) } else { length };
        let rest = Some(Rest { iterator: iterator.clone().unbind(), length });
        Ok(Self { first: borrowed_bytes(first), rest, on_complete })
    }

    /// Whether the application continues to run because the server pulls more chunks.
    pub(crate) fn keeps_running(&self, state: &StartResponseState) -> bool {
        let Some(rest) = &self.rest else { return false };
        match state {
            StartResponseState::HeadersSet(head) => {
                !rest.is_drained_after(&self.first, head.content_length())
            }
            StartResponseState::HeadersSent(_) => true,
            _ => false,
        }
    }

    pub(crate) fn into_response(
        self,
        start: ResponseStart,
        label: impl FnOnce() -> RequestLabel,
    ) -> Response {
        let Self { first, rest, mut on_complete } = self;
        if on_complete.iterable.is_some() || rest.is_some() {
            on_complete.label = Some(label());
        }
        let content_length = match &start {
            ResponseStart::Head(head) => Some(head.content_length()),
            ResponseStart::Sent(_) => None,
        };
        let respond = |body| match start {
            ResponseStart::Head(head) => Response::new(head, body),
            ResponseStart::Sent(writer) => Response::rest(writer, body),
        };
        let Some(Rest { iterator, length }) = rest else {
            let response = respond(clamp_to_content_length(first, content_length.flatten()));
            return match on_complete.iterable {
                Some(_) => response.on_complete(Box::new(on_complete)),
                None => response,
            };
        };
        let rest = Rest { iterator, length };
        let is_drained = content_length.is_some_and(|length| rest.is_drained_after(&first, length));
        let Rest { iterator, length } = rest;
        let mut stream = BodyIterator { first: None, iterator, on_complete };
        if is_drained {
            return respond(first).on_complete(Box::new(DrainOnDrop(stream)));
        }
        if let Body::Bytes(first) = first {
            stream.first = Some(first);
        }
        respond(Body::Stream { stream: Box::new(stream), length })
    }
}

impl Rest {
    /// Whether the first chunk is all that may be sent. PEP 3333 requires that the iterator is exhausted nevertheless, but that can
    /// happen after the chunk was sent.
    fn is_drained_after(&self, first: &Body, content_length: Option<u64>) -> bool {
        let Body::Bytes(first) = first else { return false };
        content_length.or(self.length) == Some(first.as_ref().len() as u64)
    }
}

/// A body that is pulled chunk by chunk.
struct BodyIterator {
    first: Option<Bytes>,
    iterator: Py<PyIterator>,
    on_complete: CloseGuard,
}

impl Stream for BodyIterator {
    fn next(&mut self) -> Result<Option<Bytes>, Aborted> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        Python::attach(|py| match next_chunk(self.iterator.bind(py)) {
            Ok(chunk) => Ok(chunk.map(|chunk| Bytes::Foreign(Box::new(chunk)))),
            Err(error) => {
                self.on_complete.report(py, failure::FAILED_AFTER_HEADERS, &error);
                Err(Aborted)
            }
        })
    }
}

/// Exhausts an iterator whose first chunk is the whole body. Dropped when that chunk is sent.
struct DrainOnDrop(BodyIterator);

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        let BodyIterator { iterator, on_complete, .. } = &self.0;
        Python::attach(|py| {
            loop {
                match next_chunk(iterator.bind(py)) {
                    Ok(Some(chunk)) if chunk.is_empty() => {}
                    Ok(Some(_)) => {
                        break log::warn!(
                            "{}: the body is longer than its Content-Length, the rest is not sent",
                            on_complete.label()
                        );
                    }
                    Ok(None) => break,
                    Err(error) => break on_complete.report(py, failure::FAILED_AFTER_BODY, &error),
                }
            }
        });
    }
}

/// Calls the iterable's `close()` when it is dropped, if it has one.
#[derive(Default)]
pub(crate) struct CloseGuard {
    /// `None` for a list or a tuple.
    iterable: Option<Py<PyAny>>,
    /// `None` until the application has returned.
    label: Option<RequestLabel>,
}

impl CloseGuard {
    fn label(&self) -> &dyn fmt::Display {
        self.label.as_ref().map_or(&"a request", |label| label)
    }

    fn report(&self, py: Python<'_>, what: &str, error: &PyErr) {
        if self.label.as_ref().is_some_and(|label| label.blames_client(py, error)) {
            return;
        }
        failure::report(py, self.label(), what, error);
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
                self.report(py, failure::CLOSE_FAILED, &error);
            }
        });
    }
}

/// The next chunk, which may be empty.
fn next_chunk(iterator: &Bound<'_, PyIterator>) -> PyResult<Option<PyBackedBytes>> {
    guarded(iterator.py(), "an iterator of a response", || {
        let item = iterator.clone().next().transpose()?;
        item.map(|item| Ok(chunk(&item)?.clone().into())).transpose()
    })
}

/// A file may be longer than the application's `Content-Length`.
fn clamp_to_content_length(body: Body, content_length: Option<u64>) -> Body {
    match body {
        Body::File { file, offset, length } => {
            Body::File { file, offset, length: content_length.map_or(length, |limit| length.min(limit)) }
        }
        other => other,
    }
}

fn chunk<'a, 'py>(item: &'a Bound<'py, PyAny>) -> PyResult<&'a Bound<'py, PyBytes>> {
    item.cast().map_err(|_| {
        let class = item.get_type();
        PyTypeError::new_err(format!("invalid chunk of the response: expected bytes, not {class}"))
    })
}

fn borrowed_bytes(chunk: PyBackedBytes) -> Body {
    Body::Bytes(Bytes::Foreign(Box::new(chunk)))
}
