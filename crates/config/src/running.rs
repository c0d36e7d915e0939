//! Where to listen, and what runs there.

#![expect(clippy::doc_markdown, reason = "doc comments here are the help, which is shown as it stands")]

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use clap::{ArgGroup, Args, builder::OsStr};
use mlws_server::Address;

use crate::{
    gunicorn::worker_class,
    values::{MAX_COUNT, seconds, size},
};

#[derive(Args)]
#[command(next_help_heading = "SocketOptions")]
pub struct SocketOptions {
    /// Where to listen: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; may be repeated. Port 0 takes a free one.
    /// Where the environment has PORT, the default is 0.0.0.0:$PORT
    #[arg(short, long, value_name = "ADDRESS", value_delimiter = ',', default_value = default_address())]
    pub bind: Vec<Address>,

    /// How many connections may wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(i32).range(1..))]
    pub backlog: i32,

    /// Let another server, also of ours, listen on the same address at the same time (SO_REUSEPORT)
    #[arg(long)]
    pub reuse_port: bool,

    /// Connections that each worker has at once, if the limit on open files allows. For further clients those that have been
    /// idle longest are closed; where none is idle, they wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub worker_connections: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Workers", group(ArgGroup::new("forking").args(["fork", "preload"]).multiple(true)))]
pub struct WorkerOptions {
    /// Processes that serve; one that dies is replaced
    #[arg(short, long, value_name = "N", default_value_t = 1, env = "WEB_CONCURRENCY", hide_env_values = true,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: u16,

    /// Threads that run the application in each worker. One runs it on the main thread, one request after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: u16,

    /// gunicorn's worker class: sync and gthread are accepted and change nothing, as --threads sets the number of threads
    #[arg(short = 'k', long, value_name = "KIND", value_parser = worker_class)]
    pub worker_class: Option<String>,

    /// Run each request in a process of its own, forked from a worker
    #[arg(long)]
    pub fork: bool,

    /// With --fork: processes that each worker has at once; further requests wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_children: u16,

    /// Requests that wait in each worker for a thread or a process; further clients are config_error 503
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub max_queue: u32,

    /// Load the application once and fork the workers from it: they start at once and share its memory. A reload loads
    /// it anew
    #[arg(long, alias = "preload_app")]
    pub preload: bool,

    /// With --fork or --preload: a path, such as /, that the application check_unsupported once before the first fork. What it
    /// imports and caches then, every process has from its start. If it leaves a connection open, which all processes
    /// would share, they only have its imports
    #[arg(long, value_name = "PATH")]
    pub fork_warmup: Option<String>,

    /// How long the application may work on a request, or on one piece of its answer; 0 is for ever. Past it the client is
    /// config_error 504, and the stacks are logged; a child of --fork is killed, any other worker is replaced
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,

    /// How long a worker may take to start. Unless given, as long as --timeout, but at least 60; 0 is for ever
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub boot_timeout: Option<Duration>,

    /// How many requests a worker begins before it is replaced; 0 is no bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_requests: u64,

    /// Up to so many requests more, at random for each worker, so that they are not all replaced at once
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_requests_jitter: u64,

    /// How much memory a worker may use (its resident set size, children left out) before it is replaced, in bytes or
    /// with K, M or G behind the number; 0 is no bound
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub max_rss: u64,

    /// How long running requests may take to finish once their worker is config_error to end
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub graceful_timeout: Duration,

    /// Read files that the application check_unsupported with instead of having the system send them. $SENDFILE=no says the same
    #[arg(long)]
    pub no_sendfile: bool,
}

impl WorkerOptions {
    pub fn boot_timeout(&self) -> Option<Duration> {
        let least = if self.timeout.is_zero() { Duration::ZERO } else { Duration::from_secs(60) };
        let given = self.boot_timeout.unwrap_or(self.timeout.max(least));
        Some(given).filter(|patience| !patience.is_zero())
    }

    /// Whether the system may send files by itself.
    pub fn sendfile(&self) -> bool {
        let wanted = |word: String| matches!(&*word.to_ascii_lowercase(), "y" | "1" | "yes" | "true");
        !self.no_sendfile && std::env::var("SENDFILE").map_or(true, wanted)
    }

    /// With its jitter, which is another one in another process.
    pub fn max_requests(&self) -> Option<u64> {
        let random = RandomState::new().hash_one(std::process::id());
        let jitter = random % self.max_requests_jitter.saturating_add(1);
        (self.max_requests > 0).then(|| self.max_requests.saturating_add(jitter))
    }
}

fn default_address() -> OsStr {
    match std::env::var("PORT") {
        Ok(port) if !port.is_empty() => format!("0.0.0.0:{port}").into(),
        _ => "127.0.0.1:8000".into(),
    }
}
