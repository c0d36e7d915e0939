//! The queue of log records for the [`handler_thread`](super::handler_thread).
//!
//! Invariant: a record is removed only by a thread that holds the GIL. So if the GIL is never released, all records are still in the queue
//! when the process exits, and can be written without Python.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mlws_logging::Level;

/// The maximum number of queued records. Further ones are written without Python.
const MAX_QUEUED: usize = 1000;

pub(super) static QUEUE: HandlerQueue = HandlerQueue::new();

pub(super) enum Task {
    Log {
        level: Level,
        text: String,
    },
    LogAccess {
        format: String,
        atoms: AccessAtoms,
    },
    /// For a `logger_class`.
    LogRequest(FinishedRequest),
    /// Reopen the files of all handlers.
    Reopen,
}

/// What the method `access` of a `logger_class` gets of a request, besides the environ.
pub(super) struct FinishedRequest {
    /// The variables of the environ that are known without the application.
    pub(super) variables: Vec<(&'static str, String)>,
    pub(super) status: u16,
    /// The head of the response.
    pub(super) head: Vec<u8>,
    /// Bytes of the body that were sent.
    pub(super) sent: u64,
    pub(super) took: Duration,
}

/// The atoms of a request, by name.
pub(super) type AccessAtoms = Vec<(String, AtomValue)>;

pub(super) enum AtomValue {
    Text(String),
    Number(u64),
}

pub(super) struct HandlerQueue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    tasks: VecDeque<Task>,
    stage: Stage,
    /// The thread has not ended.
    is_running: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no thread: the thread that logs calls the handlers.
    Unused,
    Open,
    /// Records are not queued any more.
    Closed,
}

impl HandlerQueue {
    const fn new() -> Self {
        let state = QueueState { tasks: VecDeque::new(), stage: Stage::Unused, is_running: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(super) fn open(&self) {
        let mut state = self.lock();
        state.stage = Stage::Open;
        state.is_running = true;
    }

    pub(super) fn push(&self, task: Task) -> bool {
        let mut state = self.lock();
        let has_space = state.tasks.len() < MAX_QUEUED || matches!(task, Task::Reopen);
        let is_taken = has_space && state.stage == Stage::Open;
        if is_taken {
            state.tasks.push_back(task);
            self.changed.notify_all();
        }
        is_taken
    }

    /// Whether there is a thread for the records.
    pub(super) fn is_used(&self) -> bool {
        self.lock().stage != Stage::Unused
    }

    /// Queues a record. Returns false if the queue is full or closed.
    pub(super) fn log(&self, level: Level, text: &str) -> bool {
        self.push(Task::Log { level, text: text.into() })
    }

    /// Queues the reopening of the handlers' files, once.
    pub(super) fn reopen(&self) {
        let is_queued = self.lock().tasks.iter().any(|task| matches!(task, Task::Reopen));
        // There is always space for one. It fails only when the process exits.
        let _ = is_queued || self.push(Task::Reopen);
    }

    pub(super) fn pop(&self) -> Option<Task> {
        self.lock().tasks.pop_front()
    }

    /// Waits for a task. Returns false if there is none and none will come.
    pub(super) fn wait(&self) -> bool {
        let state = self.lock();
        let is_idle = |state: &mut QueueState| state.tasks.is_empty() && state.stage == Stage::Open;
        let state = self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        !state.tasks.is_empty()
    }

    /// The thread has ended.
    pub(super) fn end(&self, final_stage: Stage) {
        let mut state = self.lock();
        state.stage = final_stage;
        state.is_running = false;
        self.changed.notify_all();
    }

    /// Closes the queue and waits for the thread, at most until `until`. Returns the remaining tasks.
    pub(super) fn close(&self, until: Instant) -> VecDeque<Task> {
        let mut state = self.lock();
        if state.stage == Stage::Open {
            state.stage = Stage::Closed;
            self.changed.notify_all();
        }
        let left = until.saturating_duration_since(Instant::now());
        let (mut state, _) = self
            .changed
            .wait_timeout_while(state, left, |state| state.is_running)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.tasks)
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn record(number: usize) -> Task {
        Task::Log { level: Level::Info, text: number.to_string() }
    }

    fn texts(tasks: impl IntoIterator<Item = Task>) -> Vec<String> {
        let text = |task| match task {
            Task::Log { text, .. } => Some(text),
            Task::LogAccess { .. } | Task::LogRequest(_) | Task::Reopen => None,
        };
        tasks.into_iter().filter_map(text).collect()
    }

    #[test]
    fn the_queue_is_bounded_and_returns_the_rest_when_it_is_closed() {
        let queue = HandlerQueue::new();
        assert!(!queue.push(record(0)), "no thread was started");
        queue.open();
        for number in 0..MAX_QUEUED {
            assert!(queue.push(record(number)));
        }
        assert!(!queue.push(record(MAX_QUEUED)), "it is full");
        assert_eq!(texts(queue.pop()), ["0"]);
        let left = texts(queue.close(Instant::now()));
        assert_eq!((left.len(), left[0].as_str()), (MAX_QUEUED - 1, "1"));
        assert!(!queue.push(record(0)), "it is closed");
    }

    #[test]
    fn closing_waits_for_queued_records() {
        let queue = HandlerQueue::new();
        queue.open();
        let handled = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut handled = Vec::new();
                while queue.wait() {
                    handled.extend(queue.pop());
                }
                queue.end(Stage::Closed);
                texts(handled)
            });
            for number in 0..3 {
                assert!(queue.push(record(number)));
            }
            assert!(queue.close(Instant::now() + Duration::from_secs(60)).is_empty());
            thread.join().unwrap()
        });
        assert_eq!(handled, ["0", "1", "2"]);
    }
}
