//! [`Observation::decide`]: whether the monitor thread promotes a follower.

use std::time::Duration;

/// How long the event loop may stall if the application blocks unexpectedly, in ticks.
pub(super) const TICKS_BEFORE_PROMOTION: u32 = 5;
/// A request that has waited this long while a thread is free starts on another thread, even if that preempts the
/// leader. With the switch interval this makes 10 ms. Calls shorter than a tick do not count: behind those a request
/// waits for the processor.
pub(super) const MAX_WAIT_FOR_THREAD: Duration = Duration::from_millis(5);

/// What the monitor thread observes at a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Observation {
    /// For how many ticks the newest call has been the newest. Zero if another one has started since the last tick.
    pub(super) ticks_in_call: u32,
    /// A thread runs the event loop.
    pub(super) has_leader: bool,
    /// How long the oldest request that a free thread could run has waited.
    pub(super) oldest_wait: Option<Duration>,
    /// For how many more ticks no follower is promoted for queued requests.
    pub(super) cooldown_ticks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    Hold,
    Promote,
    /// Promote a follower that takes the event loop even from a leader that goes from call to call.
    Preempt,
}

impl Observation {
    pub(super) fn decide(self) -> Decision {
        let waits_long = self.oldest_wait.is_some_and(|wait| wait >= MAX_WAIT_FOR_THREAD);
        match self.ticks_in_call {
            _ if self.has_leader => Decision::Hold,
            0 if self.oldest_wait.is_some() && self.cooldown_ticks == 0 => Decision::Promote,
            0 => Decision::Hold,
            1.. if waits_long => Decision::Preempt,
            TICKS_BEFORE_PROMOTION.. => Decision::Promote,
            _ => Decision::Hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Option<Duration> = Some(MAX_WAIT_FOR_THREAD);
    const SHORT: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn the_monitor_decides_by_the_duration_of_a_call_and_waiting_threads() {
        let quiet = Observation::default();
        let table = [
            // (observation, decision)
            (quiet, Decision::Hold),
            (Observation { ticks_in_call: 4, ..quiet }, Decision::Hold),
            (Observation { ticks_in_call: 5, ..quiet }, Decision::Promote),
            (Observation { ticks_in_call: 5, has_leader: true, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: SHORT, ..quiet }, Decision::Promote),
            (Observation { oldest_wait: SHORT, cooldown_ticks: 1, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: SHORT, ticks_in_call: 1, ..quiet }, Decision::Hold),
            (Observation { oldest_wait: LONG, ticks_in_call: 1, ..quiet }, Decision::Preempt),
            (
                Observation { oldest_wait: LONG, ticks_in_call: 1, cooldown_ticks: 9, ..quiet },
                Decision::Preempt,
            ),
            (Observation { oldest_wait: LONG, ticks_in_call: 9, ..quiet }, Decision::Preempt),
            // Calls shorter than a tick: the request waits for the processor, not for a thread.
            (Observation { oldest_wait: LONG, cooldown_ticks: 1, ..quiet }, Decision::Hold),
        ];
        for (seen, decision) in table {
            assert_eq!(seen.decide(), decision, "{seen:?}");
        }
    }
}
