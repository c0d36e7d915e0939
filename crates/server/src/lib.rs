//! A small HTTP server with a callback: inline, on threads, or each request in a process of its own.
//!
//! The way of a request through the rooms:
//!
//! 1. [`event_loop`] wakes and lets a [`connection`] go on;
//! 2. [`receive`] reads and parses (the protocol itself is `mlws-http1`), with the body in a [`body`] that fits it; of a large one with a
//!    Content-Length the app reads the rest itself, as an [`upload`];
//! 3. the [`thread_pool`] has a thread run the request, or [`fork`] makes a child;
//! 4. [`answer`] calls the [`App`] and produces its [`Response`] through a [`writer`] and a [`response_writer`] over the [`socket`];
//!    (the [`watchdog`] minds how long that takes);
//! 5. the connection goes back to the loop, which minds its [`deadlines`].
//!
//! Beside the way: connections come in at the [`acceptor`], evenly among workers by their [`shares`], in place of [`idle`] ones if need be, and idle
//! ones go to other workers by [`handover`]; [`networks`] of proxies are believed; a process is [`recycle`]ing out; and [`fork`] has a
//! warm-up request, too.

mod acceptor;
mod active_writers;
mod app;
mod body;
mod clock;
mod command;
mod connection;
mod context;
mod deadlines;
mod event_loop;
mod event_loop_thread;
mod fork;
mod handover;
mod idle;
mod listener;
mod memory;
mod peer;
mod recycle;
mod request;
mod request_body;
mod response;
mod server;
mod settings;
mod sys;
mod thread_pool;
mod trusted_networks;
mod upload;
mod wakeup;
mod watchdog;
mod worker_loads;

pub use app::{App, STACK_SIZE};
pub use body::{Aborted, Body, Bytes, Stream};
pub use command::{Command, Outcome, ServerEvent};
pub use connection::writer::Writer;
pub use event_loop_thread::runs_event_loop;
pub use fork::run_in_discarded_process;
pub use handover::HandoverQueue;
pub use listener::{Address, AddressError, Listener, SocketFile};
pub use request::{Client, Failures, Request};
pub use request_body::RequestBody;
pub use response::{Record, Response};
pub use server::{HttpForkServer, HttpServer, Server};
pub use settings::{Concurrency, Limits, ProxyProtocol, Settings};
pub use sys::{Atomic, ReadBuffer, SharedPage, is_request_process, leave as exit_now};
pub use thread_pool::{EXIT_STUCK, leave_stuck};
pub use trusted_networks::{NetworkError, TrustedNetworks};
pub use upload::Failure;
pub use worker_loads::WorkerLoads;
