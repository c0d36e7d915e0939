//! Sessions against rustls' own client, in memory.

use std::{io::Read, sync::Arc};

use proptest::prelude::*;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};

use super::*;
use crate::{
    CertificateFiles, TicketKeys,
    files::TlsFiles,
    options::{MinVersion, TlsOptions},
};

/// A server's configuration and a client that accepts its certificate.
struct Pair {
    config: TlsConfig,
    client: Arc<ClientConfig>,
}

fn pair(versions: &[&'static rustls::SupportedProtocolVersion]) -> Pair {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".into()]).unwrap();
    let files = TlsFiles::of([
        ("cert.pem", cert.pem().into_bytes()),
        ("key.pem", signing_key.serialize_pem().into_bytes()),
    ]);
    let certificate = CertificateFiles { certificate: "cert.pem".into(), key: Some("key.pem".into()) };
    let options = TlsOptions {
        certificates: vec![certificate],
        min_version: MinVersion::Tls12,
        alpn_protocols: vec!["h2", "http/1.1"],
        ..TlsOptions::default()
    };
    let config = TlsConfig::load(&options, &files, &TicketKeys::generate().unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Pair { config, client: Arc::new(client) }
}

impl Pair {
    fn connect(&self) -> (Session, ClientConnection) {
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::clone(&self.client), name).unwrap();
        (Session::new(&self.config).unwrap(), client)
    }
}

/// Feeds `bytes` in pieces of `step` bytes, and returns the plaintext.
fn feed(session: &mut Session, bytes: &[u8], step: usize) -> Result<Vec<u8>, SessionError> {
    let mut received = Vec::new();
    for mut piece in bytes.chunks(step) {
        loop {
            session.feed(&mut piece)?;
            let plaintext = session.plaintext();
            if plaintext.is_empty() {
                break;
            }
            // Less than everything, as for a full buffer.
            let count = plaintext.len().div_ceil(2);
            received.extend_from_slice(&plaintext[..count]);
            session.consume(count);
        }
    }
    Ok(received)
}

fn records(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.has_records() {
        session.write_records(&mut bytes).unwrap();
    }
    bytes
}

/// Passes bytes both ways until neither side has more. Returns what each side has received.
fn exchange(session: &mut Session, client: &mut ClientConnection, step: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    loop {
        let mut to_server = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        at_server.extend(feed(session, &to_server, step).unwrap());
        let to_client = records(session);
        let mut rest = &to_client[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
            let _ = client.reader().read_to_end(&mut at_client); // WouldBlock when it is empty
        }
        if to_server.is_empty() && to_client.is_empty() {
            return (at_server, at_client);
        }
    }
}

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_the_bytes_gives_the_same_plaintext(
        step in 1_usize..20_000, length in 0_usize..100_000, version in 0_usize..2,
    ) {
        let (mut session, mut client) = pair(&BOTH[version..=version]).connect();
        exchange(&mut session, &mut client, step);
        prop_assert!(!session.is_handshaking());
        let sent: Vec<u8> = (0..length).map(|index| index as u8).collect();
        client.set_buffer_limit(None);
        client.writer().write_all(&sent).unwrap();
        let (received, _) = exchange(&mut session, &mut client, step);
        prop_assert!(received == sent);
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..600), step in 1_usize..600) {
        let (mut session, _) = pair(&BOTH).connect();
        let _ = feed(&mut session, &bytes, step);
    }
}

#[test]
fn plaintext_is_accepted_up_to_the_limit_until_records_are_taken() {
    let (mut session, mut client) = pair(&BOTH).connect();
    exchange(&mut session, &mut client, 4096);
    let large = vec![7; 3 * MAX_PENDING];
    for _ in 0..3 {
        let accepted = session.encrypt(&[IoSlice::new(&large)]);
        assert!((1..=MAX_PENDING).contains(&accepted));
        assert_eq!(session.encrypt(&[IoSlice::new(&large)]), 0);
        assert_eq!(exchange(&mut session, &mut client, 4096).1, &large[..accepted]);
    }
}

