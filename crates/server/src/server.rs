//! [`Server`]: listeners, settings and an app. [`HttpServer`] and [`HttpForkServer`]: the same for one address and a
//! callback.

use std::{io, net::ToSocketAddrs, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::{
    Address, App, Command, Concurrency, Listener, Outcome, Request, Response, ServerEvent, Settings,
    command::CommandSource, context::ServerContext, event_loop::EventLoop, fork::run_warmup_request,
    thread_pool::ThreadPool,
};

/// The default backlog of a listening socket.
const BACKLOG: i32 = 2048;

/// A server: serves an [`App`] on its listeners until a command stops it.
pub struct Server {
    listeners: Vec<Listener>,
    settings: Settings,
    app: Arc<dyn App>,
    command_sources: Vec<CommandSource>,
    on_event: Box<dyn Fn(ServerEvent) + Send + Sync>,
}

impl Server {
    /// Creates a server. [`run`](Self::run) starts it.
    pub fn new(listeners: Vec<Listener>, settings: Settings, app: Arc<dyn App>) -> Self {
        Self { listeners, settings, app, command_sources: Vec::new(), on_event: Box::new(|_| ()) }
    }

    /// Adds a source of commands. When `descriptor` is readable, the server calls `receive` until it returns `None`,
    /// and handles each command.
    #[must_use]
    pub fn command_source(
        mut self,
        descriptor: OwnedFd,
        receive: Box<dyn FnMut() -> Option<Command> + Send>,
    ) -> Self {
        self.command_sources.push(CommandSource { descriptor, receive });
        self
    }

    /// Calls `on_event` for each event. It runs in a thread of the server that may run the event loop. So it must not
    /// wait for the app, and must not block except for [`ServerEvent::CallTimedOut`] and [`ServerEvent::Exiting`].
    #[must_use]
    pub fn on_event(mut self, on_event: Box<dyn Fn(ServerEvent) + Send + Sync>) -> Self {
        self.on_event = on_event;
        self
    }

    /// Calls the app in this thread for a GET of `target` that no client sent, and returns the status of its response,
    /// such as `200 OK`. In a server that forks, children then need not repeat what the app does only once. The request
    /// is not logged.
    pub fn run_warmup_request(&self, target: &str) -> io::Result<String> {
        let (name, port) = self.listeners.first().map(Listener::server_name_and_port).unwrap_or_default();
        let settings = Settings { proxy_protocol: None, ..self.settings.clone() };
        let context = ServerContext::new(settings, false, Arc::default());
        run_warmup_request(&self.app, Arc::new(context), target, &format!("{name}:{port}"))
    }

    /// Serves until a command stops the server.
    ///
    /// # Errors
    ///
    /// If the system cannot create the poll set, a thread or shared memory.
    pub fn run(self) -> io::Result<Outcome> {
        let context =
            Arc::new(ServerContext::new(self.settings, self.app.wants_log(), self.app.wants_head()));
        let mut event_loop =
            EventLoop::new(self.listeners, self.command_sources, Arc::clone(&context), &self.app)?;
        if self.app.wants_child_exits() {
            event_loop.record_child_exits();
        }
        Arc::new(ThreadPool::new(event_loop, self.app, self.on_event, context)?).run()
    }
}

/// An HTTP server for one address and a callback.
///
/// ```no_run
/// use mlws_server::{HttpServer, Response};
///
/// HttpServer::bind("127.0.0.1:8080")?.serve(|_request| Response::text("Hello, World!\n"))?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct HttpServer {
    listener: Listener,
    settings: Settings,
}

impl HttpServer {
    /// Binds `address`, such as `"127.0.0.1:8080"`. Port 0 selects a free port.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::InvalidInput)?;
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        // No supervisor replaces the process after a timeout.
        let settings = Settings { timeout: None, ..Settings::default() };
        Ok(Self { listener: Listener::bind(&address, BACKLOG)?, settings })
    }

    /// Runs the callback on this many threads. Defaults to 1: the thread of the event loop runs it.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.settings.concurrency =
            if threads > 1 { Concurrency::Threads(threads) } else { Concurrency::Inline };
        self
    }

    /// Changes any of the [`Settings`].
    #[must_use]
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The URL with the actual port, such as `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// Calls `callback` for every request. Returns only on errors.
    pub fn serve(
        self,
        callback: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<()> {
        Server::new(vec![self.listener], self.settings, Arc::new(callback)).run().map(|_| ())
    }
}

/// Like [`HttpServer`], but each *request* runs in its own process.
///
/// The calling process must have one thread.
#[derive(Debug)]
pub struct HttpForkServer(HttpServer);

impl HttpForkServer {
    /// Binds `address`, as [`HttpServer::bind`] does.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self(HttpServer::bind(address)?.settings(|settings| {
            settings.concurrency = Concurrency::Fork { children: 64 };
            settings.timeout = Some(Duration::from_secs(30));
        })))
    }

    /// The maximum number of children. Defaults to 64; further requests wait.
    #[must_use]
    pub fn children(mut self, limit: usize) -> Self {
        if let Concurrency::Fork { children } = &mut self.0.settings.concurrency {
            *children = limit;
        }
        self
    }

    /// How long each call of the callback may take. Defaults to 30 seconds. Then its child is killed, and the client
    /// gets 504.
    #[must_use]
    pub fn timeout(mut self, limit: Option<Duration>) -> Self {
        self.0.settings.timeout = limit;
        self
    }

    /// The URL with the actual port.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Calls `callback` for every request, in a child process. Returns only on errors.
    pub fn serve(
        self,
        callback: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<()> {
        self.0.serve(callback)
    }
}
