//! A complete request: its head, its body, and where it came from.
//!
//! The head's bytes and a body small enough for memory share the one buffer they were received in; nothing is copied.

use std::{
    any::Any,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak, atomic::Ordering},
    time::Instant,
};

use mlws_http1::{Head, Length, RequestInfo, ResponseHead, Version};

use crate::{
    RequestBody, Writer,
    connection::socket::{ClientSocket, PeerState},
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
    /// Who the client is, if the app knows better than the connection.
    pub(crate) told_client: Option<Box<Peer>>,
    pub(crate) kept: Option<Box<dyn Any + Send>>,
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
            told_client: None,
            kept: None,
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

    /// The path as sent, percent-encoded; empty where an absolute target has none.
    pub fn path(&self) -> &[u8] {
        self.head.path.of(self.bytes())
    }

    /// What follows `?` in the target, or nothing.
    pub fn query(&self) -> &[u8] {
        self.head.query.of(self.bytes())
    }

    /// The authority the client asked for: that of an absolute target, else the Host field.
    pub fn host(&self) -> Option<&[u8]> {
        self.head.host.map(|span| span.of(self.bytes()))
    }

    /// The first field of this name, in any case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.head.field(self.bytes(), name)
    }

    /// All fields in the order sent.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head.fields.iter().map(|field| (field.name.of(self.bytes()), field.value.of(self.bytes())))
    }

    /// HTTP/1.0 or HTTP/1.1.
    pub fn version(&self) -> Version {
        self.head.version
    }

    /// Whether the body was sent with the chunked transfer coding. It is decoded, so only the field still names the coding.
    pub fn is_chunked(&self) -> bool {
        self.head.body == Length::Chunked
    }

    /// The body: `Read` and `BufRead`. If it is not complete (see [`Settings::body_buffer`](crate::Settings::body_buffer)), reading waits for
    /// the client, with the deadline of [`Settings::body_timeout`](crate::Settings::body_timeout).
    pub fn body(&mut self) -> &mut RequestBody {
        &mut self.body
    }

    /// Takes the body out, with the bytes of the head; until [`put_body`](Self::put_body) the request's fields are empty.
    pub fn take_body(&mut self) -> RequestBody {
        std::mem::take(&mut self.body)
    }

    /// Puts back what [`take_body`](Self::take_body) took.
    pub fn put_body(&mut self, body: RequestBody) {
        self.body = body;
    }

    /// Why the rest of the body could not be received, if reading it has failed for the client's fault.
    pub fn upload_failure(&self) -> Option<Failure> {
        self.upload.as_ref().and_then(|upload| upload.failure())
    }

    /// The same, to be asked for later.
    pub fn upload_failures(&self) -> Option<Failures> {
        self.upload.clone().map(Failures)
    }

    /// The client's address, as text: an IP address, or nothing for a Unix socket or where it is not known.
    pub fn peer_address(&self) -> &str {
        &self.peer().address
    }

    /// The client's port; 0 where there is none, or it is not known.
    pub fn peer_port(&self) -> u16 {
        self.peer().port
    }

    /// Whether this comes from one of [`Settings::trusted`](crate::Settings::trusted), whose word may be taken for who the client is.
    pub fn peer_is_trusted(&self) -> bool {
        self.socket.peer.is_trusted
    }

    /// Where the client has connected to, if a PROXY header has told that and the client's address.
    pub fn proxy_destination(&self) -> Option<SocketAddr> {
        self.socket.peer.destination
    }

    /// Says who the client of this request is, for all who ask from now on: the log, too.
    pub fn set_remote_addr(&mut self, address: Option<IpAddr>, port: u16) {
        self.told_client = Some(Box::new(Peer::new(address, port)));
    }

    /// Closes the connection behind the answer.
    pub fn disable_keep_alive(&mut self) {
        self.head.keep_alive = false;
    }

    /// A handle to ask whether the client is still there, also while the response is under way.
    pub fn client(&self) -> Client {
        Client(Arc::downgrade(&self.socket))
    }

    /// Which of the server's listeners (by index) accepted the connection.
    pub fn listener(&self) -> usize {
        self.socket.listener
    }

    /// When the first byte of this request was read.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Starts the response and hands out a [`Writer`] that sends pieces as they come. For applications that must push (WSGI's
    /// `write()`); others return a [`Response`](crate::Response) and let the server pull.
    pub fn start(&mut self, head: ResponseHead) -> Writer {
        Writer::start(&self.socket, head, self.response_info(), None)
    }

    /// Shows that the application is alive: the time of [`Settings::timeout`](crate::Settings::timeout) starts again.
    pub fn restart_timeout(&self) {
        self.socket.restart_call_timer(Instant::now());
    }

    /// Whether nobody waits for the response any more: the client has reset its connection, or closed its side more than a second
    /// after its request.
    pub fn client_has_given_up(&self) -> bool {
        self.socket.client_has_given_up()
    }

    /// The next piece is an event that may take as long as it likes, where other threads or processes are left to serve.
    pub fn wait_for_events(&self) {
        if self.socket.context.settings.concurrency.may_wait_for_events() {
            self.socket.suspend_call_timer();
        }
    }

    /// A buffer of the connection to write the response's head into, for [`ResponseHead::with_buffer`].
    pub fn take_buffer(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Keeps something of the app's with the request until it is logged.
    pub fn keep(&mut self, kept: Box<dyn Any + Send>) {
        self.kept = Some(kept);
    }

    /// What was kept last.
    pub fn kept(&self) -> Option<&(dyn Any + Send)> {
        self.kept.as_deref()
    }

    /// What the framing of the response depends on. From here on `100 Continue` is not sent any more.
    pub(crate) fn response_info(&self) -> RequestInfo {
        let context = &self.socket.context;
        let can_be_kept = self.upload.as_ref().is_none_or(|upload| upload.begin_response());
        RequestInfo {
            is_head: self.is_head,
            version: self.head.version,
            keep_alive: can_be_kept
                && self.head.keep_alive
                && !context.draining.load(Ordering::Relaxed)
                && !self.socket.closes
                && !context.settings.keep_alive.is_zero(),
        }
    }

    fn peer(&self) -> &Peer {
        self.told_client.as_deref().unwrap_or(&self.socket.peer)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.body.bytes
    }
}

/// The client of a request. It may be kept for ever: it holds no connection open.
#[derive(Debug, Clone)]
pub struct Client(Weak<ClientSocket>);

impl Client {
    /// Whether the client has closed its connection, as far as the system has heard of it: a system call that does not block.
    ///
    /// On TCP, one that has only said that it sends no more (a half-close) looks the same: true means that probably nobody waits
    /// for an answer, false that nothing has been heard of an end.
    pub fn is_gone(&self) -> bool {
        self.0.upgrade().is_none_or(|socket| socket.peer_state() != PeerState::Open)
    }
}

/// Tells of a request, also after it was answered, whether reading its body has failed.
#[derive(Clone)]
pub struct Failures(Arc<Upload>);

impl Failures {
    /// See [`Request::upload_failure`].
    pub fn get(&self) -> Option<Failure> {
        self.0.failure()
    }
}