#[test]
fn facts_are_those_of_the_handshake() {
    for (version, name) in BOTH.iter().zip(["TLSv1.2", "TLSv1.3"]) {
        let pair = pair(&[version]);
        for is_resumed in [false, true] {
            let (mut session, mut client) = pair.connect();
            exchange(&mut session, &mut client, 4096);
            let facts = session.facts();
            assert_eq!((facts.protocol, facts.server_name.as_deref()), (name, Some("localhost")));
            assert_eq!(facts.is_resumed, is_resumed, "{name}");
            assert!(facts.cipher.contains("AES") && facts.client_certificate.is_none());
        }
    }
}

/// The result of a handshake with a client that offers these protocols.
fn negotiate(pair: &Pair, offers: &[&str]) -> Result<(Option<Vec<u8>>, bool), SessionError> {
    let mut client = ClientConfig::clone(&pair.client);
    client.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
    let pair = Pair { config: pair.config.clone(), client: Arc::new(client) };
    let (mut session, mut client) = pair.connect();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    feed(&mut session, &hello, 4096)?;
    let mut answer = &records(&mut session)[..];
    while !answer.is_empty() {
        client.read_tls(&mut answer).unwrap();
        client.process_new_packets().unwrap();
    }
    exchange(&mut session, &mut client, 4096);
    Ok((client.alpn_protocol().map(<[u8]>::to_vec), session.facts().is_http2))
}

#[test]
fn the_server_chooses_the_protocol_and_clients_need_not_negotiate() {
    for version in BOTH {
        let pair = pair(&[version]);
        // The second handshake of each kind is a resumption, which negotiates again.
        for (offers, protocol) in [
            (&["http/1.1", "h2"][..], Some(&b"h2"[..])),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&["http/0.9", "http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let negotiated = negotiate(&pair, offers).unwrap();
            assert_eq!(negotiated, (protocol.map(<[u8]>::to_vec), protocol == Some(b"h2")), "{offers:?}");
        }
    }
}

#[test]
fn a_client_without_a_common_protocol_gets_an_alert() {
    for version in BOTH {
        let error = negotiate(&pair(&[version]), &["h3", "spdy/1"]).unwrap_err();
        assert!(error.to_string().contains("any known protocol"), "{error}");
    }
}

#[test]
fn an_announced_end_is_the_end_of_the_input_and_what_follows_is_discarded() {
    let (mut session, mut client) = pair(&BOTH).connect();
    exchange(&mut session, &mut client, 4096);
    client.writer().write_all(b"last").unwrap();
    client.send_close_notify();
    let (received, _) = exchange(&mut session, &mut client, 4096);
    assert_eq!((received.as_slice(), session.peer_has_closed()), (&b"last"[..], true));
    let mut more = &b"anything"[..];
    session.feed(&mut more).unwrap();
    assert!(more.is_empty() && session.plaintext().is_empty());
}

#[test]
fn what_is_no_tls_is_an_error_with_an_alert() {
    let (mut session, _) = pair(&BOTH).connect();
    let error = feed(&mut session, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 4096).unwrap_err();
    assert!(!error.concerns_client_certificate() && !error.to_string().is_empty());
    assert_eq!(records(&mut session)[0], 0x15, "an alert");
}

#[test]
fn a_renewed_certificate_is_for_new_connections() {
    let (old, new) = (pair(&BOTH), pair(&BOTH));
    let mut config = old.config.clone();
    let (mut session, mut client) = old.connect();
    config.replace(new.config.clone());
    exchange(&mut session, &mut client, 4096);
    let renewed = Pair { config: old.config, client: new.client };
    let (mut session, mut client) = renewed.connect();
    exchange(&mut session, &mut client, 4096);
    assert!(!session.is_handshaking());
}
