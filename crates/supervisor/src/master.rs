//! The master's loop: obey signals, listen, reap, hand over, lose patience, top up, sleep until something is due.
//!
//! The one thing to know: [`Master::run`] is left in two ways, by the master at the very end and by every worker right
//! after its fork. The worker leaves the master's lines to the other workers behind it, closed, by just returning.
//!
//! Two generations may live beside each other: the `present` one serves while the `coming` one starts. Once all of the
//! coming are ready, the present ones are told to go and are `leaving`; if one of the coming cannot start, those go.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::ending::Ending;
use crate::process::Process;
use crate::signals::{Pipe, Signals};
use crate::slot::{Generation, Slot};
use crate::sys::{self, Blocked, Fork};
use crate::worker::{
    ASKS_FOR_RELOAD, DRAIN, HAND_OVER, IS_READY, Line, ONE_FEWER, ONE_MORE, Order, REOPEN, Worker,
};
use crate::{News, Owner, Settings};

/// A worker that dies before it is ready, or within this time after, is part of a crash loop.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How long workers may take to obey QUIT before they are killed. One that is a master itself has the same patience
/// with its own, and then some more.
const FAST_TIMEOUT: Duration = Duration::from_secs(1);

/// How [`Master::run`] ends.
pub(crate) enum End {
    /// In the master: all workers are gone, and this is the exit code.
    Stopped(i32),
    /// In a worker that was just forked.
    Forked(Worker),
}

pub(crate) struct Master<'a> {
    settings: Settings,
    owner: &'a mut dyn Owner,
    signals: Signals,
    /// Where this master is itself a worker: its line to the master above.
    above: Option<Line>,
    phase: Phase,
    present: Generation,
    coming: Option<Generation>,
    leaving: Vec<Process>,
    /// HUP came while a generation was starting already.
    reload_again: bool,
    /// The present generation was announced as ready.
    announced: bool,
    /// How many workers the owner was last told of.
    serving: usize,
    forks: u64,
    /// A second master that this one has started, on USR2.
    second: Option<Pid>,
    /// Readable once the master that started this one is gone.
    first: Option<OwnedFd>,
    next_tick: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No worker has ever been ready: the first that ends now ends the whole.
    Starting,
    Serving,
    Stopping {
        code: i32,
    },
}

/// What a worker has of its own right after the fork.
struct Newborn {
    number: usize,
    line: UnixStream,
}

