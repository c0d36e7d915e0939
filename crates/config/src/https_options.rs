//! HTTPS: certificates, client certificates, protocol versions and ciphers.

#![expect(clippy::doc_markdown, reason = "doc comments are the text of --help, shown as it stands")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mlws_server::Address;
use mlws_tls::{CertificateFiles, ClientCertificates, MinVersion};

use crate::error::ConfigError;

#[derive(Args)]
#[command(next_help_heading = "HTTPS")]
pub struct HttpsOptions {
    /// Certificate file in PEM format; enables HTTPS on all addresses of --bind
    ///
    /// The certificate of the server comes first, intermediate certificates follow. The file may also contain the
    /// private key.
    #[arg(long, value_name = "FILE")]
    pub certfile: Option<PathBuf>,

    /// Private key file in PEM format, if the key is not in --certfile
    ///
    /// PKCS#8, PKCS#1 or SEC1. The master reads it before it drops its privileges, so workers need no access.
    #[arg(long, value_name = "FILE")]
    pub keyfile: Option<PathBuf>,

    /// Another certificate, for clients that request one of its DNS names; may be repeated
    ///
    /// FILE, or FILE:KEYFILE. An exact name takes precedence over a wildcard. Other clients get --certfile.
    #[arg(long, value_name = "FILE[:KEYFILE]", value_delimiter = ',')]
    pub extra_certfile: Vec<String>,

    /// CA certificates file in PEM format, for --cert-reqs
    #[arg(long, value_name = "FILE")]
    pub ca_certs: Option<PathBuf>,

    /// Client certificates: 0 (none), 1 (optional) or 2 (required)
    ///
    /// 1 and 2 require --ca-certs.
    #[arg(long, value_name = "N", default_value = "0", value_parser = client_certificates)]
    pub cert_reqs: ClientCertificates,

    /// Certificate revocation lists file in PEM format, for client certificates
    ///
    /// Each CA of a client's certificate chain needs a list.
    #[arg(long, value_name = "FILE")]
    pub crl: Option<PathBuf>,

    /// Cipher suites for TLS 1.2, as an OpenSSL cipher string [default: all with forward secrecy]
    ///
    /// Suites of TLS 1.3 stay enabled unless the string names some of them.
    #[arg(long, value_name = "CIPHERS")]
    pub ciphers: Option<String>,

    /// Lowest accepted TLS version
    #[arg(long, value_name = "VERSION", value_enum, default_value = "1.2")]
    pub tls_min: TlsVersion,

    /// Address that serves plain HTTP although HTTPS is enabled; may be repeated
    ///
    /// The same forms as --bind.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub insecure_bind: Vec<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl HttpsOptions {
    /// The options of the TLS layer, which offers the protocols. `None` if HTTPS is not enabled.
    ///
    /// # Errors
    ///
    /// If another setting has no effect without `--certfile`.
    pub fn layer(
        &self,
        alpn_protocols: Vec<&'static str>,
    ) -> Result<Option<mlws_tls::TlsOptions>, ConfigError> {
        let Some(certificate) = self.certfile.clone().filter(|path| !path.as_os_str().is_empty()) else {
            let unused = [
                ("--keyfile", self.keyfile.is_some()),
                ("--extra-certfile", !self.extra_certfile.is_empty()),
                ("--insecure-bind", !self.insecure_bind.is_empty()),
                ("--cert-reqs", self.cert_reqs != ClientCertificates::None),
            ];
            return match unused.iter().find(|(_, is_set)| *is_set) {
                Some((flag, _)) => {
                    Err(ConfigError(format!("{flag} requires --certfile, which enables HTTPS")))
                }
                None => Ok(None),
            };
        };
        let first = CertificateFiles { certificate, key: self.keyfile.clone() };
        let others = self.extra_certfile.iter().map(|text| match text.split_once(':') {
            Some((certificate, key)) => {
                CertificateFiles { certificate: certificate.into(), key: Some(key.into()) }
            }
            None => CertificateFiles { certificate: text.into(), key: None },
        });
        Ok(Some(mlws_tls::TlsOptions {
            certificates: std::iter::once(first).chain(others).collect(),
            ca_certs: self.ca_certs.clone(),
            client_certificates: self.cert_reqs,
            crl: self.crl.clone(),
            ciphers: self.ciphers.clone(),
            min_version: match self.tls_min {
                TlsVersion::Tls12 => MinVersion::Tls12,
                TlsVersion::Tls13 => MinVersion::Tls13,
            },
            alpn_protocols,
        }))
    }
}

/// Parses the number of a constant of Python's `ssl` module, or its name: `CERT_REQUIRED` or `VerifyMode.CERT_REQUIRED`.
fn client_certificates(text: &str) -> Result<ClientCertificates, String> {
    match text.rsplit_once('.').map_or(text, |(_, name)| name) {
        "0" | "CERT_NONE" => Ok(ClientCertificates::None),
        "1" | "CERT_OPTIONAL" => Ok(ClientCertificates::Optional),
        "2" | "CERT_REQUIRED" => Ok(ClientCertificates::Required),
        _ => Err("expected 0 (none), 1 (optional) or 2 (required)".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::Config;

    fn layer(words: &str) -> Result<Option<mlws_tls::TlsOptions>, String> {
        Config::parse_words(words).unwrap().tls.layer(vec!["h2"]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_certificate_enables_https() {
        assert_eq!(layer("app").unwrap(), None);
        let options = layer("app --certfile a.pem --keyfile a.key --extra-certfile b.pem,c.pem:c.key")
            .unwrap()
            .unwrap();
        let keys: Vec<_> = options.certificates.iter().map(|files| files.key.as_deref()).collect();
        assert_eq!(keys, [Some(Path::new("a.key")), None, Some(Path::new("c.key"))]);
        assert_eq!((options.min_version, options.alpn_protocols), (MinVersion::Tls12, vec!["h2"]));
    }

    #[test]
    fn client_certificates_are_numbers_or_pythons_names() {
        for (text, expected) in [
            ("0", ClientCertificates::None),
            ("1", ClientCertificates::Optional),
            ("VerifyMode.CERT_REQUIRED", ClientCertificates::Required),
        ] {
            let options = layer(&format!("app --certfile a.pem --cert-reqs {text}")).unwrap().unwrap();
            assert_eq!(options.client_certificates, expected, "{text}");
        }
        assert!(Config::parse_words("app --cert-reqs 3").err().unwrap().contains("expected 0 (none)"));
    }

    #[test]
    fn what_has_no_effect_without_a_certificate_is_an_error() {
        for words in ["--keyfile a.key", "--extra-certfile b.pem", "--insecure-bind :80", "--cert-reqs 2"] {
            assert!(layer(&format!("app {words}")).unwrap_err().contains("requires --certfile"), "{words}");
        }
    }
}
