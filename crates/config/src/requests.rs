//! What a client may ask for, and how long it may take.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use mlws_http1::ParserMode;
use mlws_server::Limits;

use crate::values::{GIB, MIB, positive_seconds, seconds, size};

#[derive(Args)]
#[command(next_help_heading = "Limits of a request")]
pub struct LimitOptions {
    /// The longest request line; 0 leaves only the limit of the whole head
    #[arg(long, value_name = "BYTES", default_value_t = 8190, value_parser = clap::value_parser!(u32).range(..=MIB))]
    pub limit_request_line: u32,

    /// How many header fields a request may have
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub limit_request_fields: u32,

    /// The longest header field; 0 leaves only the limit of the whole head
    #[arg(long = "limit-request-field_size", value_name = "BYTES", default_value_t = 8190,
          value_parser = clap::value_parser!(u32).range(..=MIB))]
    pub limit_request_field_size: u32,

    /// The longest head, from the request line to the blank line. Unless given, 64 KiB, or more where a longer line or
    /// field is allowed
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=MIB))]
    pub limit_request_head: Option<u32>,

    /// The largest request body; 0 is no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub limit_request_body: u64,

    /// Receive request bodies up to this size (such as 8M) before calling the application, so that slow uploads hold no
    /// thread. The application reads a larger body while the client sends it. Chunked bodies are always received first
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = size)]
    pub body_buffer: u64,

    /// The largest chunked body held in memory; a larger one goes to a temporary file
    #[arg(long, value_name = "BYTES", default_value_t = 524_288, value_parser = clap::value_parser!(u64).range(..=GIB))]
    pub body_in_memory: u64,

    /// Memory of each worker for all request bodies together, beyond the first 16 KiB of each; a body that finds none left
    /// goes to a temporary file
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864, value_parser = clap::value_parser!(u64).range(..=GIB))]
    pub bodies_in_memory: u64,

    /// Memory for responses that clients have not read yet, in bytes per worker. What does not fit goes to temporary files, so that
    /// slow clients hold neither threads nor memory
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub response_memory: u64,

    /// Largest temporary file of one response. Past it the application waits for the client; 0 uses no files
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub response_spool: u64,

    /// Where temporary files are made; unless given, in $TMPDIR, or in /tmp
    #[arg(long, value_name = "FOLDER", alias = "tmp_upload_dir")]
    pub tmp_dir: Option<PathBuf>,

    /// Whose idea of a good request is followed: ours refuses what could be read in two ways, gunicorn's takes a part
    /// of it
    #[arg(long, value_name = "WHOSE", value_enum, default_value = "strict")]
    pub http_compat: Compat,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Compat {
    Strict,
    Gunicorn,
}

#[derive(Args)]
#[command(next_help_heading = "Timeouts with clients")]
pub struct Timeouts {
    /// How long an idle connection is kept for its next request; 0 closes after every response
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds, alias = "keepalive")]
    pub keep_alive: Duration,

    /// How long a client may take to send the head of a request, and a new one may stay silent
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    pub head_timeout: Duration,

    /// How long a client may take to send a body, beyond the time that --body-rate allows for it
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = positive_seconds)]
    pub body_timeout: Duration,

    /// How many bytes of a body buy its client another second; 0 leaves it --body-timeout in all
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    pub body_rate: u64,

    /// How long a client may take nothing of a response before its connection is cut
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = positive_seconds)]
    pub write_timeout: Duration,
}

impl LimitOptions {
    pub fn protocol(&self) -> Limits {
        let usual = Limits::default();
        let (line, field_size) = (self.limit_request_line as usize, self.limit_request_field_size as usize);
        // Who allows longer lines than a usual head is long means a longer head.
        let head = self.limit_request_head.map_or(usual.head.max(line + field_size), |head| head as usize);
        Limits {
            request_line: if line == 0 { head } else { line },
            field_size: if field_size == 0 { head } else { field_size },
            fields: self.limit_request_fields as usize,
            body: if self.limit_request_body == 0 { u64::MAX } else { self.limit_request_body },
            head,
            mode: match self.http_compat {
                Compat::Strict => ParserMode::Strict,
                Compat::Gunicorn => ParserMode::Gunicorn,
            },
            ..usual
        }
    }
}