impl<'a> Master<'a> {
    pub(crate) fn new(
        settings: Settings,
        owner: &'a mut dyn Owner,
        above: Option<Worker>,
    ) -> io::Result<Master<'a>> {
        let (above, signals) = match above.map(Worker::into_parts) {
            Some((line, mut signals)) => {
                signals.become_masters();
                (Some(line), signals)
            }
            None => (None, Signals::catch()?),
        };
        Ok(Master {
            present: Slot::generation(settings.workers.max(1)),
            first: settings.first.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()),
            next_tick: settings.tick.map(|tick| Instant::now() + tick),
            settings,
            owner,
            signals,
            above,
            phase: Phase::Starting,
            coming: None,
            leaving: Vec::new(),
            reload_again: false,
            announced: false,
            serving: 0,
            forks: 0,
            second: None,
        })
    }

    pub(crate) fn run(mut self) -> End {
        loop {
            // Before reaping: once a CHLD is taken, nothing else would wake us for that death.
            while let Some(signal) = self.signals.next() {
                self.obey(signal);
            }
            self.hear_from_above();
            self.listen();
            self.reap();
            self.hand_over();
            self.count();
            self.lose_patience();
            if let Some(Newborn { number, line }) = self.top_up() {
                return End::Forked(Worker::new(number, self.forks, OwnedFd::from(line), self.signals));
            }
            if let Phase::Stopping { code } = self.phase
                && self.processes().next().is_none()
            {
                return End::Stopped(code);
            }
            self.sleep();
        }
    }

    fn obey(&mut self, signal: Signal) {
        match (signal, self.phase) {
            (Signal::INT | Signal::QUIT, Phase::Stopping { code }) => self.stop_fast(code),
            (Signal::INT | Signal::QUIT, _) => self.stop_fast(0),
            (Signal::TERM, _) => self.stop_gracefully(DRAIN),
            _ if self.above.is_some() => {} // sent to the group; the master above sees to it
            (Signal::USR1, _) => self.reopen_logs(),
            (_, Phase::Stopping { .. }) => {}
            (Signal::HUP, _) => self.reload(),
            (Signal::USR2, _) => self.start_second_master(),
            (Signal::TTIN, _) => self.one_more(),
            (Signal::TTOU, _) => self.one_fewer(),
            (Signal::WINCH, Phase::Serving) => self.send_all_home(),
            _ => {} // CHLD: `reap` is next
        }
    }

    /// Does what the master above orders, where there is one.
    fn hear_from_above(&mut self) {
        while let Some(order) = self.above.as_mut().and_then(Line::hear) {
            match order {
                Order::Reopen => self.reopen_logs(),
                Order::OneMore => self.one_more(),
                Order::OneFewer => self.one_fewer(),
                Order::HandOver => self.stop_gracefully(HAND_OVER),
                Order::Drain => self.stop_gracefully(DRAIN),
                Order::Stop => self.stop_fast(0),
            }
        }
    }

    /// Hears what the workers say: that they are ready, worn, or want a reload.
    fn listen(&mut self) {
        let mut asked_for_reload = false;
        for process in self.processes() {
            let was_ready = process.is_ready();
            asked_for_reload |= process.listen();
            if process.is_ready() && !was_ready {
                info!("worker {} is up", process.pid);
            }
        }
        if self.phase == Phase::Starting && self.present.iter().any(Slot::is_ready) {
            self.phase = Phase::Serving;
        }
        match &self.above {
            _ if !asked_for_reload || !self.settings.workers_may_reload => {}
            Some(above) => above.say(ASKS_FOR_RELOAD),
            None => self.reload(),
        }
    }

    /// Finds out which workers have ended, and decides what follows from it.
    fn reap(&mut self) {
        let owner = &mut *self.owner;
        self.leaving.retain(|process| {
            let Some(ending) = process.ending() else { return true };
            owner.hear(News::Gone { pid: process.pid });
            match ending {
                Ending::Exited(0) => info!("worker {} has ended", process.pid),
                _ => warn!("worker {} {ending} while stopping", process.pid),
            }
            false
        });
        for number in 0..self.present.len() {
            // What follows from one end may be the end of all.
            let Some(slot) = self.present.get_mut(number) else { break };
            if let Some((heir, ending)) = take_ended(&mut slot.heir, self.owner) {
                slot.put_off(&format!("worker {} {ending} before it could follow another", heir.pid));
            }
            if let Some((dead, ending)) = take_ended(&mut slot.holder, self.owner) {
                self.bury(number, &dead, ending);
            }
        }
        for number in 0..self.coming.as_ref().map_or(0, Vec::len) {
            let Some(slot) = self.coming.as_mut().and_then(|coming| coming.get_mut(number)) else { break };
            if let Some((dead, ending)) = take_ended(&mut slot.holder, self.owner) {
                let what = format!("worker {} {ending}", dead.pid);
                match dead.served() {
                    Some(_) => slot.put_off(&what),
                    None => self.give_up_reload(&format!("{what} before it was ready")),
                }
            }
        }
        if let Some((pid, ending)) = self.second.and_then(|pid| Some((pid, Ending::of(pid)?))) {
            warn!("the second master {pid} {ending}; this one goes on");
            self.second = None;
            self.owner.hear(News::SecondIsGone);
        }
        if self.first.as_ref().is_some_and(is_readable) {
            info!("the first master is gone; this one takes its place");
            self.first = None;
            self.owner.hear(News::FirstIsGone);
        }
    }

    /// What follows from the end of a worker of the present generation.
    fn bury(&mut self, number: usize, dead: &Process, ending: Ending) {
        self.owner.hear(News::Ended { number });
        let (pid, slot) = (dead.pid, &mut self.present[number]);
        slot.holder = slot.heir.take();
        match (self.phase, dead.served()) {
            (Phase::Starting, _) => {
                error!("worker {pid} {ending} before it was ready, so there is nothing to run");
                self.stop_fast(ending.code());
            }
            (_, Some(served)) if slot.holder.is_some() || dead.worn || served >= SHORT_LIFE => {
                slot.forget_failures();
                error!("worker {pid} {ending}; a new one starts at once");
            }
            (_, Some(_)) => slot.put_off(&format!("worker {pid} {ending} as soon as it was up")),
            (_, None) => slot.put_off(&format!("worker {pid} {ending} before it was ready")),
        }
    }

    /// Sends those home whose successors are ready, one heir or a whole generation.
    fn hand_over(&mut self) {
        let patience = self.settings.graceful_timeout;
        for slot in &mut self.present {
            if let Some(mut worn) = slot.succession() {
                info!(
                    "worker {} is followed by {}",
                    worn.pid,
                    slot.holder.as_ref().map_or(worn.pid, |heir| heir.pid)
                );
                worn.retire(HAND_OVER, patience);
                self.leaving.push(worn);
            }
        }
        if let Some(coming) = self.coming.take_if(|coming| coming.iter().all(Slot::is_ready)) {
            info!("the new workers serve; the old ones may finish what they run, for at most {patience:?}");
            let old = std::mem::replace(&mut self.present, coming);
            self.send_home(old, HAND_OVER);
            self.announced = false;
        }
        if self.phase == Phase::Serving && !self.announced && self.present.iter().all(Slot::is_ready) {
            self.announced = true;
            if let Some(above) = &self.above {
                above.say(IS_READY);
            }
            self.owner.hear(News::Ready { workers: self.present.len() });
        }
        if self.coming.is_none() && std::mem::take(&mut self.reload_again) {
            self.reload();
        }
    }

    /// Tells the owner how many workers serve, if that has changed.
    fn count(&mut self) {
        let serving = self.processes().filter(|process| process.is_ready()).count();
        if serving != self.serving && !self.settings.is_above_masters {
            self.serving = serving;
            self.owner.hear(News::Workers { serving });
        }
    }

    fn lose_patience(&mut self) {
        let now = Instant::now();
        for process in self.processes() {
            process.lose_patience(now);
        }
        if self.next_tick.is_some_and(|tick| tick <= now) {
            self.next_tick = self.settings.tick.map(|tick| now + tick);
            self.owner.hear(News::Tick);
        }
    }

    fn reload(&mut self) {
        match self.phase {
            Phase::Stopping { .. } => return,
            // What has changed since may have been read already.
            _ if self.coming.is_some() => return self.reload_again = true,
            Phase::Starting => return self.reload_again = true,
            Phase::Serving => {}
        }
        match self.owner.reload() {
            Ok(settings) => {
                info!("reloading: new workers start, while the old ones serve");
                self.settings = settings;
                self.coming = Some(Slot::generation(self.settings.workers.max(1)));
                self.owner.hear(News::Reloading);
            }
            Err(why) => error!("cannot reload, so all goes on as before: {why}"),
        }
    }

    fn give_up_reload(&mut self, why: &str) {
        error!("the reload has failed, so the old workers serve on: {why}");
        for mut process in self.coming.take().into_iter().flatten().filter_map(|slot| slot.holder) {
            process.dismiss(FAST_TIMEOUT);
            self.leaving.push(process);
        }
        self.owner.hear(News::ReloadFailed);
    }

    fn reopen_logs(&mut self) {
        self.owner.hear(News::Reopen);
        for process in self.processes() {
            process.order(REOPEN);
        }
    }

    fn one_more(&mut self) {
        if self.settings.is_above_masters {
            return self.processes().for_each(|process| process.order(ONE_MORE));
        }
        let generation = self.coming.as_mut().unwrap_or(&mut self.present);
        generation.push(Slot::vacant());
        let to = generation.len();
        info!("one worker more: {to}");
        self.owner.hear(News::Resized { from: to - 1, to });
    }

    fn one_fewer(&mut self) {
        if self.settings.is_above_masters {
            return self.processes().for_each(|process| process.order(ONE_FEWER));
        }
        let generation = self.coming.as_mut().unwrap_or(&mut self.present);
        if generation.len() > 1 {
            let (last, to) = (generation.pop(), generation.len());
            info!("one worker fewer: {to}");
            self.send_home(last, HAND_OVER);
            self.owner.hear(News::Resized { from: to + 1, to });
        }
    }

    /// The master stays, without workers, until HUP or TTIN. A terminal whose window changes says the same and means nothing.
    fn send_all_home(&mut self) {
        if sys::is_in_foreground() {
            return;
        }
        info!("the workers may finish what they run and go; HUP brings new ones");
        let generations =
            std::mem::take(&mut self.present).into_iter().chain(self.coming.take().into_iter().flatten());
        let slots: Vec<_> = generations.collect();
        self.send_home(slots, DRAIN);
    }

    fn start_second_master(&mut self) {
        if let Some(pid) = self.second {
            return warn!("there is a second master already: {pid}");
        }
        match self.owner.start_second() {
            Ok(pid) => {
                info!("a second master starts beside this one: {pid}");
                self.second = Some(pid);
            }
            Err(error) => error!("no second master can be started: {error}"),
        }
    }

    /// Tells the processes of these slots to finish what they run and leave, by `HAND_OVER` if others serve on, else by `DRAIN`.
    ///
    /// Invariant: those that hand over are told first that nobody goes on. What they send later they take back themselves, and what
    /// they have sent before is still found by the others.
    fn send_home(&mut self, slots: impl IntoIterator<Item = Slot>, order: [u8; 1]) {
        if order == DRAIN {
            self.leaving.iter().for_each(|process| process.order(DRAIN));
        }
        for slot in slots {
            for mut process in [slot.holder, slot.heir].into_iter().flatten() {
                if process.is_ready() {
                    process.retire(order, self.settings.graceful_timeout);
                } else {
                    process.dismiss(FAST_TIMEOUT); // it has nothing to finish
                }
                self.leaving.push(process);
            }
        }
    }

    /// Only the first TERM counts. `timeout`, `uvx`, process managers and an init often deliver it twice: to the process
    /// group, and to the master.
    fn stop_gracefully(&mut self, order: [u8; 1]) {
        if matches!(self.phase, Phase::Stopping { .. }) {
            self.send_home([], order); // workers that hand over have to know that nobody is left to take what they have
            return;
        }
        info!(
            "stopping: the workers may finish what they run, for at most {:?}",
            self.settings.graceful_timeout
        );
        self.end(Phase::Stopping { code: 0 });
        let slots: Vec<_> = self.present.drain(..).chain(self.coming.take().into_iter().flatten()).collect();
        self.send_home(slots, order);
    }

    /// Tells all workers to stop at once, and will kill them soon.
    fn stop_fast(&mut self, code: i32) {
        info!("stopping at once");
        self.end(Phase::Stopping { code });
        let slots: Vec<_> = self.present.drain(..).chain(self.coming.take().into_iter().flatten()).collect();
        self.leaving.extend(slots.into_iter().flat_map(|slot| [slot.holder, slot.heir]).flatten());
        let patience = if self.settings.is_above_masters { 2 * FAST_TIMEOUT } else { FAST_TIMEOUT };
        for process in &mut self.leaving {
            process.dismiss(patience);
        }
    }

    fn end(&mut self, phase: Phase) {
        if !matches!(self.phase, Phase::Stopping { .. }) {
            self.owner.hear(News::Ending);
        }
        self.phase = phase;
    }

    /// Forks a process for each slot that wants one and may have it. Gives a newborn in the worker, nothing in the master.
    fn top_up(&mut self) -> Option<Newborn> {
        if matches!(self.phase, Phase::Stopping { .. }) {
            return None;
        }
        let now = Instant::now();
        let present = (0..self.present.len()).map(|number| (number, false));
        let coming = (0..self.coming.as_ref().map_or(0, Vec::len)).map(|number| (number, true));
        for (number, is_coming) in present.chain(coming).collect::<Vec<_>>() {
            // One heir at a time, and none while a whole generation is about to follow.
            let heirs_wait = self.coming.is_some() || self.present.iter().any(|slot| slot.heir.is_some());
            let slot = &self.generation(is_coming)[number];
            if !slot.wants_process() || slot.not_before > now || heirs_wait && slot.holder.is_some() {
                continue;
            }
            match self.fork(number, is_coming) {
                Ok(None) => {}
                Ok(newborn) => return newborn,
                Err(error) => {
                    let what = format!("no worker could be forked: {error}");
                    self.generation(is_coming)[number].put_off(&what);
                }
            }
        }
        None
    }

    /// No signal is lost around the fork: all are blocked until both processes are set up. One sent to the worker
    /// before it has its own queue waits in the kernel; one that the master has in its queue stays the master's.
    fn fork(&mut self, number: usize, is_coming: bool) -> io::Result<Option<Newborn>> {
        // All that can fail is made here, where there is somebody to tell.
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let pipe = Pipe::new()?;

        self.owner.hear(News::Forking { age: self.forks + 1 });
        self.owner.before();
        let blocked = Blocked::all();
        let forked = sys::fork();
        if let Ok(Fork::Child) = forked {
            self.forks += 1;
            self.signals.become_workers(pipe);
            drop(blocked);
            self.owner.after_in_child();
            return Ok(Some(Newborn { number, line: theirs }));
        }
        drop(blocked);
        self.owner.after_in_parent();
        if let Fork::Parent { child: pid } = forked? {
            self.forks += 1;
            let deadline = self.settings.boot_timeout.map(|patience| Instant::now() + patience);
            self.generation(is_coming)[number].put(Process::new(pid, ours, deadline));
            self.owner.hear(News::Forked { pid });
        }
        Ok(None)
    }

    /// Waits for a signal, for a word from a worker or the master above, or until something is due.
    fn sleep(&mut self) {
        let slots = self.present.iter().chain(self.coming.iter().flatten());
        let vacant = slots.filter(|slot| slot.holder.is_none()).map(|slot| slot.not_before);
        let worn = self.present.iter().filter(|slot| slot.wants_process()).map(|slot| slot.not_before);
        let worn = worn.filter(|at| *at > Instant::now());
        let due = vacant.chain(worn).chain(self.next_tick).min();
        let due = self.processes().filter_map(|process| process.deadline()).chain(due).min();
        let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());

        let slots = self.present.iter().chain(self.coming.iter().flatten());
        let processes = slots.flat_map(|slot| slot.holder.iter().chain(&slot.heir)).chain(&self.leaving);
        let mut watched = vec![self.signals.as_fd()];
        watched.extend(processes.filter_map(Process::line).map(AsFd::as_fd));
        watched.extend(self.above.as_ref().and_then(Line::listened_to));
        watched.extend(self.first.as_ref().map(AsFd::as_fd));
        let mut watched: Vec<_> =
            watched.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let mut waited = Ok(0);
        self.owner.idle(&mut || waited = poll(&mut watched, timeout.as_ref()));
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                error!("the master cannot wait for its workers: {error}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    fn generation(&mut self, is_coming: bool) -> &mut Generation {
        match &mut self.coming {
            Some(coming) if is_coming => coming,
            _ => &mut self.present,
        }
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        let slots = self.present.iter_mut().chain(self.coming.iter_mut().flatten());
        slots.flat_map(Slot::processes).chain(&mut self.leaving)
    }
}

/// The process that was here, if it has ended, and how; the owner hears of it.
fn take_ended(place: &mut Option<Process>, owner: &mut dyn Owner) -> Option<(Process, Ending)> {
    let ending = place.as_ref()?.ending()?;
    let process = place.take()?;
    owner.hear(News::Gone { pid: process.pid });
    Some((process, ending))
}

fn is_readable(descriptor: &OwnedFd) -> bool {
    let mut watched = [PollFd::new(descriptor, PollFlags::IN)];
    matches!(poll(&mut watched, Some(&Timespec::default())), Ok(1))
}
