//! A file that lines are appended to, and that can be opened anew once something has moved it away.
//!
//! The one thing to know: it has the same descriptor for ever, for Python's `faulthandler` writes to that. The master opens it, with the rights that it has; the owner is set so that a worker that has given up its
//! rights can open it again.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::fchown,
    },
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use rustix::io::{DupFlags, retry_on_intr};

use crate::process::Identity;

pub(crate) struct LogFile {
    path: PathBuf,
    owner: Option<(u32, u32)>,
    file: RwLock<OwnedFd>,
}

impl LogFile {
    /// Opens a file to append to it. It is given to `identity`, if there is one.
    pub(crate) fn open(path: &Path, identity: Option<&Identity>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let owner = identity.map(Identity::ids);
        Ok(Self { file: RwLock::new(open(&path, owner)?), path, owner })
    }

    /// Opens the path anew. Where that fails, lines go on to the old file, and the log tells.
    pub(crate) fn reopen(&self) {
        let reopened = open(&self.path, self.owner).and_then(|file| {
            let place = &mut *self.file.write().unwrap_or_else(PoisonError::into_inner);
            Ok(rustix::io::dup3(file, place, DupFlags::CLOEXEC)?)
        });
        if let Err(error) = reopened {
            log::error!("{} cannot be opened anew ({error}); the old file goes on", self.path.display());
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.file.read().unwrap_or_else(PoisonError::into_inner).as_raw_fd()
    }

    /// Writes in one piece. A full disk loses the line and nothing else.
    pub(crate) fn write(&self, mut line: &[u8]) {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        while let Ok(written @ 1..) = retry_on_intr(|| rustix::io::write(&*file, line)) {
            line = &line[written..];
        }
    }
}

fn open(path: &Path, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    if let Some((user, group)) = owner
        && file.metadata()?.is_file()
    {
        // Only root can, and only where the owner is another is it needed.
        let _ = fchown(&file, Some(user), Some(group));
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_and_kept_where_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let [path, moved] = ["log", "log.1"].map(|name| folder.path().join(name));
        let log = LogFile::open(&path, None).unwrap();
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
