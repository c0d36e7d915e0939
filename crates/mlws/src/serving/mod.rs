//! The master and its workers: from the settings to serving processes.
//!
//! [`run`] returns in the master only. A worker exits inside it, so that nothing that the caller of `serve()` does afterwards happens twice.
//!
//! With `--preload` each generation has a process between the master and its workers: it loads the application, and its workers are forked
//! from it. The master never imports the application, so a reload imports the new code.
//!
//! | module | content |
//! |---|---|
//! | [`master_state`] | the state of the master, and its reactions to events |
//! | [`sockets`] | the listening sockets |
//! | [`application`], [`config_hooks`] | the application and the hooks |
//! | [`shared_sockets`] | connections that forked processes would share |
//! | [`warmup`] | the request before the first fork |
//! | [`worker`] | a worker, from its start to its exit |
//! | [`python_fork`], [`reexec`], [`search_path`] | Python's part of a fork, of an upgrade, of imports |

mod application;
mod config_hooks;
mod master_state;
mod python_fork;
mod reexec;
mod search_path;
mod shared_sockets;
mod sockets;
mod warmup;
mod worker;

use std::{
    io::{self, Write as _},
    sync::Arc,
};

use mlws_config::ErrorFormat;
use mlws_logging::logger;
use mlws_supervisor::{Role, supervise};
use mlws_wsgi::python::{exit_process, flush_streams};
use pyo3::prelude::*;

use self::{
    application::Application, master_state::MasterState, python_fork::PythonFork, reexec::reexec_command,
    search_path::chdir_and_search_path,
};
use crate::{
    app_spec::AppSpec,
    config_sources::ConfigSources,
    environment::Environment,
    error::StartupError,
    imports::end_imports_of_master,
    loaded_config::LoadedConfig,
    process::{self, descriptors, worker_credentials},
    python_logging::loggers,
    tls::{self, Certificates},
};

/// Serves `given`, or the application of the settings, until the server is stopped. Returns the exit status, in the master.
pub(crate) fn run(
    py: Python<'_>,
    config: LoadedConfig,
    sources: &ConfigSources,
    given: Option<Py<PyAny>>,
) -> Result<i32, StartupError> {
    start_logger(&config);
    let application = match given {
        Some(app) => Application::Given(app),
        None => Application::Named(AppSpec::parse(py, &config)?),
    };
    if config.development.reload {
        if matches!(application, Application::Given(_)) {
            let text = "--reload requires the name of the application, such as 'module:app', not an object";
            return Err(StartupError::Usage(text.into()));
        }
        log::warn!("--reload is for development: clients see error messages, and watching files costs time");
    }
    let _raised_limit = descriptors::RaisedLimit::new(py);
    let reexec = reexec_command(py);
    let environment = Environment::set(py, &config)?;
    let reexec = reexec.map(|command| environment.without(command));
    let config = Arc::new(config);
    process::start(py, &Arc::clone(&config), sockets::is_new_master(), &PythonFork, |context| {
        let (mut state, signals) = MasterState::new(py, config, sources, application, context, reexec)?;
        state.environment = environment;
        flush_streams(py);
        match supervise(signals, state.settings(), &mut state) {
            Role::Master(status) => {
                state.remove_socket_files();
                state.notify(py, "server_hook", ("on_exit",));
                Ok(status)
            }
            Role::Worker(status) => exit_process(py, status),
        }
    })
}

/// Does everything that a start does except serving, so that errors show.
pub(crate) fn check(py: Python<'_>, config: &LoadedConfig) -> Result<i32, StartupError> {
    if let Some(shown) = &config.shown {
        // If stdout is closed, the status is still correct.
        let _ = io::stdout().write_all(shown.as_bytes()).and_then(|()| io::stdout().flush());
    }
    start_logger(config);
    config.log_warnings();
    let spec = AppSpec::parse(py, config)?;
    let credentials = worker_credentials(&config.process)?;
    let _environment = Environment::set(py, config)?;
    let directories = chdir_and_search_path(config, None)?;
    Certificates::load(config, &tls::ticket_keys()?)?;
    if let Some(credentials) = credentials {
        // The application never runs with other credentials than those of the workers.
        credentials.drop_privileges().map_err(|error| StartupError::System(error.to_string()))?;
    }
    end_imports_of_master(py).map_err(|error| StartupError::System(error.to_string()))?;
    spec.load(py, &directories)?;
    log::info!("{} can be served with these settings", config.name());
    Ok(0)
}

fn start_logger(config: &LoadedConfig) {
    loggers::reset();
    logger::set_record_handler(loggers::log);
    logger::start(config.logs.level(), config.logs.error_logformat == ErrorFormat::Json);
}
