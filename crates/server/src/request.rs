//! A request: its head, its body, and its client.
//!
//! The head and a body that fits into memory share the buffer in which they were received. Nothing is copied.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Instant,
};

use mlws_tls::SessionFacts;

use mlws_http1::{Head, InterimHead, Length, RequestInfo, ResponseHead, Version};

use crate::{
    RequestBody, Writer,
    connection::{socket::ClientSocket, tls_transport::TlsTransport, transport::PeerState},
    interim,
    peer::Peer,
    upload::{Failure, Upload},
};

/// One request. Field names and values are bytes as the client sent them.
pub struct Request {
    pub(crate) head: Head,
    pub(crate) body: RequestBody,
    pub(crate) socket: Arc<ClientSocket>,
    pub(crate) began: Instant,
    pub(crate) is_head: bool,
    /// A spare buffer for the head of the response.
    pub(crate) buffer: Vec<u8>,
    /// The client, if the app has determined it from forwarding fields.
    pub(crate) client_override: Option<Box<Peer>>,
    pub(crate) log_context: Option<Box<dyn Any + Send>>,
    /// Set if the app was called before the body was complete.
    pub(crate) upload: Option<Arc<Upload>>,
}

impl Request {
    pub(crate) fn new(socket: Arc<ClientSocket>, now: Instant) -> Self {
        Self {
            head: Head::default(),
            body: RequestBody::default(),
            socket,
            began: now,
            is_head: false,
            buffer: Vec::new(),
            client_override: None,
            log_context: None,
            upload: None,
        }
    }

    /// The method, such as `GET`: a token, never empty.
    pub fn method(&self) -> &str {
        self.head.method(self.bytes())
    }

    /// The request target exactly as sent.
    pub fn target(&self) -> &str {
        self.head.target(self.bytes())
    }

    /// The path as sent, percent-encoded. Empty if an absolute target has none.
    pub fn path(&self) -> &[u8] {
        self.head.path.of(self.bytes())
    }

    /// The part of the target after `?`. Empty if there is none.
    pub fn query(&self) -> &[u8] {
        self.head.query.of(self.bytes())
    }

    /// The requested authority: that of an absolute target, otherwise the Host field.
    pub fn host(&self) -> Option<&[u8]> {
        self.head.host.map(|span| span.of(self.bytes()))
    }

