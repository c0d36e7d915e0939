//! The Python floor: PEP 3333 on the server below, the command `mlws`, and `serve()`.
//!
//! This crate is the extension module `mylittlewebserver._native`, and the only one that names Python.
//!
//! | module            | what it holds |
//! |-------------------|---|
//! | [`command`]       | the two doors: `main` for the command, `serve` for programs |
//! | [`hooks`]         | the functions of a config file that are called when something happens |
//! | [`settings`]      | every setting, its help, and what it means to the server |
//! | [`loader`]        | from `module:attribute` to a callable |
//! | [`environment`]   | `--env` and `--env-file` |
//! | [`serving`]       | the master and its workers: what is bound, loaded, served and passed on |
//! | [`app`]           | the bridge: a request becomes an environ, what the application answers a response |
//! | [`reload`]        | `--reload`: watches the application's files |
//! | [`process`]       | service managers, daemons, containers, pidfiles, users |
//! | [`logging`]       | the log, on stderr or in a file |
//! | [`access`]        | a line for each request |
//! | [`python_logging`] | either in Python's own logging |
//! | [`syslog`]        | both also to syslog |
//! | [`statsd`]        | counts and durations for a collector |
//! | [`remote`]        | a socket to one of these |
//! | [`stacks`]        | where a process crashed, or where a request hangs |
//! | [`logfile`]       | a file that can be opened anew |
//! | [`sink`]          | writing without waiting for a reader |
//! | [`json`]          | strings of JSON |
//! | [`refusal`]       | why nothing is served |
//! | [`ffi`]           | all the unsafe code |

mod access;
mod app;
mod command;
mod environment;
mod ffi;
mod hooks;
mod json;
mod loader;
mod logfile;
mod logging;
mod process;
mod python_logging;
mod refusal;
mod reload;
mod remote;
mod serving;
mod settings;
mod sink;
mod stacks;
mod statsd;
mod syslog;

/// What Python sees.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::command::{main, serve, write_log};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
