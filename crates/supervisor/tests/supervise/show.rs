//! A scene that is being played, as the test sees it: lines come in, signals go out.
//!
//! The one thing to know: the end of the lines is the end of every process of the scene, because all of them hold the
//! pipe that the lines come through.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Resource, Rlimit, Signal, kill_process, kill_process_group, prlimit, test_kill_process,
};

/// A test that waits for longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Show {
    master: Child,
    incoming: Receiver<String>,
    /// Lines that came and that no test has asked for.
    lines: Vec<String>,
}

impl Show {
    pub(crate) fn start(scene: &str) -> Show {
        let mut master = Command::new(std::env::current_exe().unwrap())
            .args(["--play", scene])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(master.stdout.take().unwrap());
        let (sender, incoming) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Show { master, incoming, lines: Vec::new() }
    }

    /// Waits for a line that contains `what`, wherever it is among those not yet asked for, and takes it.
    pub(crate) fn hears(&mut self, what: &str) -> String {
        let (mut looked_at, deadline) = (0, Instant::now() + PATIENCE);
        loop {
            if let Some(found) = self.lines[looked_at..].iter().position(|line| line.contains(what)) {
                return self.lines.remove(looked_at + found);
            }
            looked_at = self.lines.len();
            match self.next_line(deadline) {
                Ok(line) => self.lines.push(line),
                Err(error) => panic!("waiting for {what:?}: {error}; heard {:#?}", self.lines),
            }
        }
    }

    /// Waits for one more worker to be up.
    pub(crate) fn worker_is_up(&mut self) -> Pid {
        let line = self.hears("is up");
        line.split(' ').find_map(|word| Pid::from_raw(word.parse().ok()?)).unwrap()
    }

    /// Takes lines for a while.
    pub(crate) fn goes_on_for_micros(&mut self, micros: u64) {
        let deadline = Instant::now() + Duration::from_micros(micros);
        while let Ok(line) = self.next_line(deadline) {
            self.lines.push(line);
        }
    }

    /// Waits until all processes have ended. The master's exit code (none: a signal), and the lines not asked for.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.next_line(deadline) {
                Ok(line) => self.lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; heard {:#?}", self.lines),
            }
        }
        let code = self.master.wait().unwrap().code();
        (code, std::mem::take(&mut self.lines))
    }

    /// Sends a line to whichever worker reads one.
    pub(crate) fn writes_line(&mut self) {
        self.master.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.master(), signal).unwrap();
    }

    pub(crate) fn signal_to_all(&self, signal: Signal) {
        kill_process_group(self.master(), signal).unwrap();
    }

    /// Changes how many descriptors the master may have, and gives the limit before.
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

/// Ends what a failed test leaves.
impl Drop for Show {
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

/// Whether there is such a process, be it a zombie.
pub(crate) fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}
