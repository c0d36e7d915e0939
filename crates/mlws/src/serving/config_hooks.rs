use std::{path::PathBuf, sync::Arc};

use pyo3::prelude::*;
use rustix::process::geteuid;

use super::application::Application;
use crate::{
    app_spec::extend_path_of_master, error::StartupError, hooks::Hooks, loaded_config::LoadedConfig,
    process::worker_credentials,
};

/// The hooks of a config file, if it has any. `server.app.wsgi()` in a hook loads the application.
pub(super) fn config_hooks(
    py: Python<'_>,
    config: &Arc<LoadedConfig>,
    application: &Application,
    directories: &[PathBuf],
) -> Result<Option<Arc<Hooks>>, StartupError> {
    let Some(functions) = &config.hooks else { return Ok(None) };
    let application = application.for_config(py, config)?;
    let gives_up_root =
        worker_credentials(&config.process)?.is_some_and(|credentials| credentials.gives_up_root());
    let (loaded, search_path) = (Arc::clone(config), directories.to_vec());
    let load = move |py: Python<'_>| match &application {
        Application::Given(app) => Ok(app.clone_ref(py)),
        Application::Named(_) if gives_up_root && geteuid().is_root() => Err(StartupError::App(
            "with --user, the application is not loaded as root: call wsgi() in post_fork or later".into(),
        )),
        Application::Named(_) => application.load(py, &loaded, &search_path),
    };
    extend_path_of_master(py, directories)
        .map_err(|error| StartupError::from_exception(py, "extending sys.path failed", &error))?;
    Hooks::new(py, functions, config.hook_settings.as_ref(), load).map(Some)
}
