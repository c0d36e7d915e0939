//! What the server serves: an [`App`] turns a request into a response.
//!
//! The one thing to know: the server never holds a lock while it is inside an app. An app may block, panic or fork.

use crate::{Record, Request, Response};

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
