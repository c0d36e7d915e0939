//! Reads the settings of all sources: defaults, a config file, the environment, the command line. Each takes precedence over the one before.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use mlws_config::{
    Config, ConfigError, ConfigLayer, MergedConfig, Value,
    layers::clap_message,
    sources::{current_directory, default_variables, environment},
};
use pyo3::prelude::*;

use crate::{error::StartupError, hook_settings, loaded_config::LoadedConfig, paste, python_config};

/// Where settings come from. They can be read again, for a reload.
pub(crate) struct ConfigSources {
    caller: Caller,
    pub(crate) directory: PathBuf,
}

enum Caller {
    /// The arguments of the command line, and the environment at the start: later it also has the variables of --env.
    Cli { args: Vec<OsString>, variables: Vec<(OsString, OsString)> },
    /// The application's name, and the keywords of `serve()`.
    Api(Vec<(String, Vec<String>)>),
}

/// Why reading the settings failed.
pub(crate) enum ConfigFailure {
    /// An error of the command line, or the help text.
    Clap(clap::Error),
    Startup(StartupError),
}

impl ConfigSources {
    pub(crate) fn cli(args: Vec<OsString>) -> Self {
        let variables = std::env::vars_os().collect();
        Self { caller: Caller::Cli { args, variables }, directory: current_directory() }
    }

    /// Each keyword has its values as texts. No text means a switch that is on.
    pub(crate) fn api(keywords: Vec<(String, Vec<String>)>) -> Self {
        Self { caller: Caller::Api(keywords), directory: current_directory() }
    }

    /// Reads the current settings of all sources.
    pub(crate) fn read(&self, py: Python<'_>) -> Result<LoadedConfig, ConfigFailure> {
        let mut warnings = Vec::new();
        let mut layers = match &self.caller {
            Caller::Cli { args, variables } => {
                let words = ConfigLayer::from_args("the command line", args.clone())?;
                let (environment, unknown) = environment(variables)?;
                warnings.extend(unknown);
                words.over(environment)
            }
            Caller::Api(keywords) => {
                let values = keywords.iter().map(|(name, texts)| {
                    let value =
                        if texts.is_empty() { Value::Switch(true) } else { Value::Texts(texts.clone()) };
                    (name.clone(), value)
                });
                ConfigLayer::from_values("serve()", values)?
            }
        };
        let named = layers.value("config").map(|name| name.to_string_lossy().into_owned());
        let is_command = matches!(self.caller, Caller::Cli { .. });
        let imports = self.import_directories(&layers);
        let found = named.map(|name| python_config::load_named(py, &self.directory, &name, &imports));
        let found =
            found.or_else(|| is_command.then(|| python_config::load_default(py, &self.directory, &imports)));
        let (file, extras) = found.transpose()?.unwrap_or_default();
        warnings.extend(extras.warnings);
        layers = layers.over(file);
        if let Some(text) = layers.value("paste") {
            let variables = layers.pairs("paste_global").unwrap_or_default();
            let section = paste::settings(py, &text.to_string_lossy(), &variables)?;
            layers = layers.over(section);
        }
        let variables = default_variables(&layers)?;
        layers = layers.over(variables);
        let has_logger_class = layers.value("logger_class").is_some();
        let mut merged = MergedConfig::of(layers.clone())?;
        if let Some(hook) = extras.ssl_context.as_ref().filter(|_| merged.config.tls.certfile.is_some()) {
            merged = MergedConfig::of(ssl_context(py, hook, &merged)?.over(layers))?;
        }
        let wants_settings = extras.hooks.is_some() || has_logger_class;
        let hook_settings = wants_settings.then(|| hook_settings::of(py, &merged)).transpose();
        let hook_settings = hook_settings.map_err(|error| {
            StartupError::from_exception(py, "converting the settings for hooks failed", &error)
        })?;
        let mut config = Config::resolve(merged, warnings).map_err(StartupError::from)?;
        config.logs.has_log_config_dict = extras.logconfig_dict.is_some();
        Ok(LoadedConfig { config, hooks: extras.hooks, logconfig_dict: extras.logconfig_dict, hook_settings })
    }

    /// The directories from which a config file can import: the one in which the server was started, and those of --chdir and
    /// --pythonpath outside of the file. The last one is searched first.
    fn import_directories(&self, layers: &ConfigLayer) -> Vec<PathBuf> {
        let mut directories = vec![self.directory.clone()];
        if let Some(directory) = layers.value("chdir") {
            directories.push(self.directory.join(directory));
        }
        let base = directories[directories.len() - 1].clone();
        for texts in layers.values("pythonpath").unwrap_or_default() {
            directories.extend(texts.to_string_lossy().split(',').map(|directory| base.join(directory)));
        }
        directories
    }
}

/// Calls the hook `ssl_context`, and returns what it sets.
fn ssl_context(py: Python<'_>, hook: &Py<PyAny>, merged: &MergedConfig) -> Result<ConfigLayer, StartupError> {
    let call = || {
        let module = py.import("mylittlewebserver._ssl_context")?;
        let arguments = (hook, hook_settings::of(py, merged)?);
        module.getattr("call")?.call1(arguments)?.extract::<BTreeMap<String, String>>()
    };
    let values = call().map_err(|error| {
        StartupError::Usage(
            StartupError::from_exception(py, "the hook ssl_context failed", &error).to_string(),
        )
    })?;
    let values = values.into_iter().map(|(name, text)| (name, Value::Texts(vec![text])));
    Ok(ConfigLayer::from_values("ssl_context", values)?)
}

impl fmt::Display for ConfigFailure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clap(error) => clap_message(error).fmt(to),
            Self::Startup(error) => error.fmt(to),
        }
    }
}

impl From<clap::Error> for ConfigFailure {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<ConfigError> for ConfigFailure {
    fn from(error: ConfigError) -> Self {
        Self::Startup(error.into())
    }
}

impl From<StartupError> for ConfigFailure {
    fn from(error: StartupError) -> Self {
        Self::Startup(error)
    }
}
