//! A small HTTP/1 server with a callback. Requests run inline, on threads, or each in its own process.
//!
//! It is not a framework: it has no routes, no TLS, and knows nothing about Python. The path of a request:
//!
//! 1. [`event_loop`] wakes and advances a [`connection`].
//! 2. The connection reads and parses; the protocol itself is `mlws-http1`. The body becomes a [`request_body`], or an
//!    [`upload`] that the app reads from the socket.
//! 3. The [`thread_pool`] runs the request on a thread, or [`fork`] starts a child for it.
//! 4. The [`App`] is called, and its [`Response`] is framed and sent. The [`watchdog`] enforces the time limit.
//! 5. The connection returns to the event loop, which enforces [`deadlines`].
//!
//! Around it: the [`acceptor`] accepts connections and balances them between workers by [`worker_loads`]. If a worker
//! is full, it closes [`idle`] connections. A worker that stops [hands idle connections over](handover). [`recycle`]
//! has the limits after which a worker is replaced.

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
pub use mlws_sys::{ReadBuffer, exit_now, is_request_process};
pub use request::{Client, Failures, Request};
pub use request_body::RequestBody;
pub use response::{Record, Response};
pub use server::{HttpForkServer, HttpServer, Server};
pub use settings::{Concurrency, Limits, ProxyProtocol, Settings};
pub use thread_pool::{EXIT_STUCK, exit_stuck};
pub use trusted_networks::{NetworkError, TrustedNetworks};
pub use upload::Failure;
pub use worker_loads::WorkerLoads;
