//! A master process and its workers: it forks them, restarts those that exit, and stops them gracefully or immediately.
//!
//! [`supervise`] returns in several processes: once in the master, and once in each worker. Each must then exit with the code
//! that was returned. What a worker does is up to the [`Delegate`]. The crate depends on neither HTTP nor Python.
//!
//! | module            | contents |
//! |-------------------|---|
//! | `master`          | the main loop: signals, forks, exits, reloads, binary upgrades |
//! | `action`          | what each signal makes a master do |
//! | `worker_set`      | all workers of a master, by generation |
//! | `worker_slot`     | the place of one worker and its replacement |
//! | `restart_policy`  | when a worker that exited is restarted, and the backoff |
//! | `worker_handle`   | a worker as its master sees it, and its timeouts |
//! | `worker`          | a worker's own view: reports to the master, commands from it |
//! | `delegate`        | what the embedder provides, and the events it receives |
//! | `settings`        | how a master keeps its workers |
//! | `control_channel` | the messages between a master and a worker |
//! | `signal_queue`    | a queue of signals, fed by a self-pipe |
//! | `exit_status`     | how a worker exited |
//! | `upgrade`         | the other master of a binary upgrade |
//! | `init`            | the init process of a container |
//! | `detach`          | daemonizing |
//! | `fork_hooks`      | forking with the embedding language's hooks around it |
//! | `messages`        | every log line |
//!
//! Master and worker communicate over a *control channel*, a socket pair that carries messages of one byte. The worker reports
//! that it is ready, and requests to be recycled or a reload. The master tells it to drain, to drain and hand over its
//! connections, or to reopen its logs. When the master exits, the channel closes and the worker stops.
//!
//! A worker can be a *nested* master ([`supervise_nested`]), which has loaded what its workers share.

mod action;
mod control_channel;
mod delegate;
mod detach;
mod exit_status;
mod fork_hooks;
mod init;
mod master;
mod messages;
mod restart_policy;
mod settings;
mod signal_queue;
mod upgrade;
mod worker;
mod worker_handle;
mod worker_set;
mod worker_slot;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use rustix::process::Pid;

use control_channel::ChannelToMaster;
pub use delegate::{Delegate, MasterEvent};
pub use detach::{Daemonized, ReadyPipe, detach};
pub use fork_hooks::ForkHooks;
pub use init::{InitRole, become_init_if_pid_1};
use master::{Master, RunResult};
pub use mlws_sys::{SignalHandler, deliver_term, reinstall_term_handler, set_forked_term_handler};
pub use settings::MasterSettings;
pub use signal_queue::SignalQueue;
pub use worker::{MasterNotifier, Worker, WorkerCommand};

/// Which process [`supervise`] returned in, and the exit code with which that process must now exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The master, after all of its workers have exited. The code is 0 after a requested stop. If a worker exited before any
    /// worker was ever ready, it is the code of that worker, or 1 if a signal killed it. It is 1 if the master could not start.
    Master(i32),
    /// A worker. The code is what [`Delegate::run_worker`] returned, or [`EXIT_PANICKED`].
    Worker(i32),
}

/// The exit code of a worker that panicked (`EX_SOFTWARE` of `sysexits.h`).
pub const EXIT_PANICKED: i32 = 70;

/// Runs workers until TERM stops them gracefully, or INT or QUIT stop them immediately. A repeated TERM has no effect.
///
/// The calling process becomes the master. It forks, so it must not have threads that hold locks which the workers need.
/// HUP starts a new generation of workers, TTIN and TTOU change the number of workers, USR1 reopens log files, USR2 starts a new
/// master, and WINCH drains all workers. `signals` must be installed before clients can connect: until then, most signals end the
/// process. The previous signal handlers are restored before it returns. Only one call at a time is allowed in a process.
pub fn supervise(signals: SignalQueue, settings: MasterSettings, delegate: &mut dyn Delegate) -> Role {
    run(settings, delegate, signals, None)
}

/// Like [`supervise`], for a worker that is a nested master. It is ready when its own workers are, and obeys its parent.
pub fn supervise_nested(worker: Worker, settings: MasterSettings, delegate: &mut dyn Delegate) -> Role {
    let (parent, mut signals) = worker.into_parts();
    signals.adopt_in_nested_master();
    run(settings, delegate, signals, Some(parent))
}

fn run(
    settings: MasterSettings,
    delegate: &mut dyn Delegate,
    signals: SignalQueue,
    parent: Option<ChannelToMaster>,
) -> Role {
    match Master::new(settings, delegate, signals, parent).run() {
        RunResult::Stopped(code) => Role::Master(code),
        // A panic must not unwind into the caller as if this process were the master.
        RunResult::Forked(worker) => {
            let code = catch_unwind(AssertUnwindSafe(|| delegate.run_worker(worker)));
            Role::Worker(code.unwrap_or_else(|_| {
                messages::worker_panicked(std::process::id(), EXIT_PANICKED);
                EXIT_PANICKED
            }))
        }
    }
}
