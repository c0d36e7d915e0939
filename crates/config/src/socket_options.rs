//! The listening sockets.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use clap::Args;
use mlws_server::Address;

use crate::values::MAX_COUNT;

#[derive(Args)]
#[command(next_help_heading = "Sockets")]
pub struct SocketOptions {
    /// Address to listen on; may be repeated
    ///
    /// HOST:PORT, [IPV6]:PORT, unix:PATH, or fd://N for an inherited socket. Port 0 takes a free port. If the
    /// environment variable PORT is set, the default is 0.0.0.0:$PORT.
    #[arg(short, long, value_name = "ADDRESS", value_delimiter = ',', default_value = "127.0.0.1:8000")]
    pub bind: Vec<Address>,

    /// Maximum number of connections that wait to be accepted
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(i32).range(1..))]
    pub backlog: i32,

    /// Set SO_REUSEPORT
    ///
    /// Other processes, including another mlws, can then listen on the same address at the same time.
    #[arg(long)]
    pub reuse_port: bool,

    /// Maximum number of open connections per worker
    ///
    /// Also bounded by the limit on open files. At the maximum, the connection that has been idle longest is closed
    /// for a new client. If no connection is idle, new clients wait in the backlog.
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1..=MAX_COUNT))]
    pub worker_connections: u32,
}
