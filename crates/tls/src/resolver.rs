//! The choice of a certificate by the server name of the client (SNI, RFC 6066, section 3).

use std::{collections::HashMap, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::certificate::ServerCertificate;

/// Chooses by DNS name, an exact one before a wildcard. Otherwise the first certificate.
#[derive(Debug)]
pub(crate) struct CertificateResolver {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl CertificateResolver {
    /// `None` without a certificate.
    pub(crate) fn new(certificates: &[ServerCertificate]) -> Option<Self> {
        let default = Arc::clone(&certificates.first()?.key);
        let mut by_name = HashMap::new();
        for certificate in certificates {
            for name in &certificate.dns_names {
                by_name.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        Some(Self { default, by_name })
    }

    /// The certificate for a server name in lower case.
    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        // A wildcard stands for exactly one label (RFC 6125, section 6.4.3).
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(name).or_else(wildcard)
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found =
            client_hello.server_name().and_then(|name| self.find(&name.to_ascii_lowercase()).cloned());
        Some(found.unwrap_or_else(|| Arc::clone(&self.default)))
    }
}
