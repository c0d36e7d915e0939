//! The header of the PROXY protocol at the beginning of a connection.

use std::sync::Arc;

use mlws_http1::{ProxyError, ProxyHeader};

use super::{Connection, Http2Choice, Phase, read::HttpError};
use crate::peer::Peer;

impl Connection {
    /// Parses the PROXY header, which replaces the peer. Returns false if more bytes are needed.
    pub(super) fn parse_proxy_header(&mut self) -> Result<bool, HttpError> {
        let socket = &self.request.socket;
        let Some(protocol) = &socket.context.settings.proxy_protocol else { return Ok(true) };
        let is_proxy = socket.peer.is_in(&protocol.from);
        let parsed = ProxyHeader::parse(&self.request.body.bytes, protocol.versions);
        let (header, length) = match parsed {
            Ok(None) => return Ok(false),
            Ok(Some(parsed)) if is_proxy => parsed,
            Err(ProxyError::Missing) if !is_proxy => (ProxyHeader::Local, 0),
            Err(error) if is_proxy => return Err(HttpError { status: 400, message: error.to_string() }),
            _ => {
                let message = "this peer may not send a PROXY header".into();
                return Err(HttpError { status: 403, message });
            }
        };
        self.phase = Phase::first(socket);
        if is_proxy {
            self.http2_choice = Http2Choice::PossibleForProxy;
        }
        self.request.body.bytes.drain(..length);
        if let Some(tls) = socket.tls() {
            tls.unread(std::mem::take(&mut self.request.body.bytes));
        }
        let trusted = &socket.context.settings.trusted;
        let peer = match header {
            ProxyHeader::Local => return Ok(true),
            // The client is unknown, but it is not the trusted proxy.
            ProxyHeader::Unknown => Peer { is_trusted: false, ..socket.peer.clone() },
            ProxyHeader::Tcp { source, destination } => {
                let peer = Peer::new(Some(source.ip()), source.port());
                Peer { is_trusted: peer.is_in(trusted), destination: Some(destination), ..peer }
            }
        };
        let socket = Arc::get_mut(&mut self.request.socket);
        socket
            .map(|socket| socket.peer = peer)
            .ok_or_else(|| HttpError { status: 500, message: "the connection is in use".into() })?;
        Ok(true)
    }
}
