//! The log of the server and the access log: files, standard streams, syslog, statsd. No Python.
//!
//! Invariant: nothing here waits for a reader. What a pipe, terminal or socket does not accept is dropped and counted, and the log
//! says how much was lost.
//!
//! | module | content |
//! |---|---|
//! | [`logger`] | the log, on stderr or in a file |
//! | [`access`] | the access log and its format |
//! | [`app_output`] | what the application writes to `wsgi.errors` |
//! | [`log_file`] | a file that can be reopened |
//! | `log_writer` | writes that do not wait |
//! | [`syslog`] | both logs as syslog records |
//! | [`statsd`] | counts and durations for a collector |
//! | [`remote`] | the socket of these two |
//! | [`level`] | severities |
//! | [`text`] | the escaping of messages in text logs |
#![allow(missing_docs, reason = "a crate of this workspace only; what is not obvious is documented")]

pub mod access;
pub mod app_output;
mod json;
pub mod level;
pub mod log_file;
mod log_writer;
pub mod logger;
pub mod remote;
pub mod statsd;
pub mod syslog;
pub mod text;

pub use access::{AccessLog, EnvironValues, Format};
pub use level::Level;
