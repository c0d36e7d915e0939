//! What is served: APP by its name, or an object that a program passes to `serve()`.

use std::path::PathBuf;

use mlws_config::Config;
use pyo3::prelude::*;

use crate::{app_spec::AppSpec, error::StartupError};

pub(super) enum Application {
    Named(AppSpec),
    Given(Py<PyAny>),
}

impl Application {
    /// The application of other settings. An object stays the same.
    pub(super) fn for_config(&self, py: Python<'_>, config: &Config) -> Result<Self, StartupError> {
        match self {
            Self::Named(_) => AppSpec::parse(py, config).map(Self::Named),
            Self::Given(app) => Ok(Self::Given(app.clone_ref(py))),
        }
    }

    /// Imports the application, or calls the factory.
    pub(super) fn load(
        &self,
        py: Python<'_>,
        config: &Config,
        directories: &[PathBuf],
    ) -> Result<Py<PyAny>, StartupError> {
        match self {
            Self::Named(spec) => spec.load(py, directories),
            Self::Given(factory) if config.source.factory => factory.call0(py).map_err(|error| {
                StartupError::from_exception(py, &format!("{} cannot be loaded", config.name()), &error)
            }),
            Self::Given(app) => Ok(app.clone_ref(py)),
        }
    }
}
