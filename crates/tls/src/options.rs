//! What the operator configures.

use std::path::{Path, PathBuf};

/// A certificate and its key. Both may be in the same file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain in PEM format, the certificate of the server first.
    pub certificate: PathBuf,
    /// The private key. `None` if it is in the same file.
    pub key: Option<PathBuf>,
}

/// Whether clients present certificates: the values of Python's `ssl.CERT_NONE`, `CERT_OPTIONAL`, `CERT_REQUIRED`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Clients are not asked for a certificate.
    #[default]
    None,
    /// A client without a certificate is served. One with an invalid certificate is not.
    Optional,
    /// A client without a valid certificate is not served.
    Required,
}

/// The lowest accepted protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246) and 1.3.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446) only.
    Tls13,
}

/// Everything about TLS that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The certificates. The first one is the default; the others are chosen by their DNS names.
    pub certificates: Vec<CertificateFiles>,
    /// The CAs that client certificates must be issued by.
    pub ca_certs: Option<PathBuf>,
    /// Whether clients present certificates.
    pub client_certificates: ClientCertificates,
    /// Lists of revoked client certificates.
    pub crl: Option<PathBuf>,
    /// OpenSSL's cipher string.
    pub ciphers: Option<String>,
    /// The lowest accepted protocol version.
    pub min_version: MinVersion,
    /// The application protocols to offer, the preferred one first (ALPN, RFC 7301). If there are none, nothing is negotiated.
    pub alpn_protocols: Vec<&'static str>,
}

impl TlsOptions {
    /// Every file, with the setting that names it.
    pub fn paths(&self) -> Vec<(&'static str, &Path)> {
        let mut paths = Vec::new();
        for files in &self.certificates {
            paths.push(("certfile", files.certificate.as_path()));
            paths.extend(files.key.as_deref().map(|key| ("keyfile", key)));
        }
        paths.extend(self.ca_certs.as_deref().map(|path| ("ca_certs", path)));
        paths.extend(self.crl.as_deref().map(|path| ("crl", path)));
        paths
    }
}
