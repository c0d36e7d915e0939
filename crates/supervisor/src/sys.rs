//! Fork, signal handlers and signal masks: the unsafe code of this crate, behind safe functions.
//!
//! The one thing to know: there is one signal handler, [`on_signal`], and all it does is to write the signal's number
//! as one byte to the pipe that [`deliver_to`] named.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, getpid};

/// The process that catches signals, and the pipe it reads them from or `NOWHERE`.
static OWNER: AtomicI32 = AtomicI32::new(0);
static PIPE: AtomicI32 = AtomicI32::new(NOWHERE);
const NOWHERE: i32 = -1;
/// What handles TERM in processes that the application forks: the default action, or the handler that ours replaced.
static TERM_WHERE_FORKED: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Names the pipe that signals caught by this process are written to. It must stay open until [`deliver_nowhere`].
pub(crate) fn deliver_to(pipe: BorrowedFd<'_>) {
    PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
    OWNER.store(getpid().as_raw_pid(), Ordering::SeqCst);
}

/// From now on, signals that are caught by this process do nothing.
pub(crate) fn deliver_nowhere() {
    PIPE.store(NOWHERE, Ordering::SeqCst);
}

/// A process that the application forks from a worker inherits this handler and the pipe, but is no worker: its byte
/// would be an order to the worker. It gets the signal's default action instead, as after an exec, or for TERM the
/// application's own handler.
extern "C" fn on_signal(signal: libc::c_int) {
    if OWNER.load(Ordering::SeqCst) == getpid().as_raw_pid() {
        return write_to_pipe(signal);
    }
    match TERM_WHERE_FORKED.load(Ordering::SeqCst) {
        libc::SIG_IGN if signal == libc::SIGTERM => {}
        handler if signal == libc::SIGTERM && handler != libc::SIG_DFL => {
            // SAFETY: the address is that of a handler which took one argument (`reclaim_term` checks that), of a library that
            // stays loaded; it was installed to run at any time.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
        _ => take_default_action(signal),
    }
}

/// Blocked signals act when they are unblocked: here on return from the handler.
fn take_default_action(signal: libc::c_int) {
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// As if TERM had reached this process: a worker or master stops gracefully, and one that the application has forked ends.
pub fn deliver_term() {
    if OWNER.load(Ordering::SeqCst) == getpid().as_raw_pid() {
        write_to_pipe(libc::SIGTERM);
    } else {
        take_default_action(libc::SIGTERM);
    }
}

/// The C-level handler of a signal, to be compared and put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalHandler(libc::sighandler_t);

/// Makes this crate's handler the one for TERM again, in a process that has inherited or installed it, if another replaced it: `expected`
/// (any, if not given), or one of the kernel's (default, ignore). The handler that was replaced, if any was.
///
/// A foreign handler stays: it may call the one before it.
pub fn reclaim_term(expected: Option<SignalHandler>) -> Option<SignalHandler> {
    let own = Disposition::caught();
    let current = Disposition::of_signal(Signal::TERM);
    let handler = current.0.sa_sigaction;
    let takes_one_argument = current.0.sa_flags & libc::SA_SIGINFO == 0;
    let is_expected = expected.is_none_or(|expected| expected.0 == handler) && takes_one_argument
        || matches!(handler, libc::SIG_DFL | libc::SIG_IGN);
    if handler == own.0.sa_sigaction || !is_expected {
        return None;
    }
    own.put(Signal::TERM);
    Some(SignalHandler(handler))
}

/// Which handler of TERM processes have that the application forks from this one: by default, or with `None`, the default action.
/// It must be one that [`reclaim_term`] returned.
pub fn set_term_handler_of_forked_processes(handler: Option<SignalHandler>) {
    TERM_WHERE_FORKED.store(handler.map_or(libc::SIG_DFL, |handler| handler.0), Ordering::SeqCst);
}

fn write_to_pipe(signal: libc::c_int) {
    let pipe = PIPE.load(Ordering::SeqCst);
    if pipe == NOWHERE {
        return;
    }
    // SAFETY: `deliver_to` asks that the pipe be open.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    // A full pipe holds thousands of unread signals; one more says nothing new. (rustix makes raw system calls on
    // Linux, so errno stays as the interrupted code left it.)
    let _ = rustix::io::write(pipe, &[signal.to_le_bytes()[0]]);
}

/// What the kernel does with a signal that reaches the process.
pub(crate) struct Disposition(libc::sigaction);

impl Disposition {
    pub(crate) fn default() -> Disposition {
        Disposition::of(libc::SIG_DFL)
    }

    pub(crate) fn caught() -> Disposition {
        Disposition::of(on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t)
    }

    fn of(handler: libc::sighandler_t) -> Disposition {
        // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        Disposition(action)
    }

    /// The present disposition of `signal`.
    fn of_signal(signal: Signal) -> Disposition {
        let mut current = Disposition::default();
        // SAFETY: a null second argument changes nothing, and the third points to an initialised structure.
        unsafe { libc::sigaction(signal.as_raw(), ptr::null(), &raw mut current.0) };
        current
    }

    /// Makes this the disposition of `signal` and returns the one before.
    pub(crate) fn put(&self, signal: Signal) -> Disposition {
        let mut before = Disposition::default();
        // SAFETY: both point to initialised structures; the only handler of ours is async-signal-safe.
        // It fails only for a signal that does not exist or cannot be caught, which no caller names.
        unsafe { libc::sigaction(signal.as_raw(), &raw const self.0, &raw mut before.0) };
        before
    }
}

/// All signals being blocked in this thread, until it is dropped.
pub(crate) struct Blocked {
    before: libc::sigset_t,
}

impl Blocked {
    pub(crate) fn all() -> Blocked {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises `all`; pthread_sigmask, which cannot fail with a valid first argument,
        // initialises `before`.
        let before = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            before.assume_init()
        };
        Blocked { before }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: `before` came from the kernel; a null third argument asks for nothing back.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Whether this process is one that its terminal talks to, if it has one.
pub(crate) fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let foreground = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    foreground.is_some_and(|group| group == rustix::process::getpgrp())
}

/// Which side of a fork this is.
pub(crate) enum Fork {
    Parent { child: Pid },
    Child,
}

/// Forks this process. If it has other threads, they do not exist in the child, and what they had locked stays so:
/// `supervise` passes this condition on to its caller.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: see above; the C library makes its own locks (malloc, stdio) good in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid).map_or(Fork::Child, |child| Fork::Parent { child })),
    }
}

/// Waits for one of the signals that this thread has blocked, whatever it is, and takes it. Whether the kernel sent it by itself (a
/// terminal's Ctrl-C) is told with it. Nothing for a signal without a name.
pub(crate) fn take_signal() -> Option<(Signal, bool)> {
    let mut all = MaybeUninit::uninit();
    let mut told = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: sigfillset initialises `all`; sigwaitinfo fills in `told`, and all zeros is a valid one where it fails.
    let (signal, told) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        (libc::sigwaitinfo(all.as_ptr(), told.as_mut_ptr()), told.assume_init())
    };
    Signal::from_named_raw(signal).map(|signal| (signal, told.si_code == libc::SI_KERNEL))
}

/// Leaves the process at once, without the exit handlers that belong to the process it was forked from.
pub(crate) fn leave(status: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}
