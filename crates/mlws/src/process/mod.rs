//! The server among other processes: service managers, daemons, process 1 of a container, users, limits.
//!
//! [`start`] may fork. Then the work is done in a process that must not return to Python's caller: it exits in [`start`], and the calling
//! process returns with its status.
//!
//! | module | content |
//! |---|---|
//! | [`systemd`] | the protocol of a service manager |
//! | [`daemon`] | standard streams of a daemon |
//! | [`pidfile`] | the file with the master's pid |
//! | [`descriptors`] | the limit on open files |
//! | [`credentials`] | the user of the workers |

pub(crate) mod credentials;
mod daemon;
pub(crate) mod descriptors;
mod environment_variable;
mod pidfile;
mod systemd;

use std::{cell::Cell, io};

use mlws_config::{Config, ProcessOptions};
use mlws_logging::logger;
use mlws_supervisor::{Daemonized, ForkHooks, InitRole, ReadyPipe, become_init_if_pid_1, detach};
use mlws_wsgi::python::{exit_process, flush_streams};
use pyo3::prelude::*;

use self::daemon::StdioMode;
pub(crate) use self::{
    credentials::worker_credentials, environment_variable::take_variable, pidfile::Pidfile, systemd::Systemd,
};
use crate::error::StartupError;

/// The service manager and the process that started a daemon, which receive notifications.
pub(crate) struct ProcessContext {
    pub(crate) systemd: Systemd,
    /// In a daemon: the pipe to the command that started it, until the command was notified.
    ready_pipe: Cell<Option<ReadyPipe>>,
    is_daemon: bool,
    is_new_master: bool,
    /// Where stdout and stderr of a daemon go.
    stdio: StdioMode,
}

impl ProcessContext {
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

    /// Whether stdout and stderr are redirected when the server is ready.
    pub(crate) fn redirects_stdio(&self) -> bool {
        self.is_daemon || self.stdio == StdioMode::Captured
    }

    /// From now on errors go to the log only, and a daemon leaves its terminal. Runs in the master and in each worker.
    pub(crate) fn startup_finished(&self, py: Python<'_>) {
        logger::startup_finished();
        if self.stdio == StdioMode::Captured {
            logger::capture();
        }
        if self.is_daemon {
            daemon::redirect_stdio(py, self.stdio);
            logger::reopen_stdio();
        }
    }
}

/// Runs `serve` in the process that becomes the master: this one, the child of process 1, or a daemon.
pub(crate) fn start(
    py: Python<'_>,
    config: &Config,
    is_new_master: bool,
    hooks: &dyn ForkHooks,
    serve: impl FnOnce(&ProcessContext) -> Result<i32, StartupError>,
) -> Result<i32, StartupError> {
    let systemd = Systemd::from_environment(py)?;
    // A new master of a binary upgrade is in the background already if the old one is.
    let is_daemon = config.process.daemon && !is_new_master;
    let stdio = match &config.logs {
        logs if logs.captures() => StdioMode::Captured,
        logs if logs.enable_stdio_inheritance => StdioMode::Inherited,
        _ => StdioMode::Null,
    };
    let context = ProcessContext { systemd, ready_pipe: Cell::new(None), is_daemon, is_new_master, stdio };
    let work = || if is_daemon { serve_as_daemon(py, hooks, &context, serve) } else { serve(&context) };
    flush_streams(py);
    match become_init_if_pid_1(hooks).map_err(|error| cannot_fork(&error))? {
        InitRole::NotNeeded => work(),
        InitRole::Init(status) => Ok(status),
        InitRole::Child => exit_process(py, work().unwrap_or_else(|error| error.report())),
    }
}

/// Runs `serve` as a daemon. Returns in the calling process, with the exit status reported by the daemon.
fn serve_as_daemon(
    py: Python<'_>,
    hooks: &dyn ForkHooks,
    context: &ProcessContext,
    serve: impl FnOnce(&ProcessContext) -> Result<i32, StartupError>,
) -> Result<i32, StartupError> {
    match detach(hooks).map_err(|error| cannot_fork(&error))? {
        Daemonized::Parent(status) => return Ok(status),
        Daemonized::Daemon(ready_pipe) => context.ready_pipe.set(Some(ready_pipe)),
    }
    let status = serve(context).unwrap_or_else(|error| error.report());
    if let Some(ready_pipe) = context.ready_pipe.take() {
        ready_pipe.notify(status.max(1)); // it was never ready, so even status 0 is a failure
    }
    exit_process(py, status)
}

/// Sets the process title to `mlws: WHAT [NAME]` with `--name`. Imports `setproctitle` only then, because it is large.
pub(crate) fn name(py: Python<'_>, config: &ProcessOptions, what: &str) {
    let Some(name) = &config.name else { return };
    let named = py
        .import("setproctitle")
        .and_then(|package| package.call_method1("setproctitle", (format!("mlws: {what} [{name}]"),)));
    if let Err(error) = named {
        log::warn!("--name has no effect: {error}");
    }
}

fn cannot_fork(error: &io::Error) -> StartupError {
    StartupError::System(format!("fork failed: {error}"))
}