    /// The value of the first field with this name, compared without regard to case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.field(self.bytes(), name)
    }

    /// All fields, in the order in which they were sent.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head.fields.iter().map(|field| (field.name.of(self.bytes()), field.value.of(self.bytes())))
    }

    /// HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Whether the body was sent with the chunked transfer coding. The body is decoded; only the field still names the
    /// coding.
    pub fn is_chunked(&self) -> bool {
        self.head.body == Length::Chunked
    }

    /// The body: `Read` and `BufRead`. If it is not complete (see [`Settings::body_buffer`](crate::Settings::body_buffer)), reading waits for
    /// the client, with the deadline of [`Settings::body_timeout`](crate::Settings::body_timeout).
    pub fn body(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// Takes the body out, together with the bytes of the head. The request has no fields until
    /// [`put_body`](Self::put_body).
    pub fn take_body(&mut self) -> RequestBody {
        std::mem::take(&mut self.body)
    }

    /// Puts the body back that [`take_body`](Self::take_body) took.
    pub fn put_body(&mut self, body: RequestBody) {
        self.body = body;
    }

    /// Why the rest of the body could not be received, if the client caused that.
    pub fn upload_failure(&self) -> Option<Failure> {
        self.upload.as_ref().and_then(|upload| upload.failure())
    }

    /// The same, for use after the response.
    pub fn upload_failures(&self) -> Option<Failures> {
        self.upload.clone().map(Failures)
    }

    /// The client's IP address as text. Empty for a Unix socket, or if it is unknown.
    pub fn peer_address(&self) -> &str {
        &self.peer().address
    }

    /// The client's port. 0 if it is unknown.
    pub fn peer_port(&self) -> u16 {
        self.peer().port
    }

    /// Whether the peer is one of [`Settings::trusted`](crate::Settings::trusted), so that its forwarding fields may be
    /// used.
    pub fn peer_is_trusted(&self) -> bool {
        self.socket.peer.is_trusted
    }

    /// The address that the client connected to, if a PROXY header named it.
    pub fn proxy_destination(&self) -> Option<SocketAddr> {
        self.socket.peer.destination
    }

    /// What the TLS handshake has negotiated. `None` without TLS.
    pub fn tls(&self) -> Option<&SessionFacts> {
        self.socket.tls().and_then(TlsTransport::facts)
    }

    /// Sets the client of this request, for the app and the access log.
    pub fn set_remote_addr(&mut self, address: Option<IpAddr>, port: u16) {
        self.client_override = Some(Box::new(Peer::new(address, port)));
    }

    /// Logs that the request is rejected with this status. Of many rejections within a second, only the first are logged.
    pub fn log_rejection(&self, status: u16, reason: &str) {
        self.socket.log_rejection(self.peer().name(), status, reason);
    }

    /// Closes the connection after the response.
    pub fn disable_keep_alive(&mut self) {
        self.head.keep_alive = false;
    }

    /// A handle that returns whether the client is still connected. It may outlive the request.
    pub fn client(&self) -> Client {
        Client(Arc::downgrade(&self.socket))
    }

    /// The index of the listener that accepted the connection.
    pub fn listener(&self) -> usize {
        self.socket.listener
    }

    /// When the first byte of this request was read.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Starts the response and returns a [`Writer`] for its chunks. For applications that must push (WSGI's `write()`).
    /// Others return a [`Response`](crate::Response), which the server pulls.
    pub fn start(&mut self, head: ResponseHead) -> Writer {
        Writer::start(&self.socket, head, self.response_info(), None)
    }

    /// Sends an interim response immediately. Does nothing for HTTP/1.0, which has none, and once something of the
    /// response has been sent. Must not be called after [`start`](Self::start). If this must wait for the client, `wait`
    /// is called to run a function that blocks.
    pub fn send_interim(&mut self, head: InterimHead, wait: impl FnOnce(&mut (dyn FnMut() + Send))) {
        if self.head.version != Version::Http10 {
            interim::send(&self.socket, head.status(), &head.finish(), wait);
        }
    }

    /// Shows that the application is alive: restarts the time of [`Settings::timeout`](crate::Settings::timeout).
    pub fn restart_timeout(&self) {
        self.socket.restart_call_timer(Instant::now());
    }

    /// Whether the client no longer waits for the response: it has reset the connection, or closed its side more than a
    /// second after its request.
    pub fn client_has_given_up(&self) -> bool {
        self.socket.client_has_given_up()
    }

    /// The next chunk is a server-sent event, for which the application may wait without a time limit, if other threads
    /// or processes can serve.
    pub fn wait_for_events(&self) {
        if self.socket.context.settings.concurrency.may_wait_for_events() {
            self.socket.suspend_call_timer();
        }
    }

    /// A buffer of the connection for the head of the response, for [`ResponseHead::with_buffer`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Stores a value of the app with the request until it is logged.
    pub fn set_log_context(&mut self, context: Box<dyn Any + Send>) {
        self.log_context = Some(context);
    }

    /// The value stored last.
    pub fn log_context(&self) -> Option<&(dyn Any + Send)> {
        self.log_context.as_deref()
    }

    /// What the framing of the response depends on. From now on `100 Continue` is not sent.
    pub(crate) fn response_info(&self) -> RequestInfo {
        let context = &self.socket.context;
        let can_be_kept = self.upload.as_ref().is_none_or(|upload| upload.begin_response());
        RequestInfo {
            is_head: self.is_head,
            version: self.head.version,
            keep_alive: can_be_kept
                && self.head.keep_alive
                && !self.socket.must_close()
                && !context.settings.keep_alive.is_zero(),
        }
    }

    fn peer(&self) -> &Peer {
        self.client_override.as_deref().unwrap_or(&self.socket.peer)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body.bytes
    }
}

/// The client of a request. Keeping it does not keep the connection open.
#[derive(Debug, Clone)]
pub struct Client(Weak<ClientSocket>);

impl Client {
    /// Whether the client has closed its side of the connection, as far as the kernel knows. A system call that does
    /// not block.
    ///
    /// TCP does not distinguish a client that has only half-closed its side. So true means that the client probably
    /// does not wait for a response.
    pub fn is_gone(&self) -> bool {
        self.0.upgrade().is_none_or(|socket| socket.peer_state() != PeerState::Open)
    }
}

/// Whether reading the body of a request has failed. Available after the response, too.
#[derive(Clone)]
pub struct Failures(Arc<Upload>);

impl Failures {
    /// See [`Request::upload_failure`].
    pub fn get(&self) -> Option<Failure> {
        self.0.failure()
    }

    /// Like [`Request::log_rejection`], for a request that is rejected because of this failure.
    pub fn log_rejection(&self, failure: &Failure) {
        if let Some(socket) = self.0.socket() {
            socket.log_rejection(socket.peer.name(), failure.status, &failure.to_string());
        }
    }
}
