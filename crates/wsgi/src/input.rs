//! `wsgi.input`: a request's body. A small or a chunked one is complete from the start. Reading another waits for the client, with the
//! GIL released.
//!
//! The one thing to know: the body is only here while the request is being answered, for its buffer is the connection's. What an
//! application reads later is empty, as at the end of a file.

use std::{
    io::{self, BufRead, ErrorKind},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mlws_server::{Request, RequestBody};
use pyo3::{prelude::*, sync::MutexExt, types::PyBytes};

use crate::ffi;

/// The most memory that is taken at first for one read. What is longer grows as it comes in: a client that announces much and sends
/// little takes little.
const FIRST_ALLOCATION: usize = 16 << 20;

#[pyclass(frozen, module = "mylittlewebserver")]
#[derive(Default)]
pub(crate) struct Input(Mutex<Unread>);

#[derive(Default)]
struct Unread {
    body: RequestBody,
    /// How many bytes are left.
    left: u64,
}

impl Input {
    pub(crate) fn attach(&self, body: RequestBody) {
        let left = body.length();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Unread { body, left };
    }

    /// Gives the body back to the request that it came from. What was not read stays here if it is still `wanted`, by an application
    /// that goes on reading while its answer is sent.
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
    /// Reads `size` bytes, or all that is left if there are fewer or no size is given.
    #[pyo3(signature = (size = None))]
    fn read<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        self.lock(py).read(py, limit(size))
    }

    /// Reads to the end of a line, and with a size not more than that.
    #[pyo3(signature = (size = None))]
    fn readline<'py>(&self, py: Python<'py>, size: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.lock(py).line(py, limit(size))?;
        Ok(PyBytes::new(py, &line))
    }

    /// Reads the lines that are left, or with a hint no more than it takes to have as many bytes.
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
    fn read<'py>(&mut self, py: Python<'py>, most: usize) -> PyResult<Bound<'py, PyBytes>> {
        let body = &mut self.body;
        let count = most.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let piece = if body.is_at_hand() {
            let here = body.fill_buf()?;
            let piece = PyBytes::new(py, &here[..count.min(here.len())]);
            body.consume(piece.as_bytes().len());
            piece
        } else {
            ffi::fill_bytes(py, count, FIRST_ALLOCATION, |into| waiting(py, || body.read_into(into)))?
        };
        self.took(piece.as_bytes().len());
        Ok(piece)
    }

    fn line(&mut self, py: Python<'_>, limit: usize) -> PyResult<Vec<u8>> {
        let mut line = Vec::new();
        while line.len() < limit {
            if !self.body.is_at_hand() {
                waiting(py, || self.body.fill_buf().map(drop))?;
            }
            let here = self.body.fill_buf()?;
            let here = &here[..here.len().min(limit - line.len())];
            let end = memchr::memchr(b'\n', here);
            let count = end.map_or(here.len(), |end| end + 1);
            line.extend_from_slice(&here[..count]);
            self.body.consume(count);
            self.took(count);
            if end.is_some() || count == 0 {
                break;
            }
        }
        Ok(line)
    }

    fn took(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
    }
}

/// Runs `read` with the GIL released, again where a signal has come: its Python handler runs first, and may raise.
fn waiting(py: Python<'_>, mut read: impl FnMut() -> io::Result<()> + Send) -> PyResult<()> {
    loop {
        match py.detach(&mut read) {
            Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals()?,
            other => return Ok(other?),
        }
    }
}

/// A size as Python's files take it: none or a negative one is no limit.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}
