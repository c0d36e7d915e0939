//! Every setting, defined once, and how the command line, TOML files and the environment are merged into a [`Config`].
//!
//! This crate has no Python: the values of Python config files are passed in.
//!
//! | module | content |
//! |---|---|
//! | `config` | the definition of all settings, and the conversion to the settings of the server |
//! | [`layers`] | the settings of each source, and how they are merged |
//! | `resolve` | from the merged settings to a [`Config`] |
//! | [`sources`] | the environment: arguments, and variables that change a default |
//! | `variables` | the environment: a variable for each setting |
//! | `completions` | `--completions` |
//! | [`toml_file`] | `mlws.toml` and `pyproject.toml` |
//! | `gunicorn` | settings of gunicorn that this server does not support |
//! | `show` | `--print-config` |
//! | `app_options`, `config_options`, `socket_options`, `worker_options`, `limit_options`, `timeout_options`, `https_options`, `http2_options`, `proxy_options`, `process_options`, `log_options`, `dev_options` | the settings, a group per file |
//! | `values` | durations, sizes, numbers of workers, masks and pairs |
#![allow(missing_docs, reason = "internal to this workspace; what is not obvious is documented")]

mod app_options;
mod completions;
mod config;
mod config_options;
mod dev_options;
mod error;
mod gunicorn;
mod http2_options;
mod https_options;
pub mod layers;
mod limit_options;
mod log_options;
mod process_options;
mod proxy_options;
#[cfg(test)]
mod reference;
mod resolve;
mod show;
mod socket_options;
pub mod sources;
mod timeout_options;
pub mod toml_file;
mod values;
mod variables;
mod worker_options;

pub use app_options::paste_file;
pub use completions::show_completions;
pub use config::{Config, keywords};
pub use dev_options::{DevOptions, Engine};
pub use error::ConfigError;
pub use layers::{ConfigLayer, MergedConfig, Value};
pub use log_options::ErrorFormat;
pub use process_options::ProcessOptions;
pub use proxy_options::{HeaderMapOption, ProxyOptions};
