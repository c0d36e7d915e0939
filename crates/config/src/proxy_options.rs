//! Which proxies are trusted, and for which fields.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::iter;

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use mlws_http1::{ForwardedField, ProxyVersions};
use mlws_server::{ProxyProtocol, TrustedNetworks};

#[derive(Args)]
#[command(next_help_heading = "Proxies")]
pub struct ProxyOptions {
    /// Trusted proxies: addresses and networks, separated by commas, or * for all
    ///
    /// unix: stands for all peers on Unix sockets. Without it, they are trusted if the mode of the socket lets only its
    /// owner and group connect (see --umask). An empty list trusts nobody. If the environment variable
    /// FORWARDED_ALLOW_IPS is set, the default is its value.
    #[arg(long, value_name = "NETWORKS", default_value = "127.0.0.1,::1")]
    pub forwarded_allow_ips: TrustedNetworks,

    /// Header field by which a trusted proxy marks requests that came by https; may be repeated
    ///
    /// An empty value disables all of them.
    #[arg(long, alias = "secure_scheme_headers", value_name = "NAME=VALUE", value_parser = pair,
          default_values = ["X-FORWARDED-PROTOCOL=ssl", "X-FORWARDED-PROTO=https", "X-FORWARDED-SSL=on"])]
    pub secure_scheme_header: Vec<(String, String)>,

    /// Header fields with underscores that trusted proxies may send, separated by commas, or * for all
    ///
    /// SCRIPT_NAME is the part of the path at which the application is mounted.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "SCRIPT_NAME,PATH_INFO")]
    pub forwarder_headers: Vec<String>,

    /// What to do with other header fields whose name has an underscore
    ///
    /// In the WSGI environment, X_Y and X-Y are the same key. `drop` removes the field, `refuse` rejects the request
    /// with 400, `dangerous` passes the field on.
    #[arg(long, value_name = "ACTION", value_enum, default_value = "drop", ignore_case = true)]
    pub header_map: HeaderMapOption,

    /// SCRIPT_NAME: path at which the application is mounted; defaults to $SCRIPT_NAME
    ///
    /// PATH_INFO does not contain it.
    #[arg(long, value_name = "PATH")]
    pub root_path: Option<String>,

    /// Expect a PROXY protocol header at the start of connections
    ///
    /// `v1` and `v2` accept one version, `auto` or no value accepts both.
    #[arg(long, value_name = "MODE", value_enum, default_value = "off", num_args = 0..=1, default_missing_value = "auto",
          ignore_case = true)]
    pub proxy_protocol: Mode,

    /// With --proxy-protocol: addresses and networks of the proxies that send the header
    ///
    /// The same syntax as --forwarded-allow-ips. Connections from other peers are accepted without the header.
    #[arg(long, alias = "proxy_allow_ips", value_name = "NETWORKS", default_value = "127.0.0.1,::1")]
    pub proxy_allow_from: TrustedNetworks,

    /// Header fields that trusted proxies use for the client, host, scheme, port and mount point
    ///
    /// Separated by commas. All other forwarding fields, and these fields from untrusted peers, are removed from the
    /// request.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = forwarded_field(), ignore_case = true)]
    pub forwarded_fields: Vec<ForwardedField>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum HeaderMapOption {
    Drop,
    Refuse,
    Dangerous,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Mode {
    #[value(aliases = ["false", "0", "none"])]
    Off,
    V1,
    V2,
    #[value(aliases = ["true", "1"])]
    Auto,
}

impl ProxyOptions {
    pub fn protocol(&self) -> Option<ProxyProtocol> {
        let versions = match self.proxy_protocol {
            Mode::Off => return None,
            Mode::V1 => ProxyVersions::One,
            Mode::V2 => ProxyVersions::Two,
            Mode::Auto => ProxyVersions::Both,
        };
        Some(ProxyProtocol { versions, from: self.proxy_allow_from.clone() })
    }

    /// The lists of trusted peers that are in use. Each with its option, and with what happens to other peers.
    pub fn trusted_lists(&self) -> impl Iterator<Item = (&TrustedNetworks, &'static str, &'static str)> {
        let fields = (
            &self.forwarded_allow_ips,
            "--forwarded-allow-ips",
            "X-Forwarded-Proto, SCRIPT_NAME and similar fields are ignored",
        );
        let header = (&self.proxy_allow_from, "--proxy-allow-from", "PROXY headers are rejected");
        iter::once(fields).chain(self.protocol().is_some().then_some(header))
    }

    /// The default `SCRIPT_NAME`: `--root-path` or the environment variable `SCRIPT_NAME`, without a trailing slash.
    pub fn root(&self) -> String {
        let root = self.root_path.clone().or_else(|| std::env::var("SCRIPT_NAME").ok()).unwrap_or_default();
        root.trim_end_matches('/').to_owned()
    }

    /// Names of header fields, each with the value that means https.
    pub fn scheme_fields(&self) -> Vec<(String, String)> {
        self.secure_scheme_header.iter().filter(|(name, _)| !name.is_empty()).cloned().collect()
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = if text.is_empty() {
        Some(("", ""))
    } else {
        text.split_once('=').filter(|(name, _)| !name.is_empty())
    };
    let (name, value) = pair.ok_or("expected NAME=VALUE, such as X-FORWARDED-PROTO=https")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn forwarded_field() -> impl TypedValueParser<Value = ForwardedField> {
    let names = PossibleValuesParser::new(ForwardedField::ALL.map(|(_, name)| name));
    names.try_map(|name| ForwardedField::from_name(name.as_bytes()).ok_or("unknown field"))
}

#[cfg(test)]
mod tests {
    use mlws_http1::ProxyVersions;

    use crate::Config;

    fn parse(words: &str) -> Config {
        Config::parse_words(words).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_proxy_protocol_accepts_the_values_of_gunicorn() {
        let versions = |words| parse(words).server().proxy_protocol.map(|protocol| protocol.versions);
        for words in
            ["app", "app --proxy-protocol off", "app --proxy-protocol=False", "app --proxy-protocol none"]
        {
            assert_eq!(versions(words), None, "{words}");
        }
        for words in [
            "app --proxy-protocol",
            "--proxy-protocol -- app",
            "app --proxy-protocol=True",
            "app --proxy-protocol 1",
        ] {
            assert_eq!(versions(words), Some(ProxyVersions::Both), "{words}");
        }
        assert_eq!(versions("app --proxy-protocol V1"), Some(ProxyVersions::One));
        let protocol =
            parse("app --proxy-protocol v2 --proxy_allow_ips=10.0.0.0/8").server().proxy_protocol.unwrap();
        assert_eq!((protocol.versions, protocol.from), (ProxyVersions::Two, "10.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn secure_scheme_headers_are_pairs() {
        let fields = |words| parse(words).proxies.scheme_fields();
        assert_eq!(fields("app").len(), 3);
        let pairs = fields("app --secure_scheme_headers=X-A=b=c --secure-scheme-header X-D=");
        assert_eq!(pairs, [("X-A".into(), "b=c".into()), ("X-D".into(), String::new())]);
        assert!(fields("app --secure-scheme-header=").is_empty());
    }
}
