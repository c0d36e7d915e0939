//! Every setting, defined once: the command line, TOML files, the environment and gunicorn's names, merged into a [`Config`]. No Python:
//! Python config files hand their values in.
//!
//! | module | content |
//! |---|---|
//! | [`config`] | the definition, and what the settings mean to the server |
//! | [`layers`] | the settings of each source, and how they are merged |
//! | [`sources`] | the environment, and the options that choose a config file |
//! | [`toml_file`] | `mlws.toml` and `pyproject.toml` |
//! | [`gunicorn`] | gunicorn's settings that have no meaning here |
//! | [`show`] | `--print-config` |
//! | [`application`], [`running`], [`requests`], [`proxies`], [`process`], [`logs`] | groups of settings |
//! | [`values`] | durations, sizes, masks and pairs |
#![allow(missing_docs, reason = "a crate of this workspace only; what is not obvious is documented")]

pub mod application;
pub mod config;
mod error;
mod gunicorn;
pub mod layers;
pub mod logs;
pub mod process;
pub mod proxies;
#[cfg(test)]
mod reference;
pub mod requests;
pub mod running;
mod show;
pub mod sources;
pub mod toml_file;
mod values;

pub use config::{Config, keywords};
pub use error::ConfigError;
pub use layers::{ConfigLayer, MergedConfig, Value};
