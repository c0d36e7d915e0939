//! Writes to a file, or to a pipe, terminal or socket whose reader may have stopped reading.
//!
//! Invariant: nothing here waits for a reader. A line that does not fit is dropped and counted, and the count is logged
//! with the next line that fits. Other processes may share the pipe or terminal and expect blocking writes. So it is
//! opened again as non-blocking instead of changing its flags.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use mlws_sys::{Credentials, SharedPage, open_to_append};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, Mode, OFlags, fstat},
    io::{DupFlags, Errno, retry_on_intr},
    net::SendFlags,
};

/// Writes to a pipe up to this size are atomic (`PIPE_BUF`).
const ATOMIC: usize = 4096;

pub(crate) struct LogWriter {
    descriptor: OwnedFd,
    write_mode: WriteMode,
    rest: Mutex<PartialLine>,
}

/// How a target is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteMode {
    /// A regular file: writes do not depend on a reader.
    File,
    /// Opened here as non-blocking.
    NonBlocking,
    Socket,
    /// Could not be reopened, so it is polled before each write.
    Polled,
}

/// The rest of a partly written line. It is written before any other line.
#[derive(Default)]
struct PartialLine {
    bytes: Vec<u8>,
    /// The process that began the line. A forked child must not finish it.
    process: u32,
}

/// The result of writing a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteResult {
    Written,
    /// The reader is too slow.
    Dropped,
    /// The other end is closed, or the write failed.
    Broken,
}

impl LogWriter {
    /// Opens a file for appending. A new file gets this mode and owner. A FIFO does not need a reader yet.
    pub(crate) fn open(path: &Path, mode: Mode, owner: Option<&Credentials>) -> io::Result<Self> {
        let open = |access| open_to_append(path, access | OFlags::NONBLOCK, mode, owner);
        let file = match open(OFlags::WRONLY) {
            // Opening for reading, too, makes this process a reader.
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => open(OFlags::RDWR)?,
            opened => opened?,
        };
        let write_mode =
            if is_read_by_somebody(file.as_fd())? { WriteMode::NonBlocking } else { WriteMode::File };
        Ok(Self::new(file, write_mode))
    }

    /// Reopens an inherited descriptor, such as stdout.
    pub(crate) fn reopen_fd(given: BorrowedFd<'_>) -> io::Result<Self> {
        if FileType::from_raw_mode(fstat(given)?.st_mode) == FileType::Socket {
            return Ok(Self::new(given.try_clone_to_owned()?, WriteMode::Socket));
        }
        if !is_read_by_somebody(given)? {
            return Ok(Self::new(given.try_clone_to_owned()?, WriteMode::File));
        }
        match open_again(given, OFlags::NONBLOCK) {
            Ok(own) => Ok(Self::new(own, WriteMode::NonBlocking)),
            Err(_) => Ok(Self::new(given.try_clone_to_owned()?, WriteMode::Polled)),
        }
    }

    pub(crate) fn of_socket(socket: OwnedFd) -> Self {
        Self::new(socket, WriteMode::Socket)
    }

    fn new(descriptor: OwnedFd, write_mode: WriteMode) -> Self {
        Self { descriptor, write_mode, rest: Mutex::default() }
    }

