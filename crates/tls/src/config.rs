//! [`TlsConfig`]: the options, loaded and validated.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use crate::{
    certificate::{CertificateValidity, ServerCertificate},
    cipher_suites, client_auth,
    error::TlsError,
    files::TlsFiles,
    options::{ClientCertificates, MinVersion, TlsOptions},
    pem_file::PemFile,
    resolver::CertificateResolver,
    tickets::TicketKeys,
};

/// The number of tickets after a handshake of TLS 1.3: a browser opens more than one connection.
const TICKETS: usize = 2;

/// A configuration that is ready to serve. It contains everything that was in the files.
#[derive(Clone)]
pub struct TlsConfig {
    /// Replaced when a certificate is renewed. All clones share it.
    server: Arc<RwLock<Arc<ServerConfig>>>,
    /// What the operator should know, one sentence each.
    pub warnings: Vec<String>,
    validity: Vec<CertificateValidity>,
}

impl TlsConfig {
    /// Validates the contents of all files.
    ///
    /// # Errors
    ///
    /// If a file has no usable certificate or key, the two do not match, or the options contradict each other.
    pub fn load(options: &TlsOptions, files: &TlsFiles, tickets: &TicketKeys) -> Result<Self, TlsError> {
        let mut warnings = Vec::new();
        let mut provider = aws_lc_rs::default_provider();
        if let Some(ciphers) = &options.ciphers {
            let (suites, unknown) = cipher_suites::select(ciphers, &provider.cipher_suites)?;
            provider.cipher_suites = suites;
            warnings.extend(unknown.into_iter().map(|warning| format!("ciphers: {warning}")));
        }
        let provider = Arc::new(provider);
        let loaded =
            options.certificates.iter().map(|named| ServerCertificate::load(named, files, &provider));
        let certificates = loaded.collect::<Result<Vec<_>, _>>()?;
        for (named, certificate) in options.certificates.iter().zip(&certificates) {
            let warning = certificate.validity.warning(SystemTime::now());
            warnings.extend(
                warning.map(|warning| format!("certificate '{}' {warning}", named.certificate.display())),
            );
        }
        let Some(resolver) = CertificateResolver::new(&certificates) else {
            return Err(TlsError("TLS requires a certificate: set certfile".into()));
        };
        let mut server = builder(options, files, provider)?.with_cert_resolver(Arc::new(resolver));
        // A client that offers only other protocols gets the alert `no_application_protocol` (RFC 7301, section 3.2).
        server.alpn_protocols = options.alpn_protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if options.client_certificates == ClientCertificates::None {
            let public_keys =
                certificates.iter().flat_map(|certificate| certificate.key.cert[0].iter().copied());
            server.ticketer = Arc::new(tickets.ticketer(&public_keys.collect::<Vec<_>>()));
            server.send_tls13_tickets = TICKETS;
        } else {
            // A resumed session would skip the verification, which may have a different result by now.
            server.send_tls13_tickets = 0;
        }
        let validity = certificates.into_iter().map(|certificate| certificate.validity).collect();
        Ok(Self { server: Arc::new(RwLock::new(Arc::new(server))), warnings, validity })
    }

    /// Puts another configuration into effect for new connections, in all clones.
    pub fn replace(&mut self, other: Self) {
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = other.current();
        (self.warnings, self.validity) = (other.warnings, other.validity);
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether one of the certificates has expired.
    pub fn has_expired(&self, now: SystemTime) -> bool {
        self.validity.iter().any(|validity| validity.has_expired(now))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TlsConfig")
    }
}

type Builder = rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>;

fn builder(
    options: &TlsOptions,
    files: &TlsFiles,
    provider: Arc<CryptoProvider>,
) -> Result<Builder, TlsError> {
    if let (Some(path), ClientCertificates::None) = (&options.ca_certs, options.client_certificates) {
        PemFile::new("ca_certs", path, files).certificates()?; // unused, but not silently wrong
    }
    let verifier = client_auth::verifier(options, files, &provider)?;
    let versions: &[_] = match options.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder =
        builder.map_err(|error| TlsError(format!("ciphers do not fit the protocol versions: {error}")))?;
    Ok(builder.with_client_cert_verifier(verifier))
}
