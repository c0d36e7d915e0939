//! [`Delegate`]: what the embedder provides, and the events it receives.

use std::io;

use rustix::process::Pid;

use crate::fork_hooks::ForkHooks;
use crate::settings::MasterSettings;
use crate::worker::Worker;

/// What the embedder provides: the work of its workers, and its part of the work in the master.
pub trait Delegate: ForkHooks {
    /// Runs a worker from its fork to its exit code. The process has the descriptors of the master, and the signal dispositions
    /// of the master except for the signals that this crate handles.
    fn run_worker(&mut self, worker: Worker) -> i32;

    /// Is called in the master for each event.
    fn on_event(&mut self, _event: MasterEvent) {}

    /// Reads the settings again, on HUP. With an error, the previous settings stay in effect.
    fn reload(&mut self) -> Result<MasterSettings, String>;

    /// Looks for changes that concern running workers, once per [`MasterSettings::refresh_interval`]. Returns true if they must get
    /// [`WorkerCommand::Refresh`](crate::WorkerCommand::Refresh).
    fn refresh(&mut self) -> bool {
        false
    }

    /// Runs `wait`, which blocks until the master has something to do. An embedder can release locks meanwhile.
    fn while_idle(&mut self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// Starts a new master on the same sockets, on USR2.
    fn spawn_upgrade(&mut self) -> io::Result<Pid> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// What happens in the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MasterEvent {
    /// All workers of a generation are ready: of the first one, or of one that has taken over after a reload.
    WorkersReady {
        /// The number of workers.
        workers: usize,
    },
    /// The number of running workers has changed. Not sent by a master of masters.
    ServingCount {
        /// The number of running workers.
        serving: usize,
    },
    /// A new generation starts, with the settings that [`Delegate::reload`] returned.
    Reloading,
    /// The new generation could not start. The previous one keeps serving.
    ReloadFailed,
    /// The number of workers was changed by TTIN or TTOU.
    WorkerCountChanged {
        /// The previous number.
        from: usize,
        /// The new number.
        to: usize,
    },
    /// Log files must be reopened.
    ReopenLogs,
    /// In a nested master: its master has sent [`WorkerCommand::Refresh`](crate::WorkerCommand::Refresh).
    Refreshed,
    /// A worker is about to be forked.
    WorkerForking {
        /// The [`Worker::age`] that it will have.
        age: u64,
    },
    /// A worker was forked. Each one is reported by this event and by [`MasterEvent::WorkerReaped`].
    WorkerForked {
        /// The pid of the worker.
        pid: Pid,
    },
    /// A worker has exited and was reaped.
    WorkerReaped {
        /// The pid of the worker.
        pid: Pid,
    },
    /// A worker has exited without a command from the master.
    WorkerCrashed {
        /// Its [`Worker::number`].
        number: usize,
    },
    /// The new master that [`Delegate::spawn_upgrade`] started has exited.
    NewMasterExited,
    /// The master that started this one has exited.
    OldMasterExited,
    /// [`MasterSettings::heartbeat_interval`] has passed.
    Heartbeat,
    /// The master is shutting down. No more workers are forked, so resources kept for them can be closed.
    Stopping,
}
