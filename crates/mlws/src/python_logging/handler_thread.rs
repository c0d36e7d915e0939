//! The thread that gives log records of the event loop to Python's logging handlers.
//!
//! A handler needs the GIL and may block, and the event loop waits for neither. So what the event loop logs is queued for this thread,
//! `mlws-log`. It also opens the handlers' files again, because that takes the lock of a handler that may be blocked. Where no such thread
//! was started (with `--fork`, for there must be one thread only) all this is done by the thread that logs.
//!
//! Invariant: a record is taken from the queue only by a thread that holds the GIL. So if the GIL is never released, all records are still
//! in the queue when the process exits, and [`close`] writes them without Python.

use std::{
    collections::VecDeque,
    io,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mlws_server::App;
use pyo3::prelude::*;

use mlws_logging::{Level, logger};

use super::loggers;

/// How many records may be queued. What does not fit is written without Python.
const MAX_QUEUED: usize = 1000;

static QUEUE: Queue = Queue::new();

enum Task {
    Log {
        level: Level,
        text: String,
    },
    /// Open the files of all handlers again.
    Reopen,
}

struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    tasks: VecDeque<Task>,
    stage: Stage,
    /// The thread has not ended yet.
    is_running: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// No thread was started: whoever logs calls the handlers.
    Unused,
    Open,
    /// What is logged from now on is not queued.
    Closed,
}

/// Starts the thread if Python's logging has any of the logs.
pub(crate) fn start(app: &dyn App) -> io::Result<()> {
    if !loggers::is_used() {
        return Ok(());
    }
    QUEUE.open();
    app.spawn("mlws-log".into(), Box::new(run)).inspect_err(|_| QUEUE.end(Stage::Unused))
}

/// Whether there is a thread for records that the event loop logs.
pub(super) fn is_used() -> bool {
    QUEUE.lock().stage != Stage::Unused
}

/// Queues a record. False if there is no room, or no thread any more.
pub(super) fn log(level: Level, text: &str) -> bool {
    QUEUE.push(Task::Log { level, text: text.into() })
}

/// Has the handlers' files opened again, after what is logged by now.
pub(super) fn reopen() {
    let is_queued = QUEUE.lock().tasks.iter().any(|task| matches!(task, Task::Reopen));
    // There is always room for one. It is refused only when the process exits.
    let _ = is_queued || QUEUE.push(Task::Reopen);
}

/// Waits until everything is handled, but not for longer than `until`, and writes what is left without Python. The caller must not hold
/// the GIL. A record that a handler has begun with stays with that handler.
pub(crate) fn close(until: Instant) {
    for task in QUEUE.close(until) {
        if let Task::Log { level, text } = task {
            logger::write_directly(level, &text);
        }
    }
}

fn run() {
    struct End;

    impl Drop for End {
        fn drop(&mut self) {
            QUEUE.end(Stage::Closed);
        }
    }

    let _end = End;
    Python::attach(|py| {
        while py.detach(|| QUEUE.wait()) {
            while let Some(task) = QUEUE.pop() {
                match task {
                    Task::Log { level, text } if !loggers::call_handlers(py, level, &text) => {
                        logger::write_directly(level, &text);
                    }
                    Task::Log { .. } => {}
                    Task::Reopen => loggers::reopen_handlers(py),
                }
            }
        }
    });
}

impl Queue {
    const fn new() -> Self {
        let state = State { tasks: VecDeque::new(), stage: Stage::Unused, is_running: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn open(&self) {
        let mut state = self.lock();
        state.stage = Stage::Open;
        state.is_running = true;
    }

    fn push(&self, task: Task) -> bool {
        let mut state = self.lock();
        let has_room = state.tasks.len() < MAX_QUEUED || matches!(task, Task::Reopen);
        let is_taken = has_room && state.stage == Stage::Open;
        if is_taken {
            state.tasks.push_back(task);
            self.changed.notify_all();
        }
        is_taken
    }

    fn pop(&self) -> Option<Task> {
        self.lock().tasks.pop_front()
    }

    /// Waits for a task. False if there is none and none will come.
    fn wait(&self) -> bool {
        let state = self.lock();
        let is_idle = |state: &mut State| state.tasks.is_empty() && state.stage == Stage::Open;
        let state = self.changed.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner);
        !state.tasks.is_empty()
    }

    /// The thread ends.
    fn end(&self, final_stage: Stage) {
        let mut state = self.lock();
        state.stage = final_stage;
        state.is_running = false;
        self.changed.notify_all();
    }

    /// What is left then.
    fn close(&self, until: Instant) -> VecDeque<Task> {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    fn record(number: usize) -> Task {
        Task::Log { level: Level::Info, text: number.to_string() }
    }

    fn texts(tasks: impl IntoIterator<Item = Task>) -> Vec<String> {
        let text = |task| match task {
            Task::Log { text, .. } => Some(text),
            Task::Reopen => None,
        };
        tasks.into_iter().filter_map(text).collect()
    }

    #[test]
    fn the_queue_is_bounded_and_what_nobody_takes_is_left_at_the_end() {
        let queue = Queue::new();
        assert!(!queue.push(record(0)), "no thread was started");
        queue.open();
        for number in 0..MAX_QUEUED {
            assert!(queue.push(record(number)));
        }
        assert!(!queue.push(record(MAX_QUEUED)), "there is no room");
        assert_eq!(texts(queue.pop()), ["0"]);
        let left = texts(queue.close(Instant::now()));
        assert_eq!((left.len(), left[0].as_str()), (MAX_QUEUED - 1, "1"));
        assert!(!queue.push(record(0)), "it is closed");
    }

    #[test]
    fn the_end_waits_for_what_is_queued() {
        let queue = Queue::new();
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
