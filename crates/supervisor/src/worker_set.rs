//! [`WorkerSet`]: all workers of a master, by generation.
//!
//! The `current` generation serves. During a reload, the `next` one starts beside it. Once all of `next` are ready it becomes
//! `current`, and the previous workers are `stopping`. If one of `next` cannot start, all of `next` are stopped instead.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::control_channel::ToWorker;
use crate::worker_handle::{Drain, Requests, WorkerHandle};
use crate::worker_slot::{Generation, SlotExit, WorkerSlot};

/// The time between QUIT and KILL.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(1);

pub(crate) struct WorkerSet {
    pub(crate) current: Generation,
    pub(crate) next: Option<Generation>,
    stopping: Vec<WorkerHandle>,
}

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotId {
    pub(crate) is_next: bool,
    pub(crate) number: usize,
}

impl WorkerSet {
    pub(crate) fn new(workers: usize) -> WorkerSet {
        WorkerSet { current: WorkerSlot::generation(workers), next: None, stopping: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.workers().next().is_none()
    }

    pub(crate) fn count_running(&self) -> usize {
        self.workers().filter(|worker| worker.is_running()).count()
    }

    /// The generation that signals resize: the next one during a reload.
    pub(crate) fn newest(&mut self) -> &mut Generation {
        self.next.as_mut().unwrap_or(&mut self.current)
    }

    /// The slot, if it still exists.
    pub(crate) fn slot(&mut self, id: SlotId) -> Option<&mut WorkerSlot> {
        let generation = if id.is_next { self.next.as_mut()? } else { &mut self.current };
        generation.get_mut(id.number)
    }

    pub(crate) fn send(&self, message: ToWorker) {
        self.workers().for_each(|worker| worker.send(message));
    }

    /// Reads the messages of all workers. Returns what they request.
    pub(crate) fn read_messages(&mut self) -> Requests {
        let mut requests = Requests::default();
        self.workers_mut().for_each(|worker| worker.read_messages(&mut requests));
        self.slots_mut().for_each(WorkerSlot::update);
        requests
    }

    /// Removes and returns the workers that have exited, and the slot of each unless it was stopping.
    pub(crate) fn take_exited(&mut self) -> Vec<(Option<SlotId>, SlotExit)> {
        let mut exits = Vec::new();
        for worker in std::mem::take(&mut self.stopping) {
            match worker.reap() {
                Some(status) => {
                    exits.push((None, SlotExit { worker, status, was_replacement: false }));
                }
                None => self.stopping.push(worker),
            }
        }
        let generations = [(false, Some(&mut self.current)), (true, self.next.as_mut())];
        for (is_next, generation) in generations {
            for (number, slot) in generation.into_iter().flatten().enumerate() {
                let id = Some(SlotId { is_next, number });
                exits.extend(slot.take_exited().into_iter().map(|exit| (id, exit)));
            }
        }
        exits
    }

    /// Moves all slots out. Nothing is forked until there are slots again.
    pub(crate) fn take_slots(&mut self) -> Vec<WorkerSlot> {
        let next = self.next.take().into_iter().flatten();
        self.current.drain(..).chain(next).collect()
    }

    /// Makes the workers of these slots finish their requests and exit.
    ///
    /// Invariant: in a final drain, workers that are handing connections over receive `Drain` before the last workers
    /// do. They take back what they hand over later. The last workers still receive what was handed over before.
    pub(crate) fn drain(
        &mut self,
        slots: impl IntoIterator<Item = WorkerSlot>,
        drain: Drain,
        timeout: Duration,
    ) {
        if drain == Drain::Final {
            self.stopping.iter().for_each(|worker| worker.send(ToWorker::Drain));
        }
        for mut worker in slots.into_iter().flat_map(WorkerSlot::into_workers) {
            if worker.is_running() {
                worker.drain(drain, timeout);
            } else {
                worker.terminate(STOP_TIMEOUT); // it has nothing to finish
            }
            self.stopping.push(worker);
        }
    }

    /// Drains the workers whose replacement is ready. Returns the pids of each and of its replacement.
    pub(crate) fn drain_replaced(&mut self, timeout: Duration) -> Vec<(Pid, Pid)> {
        let mut pids = Vec::new();
        for slot in &mut self.current {
            if let Some((mut old, new)) = slot.take_replaced() {
                pids.push((old.pid, new.pid));
                old.drain(Drain::HandOver, timeout);
                self.stopping.push(old);
            }
        }
        pids
    }

    /// If all of the next generation are ready, it becomes the current one, and the previous one is drained.
    pub(crate) fn switch_generation(&mut self, timeout: Duration) -> bool {
        let Some(next) = self.next.take_if(|next| next.iter().all(WorkerSlot::is_running)) else {
            return false;
        };
        let previous = std::mem::replace(&mut self.current, next);
        self.drain(previous, Drain::HandOver, timeout);
        true
    }

    /// Stops the next generation.
    pub(crate) fn abandon_next(&mut self) {
        for mut worker in self.next.take().into_iter().flatten().flat_map(WorkerSlot::into_workers) {
            worker.terminate(STOP_TIMEOUT);
            self.stopping.push(worker);
        }
    }

    /// Stops all workers immediately.
    pub(crate) fn terminate_all(&mut self, timeout: Duration) {
        let slots = self.take_slots();
        self.stopping.extend(slots.into_iter().flat_map(WorkerSlot::into_workers));
        self.stopping.iter_mut().for_each(|worker| worker.terminate(timeout));
    }

    /// Workers are replaced one at a time, and not while a new generation starts.
    fn may_replace(&self) -> bool {
        self.next.is_none() && !self.current.iter().any(WorkerSlot::is_replacing)
    }

    /// The next slot to fork a process for.
    pub(crate) fn slot_to_fill(&self, now: Instant) -> Option<SlotId> {
        let may_replace = self.may_replace();
        let is_due = |slot: &WorkerSlot| slot.fork_at(may_replace).is_some_and(|at| at <= now);
        let find = |generation: &Generation, is_next| {
            generation.iter().position(is_due).map(|number| SlotId { is_next, number })
        };
        find(&self.current, false).or_else(|| find(self.next.as_ref()?, true))
    }

    /// Aborts or kills workers that have not started or stopped in time.
    pub(crate) fn enforce_timeouts(&mut self, now: Instant) {
        self.workers_mut().for_each(|worker| worker.enforce_timeout(now));
    }

    /// When `slot_to_fill` or `enforce_timeouts` has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let may_replace = self.may_replace();
        let forks = self.slots().filter_map(|slot| slot.fork_at(may_replace));
        forks.chain(self.workers().filter_map(WorkerHandle::deadline)).min()
    }

    /// The descriptors that become readable when a worker sends a message.
    pub(crate) fn poll_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.workers().filter_map(WorkerHandle::poll_fd)
    }

    fn slots(&self) -> impl Iterator<Item = &WorkerSlot> {
        self.current.iter().chain(self.next.iter().flatten())
    }

    fn slots_mut(&mut self) -> impl Iterator<Item = &mut WorkerSlot> {
        self.current.iter_mut().chain(self.next.iter_mut().flatten())
    }

    fn workers_mut(&mut self) -> impl Iterator<Item = &mut WorkerHandle> {
        let slots = self.current.iter_mut().chain(self.next.iter_mut().flatten());
        slots.flat_map(WorkerSlot::workers_mut).chain(&mut self.stopping)
    }

    fn workers(&self) -> impl Iterator<Item = &WorkerHandle> {
        self.slots().flat_map(WorkerSlot::workers).chain(&self.stopping)
    }
}
