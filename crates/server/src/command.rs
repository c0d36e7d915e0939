//! Commands to a running server, the events that it reports, and how it ends.

use std::os::fd::OwnedFd;

/// A command to a running server. A later command may only be a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    /// Stop accepting, hand idle connections over to other workers ([`Settings::handover`](crate::Settings::handover)),
    /// finish running requests, then return. `Drain` may follow, when the other workers stop, too.
    HandOver,
    /// Stop accepting, finish running requests, then return. An idle connection may send one more request.
    Drain,
    /// Return immediately. Connections are closed and children killed.
    Stop,
}

/// What a server reports, each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerEvent {
    /// All threads are started.
    Serving,
    /// A call of the app has exceeded the timeout. Its client got a response, but the thread is stuck, so the process
    /// should be replaced. With one thread it exits within a second, with [`EXIT_STUCK`](crate::EXIT_STUCK).
    CallTimedOut,
    /// `max_requests` or `max_rss` is reached. The server keeps serving until it receives a command.
    RecycleLimitReached,
    /// The process is about to exit without returning from [`Server::run`](crate::Server::run), because the thread that
    /// called it is inside the app, or another one is stuck there. The last chance to write buffered data. The callback
    /// may block briefly, but must not wait for the app.
    Exiting,
}

/// How [`Server::run`](crate::Server::run) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All threads have ended.
    Finished,
    /// A thread is stuck in the app. The process can only exit, with [`exit_now`](crate::exit_now).
    Stuck,
}

/// A source of commands, read when its descriptor is readable.
pub(crate) struct CommandSource {
    pub(crate) descriptor: OwnedFd,
    pub(crate) receive: Box<dyn FnMut() -> Option<Command> + Send>,
}
