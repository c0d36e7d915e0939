//! The PEP 3333 bridge: a request becomes a call of the application, and what it returns becomes a response. Nothing else: loading,
//! configuration and processes are in `mlws`.
//!
//! Invariant: whatever the application does ends here as a [`Response`](mlws_server::Response). No exception leaves this crate, and none is
//! lost: one before the head is sent is a 500, a later one aborts the response, and both are logged.
//!
//! | module | content |
//! |---|---|
//! | [`wsgi`] | [`Wsgi`]: the application as the server calls it |
//! | [`options`] | what is the same for all requests, and who observes them |
//! | [`environ`] | the environ: a prepared dict, copied and completed for each request |
//! | [`names`] | from the name of a field to its key in the environ |
//! | [`forwarding`] | what forwarding fields mean, and from whom |
//! | [`input`] | `wsgi.input` |
//! | [`start_response`] | `start_response` and `write` |
//! | [`app_body`] | from the returned iterable to a body |
//! | [`file_wrapper`] | `wsgi.file_wrapper` |
//! | [`client_gone`] | whether the client has left |
//! | [`failure`] | what the log and the client get when the application fails |
//! | [`forked_process`] | processes that the application forks |
//! | [`threads`] | threads that the application starts |
//! | [`python`] | tracebacks, flushing, exit |
//! | [`ffi`] | all unsafe code |
#![allow(missing_docs, reason = "a crate of this workspace only; what is not obvious is documented")]

mod app_body;
mod client_gone;
mod environ;
mod failure;
pub mod ffi;
mod file_wrapper;
pub mod forked_process;
pub mod forwarding;
mod input;
mod names;
pub mod options;
pub mod python;
mod start_response;
pub mod threads;
mod wsgi;

pub use options::{AccessLogger, Completion, RequestHooks, WsgiOptions};
pub use wsgi::Wsgi;
