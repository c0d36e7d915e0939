//! Whom the workers run as: `--user`, `--group` and `--initgroups`.
//!
//! The one thing to know: the master keeps its rights, so that it can bind, reopen and replace; each worker gives them up right after
//! its fork, before any code of the application runs, and makes sure that they cannot be had back.

use std::{ffi::CString, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, setfsgid, setfsuid, setgid, setgroups, setuid};
use rustix::{process::Gid as GroupId, thread::set_thread_groups};

use crate::{refusal::Refusal, settings::Process};

#[derive(Clone)]
pub(crate) struct Identity {
    uid: Uid,
    gid: Gid,
    /// The supplementary groups: `gid` alone, unless --initgroups asks for those of the user.
    groups: Vec<Gid>,
}

impl Identity {
    /// What the flags ask for; none where they ask for nothing. A user without a group has that of the user's own entry. Refused are
    /// unknown names, a number without an entry and without a group, and any change unless the process is root's.
    pub(crate) fn of(flags: &Process) -> Result<Option<Self>, Refusal> {
        if flags.user.is_none() && flags.group.is_none() {
            return Ok(None);
        }
        let user = flags.user.as_deref().map(find_user).transpose()?;
        let uid = user.as_ref().map_or(Uid::effective(), |(uid, _)| *uid);
        let entry = match user {
            Some((_, entry)) => entry,
            None => User::from_uid(uid).map_err(cannot_look_up)?,
        };
        let is_root = Uid::effective().is_root();
        let gid = match (&flags.group, &entry) {
            (Some(group), _) => find_group(group)?,
            (None, Some(entry)) if is_root => entry.gid,
            (None, None) if is_root => {
                return Err(Refusal::Usage(format!(
                    "user {uid} has no entry in the list of users, which would name a group: give --group too"
                )));
            }
            (None, _) => Gid::effective(),
        };
        if !is_root && (uid, gid) != (Uid::effective(), Gid::effective()) {
            return Err(Refusal::System(format!(
                "only root can run workers as user {uid} and group {gid}: start as root, or leave out --user and --group"
            )));
        }
        let name = entry.filter(|_| flags.initgroups).map(|entry| CString::new(entry.name));
        let name = name.transpose().map_err(|_| Refusal::Usage("a user name holds a NUL".into()))?;
        let groups = name.map(|name| getgrouplist(&name, gid)).transpose().map_err(cannot_look_up)?;
        Ok(Some(Self { uid, gid, groups: groups.unwrap_or_else(|| vec![gid]) }))
    }

    /// User and group, as numbers.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.uid.as_raw(), self.gid.as_raw())
    }

    /// Whether root's rights are given up in favour of this user: what runs in the workers must not run in the master then.
    pub(crate) fn gives_up_root(&self) -> bool {
        Uid::effective().is_root() && !self.uid.is_root()
    }

    /// Runs `work` with what this user may do to files, and no more. It runs in a thread of its own: the kernel keeps these ids for
    /// each thread, and they end with it. The other ids stay root's, so that nobody can send signals to the thread.
    pub(crate) fn run_as<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let groups: Vec<_> = self.groups.iter().map(|group| GroupId::from_raw(group.as_raw())).collect();
        let work = move || {
            set_thread_groups(&groups)?;
            // They return the id of before, whether it has changed or not.
            setfsgid(self.gid);
            setfsuid(self.uid);
            if (setfsgid(self.gid), setfsuid(self.uid)) != (self.gid, self.uid) {
                return Err(io::Error::other("the ids for access to files cannot be changed"));
            }
            work()
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, work)?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// Becomes it, for good. Runs in a worker.
    pub(crate) fn assume(&self) -> Result<(), Refusal> {
        if !Uid::effective().is_root() {
            return Ok(()); // it is so already, else `of` had refused
        }
        setgroups(&self.groups).and_then(|()| setgid(self.gid)).and_then(|()| setuid(self.uid)).map_err(
            |error| {
                Refusal::System(format!(
                    "the worker cannot become user {} and group {}: {error}",
                    self.uid, self.gid
                ))
            },
        )?;
        if !self.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return Err(Refusal::System("the worker could become root again, so it does not go on".into()));
        }
        Ok(())
    }
}

/// The number of a user, and its entry if it has one.
fn find_user(user: &str) -> Result<(Uid, Option<User>), Refusal> {
    let found = match number(user) {
        Some(uid) => Some((Uid::from_raw(uid), User::from_uid(Uid::from_raw(uid)).map_err(cannot_look_up)?)),
        None => User::from_name(user).map_err(cannot_look_up)?.map(|entry| (entry.uid, Some(entry))),
    };
    found.ok_or_else(|| Refusal::Usage(format!("there is no user '{user}'")))
}

fn find_group(group: &str) -> Result<Gid, Refusal> {
    let found = match number(group) {
        Some(gid) => Some(Gid::from_raw(gid)),
        None => Group::from_name(group).map_err(cannot_look_up)?.map(|entry| entry.gid),
    };
    found.ok_or_else(|| Refusal::Usage(format!("there is no group '{group}'")))
}

/// An id in digits. The highest one means "leave as it is" to the system, and is nobody's.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

fn cannot_look_up(error: nix::errno::Errno) -> Refusal {
    Refusal::System(format!("users and groups cannot be looked up: {error}"))
}
