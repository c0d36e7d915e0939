//! There is one handler for the signals of masters and workers, [`on_signal`]. It writes the signal's number as one
//! byte to the pipe set by [`set_signal_pipe`] (a self-pipe).

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Signal, getpid};

/// The process that handles signals, and the self-pipe that it reads them from or `NO_PIPE`.
static PIPE_OWNER: AtomicI32 = AtomicI32::new(0);
static SIGNAL_PIPE: AtomicI32 = AtomicI32::new(NO_PIPE);
const NO_PIPE: i32 = -1;
/// The handler of TERM in processes that the application forks: the default action, or the handler that ours replaced.
static FORKED_TERM_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Owns the write end, so that `SIGNAL_PIPE` is always an open descriptor.
static OWNED_PIPE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Sets the pipe to which this process writes the signals it handles, and closes the one before it. The pipe should be
/// non-blocking.
pub fn set_signal_pipe(pipe: OwnedFd) {
    let mut owned = OWNED_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    SIGNAL_PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
    PIPE_OWNER.store(getpid().as_raw_pid(), Ordering::SeqCst);
    *owned = Some(pipe);
}

/// From now on, signals that this process handles have no effect. Call this after the handlers are uninstalled or all
/// signals blocked, because a handler that runs at this moment in another thread may still use the pipe.
pub fn clear_signal_pipe() {
    let mut owned = OWNED_PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    SIGNAL_PIPE.store(NO_PIPE, Ordering::SeqCst);
    *owned = None;
}

/// A process that the application forks from a worker inherits this handler and the pipe, but it is not the worker. If
/// it wrote to the pipe, the worker would receive the command. It takes the signal's default action instead, as after
/// an exec, or for TERM the application's own handler.
extern "C" fn on_signal(signal: libc::c_int) {
    if PIPE_OWNER.load(Ordering::SeqCst) == getpid().as_raw_pid() {
        return write_to_pipe(signal);
    }
    match FORKED_TERM_HANDLER.load(Ordering::SeqCst) {
        libc::SIG_IGN if signal == libc::SIGTERM => {}
        handler if signal == libc::SIGTERM && handler != libc::SIG_DFL => {
            // SAFETY: the address is that of a handler with one argument (`reinstall_term_handler` checks that), in a
            // library that stays loaded. It was installed to run at any time.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
        _ => raise_default(signal),
    }
}

/// The signal is blocked here. It takes effect when the handler returns.
fn raise_default(signal: libc::c_int) {
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Delivers TERM to this process: a worker or master stops gracefully, and a process that the application has forked
/// exits.
pub fn deliver_term() {
    if PIPE_OWNER.load(Ordering::SeqCst) == getpid().as_raw_pid() {
        write_to_pipe(libc::SIGTERM);
    } else {
        raise_default(libc::SIGTERM);
    }
}

/// The C-level handler of a signal, to compare and to restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalHandler(libc::sighandler_t);

/// Reinstalls this crate's handler of TERM in a process that has inherited or installed it before. It replaces only the
/// handler `expected` (`None`: any handler) and the kernel's own actions (default, ignore). Returns the handler that was
/// replaced.
///
/// Any other handler stays, because it may call the handler before it.
pub fn reinstall_term_handler(expected: Option<SignalHandler>) -> Option<SignalHandler> {
    let own = Disposition::handler();
    let current = Disposition::current(Signal::TERM);
    let handler = current.0.sa_sigaction;
    let takes_one_argument = current.0.sa_flags & libc::SA_SIGINFO == 0;
    let is_expected = expected.is_none_or(|expected| expected.0 == handler) && takes_one_argument
        || matches!(handler, libc::SIG_DFL | libc::SIG_IGN);
    if handler == own.0.sa_sigaction || !is_expected {
        return None;
    }
    own.install(Signal::TERM);
    Some(SignalHandler(handler))
}

/// Sets the handler of TERM in processes that the application forks from this one. It must have been returned by
/// [`reinstall_term_handler`]. `None`, which is the default, means the default action.
pub fn set_forked_term_handler(handler: Option<SignalHandler>) {
    FORKED_TERM_HANDLER.store(handler.map_or(libc::SIG_DFL, |handler| handler.0), Ordering::SeqCst);
}

fn write_to_pipe(signal: libc::c_int) {
    let pipe = SIGNAL_PIPE.load(Ordering::SeqCst);
    if pipe == NO_PIPE {
        return;
    }
    // SAFETY: `OWNED_PIPE` keeps it open.
    let pipe = unsafe { BorrowedFd::borrow_raw(pipe) };
    // A full pipe holds thousands of unread signals, so one more can be dropped. (rustix makes raw system calls on
    // Linux, so errno stays as the interrupted code left it.)
    let _ = rustix::io::write(pipe, &[signal.to_le_bytes()[0]]);
}

/// What the kernel does with a signal that reaches the process.
#[derive(Clone, Copy)]
pub struct Disposition(libc::sigaction);

impl Disposition {
    /// The kernel's default action.
    #[expect(clippy::should_implement_trait, reason = "the signal's default, not the type's")]
    pub fn default() -> Disposition {
        Disposition::of(libc::SIG_DFL)
    }

    /// The handler of this crate.
    pub fn handler() -> Disposition {
        Disposition::of(on_signal as extern "C" fn(libc::c_int) as libc::sighandler_t)
    }

    fn of(handler: libc::sighandler_t) -> Disposition {
        // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART | libc::SA_NOCLDSTOP;
        Disposition(action)
    }

    /// The current disposition of `signal`.
    fn current(signal: Signal) -> Disposition {
        let mut current = Disposition::default();
        // SAFETY: a null second argument changes nothing, and the third points to an initialised structure.
        unsafe { libc::sigaction(signal.as_raw(), ptr::null(), &raw mut current.0) };
        current
    }

    /// Makes this the disposition of `signal` and returns the previous one.
    #[expect(
        clippy::must_use_candidate,
        clippy::return_self_not_must_use,
        reason = "the previous one is rarely needed"
    )]
    pub fn install(&self, signal: Signal) -> Disposition {
        let mut previous = Disposition::default();
        // SAFETY: both point to initialised structures; the only handler of ours is async-signal-safe.
        // It fails only for a signal that does not exist or cannot be handled, which no caller passes.
        unsafe { libc::sigaction(signal.as_raw(), &raw const self.0, &raw mut previous.0) };
        previous
    }
}

