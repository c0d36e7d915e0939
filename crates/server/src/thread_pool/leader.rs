//! What the leader does: runs the event loop, calls the application, and waits for work.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{SIGNAL_CHECK, ThreadPool, held_loop::HeldLoop};
use crate::{
    Command, ServerEvent,
    connection::respond::{Others, Produced},
    connection::{Connection, Next},
};

/// The result of waiting for work.
enum Polled<'a> {
    /// The event loop has run.
    Events(HeldLoop<'a>),
    /// A signal arrived, or it is time to check for one.
    Nothing(HeldLoop<'a>),
    /// Another thread leads now.
    LostLead,
}

/// Counts a call of the application until it is dropped.
struct RunningCall<'a> {
    pool: &'a ThreadPool,
    /// Another thread could run a request at the same time.
    leaves_thread_free: bool,
}

impl<'a> RunningCall<'a> {
    fn start(pool: &'a ThreadPool) -> Self {
        let others = pool.calls_in_progress.fetch_add(1, Ordering::SeqCst);
        Self { pool, leaves_thread_free: others + 1 < pool.threads }
    }
}

impl Drop for RunningCall<'_> {
    fn drop(&mut self) {
        self.pool.calls_in_progress.fetch_sub(1, Ordering::SeqCst);
        // The leader may be asleep with a queued request for which no thread was free.
        self.pool.handback.notify_leader();
    }
}

