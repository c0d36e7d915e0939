//! The reactions of the master and its workers to what the supervisor reports. The methods of [`Delegate`] state in which process they run.

use std::{io, process::Command};

use mlws_logging::logger;
use mlws_supervisor::{Delegate, ForkHooks, MasterEvent, MasterSettings, Pid, Worker};
use pyo3::prelude::*;
#[cfg(target_os = "linux")]
use rustix::process::{Signal, set_parent_process_death_signal};

use super::MasterState;
use crate::{
    process, python_logging,
    serving::{python_fork::PythonFork, shared_sockets::KnownSockets},
    signal_handlers, stack_dumps,
    tls::Certificates,
};

impl Delegate for MasterState<'_> {
    fn run_worker(&mut self, worker: Worker) -> i32 {
        Python::attach(|py| {
            let is_worker = self.forks_workers();
            process::name(
                py,
                &self.config.process,
                if is_worker { "worker" } else { "master of a generation" },
            );
            if let Err(error) = self.prepare_worker(py) {
                logger::critical(&error.to_string());
                return error.exit_status();
            }
            // Without its master, nothing enforces a worker's timeouts, and one that is stuck in the application cannot notice.
            #[cfg(target_os = "linux")]
            let _ = set_parent_process_death_signal(Some(Signal::KILL)); // a master that has exited already shows as a closed control channel
            if let Err(error) = stack_dumps::enable(py) {
                log::warn!(
                    "Failed to enable stack dumps: {error}, a worker that hangs or crashes shows no stacks"
                );
            }
            if self.preloaded.is_none() {
                if self.config.running.fork || self.config.running.preload {
                    self.known_sockets = Some(KnownSockets::new(py));
                }
                signal_handlers::install(py);
            }
            let done = if is_worker {
                let done = self.run_serving_worker(py, worker);
                self.notify(py, "worker_exit", ());
                done
            } else {
                self.run_preloaded_generation(py, worker)
            };
            signal_handlers::ignore_term(py);
            done.unwrap_or_else(|error| {
                logger::critical(&error.to_string());
                error.exit_status()
            })
        })
    }

    fn on_event(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::WorkersReady { .. } if self.preloaded.is_some() => {
                Python::attach(|py| self.startup_finished(py));
            }
            MasterEvent::WorkersReady { .. } => {
                let concurrency = self.concurrency_summary();
                log::info!("Listening at: {} ({}, {concurrency})", self.urls, self.config.name());
                Python::attach(|py| {
                    self.startup_finished(py);
                    self.context.ready(&format!("serving on {} ({concurrency})", self.urls));
                });
            }
            MasterEvent::ReopenLogs => {
                python_logging::reopen(self.access.as_deref());
            }
            MasterEvent::Refreshed => {
                if let Some(certificates) = &mut self.certificates {
                    certificates.refresh();
                }
            }
            MasterEvent::WorkerCountChanged { from, to } => {
                Python::attach(|py| self.notify(py, "nworkers_changed", (to, from)));
            }
            MasterEvent::WorkerForking { age } if self.forks_workers() => {
                Python::attach(|py| self.notify(py, "pre_fork", (age,)));
            }
            MasterEvent::WorkerForked { pid } if self.forks_workers() => {
                Python::attach(|py| self.notify(py, "set_pid", (pid.as_raw_pid(),)));
            }
            MasterEvent::WorkerReaped { pid } if self.forks_workers() => {
                Python::attach(|py| self.notify(py, "child_exit", (pid.as_raw_pid(),)));
            }
            MasterEvent::WorkerReaped { pid } => {
                Python::attach(|py| self.notify(py, "process_exit", (pid.as_raw_pid(),)));
            }
            MasterEvent::WorkerForking { .. } | MasterEvent::WorkerForked { .. } => {}
            MasterEvent::WorkerCrashed { number } => self.loads.clear(number),
            MasterEvent::Stopping => {
                if self.preloaded.is_none() {
                    self.context.systemd.stopping();
                }
                // Clients would wait in the backlog of a socket that the master kept open.
                self.sockets.listeners.clear();
                self.handover = None;
            }
            MasterEvent::ServingCount { serving } => {
                if let Some(statsd) = &self.statsd {
                    statsd.workers(serving);
                }
            }
            MasterEvent::Reloading => self.context.systemd.reloading(),
            MasterEvent::ReloadFailed => {
                // The new logging configuration may be what failed. But if the master has not configured logging, the workers have to.
                self.workers_configure_logging =
                    self.credentials.as_ref().is_some_and(mlws_sys::Credentials::gives_up_root);
                self.context.systemd.ready("reload failed, previous workers keep serving");
            }
            MasterEvent::Heartbeat => self.context.systemd.alive(),
            MasterEvent::NewMasterExited => {
                self.new_master = None;
                self.context.systemd.main_pid();
            }
            MasterEvent::OldMasterExited => {
                self.sockets.old_master = None;
                if let (Some(pidfile), Some(path)) = (&mut self.pidfile, &self.config.process.pid)
                    && let Err(error) = pidfile.rename_to(path)
                {
                    log::error!("{error}");
                }
            }
        }
    }

    fn reload(&mut self) -> Result<MasterSettings, String> {
        Python::attach(|py| self.apply_reload(py))?;
        Ok(self.settings())
    }

    fn refresh(&mut self) -> bool {
        self.certificates.as_mut().is_some_and(Certificates::renew)
    }

    /// A config file may have started threads, which run while the master waits, and installed signal handlers.
    fn while_idle(&mut self, wait: &mut (dyn FnMut() + Send)) {
        Python::attach(|py| {
            py.detach(wait);
            signal_handlers::check_in_master(py);
        });
    }

    fn spawn_upgrade(&mut self) -> io::Result<Pid> {
        Python::attach(|py| self.notify(py, "server_hook", ("pre_exec",)));
        let reexec = self.reexec.as_ref().map_err(|error| io::Error::other(error.to_string()))?;
        let mut command = Command::new(reexec.get_program());
        command.args(reexec.get_args());
        if let Some(directory) = reexec.get_current_dir() {
            command.current_dir(directory);
        }
        for (name, value) in reexec.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        self.context.systemd.pass_on(&mut command);
        let new_master = self.sockets.spawn_upgrade(command)?;
        self.new_master = Some(new_master);
        Ok(new_master)
    }
}

impl ForkHooks for MasterState<'_> {
    fn before(&self) {
        PythonFork.before();
    }
    fn after_in_parent(&self) {
        PythonFork.after_in_parent();
    }
    fn after_in_child(&self) {
        PythonFork.after_in_child();
    }
}
