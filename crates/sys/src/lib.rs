//! System calls that have no safe wrapper elsewhere: fork, signal handlers and masks, shared memory, inherited
//! descriptors, reads into uninitialized memory.
//!
//! All unsafe code of the project that does not concern Python is here, except for the calls of [`fork()`] and
//! [`close_inherited`], whose safety depends on the caller. The crate knows neither HTTP nor workers.
//!
//! | module | content |
//! |---|---|
//! | `fork` | fork, exit without exit handlers |
//! | `signals` | masks, dispositions, the self-pipe, names |
//! | `request_process` | signals in a process that answers one request |
//! | `credentials`, `privileged` | user and group ids, files that root opens for other users |
//! | `descriptors` | inherited descriptors, copies in a child |
//! | `shared_page` | numbers in memory that processes share |
//! | `read_buffer` | reads into memory that was never written |
//! | `memory`, `scheduling` | advice to the kernel |
#![allow(unsafe_code)]

mod credentials;
mod descriptors;
mod fork;
mod memory;
mod privileged;
mod read_buffer;
mod request_process;
mod scheduling;
mod shared_page;
mod signals;

pub use credentials::Credentials;
pub use descriptors::{close_inherited, from_inherited_fd, replace_descriptor};
pub use fork::{Fork, exit_now, fork};
pub use memory::use_large_pages;
pub use privileged::{give_socket, open_to_append, read_settings};
pub use read_buffer::{ReadBuffer, append_to};
pub use request_process::{install_child_signal_handlers, is_request_process};
pub use scheduling::use_sched_batch;
pub use shared_page::{Atomic, SharedPage};
pub use signals::{
    Disposition, SignalHandler, SignalsBlocked, clear_signal_pipe, deliver_term, is_in_foreground,
    reinstall_term_handler, set_forked_term_handler, set_signal_pipe, signal_name, wait_for_signal,
};
