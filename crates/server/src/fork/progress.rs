//! What a child reports through shared memory: how far its response is, and when its current call started.
//!
//! The exit status cannot carry this: an application may call `os._exit(0)` before anything is sent. Writing to shared
//! memory costs no system call, so a child can do it for each chunk.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mlws_sys::SharedPage;

/// How far a child's response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ResponseProgress {
    /// Nothing was sent.
    NotStarted,
    /// The response is incomplete.
    Started,
    /// The response is complete. Another request may follow.
    KeepAlive,
    /// The response is complete. The connection must be closed.
    Close,
    /// The response is incomplete and remains so. Only a reset tells the client.
    Truncated,
}

/// Set in addition to the progress while the child sends its response through the parent.
const RELAYED: u8 = 0x80;

/// The state of a child's current call, for `--timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallState {
    /// It waits for its client, which does not count.
    WaitingForClient,
    /// It is inside the application without a time limit.
    Unbounded,
    /// The current call or chunk started at this time.
    Since(Instant),
}

const WAITING_FOR_CLIENT: u64 = 0;
const UNBOUNDED: u64 = u64::MAX;

/// The reports of all children.
#[derive(Debug)]
pub(crate) struct ProgressTable {
    responses: SharedPage<AtomicU8>,
    /// One of the two constants, or milliseconds since `epoch` plus one.
    calls: SharedPage<AtomicU64>,
    /// For HTTP/2, where only the parent knows: 1 if the client is gone.
    clients: SharedPage<AtomicU8>,
    epoch: Instant,
}

/// The report of one child.
#[derive(Debug, Clone)]
pub(crate) struct ChildProgress {
    table: Arc<ProgressTable>,
    index: usize,
}

impl ProgressTable {
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        Ok(Self {
            responses: SharedPage::new(count)?,
            calls: SharedPage::new(count)?,
            clients: SharedPage::new(count)?,
            epoch: Instant::now(),
        })
    }

    /// Resets the report for a child that is about to be forked.
    pub(crate) fn start(table: &Arc<Self>, index: usize) -> ChildProgress {
        let progress = ChildProgress { table: Arc::clone(table), index };
        if let Some(response) = table.responses.get(index) {
            response.store(ResponseProgress::NotStarted as u8, Ordering::Release);
        }
        table.store_client_gone(index, false);
        progress.start_call(Instant::now());
        progress
    }

    /// For the parent: the client of this child is gone.
    pub(crate) fn store_client_gone(&self, index: usize, is_gone: bool) {
        if let Some(client) = self.clients.get(index) {
            client.store(u8::from(is_gone), Ordering::Relaxed);
        }
    }

    pub(crate) fn response(&self, index: usize) -> ResponseProgress {
        let value = self.raw_response(index) & !RELAYED;
        let all = [
            ResponseProgress::NotStarted,
            ResponseProgress::KeepAlive,
            ResponseProgress::Close,
            ResponseProgress::Truncated,
        ];
        all.into_iter().find(|progress| *progress as u8 == value).unwrap_or(ResponseProgress::Started)
    }

    /// Whether the child sends its response through the parent.
    pub(crate) fn is_relayed(&self, index: usize) -> bool {
        self.raw_response(index) & RELAYED != 0
    }

    fn raw_response(&self, index: usize) -> u8 {
        let started = ResponseProgress::Started as u8;
        self.responses.get(index).map_or(started, |response| response.load(Ordering::Acquire))
    }

    pub(crate) fn call(&self, index: usize) -> CallState {
        match self.calls.get(index).map_or(UNBOUNDED, |call| call.load(Ordering::Relaxed)) {
            WAITING_FOR_CLIENT => CallState::WaitingForClient,
            UNBOUNDED => CallState::Unbounded,
            millis => CallState::Since(self.epoch + Duration::from_millis(millis - 1)),
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_millis()).map_or(1, |millis| millis + 1)
    }
}

