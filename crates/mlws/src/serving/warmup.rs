//! Between loading the application and the first fork: `--fork-warmup`, and the search for connections that forked processes would share.
//!
//! A warm-up request may leave a connection open, for example to a database. So it runs in a discarded child process first. If no connection
//! is open there afterwards, it runs in this process too. Otherwise this process only imports the modules that were imported there, which
//! is most of the benefit.

use std::{collections::HashSet, io, sync::Arc};

use mlws_config::Config;
use mlws_server::{App, Listener, Server, run_in_discarded_process};
use mlws_wsgi::Wsgi;
use pyo3::{prelude::*, types::PyDict};

use super::shared_sockets::KnownSockets;

/// Separates the two parts of the child's report: the peers of open connections, and the names of imported modules.
const SEPARATOR: &str = "\n\n";

pub(super) struct Warmup<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) wsgi: &'a Arc<Wsgi>,
    pub(super) known: KnownSockets,
    pub(super) listeners: &'a [Listener],
    pub(super) config: &'a Config,
}

impl Warmup<'_, '_> {
    /// Warns about connections that were opened since the last call. They cannot be closed here, because the application would not notice.
    pub(super) fn warn_about_shared_connections(&mut self, after: &str) {
        let peers = self.known.new_peers(self.py);
        if !peers.is_empty() {
            let who = self.who();
            log::warn!(
                "connections are open after {after}: {}. All {who} share them, so one request can receive the data of another: \
                 connect in the request, or close them before the first fork",
                peers.join(", ")
            );
        }
    }

    /// Runs the warm-up request. Errors are only logged.
    pub(super) fn run(&mut self, path: &str) {
        let report = run_in_discarded_process(&**self.wsgi, || self.run_in_child(path));
        match report.map(String::from_utf8) {
            Ok(Ok(report)) => {
                let (peers, modules) = report.split_once(SEPARATOR).unwrap_or_default();
                if !peers.is_empty() {
                    return self.import_only(path, peers, modules);
                }
            }
            Ok(Err(error)) => log::warn!("--fork-warmup {path}: the child process failed: {error}"),
            Err(error) => log::warn!("--fork-warmup {path}: the child process failed: {error}"),
        }
        match self.request(path) {
            Ok(status) if status.starts_with('5') => {
                log::warn!("--fork-warmup {path}: status {status}");
            }
            Ok(status) => log::info!("Warm-up finished: {path}, status {status}"),
            Err(error) => log::warn!("--fork-warmup {path} failed: {error}"),
        }
        self.warn_about_shared_connections(&format!("--fork-warmup {path}"));
    }

    fn request(&self, path: &str) -> io::Result<String> {
        let listeners = self.listeners.iter().map(Listener::try_clone).collect::<io::Result<_>>()?;
        let app = Arc::clone(self.wsgi) as Arc<dyn App>;
        Server::new(listeners, self.config.server(), app).run_warmup_request(path)
    }

    /// Runs in the discarded child process. Reports open connections and imported modules. Errors are logged when this process runs the
    /// request again.
    fn run_in_child(&mut self, path: &str) -> Vec<u8> {
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
            "--fork-warmup {path} leaves connections open: {peers}. All {} would share them, so one request could receive the data of \
             another: only the imported modules are loaded. Close connections at the end of each request for a full warm-up",
            self.who()
        );
        for module in modules.lines() {
            // Some names are not importable, such as those of modules created at run time.
            if let Err(error) = self.py.import(module) {
                log::debug!("--fork-warmup {path}: {module} cannot be imported: {error}");
            }
        }
        self.warn_about_shared_connections("importing what --fork-warmup imports");
    }

    fn who(&self) -> &'static str {
        if self.config.running.fork { "requests" } else { "workers" }
    }
}

/// The names of imported modules in the order of their import.
fn modules(py: Python<'_>) -> PyResult<Vec<String>> {
    let modules = py.import("sys")?.getattr("modules")?;
    let names = modules.cast::<PyDict>()?.keys();
    Ok(names.iter().filter_map(|name| name.extract().ok()).collect())
}
