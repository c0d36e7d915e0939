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
//! | [`forked_process`] | keeps processes that the application forks out of the server |
//! | [`threads`]       | threads that the application starts |
//! | [`app`]           | the bridge: a request becomes an environ, what the application answers a response |
//! | [`reload`]        | `--reload`: watches the application's files |
//! | [`process`]       | service managers, daemons, containers, pidfiles, users |
//! | [`logs`]          | the two logs, wherever they go |
//! | [`signal_handlers`] | signal handlers of the application, and the one that stands for the server's |
//! | [`stacks`]        | where a process crashed, or where a request hangs |
//! | [`refusal`]       | why nothing is served |
//! | [`ffi`]           | all the unsafe code |

mod app;
mod command;
mod environment;
mod ffi;
mod forked_process;
mod hooks;
mod loader;
mod logs;
mod process;
mod refusal;
mod reload;
mod serving;
mod settings;
mod signal_handlers;
mod stacks;
mod threads;

/// What Python sees.
#[pyo3::pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::command::{main, restore_descriptor_limit, serve, write_log};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
