//! A reload: everything that can fail is prepared without touching what is in effect, then committed.

use std::sync::Arc;

use mlws_config::ErrorFormat;
use mlws_logging::logger;
use mlws_server::WorkerLoads;
use mlws_sys::Credentials;
use pyo3::prelude::*;
use rustix::{fs::Mode, process::umask};

use super::{MasterState, new_loads};
use crate::{
    environment::EnvironmentChange,
    error::StartupError,
    hooks::Hooks,
    loaded_config::LoadedConfig,
    process::{Pidfile, worker_credentials},
    python_logging::{PreparedLogs, PythonAccessLog, loggers},
    serving::{
        application::Application, config_hooks::config_hooks, search_path::chdir_and_search_path,
        sockets::PreparedSockets,
    },
    tls::Certificates,
};

/// What a reload does to the PID file.
enum PidfileChange {
    Keep,
    Replace(Option<Pidfile>),
}

/// New settings with everything that they need. Dropping it leaves the previous settings in effect: new sockets are removed, and the
/// environment is restored.
pub(super) struct Prepared {
    config: Arc<LoadedConfig>,
    application: Application,
    credentials: Option<Credentials>,
    directories: Vec<std::path::PathBuf>,
    hooks: Option<Arc<Hooks>>,
    pidfile: PidfileChange,
    loads: Arc<WorkerLoads>,
    logs: PreparedLogs,
    access: Option<PythonAccessLog>,
    sockets: Option<PreparedSockets>,
    certificates: Option<Certificates>,
    environment: EnvironmentChange,
}

impl Prepared {
    fn build(py: Python<'_>, state: &MasterState<'_>, config: LoadedConfig) -> Result<Self, StartupError> {
        let config = Arc::new(config);
        let application = state.application.for_config(py, &config)?;
        let credentials = worker_credentials(&config.process)?;
        let environment = state.environment.replace(py, &config)?;
        let directories = chdir_and_search_path(&config, Some(&state.sources.directory))?;
        let hooks = config_hooks(py, &config, &application, &directories)?;
        let has_same_pidfile =
            state.sockets.old_master.is_some() || config.process.pid == state.config.process.pid;
        let pidfile = if has_same_pidfile {
            PidfileChange::Keep
        } else {
            PidfileChange::Replace(config.process.pid.as_deref().map(Pidfile::create).transpose()?)
        };
        let has_slots = usize::from(config.running.workers) <= state.loads.slots();
        let loads = if has_slots { Arc::clone(&state.loads) } else { new_loads(&config)? };
        let logs = PreparedLogs::open(&config, credentials.as_ref())?;
        let access = logs.open_access(&config, credentials.as_ref())?;
        let certificates = Certificates::load(&config, &state.ticket_keys)?;
        let sockets = state.sockets.prepare(py, &config, &state.context.systemd, credentials.as_ref())?;
        Ok(Self {
            config,
            application,
            credentials,
            directories,
            hooks,
            pidfile,
            loads,
            logs,
            access,
            sockets,
            certificates,
            environment,
        })
    }

    /// Puts the new settings into effect. Cannot fail.
    fn commit(self, py: Python<'_>, state: &mut MasterState<'_>) {
        std::mem::replace(&mut state.environment, self.environment.commit()).keep();
        if let Some(sockets) = self.sockets {
            state.sockets.commit(sockets);
        }
        state.certificates = self.certificates;
        state.sockets.set_tls(state.certificates.is_some());
        if let PidfileChange::Replace(pidfile) = self.pidfile {
            state.pidfile = pidfile; // drops the old one, which removes its file
        }
        if let Some(mask) = self.config.process.umask {
            umask(Mode::from_raw_mode(mask));
        }
        self.logs.commit();
        let logs = &self.config.logs;
        logger::reconfigure(logs.level(), logs.error_logformat == ErrorFormat::Json);
        loggers::connect(py, logs.level());
        state.workers_configure_logging = true;
        state.statsd.clone_from(&logger::targets_mut().statsd);
        self.config.log_warnings();
        if let Some(hooks) = &self.hooks {
            hooks.inherit(py, state.hooks.as_ref());
        }
        state.loads = self.loads; // running workers have those that they were forked with
        state.access = PythonAccessLog::install(self.access);
        state.urls = state.sockets.urls();
        (state.application, state.directories, state.hooks, state.credentials, state.config) =
            (self.application, self.directories, self.hooks, self.credentials, self.config);
    }
}

impl MasterState<'_> {
    /// Reads the settings again and puts them into effect. If any setting fails to apply, the previous ones stay in effect.
    pub(super) fn apply_reload(&mut self, py: Python<'_>) -> Result<(), String> {
        let config = self.sources.read(py).map_err(|error| error.to_string())?;
        let before = self.config.running.workers;
        let prepared = Prepared::build(py, self, config).inspect_err(|_| {
            if let Err(error) = chdir_and_search_path(&self.config, Some(&self.sources.directory)) {
                log::error!("{error}");
            }
        });
        prepared.map_err(|error| error.to_string())?.commit(py, self);
        self.notify(py, "set_listeners", (self.sockets.py_addresses(), self.sockets.py_listeners()));
        self.notify(py, "nworkers_changed", (self.config.running.workers, before)); // even if it is the same, like gunicorn
        self.notify(py, "server_hook", ("on_reload",));
        self.read_socket_modes();
        Ok(())
    }
}
