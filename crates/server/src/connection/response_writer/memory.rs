//! The memory of a response that its client has not read: reserved from a budget, or moved to a temporary file.

use std::{collections::VecDeque, io, sync::Arc};

use super::{
    ResponseWriter,
    segment::{Segment, Spool},
};
use crate::memory::{MemoryBudget, Reservation};

impl ResponseWriter {
    /// Reserves memory for the queue, or returns memory that is no longer needed. Returns false if too little memory is
    /// left.
    pub(crate) fn reserve_memory(&mut self, budget: &Arc<MemoryBudget>) -> bool {
        let held = self.held();
        if let Some(reservation) = &mut self.reservation {
            return reservation.resize(held);
        }
        self.reservation = Reservation::take(budget, held);
        self.reservation.is_some()
    }

    /// Returns memory reserved for bytes that have been sent.
    pub(crate) fn release_memory(&mut self) {
        if self.is_empty() {
            self.reservation = None;
        } else {
            let held = self.held();
            if let Some(reservation) = self.reservation.as_mut().filter(|reserved| reserved.bytes() > held) {
                reservation.resize(held);
            }
        }
    }

    /// The number of unsent bytes in the spool file.
    pub(crate) fn spooled(&self) -> u64 {
        let spooled = |segment: &Segment| match segment {
            Segment::File(range) if range.is_spool => range.left,
            _ => 0,
        };
        self.queue.iter().map(spooled).sum()
    }

    /// Takes the queue out. Until [`restore`](Self::restore) there is nothing to send.
    pub(crate) fn take_queue(&mut self) -> Self {
        Self {
            front: std::mem::take(&mut self.front),
            front_sent: std::mem::take(&mut self.front_sent),
            queue: std::mem::take(&mut self.queue),
            queued: std::mem::take(&mut self.queued),
            reservation: self.reservation.take(),
            ..Self::default()
        }
    }

    /// Puts back a queue that was taken out. Nothing may have been queued meanwhile.
    pub(crate) fn restore(&mut self, taken: Self) {
        (self.front, self.front_sent, self.queue) = (taken.front, taken.front_sent, taken.queue);
        (self.queued, self.reservation) = (taken.queued, taken.reservation);
    }

    /// Moves all queued bytes from memory to the spool file. After an error the rest is still in memory, in order.
    pub(crate) fn spill(&mut self, spool: &mut Spool) -> io::Result<()> {
        if self.stream.as_ref().is_some_and(|stream| stream.head > 0) {
            return Ok(()); // nothing was sent yet
        }
        if self.front_sent < self.front.len() {
            let range = spool.append(&self.front[self.front_sent..])?;
            self.queue.push_front(Segment::File(range));
        }
        (self.front, self.front_sent) = (Vec::new(), 0);
        for segment in &mut self.queue {
            if let Segment::Bytes { bytes, sent, end } = segment {
                let range = spool.append(&bytes.as_ref()[*sent..*end])?;
                self.queued -= bytes.as_ref().len();
                *segment = Segment::File(range);
            }
        }
        self.merge_spooled();
        self.release_memory();
        Ok(())
    }

    /// Memory held by the queue, in bytes. A segment counts until all of it is sent.
    pub(crate) fn held(&self) -> usize {
        self.front.len() + self.queued
    }

    /// Merges adjacent ranges of the spool file.
    fn merge_spooled(&mut self) {
        let mut merged: VecDeque<Segment> = VecDeque::with_capacity(1);
        for segment in self.queue.drain(..) {
            match (merged.back_mut(), segment) {
                (Some(Segment::File(last)), Segment::File(range))
                    if last.is_spool
                        && range.is_spool
                        && Arc::ptr_eq(&last.file, &range.file)
                        && last.offset + last.left == range.offset =>
                {
                    last.left += range.left;
                }
                (_, segment) => merged.push_back(segment),
            }
        }
        self.queue = merged;
    }
}
