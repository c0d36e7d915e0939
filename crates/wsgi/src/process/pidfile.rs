//! The file that tells other programs which process is the master.
//!
//! The one thing to know: a pidfile is only as true as what it names. One that names a process that lives is somebody else's; one that
//! does not is what a crash has left, and is replaced.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};
use tempfile::NamedTempFile;

use crate::refusal::Refusal;

/// The pidfile of this process. Dropping it removes the file, if it still names this process.
pub(crate) struct Pidfile {
    path: PathBuf,
    pid: u32,
}

impl Pidfile {
    /// Writes the file in one step. Refused where it names another process that lives, or holds something else than a number.
    pub(crate) fn create(path: &Path) -> Result<Self, Refusal> {
        let cannot = |error| Refusal::System(format!("cannot write the pidfile {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(cannot)?;
        refuse_if_taken(&path)?;
        let pid = std::process::id();
        write(&path, pid).map_err(cannot)?;
        Ok(Self { path, pid })
    }

    /// Takes another name, under the same conditions.
    pub(crate) fn rename_to(&mut self, path: &Path) -> Result<(), Refusal> {
        let cannot =
            |error| Refusal::System(format!("cannot rename the pidfile to {}: {error}", path.display()));
        let path = std::path::absolute(path).map_err(cannot)?;
        refuse_if_taken(&path)?;
        fs::rename(&self.path, &path).map_err(cannot)?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Not in a fork, which has a copy of this, and not where a successor has taken the file over.
        if std::process::id() == self.pid && matches!(named_in(&self.path), Ok(Some(pid)) if pid == self.pid)
        {
            let _ = fs::remove_file(&self.path); // what cannot be removed names a dead process
        }
    }
}

fn refuse_if_taken(path: &Path) -> Result<(), Refusal> {
    let refused = |why: String| Err(Refusal::System(format!("the pidfile {} {why}", path.display())));
    match named_in(path) {
        Ok(Some(pid)) if pid != std::process::id() && lives(pid) => refused(format!(
            "names process {pid}, which lives: end it, or remove the file if that is another program"
        )),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => refused(format!("cannot be read ({error}): remove it, or name another")),
    }
}

/// The process that the file names; none in an empty one.
fn named_in(path: &Path) -> io::Result<Option<u32>> {
    let text = fs::read_to_string(path)?;
    match text.trim() {
        "" => Ok(None),
        number => number.parse().map(Some).map_err(|_| io::Error::other("it holds no process id")),
    }
}

fn lives(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

fn write(path: &Path, pid: u32) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))?;
    writeln!(file, "{pid}")?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_takes_over_the_name_once_it_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let [path, second] = ["pid", "pid.2"].map(|name| folder.path().join(name));
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
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.py");
        fs::write(&path, "app = 1").unwrap();
        assert!(Pidfile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "app = 1");
    }
}
