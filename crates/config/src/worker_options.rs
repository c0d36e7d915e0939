//! Processes, threads, and what bounds them.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use clap::{ArgGroup, Args};

use crate::{
    gunicorn::worker_class,
    values::{MAX_COUNT, seconds, size, worker_count},
};

#[derive(Args)]
#[command(next_help_heading = "Workers", group(ArgGroup::new("forking").args(["fork", "preload"]).multiple(true)))]
pub struct WorkerOptions {
    /// Number of worker processes, or auto for one per available CPU
    ///
    /// auto counts the CPUs that the server may run on, and rounds a CPU quota of its cgroup down, to at least 1. A
    /// reload counts again. If the environment variable WEB_CONCURRENCY is set, the default is its value.
    #[arg(short, long, value_name = "N", default_value = "1", value_parser = worker_count)]
    pub workers: u16,

    /// Number of application threads per worker
    ///
    /// With one thread, the application runs on the main thread of each worker, one request at a time.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub threads: u16,

    /// Accepted for compatibility with gunicorn: sync or gthread; use --threads instead
    #[arg(short = 'k', long, value_name = "KIND", value_parser = worker_class)]
    pub worker_class: Option<String>,

    /// Run each request in its own process, forked from a worker
    #[arg(long)]
    pub fork: bool,

    /// With --fork: maximum number of concurrent requests, each a process, per worker
    ///
    /// Further requests wait; see --max-queue.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_children: u16,

    /// Maximum number of requests per worker that wait for a thread or process; others get a 503
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub max_queue: u32,

    /// Load the application once, and fork the workers from it
    ///
    /// Workers start faster and share memory. A reload (HUP) loads the application again.
    #[arg(long, alias = "preload_app")]
    pub preload: bool,

    /// With --fork or --preload: path to request from the application before the first fork
    ///
    /// Every process then starts with what the application imported and cached for this request. If the request
    /// leaves a network connection open, which processes must not share, only the imports are kept.
    #[arg(long, value_name = "PATH")]
    pub fork_warmup: Option<String>,

    /// Maximum time for a request; 0 means no limit
    ///
    /// Applies to the call of the application and again to each chunk of a streamed response. After it, the client
    /// gets a 504 and the stacks of all threads are logged. A --fork child is killed. Any other worker is replaced.
    #[arg(short, long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub timeout: Duration,

    /// Maximum time for a worker to start; 0 means no limit
    ///
    /// Defaults to --timeout, but at least 60 seconds.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub boot_timeout: Option<Duration>,

    /// Replace a worker after this many requests; 0 means never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_requests: u64,

    /// Add a random number of requests, from 0 to N, to --max-requests for each worker
    ///
    /// This keeps workers from restarting all at once.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_requests_jitter: u64,

    /// Replace a worker that uses more memory than this; 0 means never
    ///
    /// The resident set size of the worker without its children, in bytes or with the suffix K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub max_rss: u64,

    /// Maximum time for running requests to finish after a stop or reload
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub graceful_timeout: Duration,

    /// Do not use sendfile(2) for files that the application returns
    ///
    /// The environment variable SENDFILE=no has the same effect.
    #[arg(long)]
    pub no_sendfile: bool,
}

impl WorkerOptions {
    pub fn boot_timeout(&self) -> Option<Duration> {
        let minimum = if self.timeout.is_zero() { Duration::ZERO } else { Duration::from_secs(60) };
        let timeout = self.boot_timeout.unwrap_or(self.timeout.max(minimum));
        Some(timeout).filter(|timeout| !timeout.is_zero())
    }

    /// Whether files are sent by `sendfile(2)`.
    pub fn sendfile(&self) -> bool {
        let is_true = |text: String| matches!(&*text.to_ascii_lowercase(), "y" | "1" | "yes" | "true");
        !self.no_sendfile && std::env::var("SENDFILE").map_or(true, is_true)
    }

    /// `--max-requests` plus a jitter that differs between processes.
    pub fn max_requests(&self) -> Option<u64> {
        let random = RandomState::new().hash_one(std::process::id());
        let jitter = random % self.max_requests_jitter.saturating_add(1);
        (self.max_requests > 0).then(|| self.max_requests.saturating_add(jitter))
    }
}
