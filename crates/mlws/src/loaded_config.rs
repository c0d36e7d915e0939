//! [`LoadedConfig`]: the settings of all sources, with what only Python can express.

use std::ops::Deref;

use mlws_config::Config;
use pyo3::{prelude::*, types::PyDict};

/// Derefs to the [`Config`].
pub(crate) struct LoadedConfig {
    pub(crate) config: Config,
    /// The hooks of a Python config file, by their names.
    pub(crate) hooks: Option<Py<PyDict>>,
    /// `logconfig_dict` of a Python config file.
    pub(crate) logconfig_dict: Option<Py<PyDict>>,
    /// The settings as hooks and a `logger_class` see them.
    pub(crate) hook_settings: Option<Py<PyDict>>,
}

impl LoadedConfig {
    /// Logs the warnings of all sources.
    pub(crate) fn log_warnings(&self) {
        for warning in &self.warnings {
            log::warn!("{warning}");
        }
    }
}

impl Deref for LoadedConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}
