//! The pidfile of the master.
//!
//! A pidfile that is locked, or that contains the pid of a running process, is in use. Any other was left by a crash and is replaced. The
//! master holds the lock (`flock`) until it exits. So if two masters start at the same time, only one gets the file.

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

/// How often the file may be created and removed by other processes before this one gives up.
const MAX_ATTEMPTS: usize = 8;

/// The pidfile of this process. Dropping it removes the file if it still contains this pid.
pub(crate) struct Pidfile {
    path: PathBuf,
    pid: u32,
    /// Holds the lock. A forked process shares it and must drop its copy.
    _file: File,
}

impl Pidfile {
    /// Creates the file atomically. Fails if it is in use, or is not a pidfile.
    pub(crate) fn create(path: &Path) -> Result<Self, StartupError> {
        let failed =
            |error| StartupError::System(format!("cannot write the pidfile {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(failed)?;
        let pid = std::process::id();
        for _ in 0..MAX_ATTEMPTS {
            let stale = lock_stale(&path)?;
            match write(&path, pid, stale.is_some() || path.is_symlink()) {
                Ok(file) => return Ok(Self { path, pid, _file: file }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::Error::other("other processes write it concurrently")))
    }

    /// Renames the file, under the same conditions.
    pub(crate) fn rename_to(&mut self, path: &Path) -> Result<(), StartupError> {
        let failed =
            |error| StartupError::System(format!("cannot rename the pidfile to {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(failed)?;
        let _stale = lock_stale(&path)?;
        fs::rename(&self.path, &path).map_err(failed)?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Not in a forked process, and not if a new master has replaced the file.
        if std::process::id() == self.pid && contains(&self.path, self.pid) {
            let _ = fs::remove_file(&self.path); // if this fails, the next start treats the file as stale
        }
    }
}

fn contains(path: &Path, pid: u32) -> bool {
    let found = open(path).and_then(|file| file.map_or(Ok(None), |file| read_pid(&file)));
    matches!(found, Ok(Some(found)) if found == pid)
}

/// Returns a stale pidfile, locked so that no other process replaces it meanwhile, or `None` if there is no file.
fn lock_stale(path: &Path) -> Result<Option<File>, StartupError> {
    let failed = |why: String| StartupError::System(format!("the pidfile {} {why}", path.display()));
    let unreadable =
        |error: io::Error| failed(format!("cannot be read ({error}): remove it, or choose another path"));
    for _ in 0..MAX_ATTEMPTS {
        let Some(file) = open(path).map_err(unreadable)? else { return Ok(None) };
        // Some file systems do not support locks. There only the pid counts.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(failed("is locked by a running server: stop it, or choose another path".into()));
        }
        if !is_at(&file, path) {
            continue; // the previous holder of the lock has replaced or removed it
        }
        return match read_pid(&file).map_err(unreadable)? {
            Some(pid) if pid != std::process::id() && is_running(pid) => Err(failed(format!(
                "contains pid {pid} of a running process: stop it, or remove the file if it is another program"
            ))),
            _ => Ok(Some(file)),
        };
    }
    Err(failed("is written by other processes concurrently".into()))
}

/// Opens the file if it exists. Non-blocking, because it may be a FIFO without a writer.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
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
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let same = file.metadata().and_then(|own| Ok(identity(own) == identity(fs::metadata(path)?)));
    same.unwrap_or(false)
}

/// The pid in the file. `None` if the file is empty.
fn read_pid(mut file: &File) -> io::Result<Option<u32>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| io::Error::other("it contains no process id")),
    }
}

fn is_running(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

/// Writes and locks the new file. Fails if a file has been created meanwhile that must not be replaced.
fn write(path: &Path, pid: u32, replaces: bool) -> io::Result<File> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    writeln!(file, "{pid}")?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    let _ = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive); // not supported by some file systems
    Ok(if replaces { file.persist(path)? } else { file.persist_noclobber(path)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_master_takes_over_the_path_once_it_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let [path, second] = ["pid", "pid.2"].map(|name| directory.path().join(name));
        fs::write(&path, "1\n").unwrap();
        let mut pidfile = Pidfile::create(&second).unwrap();
        assert!(
            pidfile.rename_to(&path).unwrap_err().to_string().contains("contains pid 1 of a running process")
        );
        fs::remove_file(&path).unwrap();
        pidfile.rename_to(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert!(!second.exists());
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_a_pidfile_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shop.py");
        fs::write(&path, "app = 1").unwrap();
        assert!(Pidfile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "app = 1");
    }
}
