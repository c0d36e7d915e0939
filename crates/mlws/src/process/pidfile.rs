//! The file that tells other programs which process is the master.
//!
//! The one thing to know: a pidfile is only as true as what it names. One that is locked, or names a process that lives, is somebody
//! else's; any other is what a crash has left, and is replaced. The lock (`flock`) is held for as long as the master lives, and makes sure
//! that of two masters that start at once only one gets the file.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
    process::{Pid, test_kill_process},
};
use tempfile::NamedTempFile;

use crate::error::StartupError;

/// How often the file may appear and disappear while it is looked at.
const MAX_ATTEMPTS: usize = 8;

/// The pidfile of this process. Dropping it removes the file, if it still names this process.
pub(crate) struct Pidfile {
    path: PathBuf,
    pid: u32,
    /// Has the lock. Each fork has a copy, which it must drop.
    _file: File,
}

impl Pidfile {
    /// Writes the file in one step. Refused where it is another process's, or holds something else than a number.
    pub(crate) fn create(path: &Path) -> Result<Self, StartupError> {
        let cannot =
            |error| StartupError::System(format!("cannot write the pidfile {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(cannot)?;
        let pid = std::process::id();
        for _ in 0..MAX_ATTEMPTS {
            let stale = refuse_if_taken(&path)?;
            match write(&path, pid, stale.is_some() || path.is_symlink()) {
                Ok(file) => return Ok(Self { path, pid, _file: file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot(error)),
            }
        }
        Err(cannot(io::Error::other("other processes write it at the same time")))
    }

    /// Takes another name, under the same conditions.
    pub(crate) fn rename_to(&mut self, path: &Path) -> Result<(), StartupError> {
        let cannot =
            |error| StartupError::System(format!("cannot rename the pidfile to {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(cannot)?;
        let _stale = refuse_if_taken(&path)?;
        fs::rename(&self.path, &path).map_err(cannot)?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Not in a fork, which has a copy of this, and not where a successor has taken the file over.
        if std::process::id() == self.pid && names(&self.path, self.pid) {
            let _ = fs::remove_file(&self.path); // what cannot be removed names a dead process
        }
    }
}

fn names(path: &Path, pid: u32) -> bool {
    let named = open(path).and_then(|file| file.map_or(Ok(None), |file| named_in(&file)));
    matches!(named, Ok(Some(named)) if named == pid)
}

/// The file that is there, if any: locked, so that nobody else replaces it meanwhile.
fn refuse_if_taken(path: &Path) -> Result<Option<File>, StartupError> {
    let refused = |why: String| StartupError::System(format!("the pidfile {} {why}", path.display()));
    let unreadable =
        |error: io::Error| refused(format!("cannot be read ({error}): remove it, or name another"));
    for _ in 0..MAX_ATTEMPTS {
        let Some(file) = open(path).map_err(unreadable)? else { return Ok(None) };
        // Some file systems have no locks: there the process that it names decides.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(refused("is locked by a server that lives: end it, or name another file".into()));
        }
        if !is_at(&file, path) {
            continue; // the one who had the lock has replaced or removed it
        }
        return match named_in(&file).map_err(unreadable)? {
            Some(pid) if pid != std::process::id() && lives(pid) => Err(refused(format!(
                "names process {pid}, which lives: end it, or remove the file if that is another program"
            ))),
            _ => Ok(Some(file)),
        };
    }
    Err(refused("is written by other processes at the same time".into()))
}

/// Opens the file, if there is one. It may be anything: a FIFO without a writer must not hold up the start.
fn open(path: &Path) -> io::Result<Option<File>> {
    let config = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(config.bits().cast_signed()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if file.metadata()?.is_file() {
        Ok(Some(file))
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |found: fs::Metadata| (found.dev(), found.ino());
    let found = file.metadata().and_then(|own| Ok(place(own) == place(fs::metadata(path)?)));
    found.unwrap_or(false)
}

/// The process that the file names; none in an empty one.
fn named_in(mut file: &File) -> io::Result<Option<u32>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| io::Error::other("it holds no process id")),
    }
}

fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// The new file, locked. An error where one has appeared that is not to be replaced.
fn write(path: &Path, pid: u32, replaces: bool) -> io::Result<File> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    writeln!(file, "{pid}")?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    let _ = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive); // see above
    Ok(if replaces { file.persist(path)? } else { file.persist_noclobber(path)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_takes_over_the_name_once_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let [path, second] = ["pid", "pid.2"].map(|name| directory.path().join(name));
        fs::write(&path, "1\n").unwrap();
        let mut pidfile = Pidfile::create(&second).unwrap();
        assert!(pidfile.rename_to(&path).unwrap_err().to_string().contains("names process 1, which lives"));
        fs::remove_file(&path).unwrap();
        pidfile.rename_to(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert!(!second.exists());
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_pidfile_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.py");
        fs::write(&path, "app = 1").unwrap();
        assert!(Pidfile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "app = 1");
    }
}
