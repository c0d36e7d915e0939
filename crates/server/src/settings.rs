//! What an operator may set, with defaults that are safe on the open net.
//!
//! Every wait on a peer has a deadline here, every queue a bound, every buffer a limit.

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use mlws_http1::Limits;
use mlws_http1::ProxyVersions;

use crate::{HandoverQueue, TrustedNetworks, WorkerLoads};

/// Settings of one server process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How requests run.
    pub concurrency: Concurrency,
    /// Limits of the protocol: lines, fields, bodies.
    pub limits: Limits,
    /// From the first byte of a request to the end of its head; past it 408. Also how long a new connection may stay silent.
    pub head_timeout: Duration,
    /// How long a body may take beyond what [`body_rate`](Self::body_rate) allows it; past it 408.
    pub body_timeout: Duration,
    /// The slowest accepted body, in bytes per second.
    pub body_rate: u64,
    /// How long a client may take no byte of a response before the connection is cut.
    pub write_timeout: Duration,
    /// How long the app may be inside one call: to answer a request, to give a piece of a stream, to clean up. Time that it spends
    /// waiting for a slow client does not count. Past it the client gets 504, or a reset in the middle of its response.
    pub timeout: Option<Duration>,
    /// Whose word is taken for who the client is, which is up to the app: see [`Request::peer_is_trusted`](crate::Request::peer_is_trusted).
    pub trusted: TrustedNetworks,
    /// Whether proxies begin their connections by saying whose they are.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many requests this process begins before it says [`ServerEvent::RecycleLimitReached`](crate::ServerEvent::RecycleLimitReached).
    pub max_requests: Option<u64>,
    /// The same for its memory, in bytes of resident set size. Children are not counted.
    pub max_rss: Option<u64>,
    /// The page on which workers that share their listeners keep their load even, and the slot of this one.
    pub shares: Option<(Arc<WorkerLoads>, usize)>,
    /// Where idle connections go on [`Command::HandOver`](crate::Command::HandOver), and come from otherwise. Without one, that order is
    /// [`Command::Drain`](crate::Command::Drain).
    pub handover: Option<Arc<HandoverQueue>>,
    /// How long after an order to drain the owner ends this process. Idle connections are closed a little earlier.
    pub graceful_timeout: Duration,
    /// How long an idle connection is kept for a next request. Zero: every response closes.
    pub keep_alive: Duration,
    /// Connections at once; past it new ones wait in the backlog of the listening socket.
    pub connections: usize,
    /// Complete requests that may wait for a thread or a child; past it 503 with Retry-After.
    pub queue: usize,
    /// The largest `Content-Length`, in bytes, of a body that is received before the app is called. With a larger body the app is called
    /// as soon as the head is complete, and reads the rest while the client sends it. A chunked body is always received first.
    pub body_buffer: u64,
    /// The largest chunked body held in memory; a longer one goes to an unlinked temporary file. A body whose length is known goes by
    /// the next setting alone.
    pub body_in_memory: usize,
    /// Bytes that the bodies of all connections together may take of the memory, not counting the first 16 KiB of each. A body for
    /// which nothing is left goes to an unlinked temporary file.
    pub bodies_in_memory: usize,
    /// Bytes of memory for responses that their clients have not read yet, of all connections together. What does not fit goes to
    /// unlinked temporary files.
    pub response_memory: usize,
    /// The size in bytes of the temporary file of one response; past it the application waits for the client.
    pub response_spool: u64,
    /// Where the temporary files are made.
    pub temporary: PathBuf,
    /// What the `Server` field says.
    pub server_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::Inline,
            limits: Limits::default(),
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            body_rate: 512,
            write_timeout: Duration::from_secs(60),
            timeout: Some(Duration::from_secs(30)),
            trusted: TrustedNetworks::loopback(),
            proxy_protocol: None,
            max_requests: None,
            max_rss: None,
            shares: None,
            handover: None,
            graceful_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(5),
            connections: 60_000,
            queue: 8192,
            body_buffer: 8 * 1024 * 1024,
            body_in_memory: 512 * 1024,
            bodies_in_memory: 64 * 1024 * 1024,
            response_memory: 64 * 1024 * 1024,
            response_spool: 1024 * 1024 * 1024,
            temporary: std::env::temp_dir(),
            server_name: "mylittlewebserver".into(),
        }
    }
}

/// The PROXY protocol, as this server takes it.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// In which versions.
    pub versions: ProxyVersions,
    /// From whom. These have to begin each connection with a header; nobody else may.
    pub from: TrustedNetworks,
}

/// How requests run: the three ways behind one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// In the loop's own thread, one at a time.
    Inline,
    /// In this many threads. One more thread runs, so that someone can always accept, read and time out.
    Threads(usize),
    /// Each in a process of its own.
    Fork {
        /// Children at once; past it requests wait in the queue.
        children: usize,
    },
}

impl Concurrency {
    /// How many requests run at once.
    pub fn requests(self) -> usize {
        match self {
            Self::Inline => 1,
            Self::Threads(count) => count,
            Self::Fork { children } => children,
        }
    }

    /// Whether a response may hold its thread or process for as long as its events take, because others are left.
    pub(crate) fn may_wait_for_events(self) -> bool {
        match self {
            Self::Inline => false,
            Self::Threads(threads) => threads > 1,
            Self::Fork { .. } => true,
        }
    }

    /// Whether what is ready to be sent may wait a moment for more; a forked child has no lookout.
    pub(crate) fn batches(self) -> bool {
        !matches!(self, Self::Fork { .. })
    }
}
