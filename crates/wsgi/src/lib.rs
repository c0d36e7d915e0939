//! The PEP 3333 bridge: a request becomes a call of the application, and what it returns becomes a response. Nothing else: loading,
//! configuration and processes are in `mlws`.
//!
//! Invariant: each call of the application results in a [`Response`](mlws_server::Response). No exception leaves this crate unlogged:
//! before the headers are sent it becomes a 500, afterwards it aborts the response.
//!
//! | module | content |
//! |---|---|
//! | `wsgi` | [`Wsgi`]: the application as an `App` of the server |
//! | [`options`] | options, and the observers of requests |
//! | `environ` | the environ: a prepared dict, copied and completed for each request |
//! | `header_key_cache` | from a field name to its key in the environ |
//! | [`forwarding`] | meaning of forwarding fields, and trusted senders |
//! | `input` | `wsgi.input` |
//! | `start_response` | `start_response`, `write` and `wsgi.early_hints` |
//! | `app_result` | from the returned iterable to the response body |
//! | `file_wrapper` | `wsgi.file_wrapper` |
//! | `client_gone` | whether the client has disconnected |
//! | `failure` | log records and responses for failures |
//! | [`forked_process`] | processes forked by the application |
//! | [`threads`] | threads started by the application |
//! | [`python`] | tracebacks, flushing and exit |
//! | [`ffi`] | all unsafe code |
#![allow(missing_docs, reason = "a crate of this workspace only; what is not obvious is documented")]

mod app_result;
mod client_gone;
mod environ;
mod failure;
pub mod ffi;
mod file_wrapper;
pub mod forked_process;
pub mod forwarding;
mod header_key_cache;
mod input;
pub mod options;
pub mod python;
mod start_response;
pub mod threads;
mod wsgi;

pub use options::{AccessLogger, Completion, RequestHooks, WsgiOptions};
pub use wsgi::Wsgi;
