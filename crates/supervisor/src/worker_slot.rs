//! [`WorkerSlot`]: the place of one worker in a generation. A generation is the slots whose workers run the same code.
//!
//! A worker that has requested its replacement keeps serving until its replacement is ready, so a slot may hold two
//! processes.

use std::time::{Duration, Instant};

use crate::exit_status::ExitStatus;
use crate::restart_policy;
use crate::worker_handle::WorkerHandle;

pub(crate) type Generation = Vec<WorkerSlot>;

pub(crate) struct WorkerSlot {
    state: SlotState,
    /// Consecutive failures in this slot.
    failures: u32,
}

enum SlotState {
    Empty {
        retry_at: Instant,
    },
    /// The worker was never ready. It may be stopping, after its boot timeout.
    Starting(WorkerHandle),
    Running {
        worker: WorkerHandle,
        /// If the worker asks to be recycled, its replacement is not forked before this time.
        replace_at: Instant,
    },
    Replacing {
        old: WorkerHandle,
        new: WorkerHandle,
    },
}

/// The workers of a state, by value or by reference.
macro_rules! workers_of {
    ($state:expr) => {{
        let (first, second) = match $state {
            SlotState::Empty { .. } => (None, None),
            SlotState::Starting(worker) | SlotState::Running { worker, .. } => (Some(worker), None),
            SlotState::Replacing { old, new } => (Some(old), Some(new)),
        };
        first.into_iter().chain(second)
    }};
}

/// A worker of a slot that has exited.
pub(crate) struct SlotExit {
    pub(crate) worker: WorkerHandle,
    pub(crate) status: ExitStatus,
    /// It was the replacement of a worker that still serves or has exited too.
    pub(crate) was_replacement: bool,
}

impl SlotState {
    fn empty() -> SlotState {
        SlotState::Empty { retry_at: Instant::now() }
    }

    fn of(worker: WorkerHandle) -> SlotState {
        if worker.is_running() {
            SlotState::Running { worker, replace_at: Instant::now() }
        } else {
            SlotState::Starting(worker)
        }
    }
}

impl WorkerSlot {
    pub(crate) fn empty() -> WorkerSlot {
        WorkerSlot { state: SlotState::empty(), failures: 0 }
    }

    pub(crate) fn generation(size: usize) -> Generation {
        std::iter::repeat_with(WorkerSlot::empty).take(size.max(1)).collect()
    }

