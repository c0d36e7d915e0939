//! A master process and its workers: forks them, replaces those that die, and ends them gracefully or fast.
//!
//! The one thing to know: [`supervise`] returns in several processes, once in the master and once in every worker,
//! and each must then simply end with the code it was given. What a worker does is the caller's closure; nothing here
//! knows HTTP or Python.
//!
//! | module     | what it holds |
//! |------------|---|
//! | `master` | the loop: take a signal, reap, top up, time out, sleep |
//! | `worker` | a worker's view of the world: say ready, hear orders |
//! | `signals`| a queue of signals, fed by a handler that writes one byte |
//! | `ending` | how a worker ended, in words and as an exit code |
//! | `sys`    | fork, signal handlers and masks: all the unsafe code |
//!
//! Between the master and each worker there is one *line*, a pair of sockets. The worker writes a byte to it when it is
//! ready; the master writes one to say "drain". When the master dies its end is closed, and the worker stops.

mod ending;
mod master;
mod signals;
mod sys;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use log::error;

use master::{End, Master};
pub use worker::{Order, Worker};

/// What the caller's language needs done around a fork. In `CPython` these are `PyOS_BeforeFork`,
/// `PyOS_AfterFork_Parent` and `PyOS_AfterFork_Child`. Every `before` is followed by one of the other two in each
/// process that then exists, by `after_in_parent` also if the fork failed.
pub trait ForkHooks {
    /// Runs in the master, before the fork.
    fn before(&self) {}
    /// Runs in the master, after the fork.
    fn after_in_parent(&self) {}
    /// Runs in the new worker, before its work.
    fn after_in_child(&self) {}
}

/// No hooks.
impl ForkHooks for () {}

/// How the workers are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many workers; 0 is taken as 1.
    pub workers: usize,
    /// How long workers may go on with what they run after a graceful stop was ordered; then they are killed.
    pub graceful_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { workers: 1, graceful_timeout: Duration::from_secs(30) }
    }
}

/// What happens to the whole, as the master tells its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// All of the first workers are ready.
    Ready,
    /// A stop was ordered: no worker will be forked any more, so what the master kept for them can be closed.
    Ending,
}

/// Which process [`supervise`] returned in, and the exit code that process must now end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The master, all of its workers gone. The code is that of the whole: 0 after an ordered stop; that of the worker
    /// (1 if a signal killed it) which ended before any worker was ever ready; 1 if the master could not start.
    Master(i32),
    /// A worker. The code is what `work` returned, or [`PANICKED`].
    Worker(i32),
}

/// The exit code of a worker whose `work` panicked (`EX_SOFTWARE` of `sysexits.h`).
pub const PANICKED: i32 = 70;

/// Runs workers until told to stop by TERM or INT (gracefully; a second one is fast) or QUIT (fast).
///
/// The calling process becomes the master. It forks, so it must not have threads that hold locks `work` will want.
/// `announce` is called in the master, at most once for each kind of news. `work` runs in every worker with
/// the process as the caller left it: its descriptors, and all signals but TERM, INT and QUIT as they were.
/// The master's own signal handlers are put back before it returns. One call at a time in a process.
pub fn supervise(
    settings: &Settings,
    hooks: &dyn ForkHooks,
    announce: &mut dyn FnMut(News),
    work: &mut dyn FnMut(Worker) -> i32,
) -> Role {
    let end = match Master::new(settings, hooks, announce) {
        Ok(master) => master.run(),
        Err(error) => {
            error!("the master cannot start: {error}");
            End::Stopped(1)
        }
    };
    match end {
        End::Stopped(code) => Role::Master(code),
        // The caller's unwinding must not run as if this process were the master.
        End::Forked(worker) => {
            Role::Worker(catch_unwind(AssertUnwindSafe(|| work(worker))).unwrap_or_else(|_| {
                error!("worker {} ends: its work panicked", std::process::id());
                PANICKED
            }))
        }
    }
}
