//! Limits on requests and responses.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mlws_http1::ParserMode;
use mlws_server::Limits;

use crate::values::{GIB, MIB, field_value, size};

#[derive(Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Maximum length of the request line; 0 leaves only --limit-request-head
    #[arg(long, value_name = "BYTES", default_value_t = 8190, value_parser = clap::value_parser!(u32).range(..=MIB))]
    pub limit_request_line: u32,

    /// Maximum number of header fields in a request
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    pub limit_request_fields: u32,

    /// Maximum length of a header field; 0 leaves only --limit-request-head
    #[arg(long = "limit-request-field_size", value_name = "BYTES", default_value_t = 8190,
          value_parser = clap::value_parser!(u32).range(..=MIB))]
    pub limit_request_field_size: u32,

    /// Maximum length of the request line and all header fields together
    ///
    /// Defaults to 64 KiB, or more if a longer request line or header field is allowed.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=MIB))]
    pub limit_request_head: Option<u32>,

    /// Maximum length of a request body; 0 means no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub limit_request_body: u64,

    /// Receive request bodies up to this size before calling the application
    ///
    /// Slow uploads then occupy no thread. The application reads a larger body while it arrives. Chunked bodies are
    /// always received completely first, because WSGI requires a CONTENT_LENGTH. Accepts the suffixes K, M and G.
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = size)]
    pub body_buffer: u64,

    /// Maximum size of a request body in memory; larger bodies go to a temporary file
    #[arg(long, value_name = "BYTES", default_value_t = 524_288, value_parser = clap::value_parser!(u64).range(..=GIB))]
    pub body_in_memory: u64,

    /// Memory per worker for all request bodies
    ///
    /// The first 16 KiB of each body are not counted. When it is used up, bodies go to temporary files.
    #[arg(long, value_name = "BYTES", default_value_t = 67_108_864, value_parser = clap::value_parser!(u64).range(..=GIB))]
    pub bodies_in_memory: u64,

    /// Memory per worker for response data that clients have not read yet
    ///
    /// Further data goes to temporary files, so that slow clients occupy neither threads nor memory. Accepts the
    /// suffixes K, M and G.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub response_memory: u64,

    /// Maximum size of the temporary file of a response; 0 disables these files
    ///
    /// At the maximum, the application waits for the client. Accepts the suffixes K, M and G.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub response_spool: u64,

    /// Directory for temporary files [default: $TMPDIR or /tmp]
    #[arg(long, value_name = "DIR", alias = "tmp_upload_dir")]
    pub tmp_dir: Option<PathBuf>,

    /// How strictly requests are parsed
    ///
    /// `strict` rejects every request that another server or proxy could read differently. `gunicorn` accepts some of
    /// the requests that gunicorn accepts: without Host, with a path in Host, with other codings before chunked, with
    /// userinfo in the target, and CONNECT.
    #[arg(long, value_name = "MODE", value_enum, default_value = "strict")]
    pub http_compat: Compat,

    /// Value of the header field Server; empty for none
    ///
    /// A Server field of the application takes precedence.
    #[arg(long, value_name = "TEXT", default_value = "mylittlewebserver", value_parser = field_value)]
    pub server_header: String,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Compat {
    Strict,
    Gunicorn,
}

impl LimitOptions {
    pub fn protocol(&self) -> Limits {
        let defaults = Limits::default();
        let (line, field_size) = (self.limit_request_line as usize, self.limit_request_field_size as usize);
        // A longer line or field needs a longer head, too.
        let head = self.limit_request_head.map_or(defaults.head.max(line + field_size), |head| head as usize);
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
            ..defaults
        }
    }
}
