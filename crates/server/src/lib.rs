//! A small HTTP server with a callback: inline, on threads, or each request in a process of its own.
//!
//! The way of a request through the rooms:
//!
//! 1. [`event_loop`] wakes and lets a [`connection`] go on;
//! 2. [`receive`] reads and parses (the protocol itself is `mlws-http1`), with the body in a [`body`] that fits it; of a large one with a
//!    Content-Length the app reads the rest itself, as an [`upload`];
//! 3. the [`thread_pool`] has a thread run the request, or [`fork`] makes a child;
//! 4. [`answer`] calls the [`App`] and produces its [`Response`] through a [`writer`] and a [`response_writer`] over the [`wire`];
//!    (the [`watchdog`] minds how long that takes);
//! 5. the connection goes back to the loop, which minds its [`deadlines`].
//!
//! Beside the way: connections come in at the [`doors`], evenly among workers by their [`shares`], in place of [`idle`] ones if need be, and idle
//! ones go to other workers by [`handover`]; [`networks`] of proxies are believed; a process is [`wear`]ing out; and [`fork`] has a
//! warm-up request, too.

mod answer;
mod app;
mod body;
mod clock;
mod connection;
mod deadlines;
mod doors;
mod event_loop;
mod fork;
mod handover;
mod idle;
mod listener;
mod memory;
mod networks;
mod payload;
mod receive;
mod request;
mod response;
mod response_writer;
mod server;
mod settings;
mod shares;
mod sys;
mod thread_pool;
mod upload;
mod wakeup;
mod watchdog;
mod wear;
mod wire;
mod writer;

pub use app::{App, STACK_SIZE};
pub use body::RequestBody;
pub use fork::run_in_discarded_process;
pub use handover::HandoverQueue;
pub use listener::{Address, AddressError, Listener, SocketFile};
pub use networks::{NetworkError, Networks};
pub use payload::{Aborted, Body, Bytes, Stream};
pub use request::{Client, Failures, Request};
pub use response::{Record, Response};
pub use server::{Ended, HttpForkServer, HttpServer, Notice, Order, Server};
pub use settings::{Concurrency, Limits, ProxyProtocol, Settings};
pub use shares::Shares;
pub use sys::{Atomic, ReadBuffer, SharedPage, is_request_process, leave as exit_now};
pub use thread_pool::{leave_stuck, runs_event_loop};
pub use upload::Failure;
pub use writer::Writer;
