//! HTTP/2: when it is used, and its limits.

use clap::Args;
use mlws_server::Http2Settings;

use crate::values::MIB;

/// The names of the protocols in TLS (ALPN, RFC 7301).
const ALPN_HTTP2: &str = "h2";
const ALPN_HTTP1: [&str; 2] = ["http/1.1", "http/1.0"];
/// 2^31 - 1, the largest window and number of streams (RFC 9113, section 6.9.1).
const MAX: i64 = (1 << 31) - 1;

#[derive(Args)]
#[command(next_help_heading = "HTTP/2")]
pub struct Http2Options {
    /// Protocols to offer to HTTPS clients, the preferred one first: h1, h2
    ///
    /// The client chooses one of them during the TLS handshake (ALPN). h1 turns HTTP/2 off. A client that does not
    /// negotiate is served over HTTP/1.
    #[arg(long, value_name = "LIST", default_value = "h2,h1", value_parser = http_protocols)]
    pub http_protocols: HttpProtocols,

    /// Accept HTTP/2 without TLS (h2c): off, or prior-knowledge
    ///
    /// With prior-knowledge, peers of --forwarded-allow-ips may begin a connection with the preface of HTTP/2. They
    /// may also use HTTP/1. `Upgrade: h2c` is not supported.
    #[arg(long, value_name = "KIND", default_value = "off", value_parser = cleartext)]
    pub http2_cleartext: Cleartext,

    /// Maximum number of concurrent requests on an HTTP/2 connection
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=MAX))]
    pub http2_max_concurrent_streams: u32,

    /// Amount of body data that an HTTP/2 client may send, per request and per connection, before it is read
    #[arg(long, value_name = "BYTES", default_value_t = 1_048_576, value_parser = clap::value_parser!(u32).range(1..=MAX))]
    pub http2_initial_window_size: u32,

    /// Maximum size of a frame that an HTTP/2 client may send
    #[arg(long, value_name = "BYTES", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(16_384..=16_777_215))]
    pub http2_max_frame_size: u32,

    /// Maximum size of the header fields of an HTTP/2 request; 0 means 1 MiB
    ///
    /// The size after decompression, with 32 bytes added for each field. The limits of HTTP/1 on the request line and
    /// on header fields apply as well.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(..=MIB))]
    pub http2_max_header_list_size: u32,
}

/// The value of `--http-protocols`. HTTP/1 is always among them, because clients need not negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpProtocols {
    Http1,
    PreferHttp1,
    PreferHttp2,
}

/// The value of `--http2-cleartext`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleartext {
    Off,
    PriorKnowledge,
    /// gunicorn's `upgrade`.
    Upgrade,
    /// gunicorn's `both`.
    Both,
}

impl Http2Options {
    /// The protocols to offer in TLS handshakes, the preferred one first.
    pub fn alpn_protocols(&self) -> Vec<&'static str> {
        let [http2, http1] = [&[ALPN_HTTP2][..], &ALPN_HTTP1];
        match self.http_protocols {
            HttpProtocols::Http1 => http1.to_vec(),
            HttpProtocols::PreferHttp1 => [http1, http2].concat(),
            HttpProtocols::PreferHttp2 => [http2, http1].concat(),
        }
    }

    /// `None` if HTTP/2 is off.
    pub(crate) fn settings(&self) -> Option<Http2Settings> {
        let header_list_size = match self.http2_max_header_list_size {
            0 => MIB as u32,
            size => size,
        };
        let settings = Http2Settings {
            cleartext: matches!(self.http2_cleartext, Cleartext::PriorKnowledge | Cleartext::Both),
            concurrent_streams: self.http2_max_concurrent_streams,
            frame_size: self.http2_max_frame_size,
            header_list_size,
            stream_window: self.http2_initial_window_size,
        };
        (self.http_protocols != HttpProtocols::Http1).then_some(settings)
    }

    /// What has no effect.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if matches!(self.http2_cleartext, Cleartext::Upgrade | Cleartext::Both) {
            warnings.push(
                "--http2-cleartext: upgrade is not supported; requests with `Upgrade: h2c` are served over HTTP/1".into(),
            );
        }
        if self.http_protocols == HttpProtocols::Http1 && self.http2_cleartext != Cleartext::Off {
            warnings.push("--http2-cleartext is ignored: --http-protocols does not include h2".into());
        }
        warnings
    }
}