/// Blocks all signals in this thread until it is dropped.
pub struct SignalsBlocked {
    previous: libc::sigset_t,
}

impl SignalsBlocked {
    /// Blocks all signals.
    #[must_use]
    pub fn all() -> SignalsBlocked {
        let mut all = MaybeUninit::uninit();
        let mut previous = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises `all`; pthread_sigmask, which cannot fail with a valid first argument,
        // initialises `previous`.
        let previous = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), previous.as_mut_ptr());
            previous.assume_init()
        };
        SignalsBlocked { previous }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `previous` came from the kernel; a null third argument requests no output.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.previous, ptr::null_mut()) };
    }
}

/// Whether this process is in the foreground process group of a terminal.
pub fn is_in_foreground() -> bool {
    let terminal = std::fs::File::open("/dev/tty").ok();
    let foreground = terminal.and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
    foreground.is_some_and(|group| group == rustix::process::getpgrp())
}

/// Waits for one of the signals that this thread has blocked and returns it, together with whether the kernel sent it
/// (as for Ctrl-C in a terminal). `None` for a signal without a name.
pub fn wait_for_signal() -> Option<(Signal, bool)> {
    let mut all = MaybeUninit::uninit();
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: sigfillset initialises `all`; sigwaitinfo fills in `info`, and all zeros is a valid value if it fails.
    let (signal, info) = unsafe {
        libc::sigfillset(all.as_mut_ptr());
        (libc::sigwaitinfo(all.as_ptr(), info.as_mut_ptr()), info.assume_init())
    };
    Signal::from_named_raw(signal).map(|signal| (signal, info.si_code == libc::SI_KERNEL))
}

/// The name of a signal without "SIG", or its number.
pub fn signal_name(signal: i32) -> String {
    let name = signal_hook::low_level::signal_name(signal);
    name.map_or_else(|| signal.to_string(), |name| name.trim_start_matches("SIG").to_owned())
}

#[cfg(test)]
mod tests {
    use super::signal_name;

    #[test]
    fn signals_have_their_usual_names() {
        assert_eq!([11, 9, 40].map(signal_name), ["SEGV", "KILL", "40"]);
    }
}
