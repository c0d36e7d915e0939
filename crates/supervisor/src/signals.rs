//! The signals of this process as a queue that can be polled, in the order they came.
//!
//! The one thing to know: a value of [`Signals`] *is* the handlers being installed. Dropping it takes them away.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{ioctl_fionbio, read, retry_on_intr};
use rustix::process::Signal;

use crate::sys::{self, Disposition};

/// What the master catches, and an init passes on to it. Workers catch all but CHLD, for their children are the application's; what has no meaning for
/// them may still reach them, as it is often sent to a whole group.
pub(crate) const CAUGHT: [Signal; 10] = [
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

/// A pipe, neither end of which ever blocks.
pub(crate) struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Pipe> {
        let (reader, writer) = io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        Ok(Pipe { reader, writer })
    }
}

pub(crate) struct Signals {
    pipe: Pipe,
    /// What `drop` puts in place of our handler.
    after: Vec<(Signal, Disposition)>,
}

impl Signals {
    /// Starts to catch the signals in the master. Dropping puts the previous handlers back.
    pub(crate) fn catch() -> io::Result<Signals> {
        let pipe = Pipe::new()?;
        sys::deliver_to(pipe.writer.as_fd());
        let after = CAUGHT.into_iter().map(|signal| (signal, Disposition::caught().put(signal))).collect();
        Ok(Signals { pipe, after })
    }

    /// Makes the master's queue, inherited by a fork, the new worker's own: `pipe` in place of the master's, and CHLD as
    /// it was before. Runs in the worker, with all signals blocked. Dropping leaves them without effect, since whoever
    /// sends them to all processes may reach a worker that is ending already; QUIT kills.
    pub(crate) fn become_workers(&mut self, pipe: Pipe) {
        sys::deliver_to(pipe.writer.as_fd());
        self.pipe = pipe;
        for (signal, before) in std::mem::take(&mut self.after) {
            if signal == Signal::CHILD {
                before.put(signal);
            }
        }
        self.after.push((Signal::QUIT, Disposition::default()));
    }

    /// Makes a worker's queue that of a master, which hears of its children, too.
    pub(crate) fn become_masters(&mut self) {
        self.after.push((Signal::CHILD, Disposition::caught().put(Signal::CHILD)));
    }

    /// The next signal that came, if any. Never blocks.
    pub(crate) fn next(&self) -> Option<Signal> {
        let mut byte = [0];
        match retry_on_intr(|| read(&self.pipe.reader, &mut byte)) {
            Ok(1) => CAUGHT.into_iter().find(|signal| signal.as_raw() == i32::from(byte[0])),
            _ => None, // an empty pipe; it has no other way to fail, and no end while we hold both of its ends
        }
    }
}

/// Readable while `next` has something to give.
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.reader.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (signal, disposition) in &self.after {
            disposition.put(*signal);
        }
        sys::deliver_nowhere();
    }
}
