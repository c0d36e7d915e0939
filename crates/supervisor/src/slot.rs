//! The place of one worker and its successors, and a generation: the places that were filled with the same code.
//!
//! The one thing to know: a slot may have two processes for a while, the one that holds it and its *heir*, which was
//! forked because the holder is worn. The holder is told to go only when the heir is ready.

use std::time::{Duration, Instant};

use log::error;

use crate::process::Process;

/// The pause before a slot is filled again after one failure in it; it doubles with each further one in a row...
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// ...up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(crate) type Generation = Vec<Slot>;

pub(crate) struct Slot {
    pub(crate) holder: Option<Process>,
    pub(crate) heir: Option<Process>,
    /// Nothing is forked here before this time.
    pub(crate) not_before: Instant,
    /// How many failures in a row there were here.
    failures: u32,
}

impl Slot {
    pub(crate) fn vacant() -> Slot {
        Slot { holder: None, heir: None, not_before: Instant::now(), failures: 0 }
    }

    pub(crate) fn generation(size: usize) -> Generation {
        std::iter::repeat_with(Slot::vacant).take(size).collect()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.holder.as_ref().is_some_and(Process::is_ready)
    }

    pub(crate) fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        self.holder.iter_mut().chain(&mut self.heir)
    }

    /// Whether a process is missing here: a holder, or an heir of one that is worn.
    pub(crate) fn wants_process(&self) -> bool {
        match &self.holder {
            Some(holder) => holder.worn && holder.is_ready() && self.heir.is_none(),
            None => true,
        }
    }

    /// Puts a newly forked process where it is missing.
    pub(crate) fn put(&mut self, process: Process) {
        let place = if self.holder.is_none() { &mut self.holder } else { &mut self.heir };
        *place = Some(process);
    }

    /// Lets an heir that is ready follow; the old holder, who is to leave.
    pub(crate) fn succession(&mut self) -> Option<Process> {
        let heir = self.heir.take_if(|heir| heir.is_ready())?;
        self.holder.replace(heir)
    }

    /// Nothing is forked here for a pause that grows with each failure in a row; logs why.
    pub(crate) fn put_off(&mut self, what: &str) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Instant::now() + pause;
        error!("{what}; a new one starts in {pause:?}");
    }

    pub(crate) fn forget_failures(&mut self) {
        self.failures = 0;
    }
}
