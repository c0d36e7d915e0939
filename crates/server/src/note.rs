//! How far a child came with its response, and how long it has waited for its client: memory that it shares with its parent.
//!
//! The exit status could not say the first: an app may leave by `_exit(0)` before it has answered anything. The second is for the
//! timeout, which the parent enforces.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::sys::SharedPage;

/// How far a child came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Came {
    /// Nothing is sent.
    Nowhere,
    /// The response has begun.
    Midway,
    /// The response is sent, and the connection may live on.
    KeptAlive,
    /// The response is sent, and the connection is to be closed.
    Closed,
}

/// Set in a child's number while it waits; the rest of the number is how many microseconds it has waited before.
const WAITING: u64 = 1 << 63;

/// One of each for each child that may run at once.
#[derive(Debug)]
pub(crate) struct Notes {
    came: SharedPage<AtomicU8>,
    waited: SharedPage<AtomicU64>,
}

/// The place of one child.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    notes: Arc<Notes>,
    index: usize,
}

impl Notes {
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        Ok(Self { came: SharedPage::new(count)?, waited: SharedPage::new(count)? })
    }

    /// The place of a child that is about to start.
    pub(crate) fn take(notes: &Arc<Self>, index: usize) -> Note {
        let note = Note { notes: Arc::clone(notes), index };
        note.write(Came::Nowhere);
        if let Some(waited) = notes.waited.get(index) {
            waited.store(0, Ordering::Relaxed);
        }
        note
    }

    /// For how long a child has waited for its client to send; nothing while it does.
    pub(crate) fn waited(&self, index: usize) -> Option<Duration> {
        let waited = self.waited.get(index)?.load(Ordering::Relaxed);
        (waited & WAITING == 0).then(|| Duration::from_micros(waited))
    }

    pub(crate) fn read(&self, index: usize) -> Came {
        [Came::Nowhere, Came::Midway, Came::KeptAlive, Came::Closed]
            .into_iter()
            .find(|came| self.came.get(index).is_some_and(|byte| *came as u8 == byte.load(Ordering::Relaxed)))
            .unwrap_or(Came::Midway)
    }
}

impl Note {
    pub(crate) fn write(&self, came: Came) {
        if let Some(byte) = self.notes.came.get(self.index) {
            byte.store(came as u8, Ordering::Relaxed);
        }
    }

    /// Notes that the child waits for its client, until the result is dropped.
    pub(crate) fn report_wait(&self) -> impl Drop + use<> {
        if let Some(waited) = self.notes.waited.get(self.index) {
            waited.fetch_or(WAITING, Ordering::Relaxed);
        }
        Wait { note: self.clone(), began: Instant::now() }
    }
}

struct Wait {
    note: Note,
    began: Instant,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(waited) = self.note.notes.waited.get(self.note.index) else { return };
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let before = waited.load(Ordering::Relaxed) & !WAITING;
        waited.store(before.saturating_add(micros) & !WAITING, Ordering::Relaxed);
    }
}
