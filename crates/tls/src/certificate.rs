//! A certificate chain with its private key, and what the operator should know about it.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, Error, InconsistentKeys, crypto::CryptoProvider, pki_types::CertificateDer,
    sign::CertifiedKey,
};
use x509_cert::{
    Certificate as X509,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{error::TlsError, files::TlsFiles, options::CertificateFiles, pem_file::PemFile};

/// A certificate that expires sooner than this is reported.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// One certificate of the server.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    /// Its DNS names in lower case. A wildcard starts with `*.`.
    pub(crate) dns_names: Vec<String>,
    pub(crate) validity: CertificateValidity,
}

/// When a certificate is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateValidity {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// The end, as text.
    until: String,
    from: String,
}

impl ServerCertificate {
    pub(crate) fn load(
        named: &CertificateFiles,
        files: &TlsFiles,
        provider: &CryptoProvider,
    ) -> Result<Self, TlsError> {
        let file = PemFile::new("certfile", &named.certificate, files);
        let chain = file.certificates()?;
        let leaf = X509::from_der(&chain[0])
            .map_err(|error| file.error(&format!("the first certificate is invalid: {error}"), "x509"))?;
        let key_file = named.key.as_ref().map(|path| PemFile::new("keyfile", path, files));
        let key_file = key_file.as_ref().unwrap_or(&file);
        let key =
            CertifiedKey::from_der(chain, key_file.private_key()?, provider).map_err(
                |error| match error {
                    Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                        let certificate = named.certificate.display();
                        key_file.error(
                            &format!(
                                "the private key does not match the first certificate in '{certificate}'"
                            ),
                            "pkey",
                        )
                    }
                    Error::InvalidCertificate(CertificateError::BadEncoding) => {
                        file.error("the first certificate is invalid", "x509")
                    }
                    error => key_file.error(&format!("the private key cannot be used: {error}"), "pkey"),
                },
            )?;
        let validity = leaf.tbs_certificate.validity;
        let validity = CertificateValidity {
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            from: validity.not_before.to_string(),
            until: validity.not_after.to_string(),
        };
        Ok(Self { key: Arc::new(key), dns_names: dns_names(&leaf), validity })
    }
}

impl CertificateValidity {
    /// A warning for the operator, if the certificate is or will soon be invalid. It is served anyway.
    pub(crate) fn warning(&self, now: SystemTime) -> Option<String> {
        if now < self.not_before {
            return Some(format!("is not valid before {}", self.from));
        }
        match self.not_after.duration_since(now) {
            Err(_) => Some(format!("expired at {}", self.until)),
            Ok(left) if left < EXPIRES_SOON => {
                Some(format!("expires in {} days, at {}", left.as_secs() / (24 * 60 * 60), self.until))
            }
            Ok(_) => None,
        }
    }

    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        now > self.not_after
    }
}

/// The DNS names of a certificate's subjectAltName extension (RFC 5280, section 4.2.1.6).
pub(crate) fn dns_names(certificate: &X509) -> Vec<String> {
    let Ok(Some((_, SubjectAltName(names)))) = certificate.tbs_certificate.get::<SubjectAltName>() else {
        return Vec::new();
    };
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

/// A certificate in DER format, for checks that need its names.
pub(crate) fn parse(der: &CertificateDer<'_>) -> Option<X509> {
    X509::from_der(der).ok()
}
