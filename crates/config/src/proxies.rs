//! Which proxies are believed, and what.

#![expect(clippy::doc_markdown, reason = "doc comments here are the help, which is shown as it stands")]

use clap::{
    Args, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use mlws_http1::{ForwardedField, ProxyVersions};
use mlws_server::{ProxyProtocol, TrustedNetworks};

#[derive(Args)]
#[command(next_help_heading = "Proxies")]
pub struct ProxyOptions {
    /// Which peers are proxies that are believed: addresses and networks, separated by commas, or * for all. Whoever
    /// connects by a Unix socket is
    #[arg(
        long,
        value_name = "NETWORKS",
        default_value = "127.0.0.1,::1",
        env = "FORWARDED_ALLOW_IPS",
        hide_env_values = true
    )]
    pub forwarded_allow_ips: TrustedNetworks,

    /// What a believed proxy sends with requests that came by https; may be repeated, and an empty one stands for none
    #[arg(long, alias = "secure_scheme_headers", value_name = "NAME=VALUE", value_parser = pair,
          default_values = ["X-FORWARDED-PROTOCOL=ssl", "X-FORWARDED-PROTO=https", "X-FORWARDED-SSL=on"])]
    pub secure_scheme_header: Vec<(String, String)>,

    /// Fields with underscores that a believed proxy may send, separated by commas, or * for all. SCRIPT_NAME says
    /// which part of the path is not the application's
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "SCRIPT_NAME,PATH_INFO")]
    pub forwarder_headers: Vec<String>,

    /// What is done with other fields that have an underscore, and so could pass for one with a dash
    #[arg(long, value_name = "WAY", value_enum, default_value = "drop", ignore_case = true)]
    pub header_map: HeaderMapOption,

    /// Where the application is mounted: SCRIPT_NAME, and no part of PATH_INFO. Unless given, $SCRIPT_NAME
    #[arg(long, value_name = "PATH")]
    pub root_path: Option<String>,

    /// Connections begin with a PROXY header that tells the client's address; without MODE in either version
    #[arg(long, value_name = "MODE", value_enum, default_value = "off", num_args = 0..=1, default_missing_value = "auto",
          ignore_case = true)]
    pub proxy_protocol: Mode,

    /// With --proxy-protocol: who begins with that header. Others may not, and speak for themselves
    #[arg(long, alias = "proxy_allow_ips", value_name = "NETWORKS", default_value = "127.0.0.1,::1")]
    pub proxy_allow_from: TrustedNetworks,

    /// Fields in which believed proxies tell the client, the host, the scheme, the port or the mount point, separated by
    /// commas. The application sees none of the others, nor any of these from anybody else
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

    /// The default of `SCRIPT_NAME`: `--root-path`, or the variable of that name. Without a trailing slash.
    pub fn root(&self) -> String {
        let root = self.root_path.clone().or_else(|| std::env::var("SCRIPT_NAME").ok()).unwrap_or_default();
        root.trim_end_matches('/').to_owned()
    }

    /// Field names, each with the value that means https.
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
    let (name, value) = pair.ok_or("not a name and a value, such as X-FORWARDED-PROTO=https")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn forwarded_field() -> impl TypedValueParser<Value = ForwardedField> {
    let names = PossibleValuesParser::new(ForwardedField::ALL.map(|(_, name)| name));
    names.try_map(|name| ForwardedField::from_name(name.as_bytes()).ok_or("no such field"))
}

#[cfg(test)]
mod tests {
    use mlws_http1::ProxyVersions;

    use crate::Config;

    fn read(words: &str) -> Config {
        Config::parse_words(words).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_proxy_protocol_is_asked_for_in_gunicorns_words() {
        let versions = |words| read(words).server().proxy_protocol.map(|protocol| protocol.versions);
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
            read("app --proxy-protocol v2 --proxy_allow_ips=10.0.0.0/8").server().proxy_protocol.unwrap();
        assert_eq!((protocol.versions, protocol.from), (ProxyVersions::Two, "10.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn the_fields_of_a_scheme_are_pairs() {
        let fields = |words| read(words).proxies.scheme_fields();
        assert_eq!(fields("app").len(), 3);
        let said = fields("app --secure_scheme_headers=X-A=b=c --secure-scheme-header X-D=");
        assert_eq!(said, [("X-A".into(), "b=c".into()), ("X-D".into(), String::new())]);
        assert!(fields("app --secure-scheme-header=").is_empty());
    }
}
