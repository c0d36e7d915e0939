//! `--user`, `--group` and `--initgroups`: the credentials of the workers.
//!
//! The master keeps its own, so that it can bind, reopen and replace. Each worker drops them right after its fork, before any code of the
//! application runs.

use std::ffi::CString;

use mlws_config::ProcessOptions;
use mlws_sys::Credentials;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::error::StartupError;

/// The credentials of the workers. `None` if they keep those of the master. A user without `--group` has the group of its passwd entry.
///
/// # Errors
///
/// If a name is unknown, if a numeric user has no entry and no group is given, or if this process does not run as root.
pub(crate) fn worker_credentials(options: &ProcessOptions) -> Result<Option<Credentials>, StartupError> {
    if options.user.is_none() && options.group.is_none() {
        return Ok(None);
    }
    let user = options.user.as_deref().map(find_user).transpose()?;
    let uid = user.as_ref().map_or(Uid::effective(), |(uid, _)| *uid);
    let entry = match user {
        Some((_, entry)) => entry,
        None => User::from_uid(uid).map_err(lookup_failed)?,
    };
    let is_root = Uid::effective().is_root();
    let gid = match (&options.group, &entry) {
        (Some(group), _) => find_group(group)?,
        (None, Some(entry)) if is_root => entry.gid,
        (None, None) if is_root => {
            return Err(StartupError::Usage(format!(
                "user {uid} has no passwd entry, so its group is unknown: add --group"
            )));
        }
        (None, _) => Gid::effective(),
    };
    if !is_root && (uid, gid) != (Uid::effective(), Gid::effective()) {
        return Err(StartupError::System(format!(
            "only root can run workers as user {uid} and group {gid}: start as root, or remove --user and --group"
        )));
    }
    let name = entry.filter(|_| options.initgroups).map(|entry| CString::new(entry.name));
    let name = name.transpose().map_err(|_| StartupError::Usage("the user name contains NUL".into()))?;
    let groups = name.map(|name| getgrouplist(&name, gid)).transpose().map_err(lookup_failed)?;
    Ok(Some(Credentials::new(uid, gid, groups.unwrap_or_else(|| vec![gid]))))
}

/// The id of a user, and its passwd entry if it has one.
fn find_user(user: &str) -> Result<(Uid, Option<User>), StartupError> {
    let found = match number(user) {
        Some(uid) => Some((Uid::from_raw(uid), User::from_uid(Uid::from_raw(uid)).map_err(lookup_failed)?)),
        None => User::from_name(user).map_err(lookup_failed)?.map(|entry| (entry.uid, Some(entry))),
    };
    found.ok_or_else(|| StartupError::Usage(format!("unknown user '{user}'")))
}

fn find_group(group: &str) -> Result<Gid, StartupError> {
    let found = match number(group) {
        Some(gid) => Some(Gid::from_raw(gid)),
        None => Group::from_name(group).map_err(lookup_failed)?.map(|entry| entry.gid),
    };
    found.ok_or_else(|| StartupError::Usage(format!("unknown group '{group}'")))
}

/// A numeric id. The highest one means "unchanged" to the kernel.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&id| id != u32::MAX)
}

fn lookup_failed(error: nix::errno::Errno) -> StartupError {
    StartupError::System(format!("looking up users and groups failed: {error}"))
}
