//! The command `mlws` and the extension module `mylittlewebserver._native`: everything around the server that concerns processes,
//! configuration and Python.
//!
//! It wires the other crates together: settings from `mlws-config`, logs from `mlws-logging`, the master from `mlws-supervisor`, the server
//! from `mlws-server`, and the application through `mlws-wsgi`.
//!
//! | module | content |
//! |---|---|
//! | `command` | the entry points: `main` for the command, `serve` for programs |
//! | `config_sources` | reads the settings of all sources |
//! | `python_config`, `paste` | config files that Python reads |
//! | `app_spec` | from `module:attribute` to the application |
//! | `imports` | where Python imports modules from |
//! | `environment` | `--env` and `--env-file` |
//! | `serving` | the master and its workers |
//! | `hooks`, `hook_settings` | the hooks of a config file, and the settings that they see |
//! | `reload` | `--reload`: watches the application's files |
//! | `process` | service managers, daemons, containers, pidfiles, users, limits |
//! | `python_logging` | opens the logs, also those in Python's `logging` |
//! | `error_stream` | `wsgi.errors` |
//! | `signal_handlers` | signal handlers of the application |
//! | `stack_dumps` | stacks of crashes and of requests that hang |
//! | `tls` | certificates for HTTPS |
//! | `error` | why the server does not start |

mod app_spec;
mod command;
mod config_sources;
mod environment;
mod error;
mod error_stream;
mod hook_settings;
mod hooks;
mod imports;
mod loaded_config;
mod paste;
mod process;
mod python_config;
mod python_logging;
mod reload;
mod serving;
mod signal_handlers;
mod stack_dumps;
mod tls;

/// The extension module.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::command::{main, restore_descriptor_limit, serve, write_log};

    #[pymodule_export]
    use super::python_logging::connection::{set_logger, write_access, write_record};

    #[pymodule_export]
    use super::error_stream::{flush_errors, write_errors};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
