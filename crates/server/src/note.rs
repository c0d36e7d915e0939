//! How far a child came with its response: a byte of memory that it shares with its parent.
//!
//! The exit status could not say it: an app may leave by `_exit(0)` before it has answered anything.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
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

/// One byte for each child that may run at once.
#[derive(Debug)]
pub(crate) struct Notes(SharedPage<AtomicU8>);

/// The byte of one child.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    notes: Arc<Notes>,
    index: usize,
}

impl Notes {
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        SharedPage::new(count).map(Self)
    }

    /// The byte of a child that is about to start.
    pub(crate) fn take(notes: &Arc<Self>, index: usize) -> Note {
        let note = Note { notes: Arc::clone(notes), index };
        note.write(Came::Nowhere);
        note
    }

    pub(crate) fn read(&self, index: usize) -> Came {
        [Came::Nowhere, Came::Midway, Came::KeptAlive, Came::Closed]
            .into_iter()
            .find(|came| self.0.get(index).is_some_and(|byte| *came as u8 == byte.load(Ordering::Relaxed)))
            .unwrap_or(Came::Midway)
    }
}

impl Note {
    pub(crate) fn write(&self, came: Came) {
        if let Some(byte) = self.notes.0.get(self.index) {
            byte.store(came as u8, Ordering::Relaxed);
        }
    }
}
