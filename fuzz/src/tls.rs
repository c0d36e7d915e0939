//! Target `tls`: files in PEM format, cipher strings, files from another process, and what a TLS client sends.
//!
//! The first byte of the input selects which of them the rest is.

use std::path::PathBuf;
use std::sync::LazyLock;

use mlws_tls::{CertificateFiles, ClientCertificates, Session, TicketKeys, TlsConfig, TlsFiles, TlsOptions};

use crate::rng::Rng;

/// A certificate with its key, in PEM format.
static CERTIFICATE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    (signed.cert.pem() + &signed.signing_key.serialize_pem()).into_bytes()
});

static CONFIG: LazyLock<TlsConfig> = LazyLock::new(|| load(&options(), &[]).expect("a valid configuration"));

/// Checks one input.
pub fn check(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => check_session(rest),
        1 => check_pem(rest),
        2 => check_ciphers(rest),
        _ => check_files(rest),
    }
}

fn options() -> TlsOptions {
    TlsOptions {
        certificates: vec![CertificateFiles { certificate: "certificate".into(), key: None }],
        alpn_protocols: vec!["h2", "http/1.1"],
        ..TlsOptions::default()
    }
}

/// Loads a configuration whose files are the valid certificate and `other`.
fn load(options: &TlsOptions, other: &[u8]) -> Option<TlsConfig> {
    let mut encoded = Vec::new();
    for (path, content) in [("certificate", &CERTIFICATE[..]), ("other", other)] {
        for part in [path.as_bytes(), content] {
            encoded.extend_from_slice(&(part.len() as u64).to_be_bytes());
            encoded.extend_from_slice(part);
        }
    }
    let files = TlsFiles::decode(&encoded).expect("complete files");
    TlsConfig::load(options, &files, &TicketKeys::generate().expect("random numbers")).ok()
}

/// Splitting the input does not change whether the session fails.
fn check_session(bytes: &[u8]) {
    let mut rng = Rng::from_input(bytes);
    let whole = receive([bytes]);
    assert_eq!(receive(bytes.chunks(1)), whole, "receiving byte by byte gave another result");
    assert_eq!(receive(rng.split(bytes)), whole, "splitting the input gave another result");
}

/// Returns whether the session has failed, whether the handshake is complete, and the plaintext.
fn receive<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (bool, bool, Vec<u8>) {
    let mut session = Session::new(&CONFIG).expect("a session");
    let (mut plaintext, mut output) = (Vec::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let before = piece.len();
            if session.feed(&mut piece).is_err() {
                return (true, false, plaintext);
            }
            while session.has_records() {
                session.write_records(&mut output).expect("writing to memory does not fail");
            }
            let count = session.plaintext().len();
            plaintext.extend_from_slice(session.plaintext());
            session.consume(count);
            assert!(piece.len() < before || count > 0, "no progress");
        }
    }
    assert!(session.is_handshaking() || plaintext.is_empty(), "only a client with the keys can send data");
    (false, !session.is_handshaking(), plaintext)
}

/// The file in the place of each setting.
fn check_pem(bytes: &[u8]) {
    let other = PathBuf::from("other");
    let certificate = CertificateFiles { certificate: other.clone(), key: None };
    load(&TlsOptions { certificates: vec![certificate], ..options() }, bytes);
    let key = CertificateFiles { certificate: "certificate".into(), key: Some(other.clone()) };
    load(&TlsOptions { certificates: vec![key], ..options() }, bytes);
    let clients = TlsOptions {
        ca_certs: Some(other.clone()),
        client_certificates: ClientCertificates::Required,
        ..options()
    };
    load(&clients, bytes);
    let revoked = TlsOptions { ca_certs: Some("certificate".into()), crl: Some(other), ..clients };
    load(&revoked, bytes);
}

/// A cipher string leaves something that can be used, or is an error.
fn check_ciphers(bytes: &[u8]) {
    let ciphers = Some(String::from_utf8_lossy(bytes).into_owned());
    if let Some(config) = load(&TlsOptions { ciphers, ..options() }, &[]) {
        Session::new(&config).expect("a session");
    }
}

/// What can be decoded is encoded as the same files again.
fn check_files(bytes: &[u8]) {
    if let Some(files) = TlsFiles::decode(bytes) {
        let encoded = files.encode();
        assert!(TlsFiles::decode(&encoded).is_some_and(|again| again == files), "the files have changed");
    }
}
