//! A log file that can be reopened after rotation, or stdout, or stderr.
//!
//! Invariant: the descriptor number never changes, because Python's `faulthandler` writes to it. The master opens the
//! file with the rights of the workers if they suffice. A new file belongs to the workers, so that they can reopen it.

use std::{
    io,
    os::fd::RawFd,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use rustix::{
    fs::Mode,
    stdio::{dup2_stderr, dup2_stdout, stderr, stdout},
};

use mlws_sys::Credentials;

use crate::log_writer::{DropCounter, LogWriter};

pub struct LogFile {
    target: Target,
    writer: RwLock<LogWriter>,
    lost: DropCounter,
}

enum Target {
    File {
        path: PathBuf,
        /// Of a new file.
        mode: Mode,
        owner: Option<Credentials>,
    },
    Stdout,
    Stderr,
}

impl LogFile {
    /// Opens a file for appending. A new file gets this mode, minus the umask, and belongs to `owner`, if any.
    pub fn open(path: &Path, mode: Mode, owner: Option<&Credentials>) -> io::Result<Self> {
        Self::at(Target::File { path: std::path::absolute(path)?, mode, owner: owner.cloned() })
    }

    pub fn stdout() -> io::Result<Self> {
        Self::at(Target::Stdout)
    }

    pub fn stderr() -> io::Result<Self> {
        Self::at(Target::Stderr)
    }

    fn at(target: Target) -> io::Result<Self> {
        Ok(Self { writer: RwLock::new(target.open()?), target, lost: DropCounter::new() })
    }

    /// Reopens the path, if there is one. If that fails, the old file stays in use and the error is logged.
    pub fn reopen(&self) {
        if let Target::File { path, .. } = &self.target
            && let Err(error) = self.reopen_target()
        {
            log::error!("reopening {} failed, keeping the old file: {error}", path.display());
        }
    }

    /// Follows stdout or stderr to their current target. Call it only when they changed: a worker without root's rights
    /// may not be able to open a pipe that its master could.
    pub fn reopen_if_stdio(&self) {
        if !matches!(self.target, Target::File { .. }) {
            let _ = self.reopen_target(); // there is nowhere left to report an error
        }
    }

    fn reopen_target(&self) -> io::Result<()> {
        let writer = self.target.open()?;
        self.writer.write().unwrap_or_else(PoisonError::into_inner).replace_with(&writer)
    }

    pub fn descriptor(&self) -> RawFd {
        self.writer().descriptor()
    }

    /// Writes in one piece and never waits for a reader. A full disk loses only this line. Returns the number of lines
    /// lost before it, if that is due to be logged.
    pub fn write(&self, line: &[u8]) -> Option<u64> {
        let outcome = self.writer().write(line);
        self.lost.count(outcome)
    }

    /// Redirects stdout and stderr of this process to the file.
    pub fn capture(&self) -> io::Result<()> {
        let file = self.writer().blocking_fd()?;
        dup2_stdout(&file)?;
        Ok(dup2_stderr(&file)?)
    }

    fn writer(&self) -> RwLockReadGuard<'_, LogWriter> {
        self.writer.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn open(&self) -> io::Result<LogWriter> {
        match self {
            Self::Stdout => LogWriter::reopen_fd(stdout()),
            Self::Stderr => LogWriter::reopen_fd(stderr()),
            Self::File { path, mode, owner } => LogWriter::open(path, *mode, owner.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_file_is_reopened_or_kept_if_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let [path, moved] = ["log", "log.1"].map(|name| directory.path().join(name));
        let log = LogFile::open(&path, Mode::RUSR | Mode::WUSR, None).unwrap();
        log.write(b"one\n");
        std::fs::rename(&path, &moved).unwrap();
        log.write(b"two\n");
        std::fs::create_dir(&path).unwrap();
        log.reopen();
        log.write(b"three\n");
        std::fs::remove_dir(&path).unwrap();
        log.reopen();
        log.write(b"four\n");
        assert_eq!(std::fs::read_to_string(moved).unwrap(), "one\ntwo\nthree\n");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "four\n");
    }
}
