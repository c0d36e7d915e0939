//! The verification of client certificates.

use std::{path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    error::TlsError,
    files::TlsFiles,
    options::{ClientCertificates, TlsOptions},
    pem_file::PemFile,
};

/// The verifier. With a revocation list, every certificate of a chain must be covered by one, as in nginx.
///
/// # Errors
///
/// If certificates are requested without a CA, or a file cannot be used.
pub(crate) fn verifier(
    options: &TlsOptions,
    files: &TlsFiles,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    if options.client_certificates == ClientCertificates::None {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let Some(path) = &options.ca_certs else {
        return Err(TlsError("cert_reqs requires ca_certs: the CAs that issue client certificates".into()));
    };
    let roots = Arc::new(roots(path, files)?);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if let Some(path) = &options.crl {
        builder = builder.with_crls(PemFile::new("crl", path, files).revocation_lists()?);
    }
    if options.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| TlsError(format!("client certificates cannot be verified: {error}")))
}

fn roots(path: &Path, files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let file = PemFile::new("ca_certs", path, files);
    let mut roots = RootCertStore::empty();
    for certificate in file.certificates()? {
        roots
            .add(certificate)
            .map_err(|error| file.error(&format!("not a CA certificate: {error}"), "x509"))?;
    }
    Ok(roots)
}
