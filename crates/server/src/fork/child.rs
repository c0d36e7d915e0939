//! The child's side: one request, from the fork to the exit.

use std::{
    os::fd::RawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{parent_link::ParentLink, process::close_in_child, progress::ResponseProgress};
use crate::{
    App,
    connection::{Connection, Next},
};

/// The exit status of a child in which the server itself panicked (`EX_SOFTWARE` of `sysexits.h`).
const EXIT_PANICKED: i32 = 70;

/// The whole life of a child. `others` are descriptors that belong to the parent alone.
pub(super) fn answer_and_exit(
    connection: &mut Connection,
    app: &dyn App,
    link: ParentLink,
    others: &mut dyn Iterator<Item = RawFd>,
) -> ! {
    let link = Arc::new(link);
    let answered = catch_unwind(AssertUnwindSafe(|| {
        app.after_fork_in_child();
        close_in_child(others);
        connection.socket().set_parent(&link);
        // What the client does not read at once goes to the parent, which has the memory for it.
        connection.context().response_memory.close();
        let mut next = Next::Close;
        app.in_request(&mut || next = connection.run_to_the_end(app));
        app.before_exit_of_child();
        next
    }));
    let Ok(next) = answered else { mlws_sys::exit_now(EXIT_PANICKED) };
    link.progress.set_response(if next == Next::Wait && connection.is_between_requests() {
        ResponseProgress::KeepAlive
    } else if connection.socket().is_truncated_in_relay() {
        ResponseProgress::Truncated
    } else {
        ResponseProgress::Close
    });
    let finished = catch_unwind(AssertUnwindSafe(|| {
        if app.has_background_threads() {
            run_in_background(connection, app, &link);
        }
    }));
    mlws_sys::exit_now(if finished.is_ok() { 0 } else { EXIT_PANICKED })
}

/// Lets the request's threads finish, after the connection is given back: the client may send its next request meanwhile.
fn run_in_background(connection: &Connection, app: &dyn App, link: &ParentLink) {
    // A thread may still ask whether the client is there. To it, this connection is over.
    if let Err(error) = connection.socket().release_socket() {
        log::warn!("a child could not release its connection: {error}");
    }
    // If it cannot be sent, the parent finds the response complete when this process ends.
    if let Err(error) = link.report_completion() {
        log::warn!("a child could not report that its response is complete: {error}");
    }
    app.join_background_threads();
    app.before_exit_of_child();
}
