//! [`Upgrade`]: the other master of a binary upgrade (USR2), which serves on the same sockets.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::exit_status::ExitStatus;

pub(crate) struct Upgrade {
    /// The new master that this one has started.
    pub(crate) new_master: Option<Pid>,
    /// A pidfd of the old master that has started this one. It is readable once that master has exited.
    old_master: Option<OwnedFd>,
}

impl Upgrade {
    pub(crate) fn new(old_master: Option<Pid>) -> Upgrade {
        let old_master = old_master.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        Upgrade { new_master: None, old_master }
    }

    /// Reports once that the new master has exited.
    pub(crate) fn reap_new_master(&mut self) -> Option<(Pid, ExitStatus)> {
        let pid = self.new_master?;
        let status = ExitStatus::reap(pid)?;
        self.new_master = None;
        Some((pid, status))
    }

    /// Reports once that the old master has exited.
    pub(crate) fn take_old_master_exit(&mut self) -> bool {
        self.old_master.take_if(|pidfd| is_readable(pidfd)).is_some()
    }

    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.old_master.as_ref().map(AsFd::as_fd)
    }
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(descriptor, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
}
