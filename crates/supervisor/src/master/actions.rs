//! What a master does for each [`Action`].

use std::time::Instant;

use super::Master;
use crate::action::{Action, MasterPhase};
use crate::control_channel::ToWorker;
use crate::delegate::MasterEvent;
use crate::messages;
use crate::worker_handle::Drain;
use crate::worker_set::STOP_TIMEOUT;
use crate::worker_slot::WorkerSlot;

impl Master<'_> {
    /// Carries out an action.
    pub(super) fn perform(&mut self, action: Action) {
        let manages_masters = self.settings.manages_masters;
        match action {
            Action::ReopenLogs => {
                self.delegate.on_event(MasterEvent::ReopenLogs);
                self.workers.send(ToWorker::ReopenLogs);
            }
            Action::Refresh => {
                self.delegate.on_event(MasterEvent::Refreshed);
                self.workers.send(ToWorker::Refresh);
            }
            Action::IncreaseWorkers if manages_masters => self.workers.send(ToWorker::IncreaseWorkers),
            Action::IncreaseWorkers if self.is_stopping() => {} // from the parent of a nested master
            Action::IncreaseWorkers => self.increase_workers(),
            Action::DecreaseWorkers if manages_masters => self.workers.send(ToWorker::DecreaseWorkers),
            Action::DecreaseWorkers => self.decrease_workers(),
            Action::Reload => self.reload(),
            Action::Upgrade => self.spawn_upgrade(),
            Action::DrainWorkers => {
                messages::draining_workers();
                let slots = self.workers.take_slots();
                self.workers.drain(slots, Drain::Final, self.settings.graceful_timeout);
            }
            Action::ShutDown(drain) => self.shut_down(drain),
            Action::StopNow => self.stop_now(0),
        }
    }

    pub(super) fn reload(&mut self) {
        // A generation that is starting may have loaded the code before it changed again.
        let is_starting = self.phase == MasterPhase::Starting || self.workers.next.is_some();
        if self.is_stopping() {
            return;
        } else if is_starting {
            return self.reload_pending = true;
        }
        match self.delegate.reload() {
            Ok(settings) => {
                messages::reloading();
                self.settings = settings;
                self.next_refresh = self.settings.refresh_interval.map(|interval| Instant::now() + interval);
                self.workers.next = Some(WorkerSlot::generation(self.settings.workers));
                self.delegate.on_event(MasterEvent::Reloading);
            }
            Err(reason) => messages::reload_rejected(&reason),
        }
    }

    fn increase_workers(&mut self) {
        let generation = self.workers.newest();
        generation.push(WorkerSlot::empty());
        let to = generation.len();
        messages::workers_increased(to);
        self.delegate.on_event(MasterEvent::WorkerCountChanged { from: to - 1, to });
    }

    /// One worker always remains.
    fn decrease_workers(&mut self) {
        let generation = self.workers.newest();
        if generation.len() > 1 {
            let (last, to) = (generation.pop(), generation.len());
            messages::workers_decreased(to);
            self.workers.drain(last, Drain::HandOver, self.settings.graceful_timeout);
            self.delegate.on_event(MasterEvent::WorkerCountChanged { from: to + 1, to });
        }
    }

    fn spawn_upgrade(&mut self) {
        if let Some(pid) = self.upgrade.new_master {
            return messages::upgrade_in_progress(pid);
        }
        match self.delegate.spawn_upgrade() {
            Ok(pid) => {
                messages::new_master_started(pid);
                self.upgrade.new_master = Some(pid);
            }
            Err(error) => messages::upgrade_failed(error),
        }
    }

    /// Only the first TERM counts. `timeout`, `uvx`, process managers and an init often deliver it twice: to the process
    /// group, and to the master. But a final drain is passed on to workers that are handing over.
    fn shut_down(&mut self, drain: Drain) {
        let timeout = self.settings.graceful_timeout;
        if !self.is_stopping() {
            messages::shutting_down(timeout);
            self.enter_stopping(0);
        }
        let slots = self.workers.take_slots();
        self.workers.drain(slots, drain, timeout);
    }

    /// Tells all workers to stop, and kills those that have not after `STOP_TIMEOUT`. A nested master needs that time for its own
    /// workers, so it gets twice as long.
    pub(super) fn stop_now(&mut self, code: i32) {
        messages::shutting_down_now();
        self.enter_stopping(code);
        let timeout = if self.settings.manages_masters { 2 * STOP_TIMEOUT } else { STOP_TIMEOUT };
        self.workers.terminate_all(timeout);
    }

    fn is_stopping(&self) -> bool {
        matches!(self.phase, MasterPhase::Stopping { .. })
    }

    /// The exit code of an earlier stop is kept.
    fn enter_stopping(&mut self, code: i32) {
        if !self.is_stopping() {
            self.delegate.on_event(MasterEvent::Stopping);
            self.phase = MasterPhase::Stopping { code };
        }
    }
}
