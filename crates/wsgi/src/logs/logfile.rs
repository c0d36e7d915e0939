//! A file that lines are appended to, and that can be opened anew once something has moved it away; or stdout, or stderr.
//!
//! The one thing to know: it has the same descriptor for ever, for Python's `faulthandler` writes to that. The master opens it, with
//! the rights of the workers if they suffice; a new file belongs to them, so that they can open it again.

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

use crate::{
    logs::sink::{Sink, Tally},
    process::Identity,
};

pub(crate) struct LogFile {
    place: Place,
    sink: RwLock<Sink>,
    lost: Tally,
}

enum Place {
    File {
        path: PathBuf,
        /// Of a new file.
        mode: Mode,
        owner: Option<Identity>,
    },
    Stdout,
    Stderr,
}

impl LogFile {
    /// Opens a file to append to it. A new one gets this mode, less the umask, and belongs to `owner` if there is one.
    pub(crate) fn open(path: &Path, mode: Mode, owner: Option<&Identity>) -> io::Result<Self> {
        Self::at(Place::File { path: std::path::absolute(path)?, mode, owner: owner.cloned() })
    }

    pub(crate) fn stdout() -> io::Result<Self> {
        Self::at(Place::Stdout)
    }

    pub(crate) fn stderr() -> io::Result<Self> {
        Self::at(Place::Stderr)
    }

    fn at(place: Place) -> io::Result<Self> {
        Ok(Self { sink: RwLock::new(place.open()?), place, lost: Tally::new() })
    }

    /// Opens the path anew, if it is one. Where that fails, lines go on to the old file, and the log tells.
    pub(crate) fn reopen(&self) {
        if let Place::File { path, .. } = &self.place
            && let Err(error) = self.open_place_again()
        {
            log::error!("{} cannot be opened anew ({error}); the old file goes on", path.display());
        }
    }

    /// Follows where stdout or stderr leads now, if it is one of them. Not to be done in vain: a worker that has given up its rights
    /// may not open a pipe that its master could.
    pub(crate) fn follow(&self) {
        if !matches!(self.place, Place::File { .. }) {
            let _ = self.open_place_again(); // there is nowhere left to tell
        }
    }

    fn open_place_again(&self) -> io::Result<()> {
        let sink = self.place.open()?;
        self.sink.write().unwrap_or_else(PoisonError::into_inner).become_another(&sink)
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.sink().descriptor()
    }

    /// Writes in one piece, without waiting for a reader. A full disk loses the line and nothing else. How many were lost before it,
    /// if it is time to tell.
    pub(crate) fn write(&self, line: &[u8]) -> Option<u64> {
        let outcome = self.sink().write(line);
        self.lost.count(outcome)
    }

    /// From now on this process writes here what it means for stdout and stderr.
    pub(crate) fn capture(&self) -> io::Result<()> {
        let file = self.sink().for_programs()?;
        dup2_stdout(&file)?;
        Ok(dup2_stderr(&file)?)
    }

    fn sink(&self) -> RwLockReadGuard<'_, Sink> {
        self.sink.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn open(&self) -> io::Result<Sink> {
        match self {
            Self::Stdout => Sink::beside(stdout()),
            Self::Stderr => Sink::beside(stderr()),
            Self::File { path, mode, owner } => Sink::open(path, *mode, owner.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_and_kept_where_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let [path, moved] = ["log", "log.1"].map(|name| folder.path().join(name));
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
