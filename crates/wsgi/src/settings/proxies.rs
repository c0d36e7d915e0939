//! Which proxies are believed, and what.

use clap::Args;

#[derive(Args)]
#[command(next_help_heading = "Proxies")]
pub(crate) struct Proxies {}
