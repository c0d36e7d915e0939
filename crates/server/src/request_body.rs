//! Request bodies: in the buffer in which they were received, or in an unlinked temporary file. All but the smallest
//! share a memory budget. If it is used up, a body goes to a file.
//!
//! A chunked body, and one up to [`Settings::body_buffer`](crate::Settings::body_buffer), is complete when the app sees
//! it. Of a larger one only the beginning is here; reading the rest waits for the client (see
//! [`upload`](crate::upload)).

use std::{
    fs::File,
    io::{self, BufRead, Read, Seek, SeekFrom, Write},
    ops::Range,
    sync::Arc,
};

use mlws_http1::Length;

use crate::{
    Settings,
    memory::{MemoryBudget, Reservation},
    upload::Upload,
};
use mlws_sys::{ReadBuffer, append_to};

/// Bodies up to this size reserve no memory from the budget. In bytes.
pub(crate) const SMALL_BODY: usize = 16 * 1024;
/// How many bytes are collected before a write to the temporary file, if there is memory for them.
const SPOOL_BUFFER: usize = 64 * 1024;
/// Buffers of at least this size should use large pages. In bytes.
const LARGE: usize = 1 << 20;
/// The size of a read on behalf of a reader of lines, in bytes.
const WINDOW: usize = 64 * 1024;

/// A request body, read from its start.
#[derive(Default)]
pub struct RequestBody {
    /// The receive buffer: head, body (unless spooled), then bytes of the next request.
    pub(crate) bytes: Vec<u8>,
    /// The range of the body in `bytes`, and the position of the reader.
    pub(crate) begin: usize,
    pub(crate) at: usize,
    pub(crate) end: usize,
    spool: Option<BodySpool>,
    reservation: Option<Reservation>,
    /// The source of the rest, if the body was not complete when the app was called.
    upload: Option<Arc<Upload>>,
    /// The length of the whole body, if only a part of it is here.
    announced: Option<u64>,
    /// Bytes read from the file or the client, and the position of the reader in them.
    window: Vec<u8>,
    window_at: usize,
}

struct BodySpool {
    file: File,
    length: u64,
    unread: u64,
    /// How many bytes are collected before a write.
    gathers: usize,
}

impl RequestBody {
    /// The length of the whole body in bytes, including parts that are not received or already read.
    pub fn length(&self) -> u64 {
        self.announced.unwrap_or_else(|| self.received())
    }

