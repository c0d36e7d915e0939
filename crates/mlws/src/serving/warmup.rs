//! What happens between loading the application and the first fork: `--fork-warmup`, and the search for connections that all forked
//! processes would share.
//!
//! A warm-up request may leave a connection open, to a database for example. So it is sent to a process that is thrown away first. Only
//! if no connection is open there afterwards does this process answer it, too. Else this process only imports what was imported
//! there, which is most of what a warm-up saves.

use std::{collections::HashSet, io, sync::Arc};

use mlws_config::Config;
use mlws_server::{App, Listener, Server, run_in_discarded_process};
use mlws_wsgi::Wsgi;
use pyo3::{prelude::*, types::PyDict};

use super::shared_sockets::KnownSockets;

/// Separates what the discarded process reports: first the peers of connections, then the names of modules, one in a line.
const SEPARATOR: &str = "\n\n";

pub(super) struct Warmup<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) wsgi: &'a Arc<Wsgi>,
    pub(super) known: KnownSockets,
    pub(super) listeners: &'a [Listener],
    pub(super) config: &'a Config,
}

impl Warmup<'_, '_> {
    /// Warns of connections that are open now and were not at the last call. They cannot be closed here: the application would not know.
    pub(super) fn warn_of_shared_connections(&mut self, after: &str) {
        let peers = self.known.new_peers(self.py);
        if !peers.is_empty() {
            let who = self.who();
            log::warn!(
                "connections are open after {after}: {}. All {who} share them, so one request can receive data that belongs to another; \
                 connect later, in the request, or close them before the first fork",
                peers.join(", ")
            );
        }
    }

    /// Sends the request. A failure is for the log: the requests to come may do better.
    pub(super) fn run(&mut self, path: &str) {
        let report = run_in_discarded_process(&**self.wsgi, || self.try_out(path));
        match report.map(String::from_utf8) {
            Ok(Ok(report)) => {
                let (peers, modules) = report.split_once(SEPARATOR).unwrap_or_default();
                if !peers.is_empty() {
                    return self.import_only(path, peers, modules);
                }
            }
            Ok(Err(error)) => log::warn!("--fork-warmup {path} could not be tried out: {error}"),
            Err(error) => log::warn!("--fork-warmup {path} could not be tried out: {error}"),
        }
        match self.request(path) {
            Ok(status) if status.starts_with('5') => {
                log::warn!("--fork-warmup {path} was answered with {status}");
            }
            Ok(status) => log::info!("warmed up with {path}: {status}"),
            Err(error) => log::warn!("--fork-warmup {path} could not be sent: {error}"),
        }
        self.warn_of_shared_connections(&format!("--fork-warmup {path}"));
    }

    fn request(&self, path: &str) -> io::Result<String> {
        let listeners = self.listeners.iter().map(Listener::try_clone).collect::<io::Result<_>>()?;
        let app = Arc::clone(self.wsgi) as Arc<dyn App>;
        Server::new(listeners, self.config.server(), app).run_warmup_request(path)
    }

    /// In the discarded process: what the request leaves open, and what it imported. Its failures show when this process answers it.
    fn try_out(&mut self, path: &str) -> Vec<u8> {
        log::set_max_level(log::LevelFilter::Off);
        let before: HashSet<_> = modules(self.py).unwrap_or_default().into_iter().collect();
        if self.request(path).is_err() {
            return SEPARATOR.into();
        }
        let peers = self.known.new_peers(self.py).join(", ");
        let mut report = peers + SEPARATOR;
        for module in modules(self.py).unwrap_or_default() {
            if !before.contains(&module) && !module.contains('\n') {
                report.push_str(&module);
                report.push('\n');
            }
        }
        report.into()
    }

    fn import_only(&mut self, path: &str, peers: &str, modules: &str) {
        log::warn!(
            "--fork-warmup {path} leaves connections open: {peers}. All {} would share them, so one request could receive data that \
             belongs to another; only the modules that it imports are loaded. Close connections at the end of each request to have a \
             full warm-up",
            self.who()
        );
        for module in modules.lines() {
            // Some are no modules by that name for anybody else. Whoever needs it will import it, and see why it fails.
            if let Err(error) = self.py.import(module) {
                log::debug!("--fork-warmup {path}: {module} cannot be imported: {error}");
            }
        }
        self.warn_of_shared_connections("importing what --fork-warmup imports");
    }

    fn who(&self) -> &'static str {
        if self.config.running.fork { "requests" } else { "workers" }
    }
}

/// The names of the modules that are imported, in this order.
fn modules(py: Python<'_>) -> PyResult<Vec<String>> {
    let modules = py.import("sys")?.getattr("modules")?;
    let names = modules.cast::<PyDict>()?.keys();
    Ok(names.iter().filter_map(|name| name.extract().ok()).collect())
}
