//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").
//!
//! The one thing to know: only what surely reads like its descriptor is sent by the system: Python's own files in binary mode. A
//! `GzipFile` has a descriptor too, but what it reads is not what lies there. Anything else is read piece by piece.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
};

use mlws_server::Body;
use pyo3::{intern, prelude::*, sync::PyOnceLock, types::PyType};

use crate::ffi;

#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct FileWrapper {
    /// What is read: an object with `read(size)`.
    #[pyo3(get)]
    filelike: Py<PyAny>,
    #[pyo3(get)]
    block_size: isize,
    closed: AtomicBool,
}

#[pymethods]
impl FileWrapper {
    #[new]
    #[pyo3(signature = (filelike, block_size = 8192))]
    fn new(filelike: Py<PyAny>, block_size: isize) -> Self {
        Self { filelike, block_size, closed: AtomicBool::new(false) }
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let piece = self.filelike.bind(py).call_method1(intern!(py, "read"), (self.block_size,))?;
        Ok(piece.is_truthy()?.then_some(piece))
    }

    /// Closes the file, if it can be closed, the first time it is called.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if !self.closed.swap(true, Ordering::Relaxed)
            && let Some(close) = self.filelike.bind(py).getattr_opt(intern!(py, "close"))?
        {
            close.call0()?;
        }
        Ok(())
    }
}

impl FileWrapper {
    /// The file from its current position to its end, if the system can send it.
    pub(crate) fn body(&self, py: Python<'_>) -> PyResult<Option<Body>> {
        let filelike = self.filelike.bind(py);
        if !is_plain_file(filelike)? || !filelike.call_method0(intern!(py, "readable"))?.is_truthy()? {
            return Ok(None);
        }
        let descriptor = filelike.call_method0(intern!(py, "fileno"))?.extract()?;
        let file = File::from(ffi::duplicate(py, descriptor)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let offset: u64 = filelike.call_method0(intern!(py, "tell"))?.extract()?;
        Ok(Some(Body::File { file, offset, length: metadata.len().saturating_sub(offset) }))
    }
}

/// Whether it is an `io.FileIO`, or an `io.BufferedReader` or `io.BufferedRandom` on one; no subclass, which could read otherwise.
fn is_plain_file(filelike: &Bound<'_, PyAny>) -> PyResult<bool> {
    static FILE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static READER: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    static RANDOM: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let py = filelike.py();
    let file = FILE.import(py, "io", "FileIO")?;
    let class = filelike.get_type();
    if class.is(READER.import(py, "io", "BufferedReader")?)
        || class.is(RANDOM.import(py, "io", "BufferedRandom")?)
    {
        return Ok(filelike.getattr(intern!(py, "raw"))?.get_type().is(file));
    }
    Ok(class.is(file))
}
