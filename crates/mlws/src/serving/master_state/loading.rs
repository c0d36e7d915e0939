//! From the settings to an application that can be called: imported, warmed up, and with `--reload` watched.

use std::sync::Arc;

use mlws_config::HeaderMapOption;
use mlws_logging::logger;
use mlws_server::{Concurrency, Listener};
use mlws_supervisor::Worker;
use mlws_wsgi::{
    AccessLogger, RequestHooks, Wsgi, WsgiOptions,
    forwarding::{ForwardingPolicy, HeaderMap},
};
use pyo3::prelude::*;

use super::MasterState;
use crate::{
    error::StartupError,
    error_stream,
    process::descriptors,
    reload::{self, Watch},
    serving::{
        warmup::Warmup,
        worker::{self, WorkerSetup},
    },
    signal_handlers,
};

impl MasterState<'_> {
    /// The settings of the server in each worker, with the connections that the limit on open files allows.
    pub(super) fn server_settings(&self) -> mlws_server::Settings {
        let settings = self.config.server();
        let connections = descriptors::connections(settings.connections, settings.concurrency.requests());
        let tls = self.certificates.as_ref().map(|certificates| certificates.config.clone());
        mlws_server::Settings { connections, tls, ..settings }
    }

    /// Logs if the limit on open files allows fewer connections than the settings.
    pub(super) fn log_connection_limit(&self) {
        let (wanted, connections) = (self.config.server().connections, self.server_settings().connections);
        if let Some(limit) = descriptors::limit().filter(|_| connections < wanted) {
            log::info!(
                "connections per worker: {connections} instead of {wanted}, because the limit on open files is {limit} (ulimit -Hn, LimitNOFILE=)"
            );
        }
    }

    /// Imports the application, unless it is preloaded.
    pub(super) fn load_app(&mut self, py: Python<'_>) -> Result<Arc<Wsgi>, StartupError> {
        if let Some(wsgi) = &self.preloaded {
            return Ok(Arc::clone(wsgi));
        }
        let app = if self.config.development.reload { self.load_to_watch(py)? } else { self.load(py)? };
        let cannot_be_served =
            |error| StartupError::from_exception(py, "the application cannot be served", &error);
        let running = &self.config.running;
        let options = WsgiOptions {
            multithread: matches!(self.config.concurrency(), Concurrency::Threads(_)),
            multiprocess: running.fork || running.workers > 1,
            run_once: running.fork,
            listeners: self.sockets.listeners.iter().map(Listener::server_name_and_port).collect(),
            forwarding: Arc::new(self.forwarding_policy()),
            errors: error_stream::new(py).map_err(cannot_be_served)?,
            access: self.access.clone().map(|access| access as Arc<dyn AccessLogger>),
            hooks: self.hooks.clone().map(|hooks| hooks as Arc<dyn RequestHooks>),
            check_signals: signal_handlers::check,
            sendfile: running.sendfile(),
        };
        let wsgi = Wsgi::new(py, app, options).map_err(cannot_be_served)?;
        let wsgi = Arc::new(wsgi);
        if running.fork || running.preload {
            self.prepare_to_fork(py, &wsgi);
        }
        Ok(wsgi)
    }

    fn forwarding_policy(&self) -> ForwardingPolicy {
        let proxies = &self.config.proxies;
        ForwardingPolicy {
            trusted: proxies.forwarded_allow_ips.clone(),
            scheme_fields: proxies.scheme_fields(),
            forwarder_fields: proxies.forwarder_headers.iter().map(|name| name.trim().to_owned()).collect(),
            header_map: match proxies.header_map {
                HeaderMapOption::Drop => HeaderMap::Drop,
                HeaderMapOption::Refuse => HeaderMap::Refuse,
                HeaderMapOption::Dangerous => HeaderMap::Dangerous,
            },
            root: proxies.root(),
            forwarded_fields: proxies.forwarded_fields.clone(),
        }
    }

    /// Calls the hooks of a starting worker, loads the application, and serves until the worker stops. Returns its exit status.
    pub(super) fn run_serving_worker(&mut self, py: Python<'_>, worker: Worker) -> Result<i32, StartupError> {
        let hook_failed = |error| StartupError::from_exception(py, "hook failed", &error);
        if let Some(hooks) = &self.hooks {
            hooks.call(py, "post_fork", ()).map_err(hook_failed)?;
        }
        let wsgi = self.load_app(py)?;
        if let Some(hooks) = &self.hooks {
            hooks.call(py, "post_worker_init", (wsgi.application(),)).map_err(hook_failed)?;
        }
        signal_handlers::reinstall_term_handler(py);
        self.startup_finished(py);
        let settings = mlws_server::Settings {
            loads: Some((Arc::clone(&self.loads), worker.number)),
            handover: self.handover.clone(),
            ..self.server_settings()
        };
        let setup = WorkerSetup {
            listeners: std::mem::take(&mut self.sockets.listeners),
            settings,
            wsgi,
            hooks: self.hooks.clone(),
            access: self.access.clone(),
            certificates: self.certificates.take(),
            watch: self.watch.take().filter(|_| worker.number == 0),
            forks: self.config.running.fork,
        };
        worker::run(py, worker, setup)
    }

    /// Prepares for forks: warns about connections that all processes would share, and lets the application answer `--fork-warmup`. An
    /// application imports, compiles and caches during its first request, and a child would lose all that. The garbage collector need not
    /// visit objects that live as long as the process, so children need not copy their pages.
    fn prepare_to_fork(&mut self, py: Python<'_>, wsgi: &Arc<Wsgi>) {
        let known = self.known_sockets.take().unwrap_or_default();
        let mut warmup = Warmup { py, wsgi, known, listeners: &self.sockets.listeners, config: &self.config };
        warmup.warn_about_shared_connections("loading the application");
        if let Some(path) = &self.config.running.fork_warmup {
            warmup.run(path);
        }
        let frozen = py.import("gc").and_then(|collector| {
            collector.call_method0("collect")?;
            collector.call_method0("freeze")
        });
        if let Err(error) = frozen {
            log::warn!("gc.freeze() failed: {error}");
        }
    }

    fn load(&self, py: Python<'_>) -> Result<Py<PyAny>, StartupError> {
        match self.hooks.as_ref().and_then(|hooks| hooks.application(py)) {
            Some(app) => Ok(app),
            None => self.application.load(py, &self.config, &self.directories),
        }
    }

    /// The application, or one that shows the error if it cannot be loaded.
    fn load_to_watch(&mut self, py: Python<'_>) -> Result<Py<PyAny>, StartupError> {
        let load_started = reload::now();
        let (app, failure) = match self.load(py) {
            Ok(app) => (Ok(app), None),
            Err(error) => {
                let failure = error.to_string();
                logger::critical(&failure);
                (reload::error_app(py, &failure), Some(failure))
            }
        };
        let base = &self.directories[usize::from(self.config.process.chdir.is_some())];
        let watch = Watch::new(py, &self.config.development, base, load_started, failure.as_deref());
        let (app, watch) = app
            .and_then(|app| Ok((app, watch?)))
            .map_err(|error| StartupError::from_exception(py, "--reload failed", &error))?;
        self.watch = Some(watch);
        Ok(app)
    }
}
