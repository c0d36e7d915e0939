//! `wsgi.input`: a request's body, complete from the start, so no read ever waits for the client.
//!
//! The one thing to know: the body is only here while the request is being answered, for its buffer is the connection's. What an
//! application reads later is empty, as at the end of a file.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read, Seek},
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
    source: Source,
    left: u64,
}

enum Source {
    Request(RequestBody),
    /// A copy, for an application that goes on reading while its answer is sent.
    Copy(Box<dyn BufRead + Send>),
}

impl Input {
    pub(crate) fn fill(&self, body: RequestBody) {
        let left = body.length();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Unread { source: Source::Request(body), left };
    }

    /// Gives the body back to the request that it came from. What was not read is copied before, if it is still `wanted`.
    pub(crate) fn give_back(&self, py: Python<'_>, request: &mut Request, wanted: bool) {
        let mut unread = self.lock(py);
        let Unread { source: Source::Request(mut body), left } = mem::take(&mut *unread) else { return };
        if wanted && left > 0 {
            match py.detach(|| copy(&mut body)) {
                Ok(source) => *unread = Unread { source, left },
                Err(error) => log::error!("the rest of a request's body could not be kept: {error}"),
            }
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
        let piece = match &mut unread.source {
            Source::Request(body) if !body.is_spooled() => {
                let piece = PyBytes::new(py, &body.fill_buf()?[..count]);
                body.consume(count);
                piece
            }
            source => {
                PyBytes::new_with(py, count, |into| Ok(py.detach(|| source.reader().read_exact(into))?))?
            }
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
        let is_at_hand = matches!(&self.source, Source::Request(body) if !body.is_spooled());
        let mut read = || self.source.reader().take(limit as u64).read_until(b'\n', &mut line);
        let count = if is_at_hand { read()? } else { py.detach(read)? };
        self.left -= count as u64;
        Ok(line)
    }
}

impl Source {
    fn reader(&mut self) -> &mut (dyn BufRead + Send) {
        match self {
            Self::Request(body) => body,
            Self::Copy(rest) => rest,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::Request(RequestBody::default())
    }
}

/// A size as Python's files take it: none or a negative one is no limit.
fn limit(size: Option<isize>) -> usize {
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

/// What is left of a body, where it lay before: in memory or in a temporary file.
fn copy(body: &mut RequestBody) -> io::Result<Source> {
    Ok(Source::Copy(if body.is_spooled() {
        let mut file: File = tempfile::tempfile()?;
        io::copy(body, &mut file)?;
        file.rewind()?;
        Box::new(BufReader::new(file))
    } else {
        let mut rest = Vec::new();
        body.read_to_end(&mut rest)?;
        Box::new(Cursor::new(rest))
    }))
}
