//! `--statsd-host`: request counts and durations, under gunicorn's metric names.
//!
//! The metrics of a request share a datagram, a line each. Lost datagrams are not sent again.

use std::{io, time::Duration};

use rustix::net::SocketType;

use crate::{
    level::Level,
    remote::{Remote, RemoteAddress},
};

pub struct Statsd {
    remote: Remote,
    prefix: String,
    /// The tags after each metric, if any.
    tags: String,
}

impl Statsd {
    pub fn new(address: &RemoteAddress, prefix: &str, tags: &str) -> io::Result<Self> {
        let prefix = prefix.trim_end_matches('.');
        Ok(Self {
            remote: Remote::new(address)?,
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}.") },
            tags: if tags.is_empty() { String::new() } else { format!("|#{tags}") },
        })
    }

    pub fn answered(&self, status: u16, took: Duration) {
        let Self { prefix, tags, .. } = self;
        let milliseconds = (took.as_secs_f64() * 1e6).round() / 1e3;
        self.send(&format!(
            "{prefix}gunicorn.request.duration:{milliseconds:?}|ms{tags}\n\
             {prefix}gunicorn.requests:1|c|@1.0{tags}\n\
             {prefix}gunicorn.request.status.{status}:1|c|@1.0{tags}"
        ));
    }

    pub fn logged(&self, level: Level, is_exception: bool) {
        let name = match level {
            _ if is_exception => "exception",
            Level::Critical => "critical",
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info | Level::Debug => return,
        };
        self.send(&format!("{}gunicorn.log.{name}:1|c|@1.0{}", self.prefix, self.tags));
    }

    pub fn workers(&self, count: usize) {
        self.send(&format!("{}gunicorn.workers:{count}|g{}", self.prefix, self.tags));
    }

    fn send(&self, metrics: &str) {
        self.remote.send(metrics.as_bytes());
    }
}

/// Parses `HOST:PORT` or `unix://PATH`.
pub fn address(text: &str) -> Result<RemoteAddress, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(RemoteAddress::Unix(path.into(), &[SocketType::DGRAM]));
    }
    let (host, port) = RemoteAddress::host_and_port(text, None).ok_or("expected HOST:PORT or unix://PATH")?;
    Ok(RemoteAddress::Udp(host, port))
}
