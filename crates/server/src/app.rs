//! The interface to what the server serves: an [`App`] turns a request into a response.
//!
//! Invariant: the server holds no lock while it is inside an app. An app may block, panic or fork.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use rustix::process::Pid;

use crate::{Record, Request, Response};

/// The stack size of serving threads in bytes, like that of a main thread. Deep templates need it.
pub const STACK_SIZE: usize = 8 << 20;

/// Answers requests. Every `Fn(&mut Request) -> Response` is an `App`.
///
/// The methods other than [`call`](App::call) are for apps in an interpreter (Python). A Rust callback needs none of
/// them.
pub trait App: Send + Sync {
    /// Answers one request. May block. A panic becomes a 500.
    fn call(&self, request: &mut Request) -> Response;

    /// Runs `serve`, the whole life of a serving thread, attached to the interpreter.
    fn attached(&self, serve: &mut dyn FnMut()) {
        serve();
    }

    /// Runs `wait`, which blocks, detached from the interpreter.
    fn detached(&self, wait: &mut (dyn FnMut() + Send)) {
        wait();
    }

    /// Runs everything that belongs to one request in the calling thread: the call, the stream, the completion callback
    /// and the access log (Python: in a context of its own).
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

    /// Whether [`log`](App::log) is to be called.
    fn wants_log(&self) -> bool {
        false
    }

    /// Whether [`Record::head`] is needed, which costs a copy of each response's head. May change while the server runs.
    fn wants_head(&self) -> Arc<AtomicBool> {
        Arc::default()
    }

    /// Logs the stack of every thread. Called by the monitor thread. Must not wait for a lock of the app, which a stuck
    /// thread may hold.
    fn show_stacks(&self) {}

    /// Runs pending signal handlers of the calling thread (Python: those of the application). The thread that called
    /// [`Server::run`](crate::Server::run) calls this at least twice per second while it is outside the app.
    fn check_signals(&self) {}

    /// Logs a finished request, in the thread or process that ran it, within [`in_request`](App::in_request). If
    /// [`can_log_later`](App::can_log_later), it is not called for responses that the server still has to send.
    fn log(&self, _record: &Record<'_>) {}

    /// Whether requests that this app answered may be logged by [`log_later`](App::log_later), when all of the response
    /// is sent.
    fn can_log_later(&self) -> bool {
        false
    }

    /// Logs a request that the server rejected without the app, or if [`can_log_later`](App::can_log_later) one whose
    /// response is sent later. Called by any thread. Must not block and must not wait for a lock of the app.
    fn log_later(&self, _record: &Record<'_>) {}

    /// Runs before a fork, in the parent (Python: `PyOS_BeforeFork`).
    fn before_fork(&self) {}
    /// Runs after a fork, in the parent (Python: `PyOS_AfterFork_Parent`).
    fn after_fork_in_parent(&self) {}
    /// Runs after a fork, in the child (Python: `PyOS_AfterFork_Child`).
    fn after_fork_in_child(&self) {}
    /// Runs in the child before `_exit`. Flushes buffers.
    fn before_exit_of_child(&self) {}

    /// Whether [`child_exited`](App::child_exited) is to be called.
    fn wants_child_exits(&self) -> bool {
        false
    }
    /// Runs in the parent after a child was reaped. May block, which delays all other connections.
    fn child_exited(&self, _pid: Pid) {}

    /// Whether the request has started threads that must finish before the child exits.
    fn has_background_threads(&self) -> bool {
        false
    }
    /// Waits for these threads, in the child.
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
