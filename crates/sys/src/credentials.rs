use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setgid, setgroups, setuid};
use rustix::{process::Gid as GroupId, thread::set_thread_groups};

/// The user and groups that a process runs as.
#[derive(Debug, Clone)]
pub struct Credentials {
    uid: Uid,
    gid: Gid,
    /// The supplementary groups.
    groups: Vec<Gid>,
}

impl Credentials {
    /// A user, its group, and its supplementary groups.
    pub fn new(uid: Uid, gid: Gid, groups: Vec<Gid>) -> Self {
        Self { uid, gid, groups }
    }

    /// The ids of the user and the group.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Whether this process runs as root and the credentials are those of another user. Code of the application must not run as root then.
    pub fn gives_up_root(&self) -> bool {
        Uid::effective().is_root() && !self.uid.is_root()
    }

    /// Runs `work` with the access to files that this user has. It runs in a thread of its own: the kernel keeps these ids per thread, and
    /// they end with it. The other ids stay root's, so that no other user can send signals to the thread.
    ///
    /// # Errors
    ///
    /// If the ids cannot be changed, or `work` fails.
    pub fn run_as<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let groups: Vec<_> = self.groups.iter().map(|group| GroupId::from_raw(group.as_raw())).collect();
        let work = move || {
            set_thread_groups(&groups)?;
            // Both return the previous id, whether it was changed or not.
            setfsgid(self.gid);
            setfsuid(self.uid);
            if (setfsgid(self.gid), setfsuid(self.uid)) != (self.gid, self.uid) {
                return Err(io::Error::other("changing the filesystem ids failed"));
            }
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Makes this process run with these credentials, for good. Does nothing unless the process runs as root.
    ///
    /// # Errors
    ///
    /// If the ids cannot be changed, or if the process could become root again.
    pub fn drop_privileges(&self) -> io::Result<()> {
        if !Uid::effective().is_root() {
            return Ok(());
        }
        setgroups(&self.groups)?;
        setgid(self.gid)?;
        setuid(self.uid)?;
        if !self.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("the process could become root again"));
        }
        Ok(())
    }
}
