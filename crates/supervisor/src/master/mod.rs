//! [`Master`]: the loop that forks workers, reaps them, and carries out what signals order.
//!
//! [`Master::run`] returns in two kinds of processes: in the master when all workers are gone, and in each worker right after
//! its fork. A worker drops the master, and with it the master's channels to the other workers, by returning.

mod actions;

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::action::{Action, MasterPhase};
use crate::control_channel::{ChannelToMaster, ToMaster, ToWorker, channel};
use crate::delegate::{Delegate, MasterEvent};
use crate::exit_status::ExitStatus;
use crate::fork_hooks;
use crate::messages;
use crate::settings::MasterSettings;
use crate::signal_queue::{SignalPipe, SignalQueue};
use crate::upgrade::Upgrade;
use crate::worker::{Worker, WorkerCommand};
use crate::worker_handle::WorkerHandle;
use crate::worker_set::{SlotId, WorkerSet};
use crate::worker_slot::{SlotExit, WorkerSlot};
use mlws_sys::{self as sys, Fork};

/// A signal that a nested master forwards within this time after the master received the same signal was sent to the process group.
const GROUP_SIGNAL_WINDOW: Duration = Duration::from_secs(1);

/// How [`Master::run`] returns: in the master, with its exit code, or in a worker that was just forked.
pub(crate) enum RunResult {
    Stopped(i32),
    Forked(Worker),
}

pub(crate) struct Master<'a> {
    settings: MasterSettings,
    delegate: &'a mut dyn Delegate,
    signals: SignalQueue,
    /// In a nested master: the channel to its parent.
    parent: Option<ChannelToMaster>,
    phase: MasterPhase,
    workers: WorkerSet,
    /// A reload was requested while a generation was starting.
    reload_pending: bool,
    /// The current generation was reported as ready.
    ready_reported: bool,
    /// The number of running workers that the delegate knows of.
    serving: usize,
    forks: u64,
    upgrade: Upgrade,
    /// When each signal was received last.
    received: Vec<(Signal, Instant)>,
    next_refresh: Option<Instant>,
    next_heartbeat: Option<Instant>,
}

/// What a worker owns right after its fork.
struct ForkedWorker {
    number: usize,
    channel: ChannelToMaster,
}

