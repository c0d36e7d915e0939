//! Files in PEM format (RFC 7468).

use std::path::Path;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject};

use crate::{error::TlsError, files::TlsFiles};

/// A file that has been read.
pub(crate) struct PemFile<'a> {
    /// The setting that names the file.
    setting: &'a str,
    path: &'a Path,
    bytes: &'a [u8],
}

impl<'a> PemFile<'a> {
    pub(crate) fn new(setting: &'a str, path: &'a Path, files: &'a TlsFiles) -> Self {
        Self { setting, path, bytes: files.content(path) }
    }

    /// All certificates, in the order of the file: at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.missing("certificate", "x509")),
            Err(error) => Err(self.error(&format!("invalid PEM: {error}"), "x509")),
        }
    }

    /// The first private key: PKCS#8, PKCS#1 or SEC1.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        if let Ok(key) = PrivateKeyDer::from_pem_slice(self.bytes) {
            return Ok(key);
        }
        let text = String::from_utf8_lossy(self.bytes);
        if text.contains("ENCRYPTED") {
            let path = self.path.display();
            return Err(TlsError(format!(
                "{} '{path}': the private key is encrypted; decrypt it with: openssl pkey -in {path} -out key.pem",
                self.setting
            )));
        }
        Err(self.missing("private key", "pkey"))
    }

    /// All revocation lists: at least one.
    pub(crate) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(self.bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(self.missing("revocation list", "crl")),
            Err(error) => Err(self.error(&format!("invalid PEM: {error}"), "crl")),
        }
    }

    fn missing(&self, wanted: &str, command: &str) -> TlsError {
        let labels = self.labels();
        let found = if labels.is_empty() {
            "it is not a PEM file".into()
        } else {
            format!("it contains only: {}", labels.join(", "))
        };
        self.error(&format!("no {wanted} found, {found}"), command)
    }

    /// An error with the command that shows what the file contains.
    pub(crate) fn error(&self, what: &str, command: &str) -> TlsError {
        let (setting, path) = (self.setting, self.path.display());
        TlsError(format!(
            "{setting} '{path}': {what}; inspect it with: openssl {command} -in {path} -noout -text"
        ))
    }

    /// The labels of the blocks, such as `PRIVATE KEY`.
    fn labels(&self) -> Vec<String> {
        let text = String::from_utf8_lossy(self.bytes);
        let labels =
            text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        labels.map(str::to_owned).collect()
    }
}
