//! From the flags to an application that can be called: imported, warmed up, and with `--reload` watched.

use std::sync::Arc;

use mlws_server::{Concurrency, Listener};
use pyo3::prelude::*;

use super::{Application, house::House, warmup::Warmup};
use crate::{
    app::{Facts, Wsgi},
    logs::{self, logging},
    process::descriptors,
    refusal::Refusal,
    reload::{self, Watch},
};

impl House<'_> {
    /// The settings of the server in each worker, with no more connections than there can be.
    pub(super) fn server(&self) -> mlws_server::Settings {
        let settings = self.flags.server();
        let connections = descriptors::connections(settings.connections, settings.concurrency.requests());
        mlws_server::Settings { connections, ..settings }
    }

    /// Logs that there cannot be as many connections as the settings allow.
    pub(super) fn log_bound(&self) {
        let (wanted, connections) = (self.flags.server().connections, self.server().connections);
        if let Some(limit) = descriptors::limit().filter(|_| connections < wanted) {
            log::info!(
                "connections per worker: at most {connections}, not {wanted}, for the limit on open files is {limit} (ulimit -Hn, LimitNOFILE=)"
            );
        }
    }

    /// Imports the application, or takes it as it was preloaded.
    pub(super) fn wsgi(&mut self, py: Python<'_>) -> Result<Arc<Wsgi>, Refusal> {
        if let Some(wsgi) = &self.preloaded {
            return Ok(Arc::clone(wsgi));
        }
        let app = if self.flags.development.reload { self.load_to_watch(py)? } else { self.load(py)? };
        let running = &self.flags.running;
        let facts = Facts {
            multithread: matches!(self.flags.concurrency(), Concurrency::Threads(_)),
            multiprocess: running.fork || running.workers > 1,
            run_once: running.fork,
            listeners: self.sockets.listeners.iter().map(Listener::server_name_and_port).collect(),
            proxies: Arc::new(self.flags.proxies.rules()),
            access: self.access.clone(),
            hooks: self.hooks.clone(),
            sendfile: running.sendfile(),
        };
        let wsgi = Wsgi::new(py, app, facts)
            .map_err(|error| Refusal::raised(py, "the application cannot be served", &error))?;
        let wsgi = Arc::new(wsgi);
        if running.fork || running.preload {
            self.prepare_to_fork(py, &wsgi);
        }
        Ok(wsgi)
    }

    /// Makes ready for forks: warns of connections that all processes would share, and lets the application answer `--fork-warmup`. A cold
    /// application imports, compiles and caches during its first request, and a child throws all that away with itself. What lives
    /// then lives as long as the process: the collector need not look at it again, so children need not copy its pages.
    fn prepare_to_fork(&mut self, py: Python<'_>, wsgi: &Arc<Wsgi>) {
        let known = self.known_sockets.take().unwrap_or_default();
        let mut warmup = Warmup { py, wsgi, known, house: self };
        warmup.warn_of_shared_connections("loading the application");
        if let Some(path) = &self.flags.running.fork_warmup {
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

    fn load(&self, py: Python<'_>) -> Result<Py<PyAny>, Refusal> {
        if let Some(app) = self.hooks.as_ref().and_then(|hooks| hooks.application(py)) {
            return Ok(app);
        }
        logs::python::lend(py, self.flags.logs.level());
        match &self.application {
            Application::Named(target) => target.load(py, &self.folders),
            Application::Given(factory) if self.flags.source.factory => factory.call0(py).map_err(|error| {
                Refusal::raised(py, &format!("{} makes no application", self.flags.name()), &error)
            }),
            Application::Given(app) => Ok(app.clone_ref(py)),
        }
    }

    /// The application, or what stands in for one that cannot be loaded.
    fn load_to_watch(&mut self, py: Python<'_>) -> Result<Py<PyAny>, Refusal> {
        let began = reload::now();
        let (app, failure) = match self.load(py) {
            Ok(app) => (Ok(app), None),
            Err(refusal) => {
                let failure = refusal.to_string();
                logging::critical(&failure);
                (reload::stand_in(py, &failure), Some(failure))
            }
        };
        let home = &self.folders[usize::from(self.flags.process.chdir.is_some())];
        let watch = Watch::new(py, &self.flags.development, home, began, failure.as_deref());
        let both = app.and_then(|app| Ok((app, watch?)));
        let (app, watch) = both.map_err(|error| Refusal::raised(py, "--reload cannot work", &error))?;
        self.watch = Some(watch);
        Ok(app)
    }
}