impl<'a> Master<'a> {
    pub(crate) fn new(
        settings: MasterSettings,
        delegate: &'a mut dyn Delegate,
        signals: SignalQueue,
        parent: Option<ChannelToMaster>,
    ) -> Master<'a> {
        Master {
            workers: WorkerSet::new(settings.workers),
            upgrade: Upgrade::new(settings.old_master),
            next_refresh: settings.refresh_interval.map(|interval| Instant::now() + interval),
            next_heartbeat: settings.heartbeat_interval.map(|interval| Instant::now() + interval),
            settings,
            delegate,
            signals,
            parent,
            phase: MasterPhase::Starting,
            reload_pending: false,
            ready_reported: false,
            serving: 0,
            forks: 0,
            received: Vec::new(),
        }
    }

    pub(crate) fn run(mut self) -> RunResult {
        loop {
            // Before reaping: once CHLD is taken from the queue, nothing else wakes the master for that exit.
            while let Some(signal) = self.signals.next() {
                self.receive_signal(signal);
            }
            self.read_parent_commands();
            self.read_worker_messages();
            self.reap_workers();
            self.check_other_masters();
            self.finish_handovers();
            self.report_count();
            self.fire_timers();
            if let Some(ForkedWorker { number, channel }) = self.spawn_missing_workers() {
                return RunResult::Forked(Worker::new(number, self.forks, channel, self.signals));
            }
            if let MasterPhase::Stopping { code } = self.phase
                && self.workers.is_empty()
            {
                return RunResult::Stopped(code);
            }
            self.poll();
        }
    }

    fn receive_signal(&mut self, signal: Signal) {
        if let (Some(parent), Some(message)) = (&self.parent, ToMaster::forwarding(signal)) {
            parent.send(message);
        }
        self.received.retain(|(received, _)| *received != signal);
        self.received.push((signal, Instant::now()));
        self.handle_signal(signal);
    }

    /// Handles a signal that a nested master has received, unless it was sent to the whole process group, this master included.
    fn handle_forwarded_signal(&mut self, signal: Signal) {
        let is_group_signal =
            |(received, at): &(Signal, Instant)| *received == signal && at.elapsed() < GROUP_SIGNAL_WINDOW;
        if self.settings.accepts_forwarded_signals && !self.received.iter().any(is_group_signal) {
            self.handle_signal(signal);
        }
    }

    fn handle_signal(&mut self, signal: Signal) {
        let Some(action) = Action::for_signal(signal, self.phase, self.parent.is_some()) else { return };
        // A terminal sends WINCH whenever its window changes.
        if signal == Signal::WINCH && sys::is_in_foreground() {
            return;
        }
        messages::handling_signal(&sys::signal_name(signal.as_raw()));
        self.read_worker_messages(); // a worker that was ready before the signal drains, and is not terminated
        self.perform(action);
    }

    fn read_parent_commands(&mut self) {
        while let Some(received) = self.parent.as_mut().and_then(ChannelToMaster::recv) {
            self.perform(WorkerCommand::from(received).into());
        }
    }

    fn read_worker_messages(&mut self) {
        let requests = self.workers.read_messages();
        if self.phase == MasterPhase::Starting && self.workers.current.iter().any(WorkerSlot::is_running) {
            self.phase = MasterPhase::Serving;
        }
        match &self.parent {
            _ if !requests.reload || !self.settings.workers_may_reload => {}
            Some(parent) => parent.send(ToMaster::RequestReload),
            None => self.reload(),
        }
        for signal in requests.signals {
            self.handle_forwarded_signal(signal);
        }
    }

    /// Exits are collected first and then handled, because handling one of them may stop all workers.
    fn reap_workers(&mut self) {
        for (slot_id, exit) in self.workers.take_exited() {
            self.delegate.on_event(MasterEvent::WorkerReaped { pid: exit.worker.pid });
            self.handle_worker_exit(slot_id, &exit);
        }
    }

    fn handle_worker_exit(&mut self, slot_id: Option<SlotId>, exit: &SlotExit) {
        let (pid, status, was_ready) = (exit.worker.pid, exit.status, exit.worker.is_running());
        let slot = slot_id.and_then(|id| Some((id, self.workers.slot(id)?)));
        match slot {
            None if status == ExitStatus::Code(0) => messages::worker_exited(pid, status),
            None => messages::worker_stop_failed(pid, status),
            Some((id, _)) if id.is_next && !was_ready => {
                messages::reload_failed(pid, status);
                self.workers.abandon_next();
                self.delegate.on_event(MasterEvent::ReloadFailed);
            }
            Some((id, slot)) if id.is_next => {
                messages::worker_lost(pid, status, &messages::restart_in(slot.back_off()));
            }
            Some((_, slot)) if exit.was_replacement => {
                messages::worker_boot_failed(pid, status, &messages::restart_in(slot.back_off()));
            }
            Some((id, slot)) => {
                self.delegate.on_event(MasterEvent::WorkerCrashed { number: id.number });
                if self.phase == MasterPhase::Starting {
                    messages::worker_boot_failed(pid, status, "shutting down");
                    return self.stop_now(status.code());
                }
                let log = if was_ready { messages::worker_lost } else { messages::worker_boot_failed };
                log(pid, status, &messages::restart_in(slot.plan_restart(&exit.worker)));
            }
        }
    }

    /// Notices that the new master or the old master of a binary upgrade has exited.
    fn check_other_masters(&mut self) {
        if let Some((pid, status)) = self.upgrade.reap_new_master() {
            messages::new_master_exited(pid, status);
            self.delegate.on_event(MasterEvent::NewMasterExited);
        }
        if self.upgrade.take_old_master_exit() {
            messages::old_master_exited();
            self.delegate.on_event(MasterEvent::OldMasterExited);
        }
    }

    /// Drains workers whose replacement is ready, or all of them once the next generation is ready.
    fn finish_handovers(&mut self) {
        let timeout = self.settings.graceful_timeout;
        for (old, new) in self.workers.drain_replaced(timeout) {
            messages::worker_replaced(old, new);
        }
        if self.workers.switch_generation(timeout) {
            messages::reload_complete(timeout);
            self.ready_reported = false;
        }
        let current = &self.workers.current;
        if self.phase == MasterPhase::Serving
            && !self.ready_reported
            && current.iter().all(WorkerSlot::is_running)
        {
            self.ready_reported = true;
            if let Some(parent) = &self.parent {
                parent.send(ToMaster::Ready);
            }
            self.delegate.on_event(MasterEvent::WorkersReady { workers: current.len() });
        }
        if self.workers.next.is_none() && std::mem::take(&mut self.reload_pending) {
            self.reload();
        }
    }

    fn report_count(&mut self) {
        let serving = self.workers.count_running();
        if serving != self.serving && !self.settings.manages_masters {
            self.serving = serving;
            self.delegate.on_event(MasterEvent::ServingCount { serving });
        }
    }

    /// Enforces the timeouts of workers, sends the heartbeat, and lets the delegate look for changes.
    fn fire_timers(&mut self) {
        let now = Instant::now();
        self.workers.enforce_timeouts(now);
        if self.next_heartbeat.is_some_and(|at| at <= now) {
            self.next_heartbeat = self.settings.heartbeat_interval.map(|interval| now + interval);
            self.delegate.on_event(MasterEvent::Heartbeat);
        }
        if self.next_refresh.is_some_and(|at| at <= now) {
            self.next_refresh = self.settings.refresh_interval.map(|interval| now + interval);
            if self.delegate.refresh() {
                self.workers.send(ToWorker::Refresh);
            }
        }
    }

    /// When `fire_timers` or `spawn_missing_workers` has something to do.
    fn next_deadline(&self) -> Option<Instant> {
        self.workers.next_deadline().into_iter().chain(self.next_heartbeat).chain(self.next_refresh).min()
    }

    /// Forks a process for each slot that needs one. A stopping master has no slots. Returns a forked worker in the worker, and
    /// nothing in the master.
    fn spawn_missing_workers(&mut self) -> Option<ForkedWorker> {
        let now = Instant::now();
        while let Some(id) = self.workers.slot_to_fill(now) {
            match self.fork_worker(id) {
                Ok(None) => {}
                Ok(forked) => return forked,
                Err(error) => {
                    let delay = self.workers.slot(id).map_or(Duration::ZERO, WorkerSlot::back_off);
                    messages::fork_failed(error, &messages::restart_in(delay));
                }
            }
        }
        None
    }

    fn fork_worker(&mut self, id: SlotId) -> io::Result<Option<ForkedWorker>> {
        // Everything that can fail happens before the fork, where the error can be handled.
        let (to_worker, to_master) = channel()?;
        let pipe = SignalPipe::new()?;
        self.delegate.on_event(MasterEvent::WorkerForking { age: self.forks + 1 });
        let signals = &mut self.signals;
        let forked = fork_hooks::fork(&*self.delegate, || signals.adopt_in_worker(pipe))?;
        self.forks += 1;
        let Fork::Parent { child: pid } = forked else {
            return Ok(Some(ForkedWorker { number: id.number, channel: to_master }));
        };
        messages::booting_worker(pid);
        let deadline = self.settings.boot_timeout.map(|timeout| Instant::now() + timeout);
        if let Some(slot) = self.workers.slot(id) {
            slot.add(WorkerHandle::new(pid, to_worker, deadline));
        }
        self.delegate.on_event(MasterEvent::WorkerForked { pid });
        Ok(None)
    }

    /// Waits for a signal, a message from a worker or the parent, or the next deadline.
    fn poll(&mut self) {
        let timeout = self.next_deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let fds = [self.signals.as_fd()].into_iter().chain(self.workers.poll_fds());
        let fds = fds.chain(self.parent.as_ref().and_then(ChannelToMaster::poll_fd));
        let fds = fds.chain(self.upgrade.poll_fd());
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let mut polled = Ok(0);
        self.delegate.while_idle(&mut || polled = poll(&mut fds, timeout.as_ref()));
        if let Err(error) = polled
            && error != Errno::INTR
        {
            messages::master_poll_failed(error);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