impl ChildProgress {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether the parent has found the client gone. Only for HTTP/2.
    pub(crate) fn is_client_gone(&self) -> bool {
        self.table.clients.get(self.index).is_some_and(|client| client.load(Ordering::Relaxed) == 1)
    }

    /// Everything written before this is visible to a reader.
    pub(crate) fn set_response(&self, progress: ResponseProgress) {
        let relayed = self.table.raw_response(self.index) & RELAYED;
        self.store_response(relayed | progress as u8);
    }

    /// Whether the child sends its response through the parent from now on.
    pub(crate) fn set_relayed(&self, is_relayed: bool) {
        let progress = self.table.raw_response(self.index) & !RELAYED;
        self.store_response(progress | if is_relayed { RELAYED } else { 0 });
    }

    fn store_response(&self, value: u8) {
        if let Some(response) = self.table.responses.get(self.index) {
            response.store(value, Ordering::Release);
        }
    }

    /// The child calls the application, or pulls another chunk.
    pub(crate) fn start_call(&self, now: Instant) {
        self.store_call(self.table.millis(now));
    }

    /// The application has no time limit until the next call.
    pub(crate) fn suspend_timeout(&self) {
        self.store_call(UNBOUNDED);
    }

    /// Runs `wait`, which waits for the client. Its time does not count.
    pub(crate) fn while_waiting_for_client<R>(&self, wait: impl FnOnce() -> R) -> R {
        let Some(call) = self.table.calls.get(self.index) else { return wait() };
        let before = call.swap(WAITING_FOR_CLIENT, Ordering::Relaxed);
        let began = Instant::now();
        let result = wait();
        let waited = u64::try_from(began.elapsed().as_millis()).unwrap_or(0);
        let after = match before {
            WAITING_FOR_CLIENT | UNBOUNDED => before,
            millis => millis + waited,
        };
        call.store(after, Ordering::Relaxed);
        result
    }

    fn store_call(&self, value: u64) {
        if let Some(call) = self.table.calls.get(self.index) {
            call.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_reports_how_far_its_response_is() {
        let table = Arc::new(ProgressTable::new(2).unwrap());
        let (first, second) = (ProgressTable::start(&table, 0), ProgressTable::start(&table, 1));
        first.set_response(ResponseProgress::Started);
        second.set_response(ResponseProgress::KeepAlive);
        assert_eq!(table.response(0), ResponseProgress::Started);
        assert_eq!(table.response(1), ResponseProgress::KeepAlive);
        second.set_relayed(true);
        second.set_response(ResponseProgress::Truncated);
        assert_eq!((table.response(1), table.is_relayed(1)), (ResponseProgress::Truncated, true));
        ProgressTable::start(&table, 1);
        assert_eq!((table.response(1), table.is_relayed(1)), (ResponseProgress::NotStarted, false));
    }

    #[test]
    fn waiting_for_the_client_does_not_count_as_part_of_a_call() {
        let table = Arc::new(ProgressTable::new(1).unwrap());
        let progress = ProgressTable::start(&table, 0);
        let CallState::Since(before) = table.call(0) else { panic!("a child starts inside a call") };
        progress.while_waiting_for_client(|| {
            assert_eq!(table.call(0), CallState::WaitingForClient);
            std::thread::sleep(Duration::from_millis(20));
        });
        let CallState::Since(after) = table.call(0) else { panic!("the call goes on after the wait") };
        assert!(after >= before + Duration::from_millis(20));
    }

    #[test]
    fn the_timeout_of_a_call_can_be_suspended_until_the_next_call() {
        let table = Arc::new(ProgressTable::new(1).unwrap());
        let progress = ProgressTable::start(&table, 0);
        progress.suspend_timeout();
        progress.while_waiting_for_client(|| ());
        assert_eq!(table.call(0), CallState::Unbounded);
        progress.start_call(Instant::now());
        assert!(matches!(table.call(0), CallState::Since(_)));
    }
}
