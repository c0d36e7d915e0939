//! [`TestMaster`]: a running scenario as the test sees it. Lines come in, signals go out.
//!
//! The end of the lines means that every process of the scenario has exited, because all of them hold the pipe.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, kill_process, kill_process_group, prlimit, test_kill_process,
};

/// A test that waits longer than this fails.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct TestMaster {
    master: Child,
    incoming: Receiver<String>,
    /// Lines that were received and not taken by the test yet.
    lines: Vec<String>,
}

impl TestMaster {
    pub(crate) fn start(scenario: &str) -> TestMaster {
        let mut master = Command::new(std::env::current_exe().unwrap())
            .args(["--scenario", scenario])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(master.stdout.take().unwrap());
        let (sender, incoming) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        TestMaster { master, incoming, lines: Vec::new() }
    }

    /// Takes the first line that contains `what`, in any order relative to other lines. Waits for it.
    pub(crate) fn wait_for(&mut self, what: &str) -> String {
        let (mut searched, deadline) = (0, Instant::now() + TIMEOUT);
        loop {
            if let Some(found) = self.lines[searched..].iter().position(|line| line.contains(what)) {
                return self.lines.remove(searched + found);
            }
            searched = self.lines.len();
            match self.next_line(deadline) {
                Ok(line) => self.lines.push(line),
                Err(error) => panic!("waiting for {what:?}: {error}; received {:#?}", self.lines),
            }
        }
    }

    /// Waits for one more worker to be ready.
    pub(crate) fn wait_for_worker(&mut self) -> Pid {
        let line = self.wait_for("Worker ready (pid: ");
        line.trim_end_matches(')').rsplit(' ').find_map(|word| Pid::from_raw(word.parse().ok()?)).unwrap()
    }

    /// Collects lines for a while.
    pub(crate) fn collect_for_micros(&mut self, micros: u64) {
        let deadline = Instant::now() + Duration::from_micros(micros);
        while let Ok(line) = self.next_line(deadline) {
            self.lines.push(line);
        }
    }

    /// Waits until all processes have exited. Returns the master's exit code (`None`: a signal) and the lines not taken.
    pub(crate) fn wait_for_exit(mut self) -> (Option<i32>, Vec<String>) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.next_line(deadline) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not exit; received {:#?}", self.lines),
            }
        }
        let code = self.master.wait().unwrap().code();
        (code, std::mem::take(&mut self.lines))
    }

    /// Sends a line to the worker that reads one.
    pub(crate) fn write_line(&mut self) {
        self.master.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.master(), signal).unwrap();
    }

    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(self.master(), signal).unwrap();
    }

    /// Sets the master's limit on open files. Returns the previous limit.
    pub(crate) fn limit_descriptors(&self, current: Option<u64>) -> Option<u64> {
        let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
        prlimit(Some(self.master()), Resource::Nofile, Rlimit { current, maximum }).unwrap().current
    }

    fn next_line(&self, deadline: Instant) -> Result<String, RecvTimeoutError> {
        self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    fn master(&self) -> Pid {
        Pid::from_child(&self.master)
    }
}

/// Kills the processes that a failed test leaves behind.
impl Drop for TestMaster {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = kill_process_group(self.master(), Signal::KILL);
            let _ = self.master.wait();
        }
    }
}

pub(crate) fn signal_to(worker: Pid, signal: Signal) {
    kill_process(worker, signal).unwrap();
}

/// Whether the process exists, even as a zombie.
pub(crate) fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}
