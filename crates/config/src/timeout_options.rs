//! Timeouts for clients.

use std::time::Duration;

use clap::Args;

use crate::values::{positive_seconds, seconds};

#[derive(Args)]
#[command(next_help_heading = "Timeouts")]
pub struct TimeoutOptions {
    /// How long an idle connection stays open for the next request; 0 disables keep-alive
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, alias = "keepalive")]
    pub keep_alive: Duration,

    /// Maximum time to receive a request head, or to wait for the first byte of a new connection
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    pub head_timeout: Duration,

    /// Maximum time to receive a request body; extended by --body-rate
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    pub body_timeout: Duration,

    /// Minimum upload rate: every N bytes received extend --body-timeout by one second; 0 never extends it
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub body_rate: u64,

    /// Close the connection if a client reads nothing of a response for this long
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive_seconds)]
    pub write_timeout: Duration,
}
