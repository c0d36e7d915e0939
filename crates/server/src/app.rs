//! What the server serves: an [`App`] turns a request into a response.
//!
//! The one thing to know: the server never holds a lock while it is inside an app. An app may block, panic or fork.

use std::{io, thread};

use crate::{Record, Request, Response};

/// As much stack as the first thread of a process usually has; deep templates need it.
pub const STACK_SIZE: usize = 8 << 20;

/// Answers requests. Every `Fn(&mut Request) -> Response` is one.
///
/// The methods beyond [`call`](App::call) are for apps that live in an interpreter of their own (Python); a Rust callback needs none.
pub trait App: Send + Sync {
    /// Answers one request. May block; a panic becomes a 500.
    fn call(&self, request: &mut Request) -> Response;

    /// Runs `serve`, the life of one serving thread, with whatever the app needs held (Python: attached to the interpreter).
    fn attached(&self, serve: &mut dyn FnMut()) {
        serve();
    }

    /// Runs `wait`, which blocks, with that let go.
    fn detached(&self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// Runs everything that belongs to one request in the calling thread: the call, the stream, the completion callback and the
    /// access log (Python: within a context of its own).
    fn in_request(&self, run: &mut dyn FnMut()) {
        run();
    }

    /// Starts a thread that runs `main` and serves requests (Python: one that the `threading` module knows).
    fn spawn(&self, name: String, main: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        thread::Builder::new().name(name).stack_size(STACK_SIZE).spawn(main).map(drop)
    }

    /// Whether only one attached thread runs at a time (a global interpreter lock).
    fn one_at_a_time(&self) -> bool {
        false
    }

    /// Whether [`log`](App::log) wants to hear of finished requests.
    fn wants_log(&self) -> bool {
        false
    }

    /// Whether [`Record::head`] is wanted, which costs a copy of each response's head.
    fn wants_head(&self) -> bool {
        false
    }

    /// Writes where every thread is inside the app to the log. Called by the lookout, which holds no lock of the app and must not wait
    /// for one: a thread that is stuck may have it.
    fn show_stacks(&self) {}

    /// Runs signal handlers that are pending for the calling thread (Python: those of the application). The thread that called
    /// [`Server::run`](crate::Server::run) calls it at least twice a second while it is outside the app.
    fn check_signals(&self) {}

    /// Hears of each finished request, in whichever thread or process finished it.
    fn log(&self, _record: &Record<'_>) {}

    /// The brackets of a fork (Python: `PyOS_BeforeFork`, `PyOS_AfterFork_Parent`, `PyOS_AfterFork_Child`).
    fn before_fork(&self) {}
    /// Runs in the parent after a fork.
    fn after_fork_in_parent(&self) {}
    /// Runs in the child after a fork.
    fn after_fork_in_child(&self) {}
    /// Runs in the child before it leaves by `_exit`: buffers that nobody else would flush.
    fn before_exit_of_child(&self) {}

    /// Whether the request has left threads that have to finish before its child exits.
    fn has_background_threads(&self) -> bool {
        false
    }
    /// Waits for them, in the child.
    fn join_background_threads(&self) {}
}

impl<F> App for F
where
    F: Fn(&mut Request) -> Response + Send + Sync,
{
    fn call(&self, request: &mut Request) -> Response {
        self(request)
    }
}
