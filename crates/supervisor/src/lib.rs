//! A master process and its workers: forks them, replaces those that die, and ends them gracefully or fast.
//!
//! The one thing to know: [`supervise`] returns in several processes, once in the master and once in every worker,
//! and each must then simply end with the code it was given. What a worker does is the caller's closure; nothing here
//! knows HTTP or Python.
//!
//! | module     | what it holds |
//! |------------|---|
//! | `master`   | the loop: signals, generations, who is forked and who goes |
//! | `slot`     | the place of one worker, and a pause after each failure in it |
//! | `process`  | one worker as its master sees it, and when patience with it ends |
//! | `worker`   | a worker's view of the world: tell the master how it goes, hear orders |
//! | `signals`  | a queue of signals, fed by a handler that writes one byte |
//! | `ending`   | how a worker ended, in words and as an exit code |
//! | `init`     | what process 1 of a container does instead |
//! | `detach`   | a process that its terminal and its parent forget |
//! | `sys`      | fork, signal handlers and masks: all the unsafe code |
//!
//! Between the master and each worker there is one *line*, a pair of sockets, for words of one byte. The worker says that it
//! is ready, is worn, or wants a reload; the master says "drain", "drain and hand over", or "open your logs anew". When the master dies its end is
//! closed, and the worker stops.
//!
//! A worker may be a master itself ([`supervise_under`]): one that has loaded what its workers are to share.

mod detach;
mod ending;
mod init;
mod master;
mod process;
mod signals;
mod slot;
mod sys;
mod worker;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use log::error;
pub use rustix::process::Pid;

pub use detach::{Detached, Launch, detach};
pub use init::{Init, become_init_if_pid_1};
use master::{End, Master};
pub use sys::{SignalHandler, deliver_term, reclaim_term, set_term_handler_of_forked_processes};
pub use worker::{Order, Voice, Worker};

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
    /// How long workers may go on with what they run after they were told to go; then they are killed.
    pub graceful_timeout: Duration,
    /// How long a worker may take from its fork until it is ready; then it is aborted (ABRT, and soon KILL).
    pub boot_timeout: Option<Duration>,
    /// How often [`News::Tick`] is wanted.
    pub tick: Option<Duration>,
    /// The workers are masters themselves: what is said about the number of workers is for them.
    pub is_above_masters: bool,
    /// The master that has started this one beside it, to hear of its end.
    pub first: Option<Pid>,
    /// Workers may request a reload ([`Voice::asks_for_reload`]); otherwise such a request has no effect.
    pub workers_may_reload: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: 1,
            graceful_timeout: Duration::from_secs(30),
            boot_timeout: None,
            tick: None,
            is_above_masters: false,
            first: None,
            workers_may_reload: false,
        }
    }
}

/// Whose workers they are: what runs in them, and what is to be done in the master.
pub trait Owner: ForkHooks {
    /// What a worker does, from its fork to its exit code. It finds the process as the master left it: its descriptors, and
    /// all signals but those of the master as they were.
    fn work(&mut self, worker: Worker) -> i32;

    /// Hears, in the master, what happens to the whole.
    fn hear(&mut self, _news: News) {}

    /// HUP: reads the settings anew. With an error all goes on as before.
    fn reload(&mut self) -> Result<Settings, String>;

    /// Runs `wait`, which blocks until there is something to do, with whatever is let go that others may want meanwhile.
    fn idle(&mut self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// USR2: starts a second master beside this one, with the same sockets.
    fn start_second(&mut self) -> io::Result<Pid> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What happens to the whole, as the master tells its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// All workers of a generation are ready: the first one, or one that has taken over after a reload.
    Ready {
        /// How many there are.
        workers: usize,
    },
    /// There are now so many workers that serve. A master above masters does not know.
    Workers {
        /// Their number.
        serving: usize,
    },
    /// A new generation starts, with the settings that [`Owner::reload`] gave.
    Reloading,
    /// It could not start; the one before serves on.
    ReloadFailed,
    /// TTIN or TTOU: so many workers are wanted from now on.
    Resized {
        /// How many there were.
        from: usize,
        /// How many there are to be.
        to: usize,
    },
    /// Log files are to be opened anew.
    Reopen,
    /// A process is about to be forked.
    Forking {
        /// How many were forked when it is.
        age: u64,
    },
    /// It was forked. What a master is told of each process, whatever becomes of it, is this and [`News::Gone`].
    Forked {
        /// The new process.
        pid: Pid,
    },
    /// A process has ended and is reaped.
    Gone {
        /// It was this one.
        pid: Pid,
    },
    /// A worker has died that was not told to.
    Ended {
        /// Its place.
        number: usize,
    },
    /// The second master that was started has ended.
    SecondIsGone,
    /// The first master, which had started this one, has ended.
    FirstIsGone,
    /// [`Settings::tick`] has passed.
    Tick,
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

/// Runs workers until told to stop, by TERM (gracefully; another TERM changes nothing), INT or QUIT (fast).
///
/// The calling process becomes the master. It forks, so it must not have threads that hold locks the workers will want.
/// HUP brings a new generation, TTIN and TTOU one worker more or fewer, USR1 new log files, USR2 a second master, and WINCH
/// sends all workers home. The master's own signal handlers are put back before it returns. One call at a time in a process.
pub fn supervise(settings: Settings, owner: &mut dyn Owner) -> Role {
    run(settings, owner, None)
}

/// The same in a worker: a master under another, which is ready when its workers are, and goes when it is told to.
pub fn supervise_under(worker: Worker, settings: Settings, owner: &mut dyn Owner) -> Role {
    run(settings, owner, Some(worker))
}

fn run(settings: Settings, owner: &mut dyn Owner, above: Option<Worker>) -> Role {
    let end = match Master::new(settings, owner, above) {
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
            Role::Worker(catch_unwind(AssertUnwindSafe(|| owner.work(worker))).unwrap_or_else(|_| {
                error!("worker {} ends: its work panicked", std::process::id());
                PANICKED
            }))
        }
    }
}
