//! Forking with the work that the embedding language needs done around it.

use std::io;

use mlws_sys::{self as sys, Fork};

/// What the embedding language needs done around a fork. In `CPython` these are `PyOS_BeforeFork`,
/// `PyOS_AfterFork_Parent` and `PyOS_AfterFork_Child`. After every `before`, each process that then exists runs exactly
/// one of the other two. If the fork fails, that is `after_in_parent`.
pub trait ForkHooks {
    /// Runs in the parent, before the fork.
    fn before(&self) {}
    /// Runs in the parent, after the fork.
    fn after_in_parent(&self) {}
    /// Runs in the child, before anything else of its work.
    fn after_in_child(&self) {}
}

/// No hooks.
impl ForkHooks for () {}

/// Forks. `prepare_child` runs first in the child.
///
/// Invariant: no signal is lost. All signals are blocked until both processes are set up. A signal sent to the child
/// before it has its own queue stays pending in the kernel.
#[expect(unsafe_code, reason = "a fork is safe only if the child treats the other threads' state with care")]
pub(crate) fn fork(hooks: &(impl ForkHooks + ?Sized), prepare_child: impl FnOnce()) -> io::Result<Fork> {
    hooks.before();
    // SAFETY: a master starts no threads. Those of the embedding language are the subject of the hooks.
    let (forked, blocked) = match unsafe { sys::fork() } {
        Ok(forked) => forked,
        Err(error) => {
            hooks.after_in_parent();
            return Err(error);
        }
    };
    if let Fork::Child = forked {
        prepare_child();
        drop(blocked);
        hooks.after_in_child();
    } else {
        drop(blocked);
        hooks.after_in_parent();
    }
    Ok(forked)
}
