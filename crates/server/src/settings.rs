//! The settings of a server process. The defaults are safe on the open internet.
//!
//! Every wait for a peer has a deadline, every queue a limit, every buffer a maximum size.

use std::{path::PathBuf, sync::Arc, time::Duration};

pub use mlws_http1::Limits;
use mlws_http1::ProxyVersions;
use mlws_tls::TlsConfig;

use crate::{HandoverQueue, TrustedNetworks, WorkerLoads};

/// Settings of one server process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How requests run.
    pub concurrency: Concurrency,
    /// Limits on lines, fields and bodies.
    pub limits: Limits,
    /// The time from the first byte of a request to the end of its head. Exceeding it is a 408. Also how long a new
    /// connection may stay silent.
    pub head_timeout: Duration,
    /// The time for a body, in addition to what [`body_rate`](Self::body_rate) grants. Exceeding it is a 408.
    pub body_timeout: Duration,
    /// The minimum upload rate in bytes per second: this many bytes received extend the deadline by one second.
    pub body_rate: u64,
    /// How long a client may read nothing of a response before the connection is closed.
    pub write_timeout: Duration,
    /// The time limit of each call into the app: the call itself, each chunk of a stream, the cleanup. Waiting for a
    /// slow client does not count. On timeout the client gets 504, or a reset in the middle of its response.
    pub timeout: Option<Duration>,
    /// The peers whose forwarding fields may be used. The app decides: see
    /// [`Request::peer_is_trusted`](crate::Request::peer_is_trusted).
    pub trusted: TrustedNetworks,
    /// The PROXY protocol, if proxies use it.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The number of requests after which the server reports
    /// [`ServerEvent::RecycleLimitReached`](crate::ServerEvent::RecycleLimitReached).
    pub max_requests: Option<u64>,
    /// The same for memory: resident set size in bytes, without children.
    pub max_rss: Option<u64>,
    /// The loads of the workers that share the listeners, and the slot of this worker. `None` turns balancing off.
    pub loads: Option<(Arc<WorkerLoads>, usize)>,
    /// The queue that idle connections are sent to on [`Command::HandOver`](crate::Command::HandOver), and received
    /// from otherwise. Without a queue, that command works like [`Command::Drain`](crate::Command::Drain).
    pub handover: Option<Arc<HandoverQueue>>,
    /// How long after the command to drain the process will be killed. Idle connections are closed a little earlier.
    pub graceful_timeout: Duration,
    /// How long an idle connection is kept for another request. Zero closes the connection after each response.
    pub keep_alive: Duration,
    /// The maximum number of connections. Beyond it, new ones wait in the backlog of the listening socket.
    pub connections: usize,
    /// The maximum number of complete requests that wait for a thread or child. Beyond it, requests get 503 with
    /// Retry-After.
    pub queue: usize,
    /// The largest `Content-Length`, in bytes, of a body that is received before the app is called. For a larger body
    /// the app is called when the head is complete, and reads the rest while the client sends it. A chunked body is
    /// always received first.
    pub body_buffer: u64,
    /// The largest chunked body that is kept in memory, in bytes. A larger one goes to an unlinked temporary file.
    /// Bodies with a Content-Length only depend on the next setting.
    pub body_in_memory: usize,
    /// Memory for the bodies of all connections together, in bytes, without the first 16 KiB of each. A body for which
    /// too little is left goes to an unlinked temporary file.
    pub bodies_in_memory: usize,
    /// Memory for unsent responses of all connections together, in bytes. The rest goes to unlinked temporary files.
    pub response_memory: usize,
    /// The maximum size of the temporary file of one response, in bytes. Beyond it the application waits for the
    /// client.
    pub response_spool: u64,
    /// The directory for temporary files.
    pub temporary: PathBuf,
    /// TLS for all listeners that are not [insecure](crate::Listener::insecure). `None` serves plain HTTP.
    pub tls: Option<TlsConfig>,
    /// HTTP/2. `None` serves HTTP/1 only.
    pub http2: Option<Http2Settings>,
    /// The value of the `Server` field. If it is empty, the field is not sent.
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
            loads: None,
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
            tls: None,
            http2: Some(Http2Settings::default()),
            server_name: "mylittlewebserver".into(),
        }
    }
}

/// HTTP/2 (RFC 9113). Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Settings {
    /// Whether [trusted](Settings::trusted) peers may use it on listeners without TLS, by prior knowledge.
    pub cleartext: bool,
    /// The maximum number of concurrent streams of a connection.
    pub concurrent_streams: u32,
    /// The largest frame that is received, 16,384 to 16,777,215.
    pub frame_size: u32,
    /// The largest head of a request: the decoded fields, with 32 bytes added to each.
    pub header_list_size: u32,
    /// The body data of one stream that is received and has not been read, at most 2^31 - 1.
    pub stream_window: u32,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            cleartext: false,
            concurrent_streams: 100,
            frame_size: 16_384,
            header_list_size: 65_536,
            stream_window: 1 << 20,
        }
    }
}

/// How the PROXY protocol is used.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// The accepted versions.
    pub versions: ProxyVersions,
    /// The proxies. They must begin each connection with a PROXY header, and no other peer may.
    pub from: TrustedNetworks,
}

/// How requests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// In the thread of the event loop, one at a time.
    Inline,
    /// In this many threads. One more thread is started, so that one can always accept, read and enforce deadlines.
    Threads(usize),
    /// Each in its own process.
    Fork {
        /// The maximum number of children. Beyond it requests wait in the queue.
        children: usize,
    },
}

impl Concurrency {
    /// How many requests can run at once.
    pub fn requests(self) -> usize {
        match self {
            Self::Inline => 1,
            Self::Threads(count) => count,
            Self::Fork { children } => children,
        }
    }

    /// Whether a response may occupy its thread or process for as long as its events take, because others are left.
    pub(crate) fn may_wait_for_events(self) -> bool {
        match self {
            Self::Inline => false,
            Self::Threads(threads) => threads > 1,
            Self::Fork { .. } => true,
        }
    }

    /// Whether output may be deferred briefly. A forked child has no monitor thread that would send it.
    pub(crate) fn batches(self) -> bool {
        !matches!(self, Self::Fork { .. })
    }
}
