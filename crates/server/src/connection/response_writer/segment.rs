//! The parts of a response's output, and the temporary file for those that do not fit into memory.

use std::{
    cell::RefCell,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
};

use crate::{Bytes, connection::socket::ClientSocket};

/// The most bytes of a file that are read at a time for HTTP/2.
const FILE_CHUNK: usize = 16 * 1024;

thread_local! {
    static FILE_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A part of the output.
pub(super) enum Segment {
    /// The bytes of `bytes` from `sent` up to `end`.
    Bytes {
        bytes: Bytes,
        sent: usize,
        end: usize,
    },
    File(FileRange),
}

/// A range of a file.
pub(super) struct FileRange {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) left: u64,
    /// This is the spool file of this response, not a file of the application.
    pub(super) is_spool: bool,
}

/// A temporary file without a name for the part of a response that does not fit into memory.
pub(crate) struct Spool {
    file: Arc<File>,
    end: u64,
}

impl Spool {
    pub(crate) fn create(directory: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(tempfile::tempfile_in(directory)?), end: 0 })
    }

    /// Bytes written to the file so far.
    pub(crate) fn size(&self) -> u64 {
        self.end
    }

    /// After an error, the size of the file is unchanged.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<FileRange> {
        self.file.write_all_at(bytes, self.end)?;
        let (offset, left) = (self.end, bytes.len() as u64);
        self.end += left;
        Ok(FileRange { file: Arc::clone(&self.file), offset, left, is_spool: true })
    }
}

impl FileRange {
    /// The same over HTTP/2, by way of a buffer.
    pub(super) fn send_to_stream(&mut self, socket: &ClientSocket, is_last: bool) -> io::Result<usize> {
        FILE_BUFFER.with_borrow_mut(|buffer| {
            let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(FILE_CHUNK);
            buffer.resize(limit, 0);
            let count = self.file.read_at(buffer, self.offset)?;
            if count == 0 && limit > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let is_end = is_last && count as u64 == self.left;
            let sent = socket.send_data(&buffer[..count], is_end)?;
            self.offset += sent as u64;
            self.left -= sent as u64;
            Ok(sent)
        })
    }

    /// The file must not shrink meanwhile. If it does, the response cannot be completed.
    pub(super) fn send(&mut self, socket: &ClientSocket, limit: u64) -> io::Result<usize> {
        match socket.send_file(self.file.as_fd(), &mut self.offset, self.left.min(limit))? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}
