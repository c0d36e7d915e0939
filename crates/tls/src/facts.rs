//! What a handshake has negotiated, in the words that applications see.

use rustls::{HandshakeKind, ProtocolVersion, ServerConnection};

use crate::{cipher_suites::openssl_name, client_certificate::ClientCertificate};

/// Facts about an established session. They do not change.
#[derive(Debug, Clone)]
pub struct SessionFacts {
    /// `TLSv1.2` or `TLSv1.3`.
    pub protocol: &'static str,
    /// OpenSSL's name of the cipher suite.
    pub cipher: String,
    /// The server name that the client sent (SNI).
    pub server_name: Option<String>,
    /// HTTP/2 was negotiated (ALPN). Otherwise the client uses HTTP/1.
    pub is_http2: bool,
    /// The session was resumed from a ticket.
    pub is_resumed: bool,
    /// The verified certificate of the client.
    pub client_certificate: Option<ClientCertificate>,
}

impl SessionFacts {
    pub(crate) fn of(connection: &ServerConnection) -> Self {
        let protocol = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        };
        let suite = connection.negotiated_cipher_suite();
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Self {
            protocol,
            cipher: suite.map(|suite| openssl_name(suite.suite())).unwrap_or_default(),
            server_name: connection.server_name().map(str::to_owned),
            is_http2: connection.alpn_protocol() == Some(b"h2"),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client_certificate: leaf.and_then(ClientCertificate::parse),
        }
    }
}
