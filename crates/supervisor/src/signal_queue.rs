//! The signals of this process as a queue that can be polled, in order of arrival (a self-pipe).
//!
//! A [`SignalQueue`] owns the installed handlers. Dropping it uninstalls them.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{ioctl_fionbio, read, retry_on_intr};
use rustix::process::Signal;

use mlws_sys::{self as sys, Disposition};

/// The signals that the master handles and that an init forwards to it. Workers handle all of them except CHLD, because
/// their children belong to the application. Signals meant for the master may reach workers when they are sent to a whole
/// process group.
pub(crate) const HANDLED: [Signal; 10] = [
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::TTIN,
    Signal::TTOU,
    Signal::WINCH,
    Signal::CHILD,
];

/// The self-pipe. Both ends are non-blocking.
pub(crate) struct SignalPipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl SignalPipe {
    pub(crate) fn new() -> io::Result<SignalPipe> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        Ok(SignalPipe { reader, writer })
    }
}

/// The signals of a master, from the moment at which clients can connect.
pub struct SignalQueue {
    /// The read end of the self-pipe.
    signals: PipeReader,
    /// The dispositions that `drop` restores.
    restore: Vec<(Signal, Disposition)>,
}

impl SignalQueue {
    /// Installs the handlers in a master. Dropping the queue restores the previous handlers. Only one queue may exist in a process.
    ///
    /// # Errors
    ///
    /// If no pipe can be created.
    pub fn install() -> io::Result<SignalQueue> {
        let pipe = SignalPipe::new()?;
        sys::set_signal_pipe(pipe.writer.into());
        let restore =
            HANDLED.into_iter().map(|signal| (signal, Disposition::handler().install(signal))).collect();
        Ok(SignalQueue { signals: pipe.reader, restore })
    }

    /// Turns the queue that a new worker inherited from its master into the worker's own: with its own `pipe`, and with
    /// the previous disposition of CHLD. Runs in the worker while all signals are blocked. When the worker drops the
    /// queue, signals stay without effect, because those sent to a whole process group may reach a worker that is already
    /// exiting. Only QUIT kills it.
    pub(crate) fn adopt_in_worker(&mut self, pipe: SignalPipe) {
        sys::set_signal_pipe(pipe.writer.into());
        self.signals = pipe.reader;
        for (signal, previous) in std::mem::take(&mut self.restore) {
            if signal == Signal::CHILD {
                previous.install(signal);
            }
        }
        self.restore.push((Signal::QUIT, Disposition::default()));
    }

    /// Turns the queue of a worker into that of a nested master, which also handles CHLD.
    pub(crate) fn adopt_in_nested_master(&mut self) {
        self.restore.push((Signal::CHILD, Disposition::handler().install(Signal::CHILD)));
    }

    /// Waits, and returns the first signal that ends a master, if one arrives in time. Other signals are discarded.
    pub fn wait_for_exit(&self, timeout: Duration) -> Option<Signal> {
        let deadline = Instant::now() + timeout;
        loop {
            while let Some(signal) = self.next() {
                if matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT) {
                    return Some(signal);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = Timespec::try_from(left).ok();
            // An error is a signal, which is in the queue.
            let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], timeout.as_ref());
        }
    }

    /// Returns the next pending signal. Never blocks.
    pub(crate) fn next(&self) -> Option<Signal> {
        let mut byte = [0];
        match retry_on_intr(|| read(&self.signals, &mut byte)) {
            Ok(1) => HANDLED.into_iter().find(|signal| signal.as_raw() == i32::from(byte[0])),
            _ => None, // The pipe is empty. It cannot be at its end, because this process holds both ends.
        }
    }
}

/// Readable while signals are pending.
impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        for (signal, disposition) in &self.restore {
            disposition.install(*signal);
        }
        sys::clear_signal_pipe();
    }
}
