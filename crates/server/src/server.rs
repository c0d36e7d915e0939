//! Puts the parts together: listeners, settings, an app, and whoever may give commands_of_source.

use std::{io, net::ToSocketAddrs, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::{
    Address, App, Concurrency, Listener, Request, Response, Settings,
    context::ServerContext,
    event_loop::{CommandSource, EventLoop},
    fork::run_warmup_request,
    thread_pool::ThreadPool,
};

/// The backlog of a listening socket that nobody gave a number for.
const BACKLOG: i32 = 2048;

/// What a server can be told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Accept no more, hand idle connections over to other workers ([`Settings::handover`]), finish what runs, then return. May be
    /// followed by `Drain` when those end, too.
    HandOver,
    /// Accept no more, finish what runs, then return. An idle connection gets one more answer.
    Drain,
    /// Return at once; connections are cut, children killed.
    Stop,
}

/// What a server tells its owner, each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    /// All threads exist, and the server serves from now on.
    Serving,
    /// A call has been inside the app for longer than the timeout. Its client is answered, but the thread is stuck: the process should be
    /// replaced. With one thread it ends by itself within a second, with [`STUCK`](crate::STUCK).
    CallTimedOut,
    /// `max_requests` or `max_rss` is reached. The server serves on until it is told to drain.
    RecycleLimitReached,
    /// The process is about to exit without returning from [`Server::run`], because the thread that called it is busy in the app or
    /// another one is stuck there. The last chance to write what is still buffered. The callback runs in a thread that must not wait
    /// for the app. It may block for a moment.
    Exiting,
}

/// How a server ended that was ordered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it is left.
    Finished,
    /// A thread is stuck in the app, so the process can only be [left](crate::leave).
    Stuck,
}

/// A server: serves an [`App`] on its listeners until ordered to end.
pub struct Server {
    listeners: Vec<Listener>,
    settings: Settings,
    app: Arc<dyn App>,
    watches: Vec<CommandSource>,
    notice: Box<dyn Fn(ServerEvent) + Send + Sync>,
}

impl Server {
    /// A server that has not started yet.
    pub fn new(listeners: Vec<Listener>, settings: Settings, app: Arc<dyn App>) -> Self {
        Self { listeners, settings, app, watches: Vec::new(), notice: Box::new(|_| ()) }
    }

    /// Asks `commands_of_source` whenever `descriptor` is readable, until it answers `None`.
    #[must_use]
    pub fn watch(
        mut self,
        descriptor: OwnedFd,
        commands_of_source: Box<dyn FnMut() -> Option<Command> + Send>,
    ) -> Self {
        self.watches.push(CommandSource { descriptor, commands_of_source });
        self
    }

    /// Calls `notice` when there is something that the owner should know. It runs in a thread of the server, which may hold the event
    /// loop, so it must not wait for the app, and except for [`ServerEvent::CallTimedOut`] and [`ServerEvent::Exiting`] must not block.
    #[must_use]
    pub fn on_notice(mut self, notice: Box<dyn Fn(ServerEvent) + Send + Sync>) -> Self {
        self.notice = notice;
        self
    }

    /// Has the app answer a GET of `target` that no client sent, in the calling thread, and forgets the answer but for its status,
    /// such as `200 OK`. For a server that forks: what the app does only once, no child has to do again. It is not in the access log.
    pub fn run_warmup_request(&self, target: &str) -> io::Result<String> {
        let (name, port) = self.listeners.first().map(Listener::server_name_and_port).unwrap_or_default();
        let settings = Settings { proxy_protocol: None, ..self.settings.clone() };
        let context = ServerContext::new(settings, false, false);
        run_warmup_request(&*self.app, Arc::new(context), target, &format!("{name}:{port}"))
    }

    /// Serves until ordered to end. Errors only where the system refuses a poll set, a thread or a shared page.
    pub fn run(self) -> io::Result<Outcome> {
        let context =
            Arc::new(ServerContext::new(self.settings, self.app.wants_log(), self.app.wants_head()));
        let event_loop = EventLoop::new(self.listeners, self.watches, Arc::clone(&context))?;
        Arc::new(ThreadPool::new(event_loop, self.app, self.notice, context)?).run()
    }
}

/// The HTTP floor at its smallest: an address and a callback.
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
    /// Binds `address`, such as `"127.0.0.1:8080"`; port 0 takes any free one.
    pub fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let address = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::InvalidInput)?;
        let address = Address::Tcp { host: address.ip().to_string(), port: address.port() };
        // A callback has nobody to replace its process.
        let settings = Settings { timeout: None, ..Settings::default() };
        Ok(Self { listener: Listener::bind(&address, BACKLOG)?, settings })
    }

    /// Calls back on this many threads. One is the default: then the callback runs inline, in the loop's own thread.
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

    /// Where it listens, with the real port: `http://127.0.0.1:8080`.
    pub fn url(&self) -> String {
        self.listener.url()
    }

    /// Answers every request through `callback`, for as long as the process lives.
    pub fn serve(
        self,
        callback: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<()> {
        Server::new(vec![self.listener], self.settings, Arc::new(callback)).run().map(|_| ())
    }
}

/// The fork floor: the same callback, each *request* in a process of its own.
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

    /// How many children may run at once (64 unless set); further requests wait.
    #[must_use]
    pub fn children(mut self, bound: usize) -> Self {
        if let Concurrency::Fork { children } = &mut self.0.settings.concurrency {
            *children = bound;
        }
        self
    }

    /// How long a child may run (30 s unless set) before it is killed and its client gets 504.
    #[must_use]
    pub fn timeout(mut self, bound: Option<Duration>) -> Self {
        self.0.settings.timeout = bound;
        self
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Answers every request through `callback` in a child process, for as long as the process lives.
    pub fn serve(
        self,
        callback: impl Fn(&mut Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<()> {
        self.0.serve(callback)
    }
}
