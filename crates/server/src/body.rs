//! Request bodies: in memory, in the very buffer they were received in, or in an unlinked temporary file past a limit. The longer ones
//! share a room in memory, which bounds what they take of it together.
//!
//! The body is always complete when the app sees it.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use crate::{settings::House, sys};

/// A complete request body, read from its start.
#[derive(Default)]
pub struct RequestBody {
    /// The receive buffer: head, then (unless spooled) the body, then bytes of a next request.
    pub(crate) bytes: Vec<u8>,
    /// Where an in-memory body stands in `bytes`, and how far it was read.
    pub(crate) begin: usize,
    pub(crate) at: usize,
    pub(crate) end: usize,
    spool: Option<Spool>,
    place: Option<Place>,
}

/// What a long body takes of the room that all of them share.
struct Place {
    house: Arc<House>,
    length: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.house.room.fetch_add(self.length, Ordering::Relaxed);
    }
}

struct Spool {
    file: BufReader<File>,
    length: u64,
}

impl RequestBody {
    /// The body's whole length in bytes, however much of it was read.
    pub fn length(&self) -> u64 {
        self.spool.as_ref().map_or((self.end - self.begin) as u64, |spool| spool.length)
    }

    /// Whether the body lies in a temporary file.
    pub fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }

    /// Moves what was not read yet into a body of its own; the head's bytes stay. A temporary file is moved, memory is copied.
    #[must_use]
    pub fn split_rest(&mut self) -> Self {
        let bytes = self.bytes[self.at..self.end].to_vec();
        self.at = self.end;
        Self { begin: 0, at: 0, end: bytes.len(), bytes, spool: self.spool.take(), place: self.place.take() }
    }

    /// Forgets the body, keeps the buffer unless it was made for a long body.
    pub(crate) fn clear(&mut self) {
        (self.begin, self.at, self.end, self.spool) = (0, 0, 0, None);
        if self.place.take().is_some() {
            self.bytes.shrink_to_fit();
        }
    }

    /// The body begins at this place of the buffer.
    pub(crate) fn begin_at(&mut self, begin: usize) {
        (self.begin, self.at, self.end, self.spool) = (begin, begin, begin, None);
    }

    /// Whether a long body of this length has a place in memory, which it takes if there is room. The buffer is made as long at once, for
    /// what grows by and by is copied by and by.
    pub(crate) fn has_place(&mut self, house: &Arc<House>, length: u64) -> bool {
        let Ok(length) = usize::try_from(length) else { return false };
        if self.place.is_none() {
            let take = |room: usize| room.checked_sub(length);
            if house.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                return false;
            }
            self.place = Some(Place { house: Arc::clone(house), length });
            if self.bytes.try_reserve_exact(length - (self.end - self.begin)).is_err() {
                self.place = None;
                return false;
            }
            sys::use_large_pages(self.bytes.spare_capacity_mut());
        }
        true
    }

    /// Adds bytes of the buffer to the body, moved up to it where chunk lines stood between.
    pub(crate) fn append(&mut self, piece: Range<usize>) {
        let length = piece.len();
        if piece.start != self.end {
            self.bytes.copy_within(piece, self.end);
        }
        self.end += length;
    }

    /// Adds bytes of the buffer to the temporary file. The first call makes it in `folder` and moves the body so far into it;
    /// its name is gone at once, so nothing stays behind.
    pub(crate) fn spool(&mut self, folder: &Path, piece: Range<usize>) -> io::Result<()> {
        let spool = match &mut self.spool {
            Some(spool) => spool,
            none => {
                let mut file = tempfile::tempfile_in(folder)?;
                file.write_all(&self.bytes[self.begin..self.end])?;
                let length = (self.end - self.begin) as u64;
                self.end = self.begin;
                none.insert(Spool { file: BufReader::with_capacity(64 * 1024, file), length })
            }
        };
        spool.length += piece.len() as u64;
        spool.file.get_mut().write_all(&self.bytes[piece])
    }

    /// The temporary file is complete: reads start at its beginning.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.spool.as_mut().map_or(Ok(()), |spool| spool.file.seek(SeekFrom::Start(0)).map(drop))
    }
}

impl Read for RequestBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.spool {
            Some(spool) => spool.file.read(into),
            None => {
                let count = (&self.bytes[self.at..self.end]).read(into)?;
                self.at += count;
                Ok(count)
            }
        }
    }
}

impl BufRead for RequestBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match &mut self.spool {
            Some(spool) => spool.file.fill_buf(),
            None => Ok(&self.bytes[self.at..self.end]),
        }
    }

    fn consume(&mut self, count: usize) {
        match &mut self.spool {
            Some(spool) => spool.file.consume(count),
            None => self.at += count,
        }
    }
}
