//! `wsgi.input`: a request's body, complete from the start, so no read ever waits for the client.
//!
//! The one thing to know: the body is only here while the request is being answered, for its buffer is the connection's. What an
//! application reads later is empty, as at the end of a file.

use std::{
    io::{self, BufRead, Read},
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use mlws_server::{Request, RequestBody};
use pyo3::{prelude::*, sync::MutexExt, types::PyBytes};

#[pyclass(frozen, module = "mylittlewebserver")]
#[derive(Default)]
pub(crate) struct Input(Mutex<Unread>);

#[derive(Default)]
struct Unread {
    body: RequestBody,
    left: u64,
}

impl Input {
    pub(crate) fn fill(&self, body: RequestBody) {
        let left = body.length();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Unread { body, left };
    }

    /// Gives the body back to the request that it came from. What was not read stays here if it is still `wanted`, by an application
    /// that goes on reading while its answer is sent.
    pub(crate) fn give_back(&self, py: Python<'_>, request: &mut Request, wanted: bool) {
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
        let mut unread = self.lock(py);
        let count = limit(size).min(usize::try_from(unread.left)?);
        let body = &mut unread.body;
        let piece = if body.is_spooled() {
            PyBytes::new_with(py, count, |into| Ok(py.detach(|| body.read_exact(into))?))?
        } else {
            let piece = PyBytes::new(py, &body.fill_buf()?[..count]);
            body.consume(count);
            piece
        };
        unread.left -= count as u64;
        Ok(piece)
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
    fn line(&mut self, py: Python<'_>, limit: usize) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let is_at_hand = !self.body.is_spooled();
        let mut read = || (&mut self.body).take(limit as u64).read_until(b'\n', &mut line);
        let count = if is_at_hand { read()? } else { py.detach(read)? };
        self.left -= count as u64;
        Ok(line)
    }
}

/// A size as Python's files take it: none or a negative one is no limit.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}