    /// Points the descriptor of `self` to the target of `other`.
    pub(crate) fn replace_with(&mut self, other: &Self) -> io::Result<()> {
        rustix::io::dup3(&other.descriptor, &mut self.descriptor, DupFlags::CLOEXEC)?;
        (self.write_mode, self.rest) = (other.write_mode, Mutex::default());
        Ok(())
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// A descriptor for a program that expects blocking writes.
    pub(crate) fn blocking_fd(&self) -> io::Result<OwnedFd> {
        match self.write_mode {
            WriteMode::NonBlocking => open_again(self.descriptor.as_fd(), OFlags::empty()),
            _ => self.descriptor.try_clone(),
        }
    }

    /// Writes a line, whole or not at all as far as the system allows.
    pub(crate) fn write(&self, line: &[u8]) -> WriteResult {
        if self.write_mode == WriteMode::File {
            return if self.put(line).is_ok_and(|count| count == line.len()) {
                WriteResult::Written
            } else {
                WriteResult::Dropped
            };
        }
        self.try_write(line).unwrap_or(WriteResult::Broken)
    }

    fn try_write(&self, line: &[u8]) -> io::Result<WriteResult> {
        let mut rest = self.rest.lock().unwrap_or_else(PoisonError::into_inner);
        if !rest.bytes.is_empty() {
            if rest.process == std::process::id() {
                let count = self.put(&rest.bytes)?;
                rest.bytes.drain(..count);
            } else {
                rest.bytes.clear();
            }
        }
        if !rest.bytes.is_empty() || !self.has_space_for(line.len()) {
            return Ok(WriteResult::Dropped);
        }
        match self.put(line)? {
            0 => Ok(WriteResult::Dropped),
            count => {
                rest.bytes.extend_from_slice(&line[count..]);
                rest.process = std::process::id();
                Ok(WriteResult::Written)
            }
        }
    }

    /// Whether a pipe has enough space for a line that it would not write atomically.
    fn has_space_for(&self, length: usize) -> bool {
        if length <= ATOMIC || self.write_mode == WriteMode::Socket {
            return true;
        }
        let size = rustix::pipe::fcntl_getpipe_size(&self.descriptor);
        match (size, rustix::io::ioctl_fionread(&self.descriptor)) {
            (Ok(size), Ok(used)) => used == 0 || used.saturating_add(length as u64) <= size as u64,
            _ => true,
        }
    }

    /// Writes as much as fits.
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < bytes.len() {
            let left = &bytes[count..];
            let written = retry_on_intr(|| match self.write_mode {
                WriteMode::Socket => {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    rustix::net::send(&self.descriptor, left, flags)
                }
                WriteMode::Polled if !self.is_writable()? => Err(Errno::AGAIN),
                WriteMode::Polled => rustix::io::write(&self.descriptor, &left[..left.len().min(ATOMIC)]),
                WriteMode::File | WriteMode::NonBlocking => rustix::io::write(&self.descriptor, left),
            });
            match written {
                Ok(0) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE) => break,
                Ok(more) => count += more,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    fn is_writable(&self) -> rustix::io::Result<bool> {
        let mut asked = [PollFd::new(&self.descriptor, PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec::default())).map(|ready| ready > 0)
    }
}

impl AsFd for LogWriter {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether a write may block on a reader.
fn is_read_by_somebody(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Fifo || rustix::termios::isatty(file))
}

/// Reopens the file of a descriptor, so that changing its flags does not affect other processes.
fn open_again(given: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(format!("/proc/self/fd/{}", given.as_raw_fd()), flags, Mode::empty())?)
}

/// Number of dropped lines, shared by all processes forked from this one.
pub(crate) struct DropCounter(Option<SharedPage<AtomicU64>>);

impl DropCounter {
    pub(crate) fn new() -> Self {
        Self(SharedPage::new(2).ok()) // without a page of shared memory, lines are not counted
    }

    /// Counts a dropped line. After a written one, returns the number of dropped lines that were not reported yet, at
    /// most once a second, because reports make a slow reader slower.
    pub(crate) fn count(&self, outcome: WriteResult) -> Option<u64> {
        let page = self.0.as_ref()?;
        let (lost, last_report) = (page.get(0)?, page.get(1)?);
        if outcome != WriteResult::Written {
            lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if lost.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        (last_report.swap(now, Ordering::Relaxed) != now)
            .then(|| lost.swap(0, Ordering::Relaxed))
            .filter(|lost| *lost > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn fill(sink: &LogWriter, line: &[u8]) {
        while sink.write(line) == WriteResult::Written {}
    }

    #[test]
    fn an_unread_pipe_accepts_complete_lines_until_it_is_full() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LogWriter::reopen_fd(writer.as_fd()).unwrap();
        fill(&sink, b"0123456789 abcdef\n");
        assert!(!rustix::fs::fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
        drop((sink, writer));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() > ATOMIC && text.lines().all(|line| line == "0123456789 abcdef"));
    }

    #[test]
    fn a_line_too_long_for_one_write_is_completed_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LogWriter::reopen_fd(writer.as_fd()).unwrap();
        let long = [vec![b'x'; 100_000], vec![b'\n']].concat();
        assert!(sink.write(&long) == WriteResult::Written, "an empty pipe takes what it can");
        assert!(sink.write(b"lost\n") == WriteResult::Dropped);
        let mut text = vec![0; 50_000];
        reader.read_exact(&mut text).unwrap();
        while sink.write(b"next\n") == WriteResult::Dropped {
            let mut more = vec![0; 4096];
            let count = reader.read(&mut more).unwrap();
            text.extend_from_slice(&more[..count]);
        }
        drop((sink, writer));
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, [&*long, b"next\n"].concat());
    }

    #[test]
    fn a_pipe_that_cannot_be_reopened_is_polled() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LogWriter::new(writer.into(), WriteMode::Polled);
        fill(&sink, b"0123456789 abcdef\n");
        drop(sink);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() > ATOMIC && text.lines().all(|line| line == "0123456789 abcdef"));
    }

    #[test]
    fn lines_to_an_unread_socket_are_dropped() {
        let (writer, reader) = std::os::unix::net::UnixStream::pair().unwrap();
        let sink = LogWriter::reopen_fd(writer.as_fd()).unwrap();
        fill(&sink, b"a line\n");
        drop(reader);
        assert!(sink.write(b"a line\n") == WriteResult::Broken);
    }

    #[test]
    fn dropped_lines_are_reported_once() {
        let tally = DropCounter::new();
        assert_eq!(tally.count(WriteResult::Written), None);
        tally.count(WriteResult::Dropped);
        tally.count(WriteResult::Broken);
        assert_eq!(tally.count(WriteResult::Written), Some(2));
        assert_eq!(tally.count(WriteResult::Written), None);
    }
}