    /// Whether the body or its beginning is in a temporary file.
    pub fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }

    /// Whether reading never waits for the disk or the client.
    pub fn is_at_hand(&self) -> bool {
        self.spool.is_none() && self.upload.is_none()
    }

    /// Moves the unread part to a new body. The bytes of the head stay. A temporary file is moved, memory is copied.
    #[must_use]
    pub fn split_rest(&mut self) -> Self {
        let bytes = self.bytes[self.at..self.end].to_vec();
        self.at = self.end;
        let end = bytes.len();
        let head = std::mem::take(&mut self.bytes);
        let (begin, at) = (self.begin, self.at);
        let rest = std::mem::take(self);
        (self.bytes, self.begin, self.at, self.end) = (head, begin, at, at);
        Self { bytes, begin: 0, at: 0, end, ..rest }
    }

    /// Reads at least one byte, and waits for it if necessary. Reads nothing at the end of the body. `Interrupted` if a
    /// signal ends the wait.
    pub fn read_into(&mut self, into: &mut ReadBuffer<'_>) -> io::Result<()> {
        let windowed = into.append(&self.window[self.window_at..]);
        if windowed > 0 {
            self.window_at += windowed;
            return Ok(());
        }
        self.read_source(into)
    }

    /// The same, after the window.
    fn read_source(&mut self, into: &mut ReadBuffer<'_>) -> io::Result<()> {
        if self.at < self.end {
            self.at += into.append(&self.bytes[self.at..self.end]);
            return Ok(());
        }
        if let Some(spool) = self.spool.as_mut().filter(|spool| spool.unread > 0) {
            let limit = usize::try_from(spool.unread).unwrap_or(usize::MAX);
            let count = into.read_from(&spool.file, limit)?;
            if count == 0 && into.remaining() > 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            spool.unread -= count as u64;
            return Ok(());
        }
        self.upload.as_ref().map_or(Ok(()), |upload| upload.read(into))
    }

    /// Removes the body. Keeps the buffer unless it was allocated for a large body.
    pub(crate) fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let had_reservation = self.reservation.is_some();
        *self = Self { bytes, ..Self::default() };
        if had_reservation {
            self.bytes.shrink_to_fit();
        }
    }

    /// The body begins at this index of the buffer.
    pub(crate) fn begin_at(&mut self, begin: usize) {
        (self.begin, self.at, self.end, self.spool) = (begin, begin, begin, None);
    }

    /// The number of bytes of the body that have been received.
    pub(crate) fn received(&self) -> u64 {
        (self.end - self.begin) as u64 + self.spool.as_ref().map_or(0, |spool| spool.length)
    }

    /// The most bytes to receive at once within the reserved memory.
    pub(crate) fn read_size(&self, most: usize) -> usize {
        match &self.spool {
            Some(spool) => spool.gathers,
            None if self.reservation.is_some() => most,
            None => SMALL_BODY,
        }
    }

    /// Stores bytes of the buffer as the next ones of the body.
    pub(crate) fn store(
        &mut self,
        piece: Range<usize>,
        length: Length,
        settings: &Settings,
        memory: &Arc<MemoryBudget>,
    ) -> io::Result<()> {
        if self.spool.is_none() && !self.fits(piece.len(), length, settings, memory) {
            self.start_spool(settings, memory)?;
        }
        match &mut self.spool {
            // A large part need not be collected.
            Some(spool) if self.begin == self.end && piece.len() >= spool.gathers => {
                spool.length += piece.len() as u64;
                return spool.file.write_all(&self.bytes[piece]);
            }
            _ => self.append(piece),
        }
        match &self.spool {
            Some(spool) if self.end - self.begin >= spool.gathers => self.flush_spool(),
            _ => Ok(()),
        }
    }

    /// The body is complete: reading starts at its beginning, and memory that was needed to receive is returned.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if self.spool.is_some() {
            self.flush_spool()?;
            self.reservation = None;
            self.shrink();
        }
        self.spool.as_mut().map_or(Ok(()), |spool| {
            spool.unread = spool.length;
            spool.file.seek(SeekFrom::Start(0)).map(drop)
        })
    }

    /// Sets the source of the rest of the body, and its total length.
    pub(crate) fn continue_from(&mut self, upload: Arc<Upload>, length: u64) {
        self.upload = Some(upload);
        self.announced = Some(length);
    }

    /// Returns memory that a spooled body does not need any more.
    pub(crate) fn shrink(&mut self) {
        let needed = self.bytes.len() + self.spool.as_ref().map_or(0, |spool| spool.gathers);
        if self.spool.is_some() && self.bytes.capacity() > 2 * needed {
            self.bytes.shrink_to(needed);
        }
    }

    /// Whether this many more bytes may be in memory.
    fn fits(&mut self, more: usize, length: Length, settings: &Settings, memory: &Arc<MemoryBudget>) -> bool {
        let (size, most) = (self.end - self.begin + more, settings.body_in_memory);
        match length {
            _ if size <= SMALL_BODY.min(most) => true,
            Length::Known(length) => usize::try_from(length).is_ok_and(|length| self.reserve(memory, length)),
            Length::Chunked => {
                let stepped = size.next_power_of_two().max(SPOOL_BUFFER).min(most);
                size <= most && self.account_for(memory, stepped)
            }
        }
    }

    /// Reserves memory for a body of this length. The buffer gets its final size at once, because growing it in steps
    /// would copy it in steps.
    fn reserve(&mut self, memory: &Arc<MemoryBudget>, length: usize) -> bool {
        if self.reservation.is_some() {
            return true;
        }
        if !self.account_for(memory, length) {
            return false;
        }
        if self.bytes.try_reserve_exact(length - (self.end - self.begin)).is_err() {
            self.reservation = None;
            return false;
        }
        if length >= LARGE {
            mlws_sys::use_large_pages(self.bytes.spare_capacity_mut());
        }
        true
    }

    fn account_for(&mut self, memory: &Arc<MemoryBudget>, length: usize) -> bool {
        match &mut self.reservation {
            Some(reservation) => reservation.grow_to(length),
            None => {
                self.reservation = Reservation::take(memory, length);
                self.reservation.is_some()
            }
        }
    }

    /// Appends bytes of the buffer to the body. Moves them if chunk sizes lie between.
    fn append(&mut self, piece: Range<usize>) {
        let length = piece.len();
        if piece.start != self.end {
            self.bytes.copy_within(piece, self.end);
        }
        self.end += length;
    }

    /// Creates the temporary file and moves the body so far to it. The file is unlinked immediately, so nothing can be
    /// left behind.
    fn start_spool(&mut self, settings: &Settings, memory: &Arc<MemoryBudget>) -> io::Result<()> {
        let file = tempfile::tempfile_in(&settings.temporary)?;
        self.spool = Some(BodySpool { file, length: 0, unread: 0, gathers: SMALL_BODY });
        self.flush_spool()?;
        self.reservation = None; // before the next reservation, which may need the bytes
        self.reservation = Reservation::take(memory, SPOOL_BUFFER);
        if let (Some(spool), true) = (&mut self.spool, self.reservation.is_some()) {
            spool.gathers = SPOOL_BUFFER;
        }
        Ok(())
    }

    /// Moves the part of the body that is in memory to the end of the temporary file.
    fn flush_spool(&mut self) -> io::Result<()> {
        let Some(spool) = &mut self.spool else { return Ok(()) };
        spool.file.write_all(&self.bytes[self.begin..self.end])?;
        spool.length += (self.end - self.begin) as u64;
        self.end = self.begin;
        Ok(())
    }
}

impl Read for RequestBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for RequestBody {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.window_at < self.window.len() {
            return Ok(&self.window[self.window_at..]);
        }
        if self.at < self.end || self.is_at_hand() {
            return Ok(&self.bytes[self.at..self.end]);
        }
        let mut window = std::mem::take(&mut self.window);
        window.clear();
        let read = append_to(&mut window, WINDOW, |buffer| self.read_source(buffer));
        (self.window, self.window_at) = (window, 0);
        read?;
        Ok(&self.window)
    }

    fn consume(&mut self, count: usize) {
        if self.window_at < self.window.len() {
            self.window_at += count;
        } else {
            self.at += count;
        }
    }
}

#[cfg(test)]
mod tests;