/// Parses gunicorn's list. As in gunicorn, an empty one is `h1`.
fn http_protocols(text: &str) -> Result<HttpProtocols, String> {
    let text = text.to_ascii_lowercase();
    let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    match names[..] {
        [] | ["h1"] => Ok(HttpProtocols::Http1),
        ["h2"] | ["h2", "h1"] => Ok(HttpProtocols::PreferHttp2),
        ["h1", "h2"] => Ok(HttpProtocols::PreferHttp1),
        _ => Err("expected h1, h2, or both, separated by a comma".into()),
    }
}

/// Parses gunicorn's values.
fn cleartext(text: &str) -> Result<Cleartext, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "false" => Ok(Cleartext::Off),
        "prior-knowledge" | "true" => Ok(Cleartext::PriorKnowledge),
        "upgrade" => Ok(Cleartext::Upgrade),
        "both" => Ok(Cleartext::Both),
        _ => Err("expected off or prior-knowledge".into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, ConfigLayer, MergedConfig};

    #[test]
    fn the_order_of_protocols_is_that_of_the_list() {
        for (list, protocols) in [
            ("h2,h1", &["h2", "http/1.1", "http/1.0"][..]),
            ("H2,", &["h2", "http/1.1", "http/1.0"]),
            ("h1, h2", &["http/1.1", "http/1.0", "h2"]),
            ("h1", &["http/1.1", "http/1.0"]),
            ("", &["http/1.1", "http/1.0"]),
        ] {
            let layer =
                ConfigLayer::from_args("test", ["app".into(), format!("--http-protocols={list}").into()]);
            let merged = MergedConfig::of(layer.unwrap()).unwrap();
            let config = Config::resolve(merged, Vec::new()).unwrap();
            assert_eq!(config.http2.alpn_protocols(), protocols, "{list}");
            assert_eq!(config.server().http2.is_some(), protocols.contains(&"h2"), "{list}");
        }
        for wrong in ["h3", "h1,h1", "h2,h1,h2", "http/1.1"] {
            let error = Config::parse_words(&format!("app --http-protocols {wrong}")).err().unwrap();
            assert!(error.contains("expected h1, h2, or both"), "{error}");
        }
    }

    #[test]
    fn only_prior_knowledge_starts_http2_without_tls_and_the_rest_is_a_warning() {
        for (words, is_on, warnings) in [
            ("off", false, 0),
            ("False", false, 0),
            ("prior-knowledge", true, 0),
            ("true", true, 0),
            ("upgrade", false, 1),
            ("both", true, 1),
        ] {
            let config = Config::parse_words(&format!("app --http2-cleartext {words}")).unwrap();
            let settings = config.server().http2.unwrap();
            assert_eq!((settings.cleartext, config.warnings.len()), (is_on, warnings), "{words}");
        }
        assert!(Config::parse_words("app --http2-cleartext on").is_err());
        let config =
            Config::parse_words("app --http-protocols h1 --http2-cleartext prior-knowledge").unwrap();
        assert!(config.server().http2.is_none() && config.warnings[0].contains("is ignored"));
    }

    #[test]
    fn limits_have_the_ranges_of_the_protocol() {
        for (words, is_valid) in [
            ("max-concurrent-streams=0", false),
            ("max-concurrent-streams=2147483647", true),
            ("max-concurrent-streams=2147483648", false),
            ("max-frame-size=16383", false),
            ("max-frame-size=16777215", true),
            ("max-frame-size=16777216", false),
            ("max-header-list-size=0", true),
            ("max-header-list-size=1048577", false),
            ("initial-window-size=0", false),
            ("initial-window-size=2147483647", true),
            ("initial-window-size=2147483648", false),
        ] {
            assert_eq!(Config::parse_words(&format!("app --http2-{words}")).is_ok(), is_valid, "{words}");
        }
        let config = Config::parse_words("app --http2-max-header-list-size 0").unwrap();
        assert_eq!(config.server().http2.unwrap().header_list_size, 1 << 20);
    }
}
