//! The fields of a client certificate that applications see, under the names of Apache's `mod_ssl`.

use std::{borrow::Cow, fmt::Write as _};

use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::{EncodePem, asn1::ObjectIdentifier, pem::LineEnding},
};

use crate::certificate::{dns_names, parse};

/// The attribute type `commonName` (RFC 5280, appendix A).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A verified client certificate.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    /// The variables of the environ, such as `SSL_CLIENT_S_DN`, with their values.
    pub variables: Vec<(Cow<'static, str>, String)>,
}

impl ClientCertificate {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Option<Self> {
        let parsed = parse(der)?;
        let certificate = &parsed.tbs_certificate;
        let mut serial = String::new();
        for byte in certificate.serial_number.as_bytes() {
            let _ = write!(serial, "{byte:02X}"); // a String accepts everything
        }
        let mut variables: Vec<(Cow<'static, str>, String)> = vec![
            ("SSL_CLIENT_CERT".into(), parsed.to_pem(LineEnding::LF).unwrap_or_default()),
            ("SSL_CLIENT_S_DN".into(), certificate.subject.to_string()),
            ("SSL_CLIENT_I_DN".into(), certificate.issuer.to_string()),
            ("SSL_CLIENT_M_SERIAL".into(), serial),
            ("SSL_CLIENT_V_START".into(), certificate.validity.not_before.to_string()),
            ("SSL_CLIENT_V_END".into(), certificate.validity.not_after.to_string()),
        ];
        variables.extend(common_name(&parsed).map(|name| ("SSL_CLIENT_S_DN_CN".into(), name)));
        let names = dns_names(&parsed).into_iter().enumerate();
        variables.extend(names.map(|(index, name)| (format!("SSL_CLIENT_SAN_DNS_{index}").into(), name)));
        Some(Self { variables })
    }
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let mut names = certificate.tbs_certificate.subject.0.iter().flat_map(|name| name.0.iter());
    let name = names.rfind(|attribute| attribute.oid == COMMON_NAME)?;
    std::str::from_utf8(name.value.value()).ok().map(str::to_owned)
}
