//! How the server lives among other processes: under a service manager, as a daemon, first in a container, without root's rights.
//!
//! The one thing to know: [`start`] may fork, and then the work is done in a process that must not return to Python's caller; so it
//! ends there, and the calling process returns with its status.
//!
//! | module         | what it holds |
//! |----------------|---|
//! | [`systemd`]    | the protocol of a service manager |
//! | [`daemon`]     | letting go of the terminal |
//! | [`pidfile`]    | which process is the master |
//! | [`descriptors`] | the limit on open files |
//! | [`privileges`] | whom the workers run as |
//! | [`privileged`] | opening files as root |

mod daemon;
pub(crate) mod descriptors;
mod pidfile;
pub(crate) mod privileged;
mod privileges;
mod systemd;

use std::{cell::Cell, io};

use mlws_supervisor::{Daemonized, ForkHooks, InitRole, ReadyPipe, become_init_if_pid_1, detach};
use pyo3::prelude::*;

use crate::{
    command::tell,
    logs::logging,
    refusal::Refusal,
    serving::{end_process, flush_python, is_new_master},
    settings::{Flags, Process},
};
use daemon::Streams;
pub(crate) use pidfile::Pidfile;
pub(crate) use privileges::Identity;
pub(crate) use systemd::Systemd;

/// Those who wait to hear how the server is.
pub(crate) struct Surroundings {
    pub(crate) systemd: Systemd,
    /// In a daemon: the pipe to the command that started it, until that was notified.
    ready_pipe: Cell<Option<ReadyPipe>>,
    is_daemon: bool,
    is_new_master: bool,
    /// What becomes of stdout and stderr of a daemon.
    streams: Streams,
}

impl Surroundings {
    /// Runs in the master once all workers are ready.
    pub(crate) fn ready(&self, status: &str) {
        if self.is_daemon || self.is_new_master {
            self.systemd.main_pid();
        }
        self.systemd.ready(status);
        if let Some(ready_pipe) = self.ready_pipe.take() {
            ready_pipe.notify(0);
        }
    }

    /// Whether stdout and stderr lead elsewhere once all is well.
    pub(crate) fn moves_streams(&self) -> bool {
        self.is_daemon || self.streams == Streams::Captured
    }

    /// From now on the log is where errors stand, and a daemon has no terminal. Runs in the master and in each worker.
    pub(crate) fn settle(&self, py: Python<'_>) {
        logging::settle();
        if self.streams == Streams::Captured {
            logging::capture();
        }
        if self.is_daemon {
            daemon::leave_terminal(py, self.streams);
            logging::follow_streams();
        }
    }
}

/// Runs `serve` in the process that has to be the master: this one, the child of process 1, or a daemon.
pub(crate) fn start(
    py: Python<'_>,
    flags: &Flags,
    hooks: &dyn ForkHooks,
    serve: impl FnOnce(&Surroundings) -> Result<i32, Refusal>,
) -> Result<i32, Refusal> {
    let systemd = Systemd::from_environment(py)?;
    // A new master of a binary upgrade is in the background already if the old one is.
    let is_daemon = flags.process.daemon && !is_new_master();
    let streams = match &flags.logs {
        logs if logs.captures() => Streams::Captured,
        logs if logs.enable_stdio_inheritance => Streams::Inherited,
        _ => Streams::Null,
    };
    let surroundings = Surroundings {
        systemd,
        ready_pipe: Cell::new(None),
        is_daemon,
        is_new_master: is_new_master(),
        streams,
    };
    let work =
        || if is_daemon { serve_as_daemon(py, hooks, &surroundings, serve) } else { serve(&surroundings) };
    flush_python(py);
    match become_init_if_pid_1(hooks).map_err(|error| cannot_fork(&error))? {
        InitRole::NotNeeded => work(),
        InitRole::Init(status) => Ok(status),
        InitRole::Child => end_process(py, work().unwrap_or_else(|refusal| tell(&refusal))),
    }
}

/// Runs `serve` as a daemon. Returns in the calling process, with the exit status reported by the daemon.
fn serve_as_daemon(
    py: Python<'_>,
    hooks: &dyn ForkHooks,
    surroundings: &Surroundings,
    serve: impl FnOnce(&Surroundings) -> Result<i32, Refusal>,
) -> Result<i32, Refusal> {
    match detach(hooks).map_err(|error| cannot_fork(&error))? {
        Daemonized::Parent(status) => return Ok(status),
        Daemonized::Daemon(ready_pipe) => surroundings.ready_pipe.set(Some(ready_pipe)),
    }
    let status = serve(surroundings).unwrap_or_else(|refusal| tell(&refusal));
    if let Some(ready_pipe) = surroundings.ready_pipe.take() {
        ready_pipe.notify(status.max(1)); // it was never ready, so this is a failure even with status 0
    }
    end_process(py, status)
}

/// Calls this process `mlws: WHAT [NAME]` in lists of processes, where there is a name and the package for it, which imports a
/// good deal.
pub(crate) fn name(py: Python<'_>, flags: &Process, what: &str) {
    let Some(name) = &flags.name else { return };
    let named = py
        .import("setproctitle")
        .and_then(|package| package.call_method1("setproctitle", (format!("mlws: {what} [{name}]"),)));
    if let Err(error) = named {
        log::warn!("--name has no effect: {error}");
    }
}

/// Takes a variable out of the environment, of Python and of the process alike.
pub(crate) fn take_variable(py: Python<'_>, name: &str) -> PyResult<Option<String>> {
    py.import("os")?.getattr("environ")?.call_method1("pop", (name, py.None()))?.extract()
}

fn cannot_fork(error: &io::Error) -> Refusal {
    Refusal::System(format!("no process can be forked: {error}"))
}
