//! `wsgi.input`: the body of a request. A small or chunked body is complete when the application is called. Reading a larger one waits for
//! the client with the GIL released.
//!
//! The body is attached only during the request, because its buffer belongs to the connection. Later reads return nothing, as at the end
//! of a file.

use std::{
    io::{self, BufRead, ErrorKind},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mlws_server::{Request, RequestBody};
use pyo3::{prelude::*, sync::MutexExt, types::PyBytes};

use crate::ffi;

/// The first allocation for one read is at most this large. It grows as data arrives, so a client that announces much and sends little
/// costs little memory.
const FIRST_ALLOCATION: usize = 16 << 20;

#[pyclass(frozen, module = "mylittlewebserver")]
#[derive(Default)]
pub(crate) struct Input(Mutex<Unread>);

#[derive(Default)]
struct Unread {
    body: RequestBody,
    /// Bytes that the application has not read.
    left: u64,
}

impl Input {
    pub(crate) fn attach(&self, body: RequestBody) {
        let left = body.length();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Unread { body, left };
    }

    /// Returns the body to the request. The unread part stays here if it is still `wanted`: by an application that continues to read while
    /// its response is sent.
    pub(crate) fn detach(&self, py: Python<'_>, request: &mut Request, wanted: bool) {
        let mut unread = self.lock(py);
        let Unread { mut body, left } = mem::take(&mut *unread);
        if wanted && left > 0 {
            *unread = Unread { body: body.split_rest(), left };
        }
        request.put_body(body);
    }

    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Unread> {
        self.0.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Input {
    /// Reads `size` bytes, or the rest of the body if it is shorter or no size is given.
    #[pyo3(signature = (size = None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.lock(py).read(py, limit(size))
    }

    /// Reads to the end of the line, but at most `size` bytes.
    #[pyo3(signature = (size = None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.lock(py).line(py, limit(size))?;
        Ok(PyBytes::new(py, &line))
    }

    /// Reads the remaining lines. With a hint, stops after that many bytes, at the end of a line.
    #[pyo3(signature = (hint = None))]
    fn readlines<'py>(&self, py: Python<'py>, hint: Option<isize>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let wanted = limit(hint.filter(|hint| *hint != 0));
        let (mut lines, mut read) = (Vec::new(), 0);
        while read < wanted {
            let line = self.lock(py).line(py, usize::MAX)?;
            if line.is_empty() {
                break;
            }
            read += line.len();
            lines.push(PyBytes::new(py, &line));
        }
        Ok(lines)
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let line = self.lock(py).line(py, usize::MAX)?;
        Ok((!line.is_empty()).then(|| PyBytes::new(py, &line)))
    }
}

impl Unread {
    fn read<'py>(&mut self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyBytes>> {
        let body = &mut self.body;
        let count = limit.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let chunk = if body.is_at_hand() {
            let available = body.fill_buf()?;
            let chunk = PyBytes::new(py, &available[..count.min(available.len())]);
            body.consume(chunk.as_bytes().len());
            chunk
        } else {
            ffi::fill_bytes(py, count, FIRST_ALLOCATION, |into| detached(py, || body.read_into(into)))?
        };
        self.advance(chunk.as_bytes().len());
        Ok(chunk)
    }

    fn line(&mut self, py: Python<'_>, limit: usize) -> PyResult<Vec<u8>> {
        let mut line = Vec::new();
        while line.len() < limit {
            if !self.body.is_at_hand() {
                detached(py, || self.body.fill_buf().map(drop))?;
            }
            let available = self.body.fill_buf()?;
            let available = &available[..available.len().min(limit - line.len())];
            let end = memchr::memchr(b'\n', available);
            let count = end.map_or(available.len(), |end| end + 1);
            line.extend_from_slice(&available[..count]);
            self.body.consume(count);
            self.advance(count);
            if end.is_some() || count == 0 {
                break;
            }
        }
        Ok(line)
    }

    fn advance(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
    }
}

/// Runs `read` with the GIL released. If a signal interrupts it, runs the Python-level handler, which may raise, and repeats it.
fn detached(py: Python<'_>, mut read: impl FnMut() -> io::Result<()> + Send) -> PyResult<()> {
    loop {
        match py.detach(&mut read) {
            Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals()?,
            other => return Ok(other?),
        }
    }
}

/// The size argument of Python's file methods: `None` or a negative number means no limit.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}
