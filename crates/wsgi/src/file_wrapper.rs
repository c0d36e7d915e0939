//! `wsgi.file_wrapper` (PEP 3333, "Optional Platform-Specific File Handling").
//!
//! sendfile(2) is used only for files that certainly read like their descriptor: Python's own in binary mode. A `GzipFile` has a descriptor
//! too, but reads other bytes. Everything else is read in blocks.

use std::{
    fs::File,
    sync::atomic::{AtomicBool, Ordering},
};

use mlws_server::Body;
use pyo3::{intern, prelude::*, sync::PyOnceLock, types::PyType};

use crate::ffi;

#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct FileWrapper {
    /// An object with `read(size)`.
    #[pyo3(get)]
    filelike: Py<PyAny>,
    block_size: isize,
    closed: AtomicBool,
}

#[pymethods]
impl FileWrapper {
    #[new]
    /// PEP 3333 calls the second parameter `block_size`, `wsgiref` and gunicorn call it `blksize`.
    #[pyo3(signature = (filelike, block_size = 8192, *, blksize = None))]
    fn new(filelike: Py<PyAny>, block_size: isize, blksize: Option<isize>) -> Self {
        Self { filelike, block_size: blksize.unwrap_or(block_size), closed: AtomicBool::new(false) }
    }

    #[getter(block_size)]
    fn block_size(&self) -> isize {
        self.block_size
    }

    #[getter(blksize)]
    fn blksize(&self) -> isize {
        self.block_size
    }

    fn __iter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let block = self.filelike.bind(py).call_method1(intern!(py, "read"), (self.block_size,))?;
        Ok(block.is_truthy()?.then_some(block))
    }

    /// Closes the file on the first call, if it has `close()`.
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
    /// The file from its current position to its end, if sendfile(2) can send it.
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

/// Whether it is an `io.FileIO`, or an `io.BufferedReader` or `io.BufferedRandom` on one. Subclasses could override `read`.
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