    /// Whether a worker of this slot serves.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, SlotState::Running { .. } | SlotState::Replacing { .. })
    }

    pub(crate) fn is_replacing(&self) -> bool {
        matches!(self.state, SlotState::Replacing { .. })
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = &WorkerHandle> {
        workers_of!(&self.state)
    }

    pub(crate) fn into_workers(self) -> impl Iterator<Item = WorkerHandle> {
        workers_of!(self.state)
    }

    pub(crate) fn workers_mut(&mut self) -> impl Iterator<Item = &mut WorkerHandle> {
        workers_of!(&mut self.state)
    }

    /// Follows a worker that has become ready. To be called after reading messages.
    pub(crate) fn update(&mut self) {
        self.transition(|state| match state {
            SlotState::Starting(worker) => SlotState::of(worker),
            state => state,
        });
    }

    /// When a process is to be forked here: for an empty slot or, if `may_replace`, for a worker that is to be
    /// recycled.
    pub(crate) fn fork_at(&self, may_replace: bool) -> Option<Instant> {
        match &self.state {
            SlotState::Empty { retry_at } => Some(*retry_at),
            SlotState::Running { worker, replace_at } if worker.recycle_requested && may_replace => {
                Some(*replace_at)
            }
            _ => None,
        }
    }

    /// Adds the process that `fork_at` has requested.
    pub(crate) fn add(&mut self, new: WorkerHandle) {
        self.transition(|state| match state {
            SlotState::Running { worker: old, .. } | SlotState::Replacing { old, .. } => {
                SlotState::Replacing { old, new }
            }
            SlotState::Empty { .. } | SlotState::Starting(_) => SlotState::Starting(new),
        });
    }

    /// If the replacement is ready, it takes over the slot. Returns the previous worker, which is to be drained, and
    /// the new one.
    pub(crate) fn take_replaced(&mut self) -> Option<(WorkerHandle, &WorkerHandle)> {
        let mut replaced = None;
        self.transition(|state| match state {
            SlotState::Replacing { old, new } if new.is_running() => {
                replaced = Some(old);
                SlotState::of(new)
            }
            state => state,
        });
        replaced.zip(self.workers().next())
    }

    /// Removes the workers that have exited. A replacement that is left takes over the slot.
    pub(crate) fn take_exited(&mut self) -> Vec<SlotExit> {
        let mut exits = Vec::new();
        let mut keep = |worker: WorkerHandle, was_replacement| match worker.reap() {
            None => Some(worker),
            Some(status) => {
                exits.push(SlotExit { worker, status, was_replacement });
                None
            }
        };
        self.transition(|state| match state {
            SlotState::Empty { retry_at } => SlotState::Empty { retry_at },
            SlotState::Starting(worker) => {
                keep(worker, false).map_or_else(SlotState::empty, SlotState::Starting)
            }
            SlotState::Running { worker, replace_at } => match keep(worker, false) {
                Some(worker) => SlotState::Running { worker, replace_at },
                None => SlotState::Empty { retry_at: replace_at },
            },
            SlotState::Replacing { old, new } => {
                let (new, old) = (keep(new, true), keep(old, false));
                match (old, new) {
                    (Some(old), Some(new)) => SlotState::Replacing { old, new },
                    (Some(worker), None) | (None, Some(worker)) => SlotState::of(worker),
                    (None, None) => SlotState::empty(),
                }
            }
        });
        exits
    }

    /// Decides when the slot's next process is forked after one has exited. Returns the delay.
    pub(crate) fn plan_restart(&mut self, exited: &WorkerHandle) -> Duration {
        if !restart_policy::restarts_now(exited.uptime(), exited.recycle_requested) {
            return self.back_off();
        }
        self.failures = 0;
        Duration::ZERO
    }

    /// Counts a failure. The next process is forked after a delay that grows with the failures in a row. Returns the
    /// delay.
    pub(crate) fn back_off(&mut self) -> Duration {
        let delay = restart_policy::backoff(self.failures);
        let not_before = Instant::now() + delay;
        self.failures = self.failures.saturating_add(1);
        match &mut self.state {
            SlotState::Empty { retry_at: at } | SlotState::Running { replace_at: at, .. } => *at = not_before,
            SlotState::Starting(_) | SlotState::Replacing { .. } => {}
        }
        delay
    }

    fn transition(&mut self, next: impl FnOnce(SlotState) -> SlotState) {
        self.state = next(std::mem::replace(&mut self.state, SlotState::empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_channel::{ChannelToMaster, ToMaster, channel};
    use rustix::process::Pid;

    /// A worker without a process, and its end of the channel. `reap` takes it for a process that something else has
    /// reaped.
    fn worker(slot: &mut WorkerSlot, pid: i32) -> ChannelToMaster {
        let (to_worker, to_master) = channel().unwrap();
        slot.add(WorkerHandle::new(Pid::from_raw(pid).unwrap(), to_worker, None));
        to_master
    }

    fn read_messages(slot: &mut WorkerSlot) {
        for worker in slot.workers_mut() {
            worker.read_messages(&mut crate::worker_handle::Requests::default());
        }
        slot.update();
    }

    fn forks(slot: &WorkerSlot, may_replace: bool) -> bool {
        slot.fork_at(may_replace).is_some_and(|at| at <= Instant::now())
    }

    fn pids(slot: &WorkerSlot) -> Vec<i32> {
        slot.workers().map(|worker| worker.pid.as_raw_pid()).collect()
    }

    const OLD: i32 = i32::MAX - 1;
    const NEW: i32 = i32::MAX;

    #[test]
    fn a_worker_that_is_to_be_recycled_serves_until_its_replacement_is_ready() {
        let mut slot = WorkerSlot::empty();
        assert!(forks(&slot, false));
        let old = worker(&mut slot, OLD);
        read_messages(&mut slot);
        assert!(!slot.is_running() && !forks(&slot, true));
        old.send(ToMaster::Ready);
        read_messages(&mut slot);
        assert!(slot.is_running() && !forks(&slot, true));
        old.send(ToMaster::RequestRecycle);
        read_messages(&mut slot);
        assert!(forks(&slot, true) && !forks(&slot, false));
        let new = worker(&mut slot, NEW);
        assert!(slot.is_running() && slot.is_replacing() && slot.take_replaced().is_none());
        assert_eq!(pids(&slot), [OLD, NEW]);
        new.send(ToMaster::Ready);
        read_messages(&mut slot);
        let replaced = slot.take_replaced().map(|(old, new)| (old.pid.as_raw_pid(), new.pid.as_raw_pid()));
        assert_eq!((replaced, pids(&slot)), (Some((OLD, NEW)), vec![NEW]));
        assert!(slot.is_running() && !slot.is_replacing());
    }

    #[test]
    fn a_slot_is_empty_after_an_exit_and_waits_for_its_backoff() {
        let mut slot = WorkerSlot::empty();
        let _channel = worker(&mut slot, OLD);
        let exits = slot.take_exited();
        assert_eq!((exits.len(), exits[0].status, pids(&slot)), (1, ExitStatus::Unknown, vec![]));
        let now = Instant::now();
        let delay = slot.plan_restart(&exits[0].worker);
        assert!(delay > Duration::ZERO);
        assert!(slot.fork_at(false).is_some_and(|at| at >= now + delay));
    }

    #[test]
    fn both_workers_of_a_slot_may_exit_and_the_replacement_is_reported_first() {
        let mut slot = WorkerSlot::empty();
        let old = worker(&mut slot, OLD);
        old.send(ToMaster::Ready);
        read_messages(&mut slot);
        let _new = worker(&mut slot, NEW);
        let exits: Vec<_> = slot.take_exited().iter().map(|exit| exit.was_replacement).collect();
        assert_eq!((exits, pids(&slot)), (vec![true, false], vec![]));
    }
}
