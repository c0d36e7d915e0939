//! The fork itself. All unsafe code of this crate is here.
#![expect(unsafe_code, reason = "a fork is safe only if the child treats the other threads' state with care")]

use std::{io, os::fd::RawFd};

use mlws_sys::{self as sys, Fork};

use crate::App;

/// Forks a child that answers a request, with the app's functions around it. The child's signal handlers are set. It
/// must call [`App::after_fork_in_child`] next, and exit by [`exit_now`](crate::exit_now).
pub(super) fn fork_for_request(app: &dyn App) -> io::Result<Fork> {
    app.before_fork();
    let parent = rustix::process::getpid();
    // SAFETY: a server that forks starts no threads. The child uses what belongs to its request and to this thread.
    // Threads of the app are the subject of `before_fork` and `after_fork_in_child`.
    let forked = unsafe { sys::fork() };
    if let Ok((Fork::Child, _blocked)) = &forked {
        sys::install_child_signal_handlers(parent);
    }
    let forked = forked.map(|(forked, _blocked)| forked);
    if !matches!(forked, Ok(Fork::Child)) {
        app.after_fork_in_parent();
    }
    forked
}

/// Closes the parent's descriptors in a child.
pub(super) fn close_in_child(descriptors: &mut dyn Iterator<Item = RawFd>) {
    // SAFETY: a child uses its connection only and exits by `exit_now`, so no owner of the descriptors is dropped.
    descriptors.for_each(|descriptor| unsafe { sys::close_inherited(descriptor) });
}