impl ThreadPool {
    /// Runs the event loop until the lead is lost or the server is finished.
    pub(super) fn run_loop(&self, number: usize, event_loop: HeldLoop<'_>) {
        let mut held = event_loop;
        let mut call = Duration::ZERO;
        let mut now = Instant::now();
        loop {
            self.loop_iterations
                .store(self.loop_iterations.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            self.handback.drain(|connection, next| held.apply(connection, next));
            if self.forks {
                match self.report_child_exits(held) {
                    Some(again) => held = again,
                    None => return,
                }
            }
            if self.is_finished(&mut held) {
                self.is_stopped.store(held.command() == Some(Command::Stop), Ordering::SeqCst);
                return self.promotion.shutdown();
            }
            if self.batch.is_due(now, call) || !held.has_ready() {
                self.batch.send(|connection, next| held.apply(connection, next));
            }
            if held.has_ready() && self.is_poll_due(now) {
                if let Err(error) = self.poll_now(&mut held) {
                    return self.fail(error);
                }
                held.run_once();
            }
            if self.calls_in_progress.load(Ordering::SeqCst) < self.threads
                && let Some(connection) = held.next_ready()
            {
                if held.client_gave_up(&connection, now) {
                    log::debug!("request dropped: its client disconnected while it was queued");
                    held.apply(connection, Next::Close);
                    continue;
                }
                if let Some(reason) = held.count_request() {
                    log::info!("recycling this worker: {reason}");
                    (self.on_event)(ServerEvent::RecycleLimitReached);
                }
                if held.forks() {
                    held.start_child(connection, &*self.app);
                    continue;
                }
                match self.call_app(number, now, held, connection) {
                    Some(again) => held = again,
                    None => return,
                }
                let then = std::mem::replace(&mut now, Instant::now());
                call = now - then;
                continue;
            }
            if held.is_draining() && held.has_ready() && self.calls.overdue() >= self.threads {
                held.reject_pending();
            }
            self.batch.send(|connection, next| held.apply(connection, next));
            if self.is_finished(&mut held) {
                continue; // the response that was just sent may have been the last, and then nothing would end the wait
            }
            held = match self.poll(number, held) {
                Ok(Polled::Nothing(again)) if number == 0 => match self.check_signals(again) {
                    Some(again) => again,
                    None => return,
                },
                Ok(Polled::Events(again) | Polled::Nothing(again)) => again,
                Ok(Polled::LostLead) => return,
                Err(error) => return self.fail(error),
            };
            now = Instant::now();
        }
    }

    /// Releases the event loop, runs the application for a request, and takes the event loop again unless another
    /// thread leads by then.
    fn call_app<'a>(
        &'a self,
        number: usize,
        now: Instant,
        event_loop: HeldLoop<'a>,
        connection: Box<Connection>,
    ) -> Option<HeldLoop<'a>> {
        let running = RunningCall::start(self);
        let oldest_ready = if running.leaves_thread_free { event_loop.oldest_ready() } else { None };
        drop(event_loop);
        self.promotion.before_call(oldest_ready, !self.batch.is_empty());
        let call = self.calls.enter(number, &connection.request, connection.token, now);
        let mut connection = Some(connection);
        let mut finished = None;
        self.app.in_request(&mut || {
            let Some(mut connection) = connection.take() else { return };
            let Produced { next, on_complete } = self.produce(&mut connection);
            if on_complete.is_none() {
                finished = Some((connection, next));
                return;
            }
            // The response must not wait for the application's cleanup.
            call.start_completion(Instant::now());
            match next {
                Next::Flush => self.batch.push(connection, Instant::now()),
                next => self.handback.push(connection, next),
            }
            self.promotion.before_call(oldest_ready, true);
            let _ = catch_unwind(AssertUnwindSafe(|| drop(on_complete)));
        });
        drop(call);
        if let Some((connection, _)) = finished.take_if(|(_, next)| *next == Next::Flush) {
            self.batch.push(connection, Instant::now());
        }
        drop(running);
        let Some(mut event_loop) = self.try_lock_loop() else {
            if let Some((connection, next)) = finished {
                self.handback.push(connection, next);
            }
            self.flush_batch();
            return None;
        };
        self.promotion.resumed_lead();
        if let Some((connection, next)) = finished {
            event_loop.apply(connection, next);
        }
        Some(event_loop)
    }

    fn produce(&self, connection: &mut Connection) -> Produced {
        let others: Option<&dyn Others> = if self.coalesce_writes { Some(self) } else { None };
        let run = AssertUnwindSafe(|| connection.run(&*self.app, others));
        catch_unwind(run).unwrap_or_else(|_| {
            log::error!("closing a connection: the server panicked while a response was produced");
            Produced { next: Next::Close, on_complete: None }
        })
    }

    /// Releases the event loop and reports the children that have ended to the application, if it wants that.
    fn report_child_exits<'a>(&'a self, mut event_loop: HeldLoop<'a>) -> Option<HeldLoop<'a>> {
        let exited = event_loop.take_exited_children();
        if exited.is_empty() {
            return Some(event_loop);
        }
        drop(event_loop);
        for pid in exited {
            self.app.child_exited(pid);
        }
        self.try_lock_loop() // there is no other thread
    }

    /// Releases the event loop and runs the application's signal handlers, in the first thread of the process.
    fn check_signals<'a>(&'a self, event_loop: HeldLoop<'a>) -> Option<HeldLoop<'a>> {
        drop(event_loop);
        self.promotion.before_call(None, false);
        self.app.check_signals();
        let event_loop = self.try_lock_loop()?;
        self.promotion.resumed_lead();
        Some(event_loop)
    }

    /// Runs the event loop once without the GIL, so that the application runs on other threads meanwhile. As after a wait (see
    /// [`poll`](Self::poll)), the event loop is released before this thread waits for the GIL.
    fn run_once_detached<'a>(&'a self, event_loop: HeldLoop<'a>) -> Polled<'a> {
        let mut held = Some(event_loop);
        self.wait_detached(&mut || {
            if let Some(mut event_loop) = held.take() {
                event_loop.run_once();
            }
            self.promotion.left_lead();
        });
        let Some(event_loop) = self.try_lock_loop() else { return Polled::LostLead };
        self.promotion.regained_lead();
        Polled::Events(event_loop)
    }

    /// Waits for work, and does what needs no thread of the application.
    ///
    /// Invariant: no thread holds the event loop while it waits for the GIL, which another thread may keep for long. So
    /// after the wait the event loop runs without the GIL and is released. Another thread may lead by the time this one
    /// has the GIL.
    fn poll<'a>(&'a self, number: usize, event_loop: HeldLoop<'a>) -> io::Result<Polled<'a>> {
        let mut held = Some(event_loop);
        let Some(event_loop) = held.as_mut() else { return Ok(Polled::LostLead) };
        self.record_poll();
        if event_loop.poll_now()? || event_loop.is_busy() {
            if !self.forks && self.app.one_at_a_time() && event_loop.has_costly_encryption() {
                return Ok(held.map_or(Polled::LostLead, |event_loop| self.run_once_detached(event_loop)));
            }
            event_loop.run_once();
            return Ok(held.map_or(Polled::LostLead, Polled::Events));
        }
        let at_most = (number == 0).then_some(SIGNAL_CHECK);
        let is_queued = event_loop.has_ready() && !self.forks;
        let can_call = || is_queued && self.calls_in_progress.load(Ordering::SeqCst) < self.threads;
        let mut polled = Ok(true);
        self.handback.sleep_unless(can_call, || {
            self.wait_detached(&mut || {
                let Some(mut event_loop) = held.take() else { return };
                self.is_polling.store(true, Ordering::Relaxed);
                polled = event_loop.wait_for_events(at_most);
                self.handback.leader_has_woken();
                self.is_polling.store(false, Ordering::Relaxed);
                self.record_poll();
                if self.forks {
                    held = Some(event_loop); // there is no other thread
                } else {
                    if matches!(polled, Ok(true)) {
                        event_loop.run_once();
                    }
                    self.promotion.left_lead();
                }
            });
        });
        let has_events = polled?;
        let mut event_loop = match held {
            Some(event_loop) => event_loop,
            None => match self.try_lock_loop() {
                Some(event_loop) => event_loop,
                None => return Ok(Polled::LostLead),
            },
        };
        self.promotion.regained_lead();
        if self.forks && has_events {
            event_loop.run_once();
        }
        Ok(if has_events { Polled::Events(event_loop) } else { Polled::Nothing(event_loop) })
    }
}
