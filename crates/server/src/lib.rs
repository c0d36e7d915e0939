//! A small server for HTTP/1 and HTTP/2 with a callback. Requests run inline, on threads, or each in its own process.
//!
//! It is not a framework or a process manager: it has no routes, and one [`Server`] is one process. It knows nothing
//! about Python; an interpreter is attached through the methods of [`App`]. The path of a request:
//!
//! 1. `event_loop` wakes and advances a `connection`.
//! 2. The connection reads and parses; the protocols themselves are `mlws-http1`, `mlws-http2` and `mlws-tls`. A stream
//!    of HTTP/2 is a connection with one request. The body becomes a [`RequestBody`], or an `upload` that the app reads
//!    from the socket.
//! 3. The `thread_pool` runs the request on a thread, or `fork` starts a child for it.
//! 4. The [`App`] is called, and its [`Response`] is framed and sent. The `watchdog` enforces the time limit.
//! 5. The connection returns to the event loop, which enforces `deadlines`.
//!
//! Modules, from the bottom to the top:
//!
//! | module | content |
//! |---|---|
//! | `clock`, `deadlines`, `rate_limit`, `wakeup` | the Date field, timeouts, warnings, wake-ups without a race |
//! | `peer`, `trusted_networks` | addresses of clients, trusted proxies |
//! | `address`, `listener`, `socket_file` | listening sockets and their addresses |
//! | `memory`, `active_writers`, `worker_loads` | memory budgets, responses in progress, connections per worker |
//! | `rejections` | the log of rejected requests, with a limit |
//! | `settings`, `context` | settings, and what all connections of a process share |
//! | `request`, `request_body`, `upload`, `interim` | what an app receives, and what it may send before its response |
//! | `body`, `response`, `app` | what an app returns, and its interface |
//! | `connection` | one connection: reading, parsing, responding, sending |
//! | `watchdog`, `fork` | calls that take too long, a process per request |
//! | `acceptor`, `idle`, `handover` | accepting and balancing, closing idle connections, moving them to other workers |
//! | `recycle` | limits after which a worker is replaced |
//! | `event_loop`, `thread_pool` | which connection advances, and which thread runs it |
//! | `command`, `server` | the interface for the embedding program |

mod acceptor;
mod active_writers;
mod address;
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
mod interim;
mod listener;
mod lock;
mod memory;
mod peer;
mod rate_limit;
mod recycle;
mod rejections;
mod request;
mod request_body;
mod response;
mod server;
mod settings;
mod socket_file;
mod thread_pool;
mod trusted_networks;
mod upload;
mod wakeup;
mod watchdog;
mod worker_loads;

pub use address::{Address, AddressError};
pub use app::{App, STACK_SIZE};
pub use body::{Aborted, Body, Bytes, Stream};
pub use command::{Command, Outcome, ServerEvent};
pub use connection::writer::Writer;
pub use event_loop_thread::runs_event_loop;
pub use fork::run_in_discarded_process;
pub use handover::queue::HandoverQueue;
pub use listener::Listener;
pub use mlws_sys::{ReadBuffer, exit_now, is_request_process};
pub use mlws_tls::{SessionFacts, TlsConfig};
pub use request::{Client, Failures, Request};
pub use request_body::RequestBody;
pub use response::{Record, Response};
pub use server::{HttpForkServer, HttpServer, Server};
pub use settings::{Concurrency, Http2Settings, Limits, ProxyProtocol, Settings};
pub use socket_file::SocketFile;
pub use thread_pool::{EXIT_STUCK, exit_stuck};
pub use trusted_networks::{NetworkError, TrustedNetworks};
pub use upload::Failure;
pub use worker_loads::WorkerLoads;
