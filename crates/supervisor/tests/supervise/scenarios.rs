//! The masters and workers under test. Each scenario runs in its own process, which a test starts.
//!
//! Everything that a process prints or logs goes to standard output in whole lines.

use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use mlws_supervisor::{
    Delegate, ForkHooks, MasterEvent, MasterSettings, Pid, Role, SignalQueue, Worker, WorkerCommand,
    supervise, supervise_nested,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::sys;

/// The number of workers in the scenario "many".
pub(crate) const MANY: usize = 100;
/// The generation that cannot start, in the scenario "generations".
const BROKEN: usize = 1;
/// The reload that is rejected, in scenarios with three workers.
const REJECTED: usize = 3;

fn print(what: &str) {
    rustix::io::write(stdout(), format!("{} {what}\n", getpid().as_raw_pid()).as_bytes()).unwrap();
}

struct LineLogger;

impl log::Log for LineLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.level(), record.args());
        rustix::io::write(stdout(), line.as_bytes()).unwrap();
    }

    fn flush(&self) {}
}

struct TestDelegate<'a> {
    settings: MasterSettings,
    /// The number of reloads.
    generation: usize,
    prints_hooks: bool,
    work: &'a mut dyn FnMut(Worker, usize) -> i32,
}

impl ForkHooks for TestDelegate<'_> {
    fn before(&self) {
        if self.prints_hooks {
            print("hook before");
        }
    }

    fn after_in_parent(&self) {
        if self.prints_hooks {
            print("hook after in parent");
        }
    }

    fn after_in_child(&self) {
        if self.prints_hooks {
            print("hook after in child");
        }
    }
}

impl Delegate for TestDelegate<'_> {
    fn run_worker(&mut self, worker: Worker) -> i32 {
        (self.work)(worker, self.generation)
    }

    fn on_event(&mut self, event: MasterEvent) {
        match event {
            MasterEvent::WorkersReady { .. } => print("workers ready"),
            MasterEvent::Heartbeat => {}
            event => print(&format!("event {event:?}")),
        }
    }

    fn reload(&mut self) -> Result<MasterSettings, String> {
        self.generation += 1;
        if self.generation == REJECTED && self.settings.workers == 3 {
            Err("as intended".into())
        } else {
            Ok(self.settings.clone())
        }
    }

    fn spawn_upgrade(&mut self) -> std::io::Result<Pid> {
        let this = getpid().as_raw_pid().to_string();
        let mut command = Command::new(std::env::current_exe()?);
        let new_master = command.args(["--scenario", "new master"]).env("OLD_MASTER", this).spawn()?;
        Ok(Pid::from_child(&new_master))
    }
}

pub(crate) fn run(scenario: &str) -> ExitCode {
    log::set_logger(&LineLogger).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let settings = |workers| MasterSettings { workers, ..MasterSettings::default() };
    match scenario {
        "steady" => with(settings(3), &mut serve),
        "long uptime" => with(settings(1), &mut run_long),
        "descriptors" => with(settings(3), &mut |worker| {
            print(&format!("descriptors: {}", std::fs::read_dir("/proc/self/fd").unwrap().count()));
            serve(worker)
        }),
        "many" => with(settings(MANY), &mut serve),
        "fork hooks" => with_delegate(TestDelegate {
            settings: settings(1),
            generation: 0,
            prints_hooks: true,
            work: &mut |worker, _| serve(worker),
        }),
        "busy" => with(settings(1), &mut finish_on_line),
        "unresponsive" => with(
            MasterSettings { graceful_timeout: Duration::from_millis(100), ..settings(1) },
            &mut ignore_commands,
        ),
        "boot failure" => with(settings(2), &mut |worker| if worker.number == 1 { 3 } else { read_line() }),
        "boot crash" => with(settings(1), &mut |_| {
            kill_process(getpid(), Signal::KILL).unwrap();
            read_line()
        }),
        "failing restarts" => {
            with(settings(2), &mut |worker| if worker.age <= 2 { serve(worker) } else { 5 })
        }
        "panic" => with(settings(1), &mut |mut worker| {
            worker.ready();
            std::panic::set_hook(Box::new(|_| ())); // only the log line matters here
            panic!("as intended");
        }),
        "orphans" => with(settings(2), &mut outlive_master),
        "workers with children" => {
            let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
            let code = with(settings(1), &mut run_a_child);
            print(&format!("the master's own child exited with {:?}", child.wait().unwrap().code()));
            code
        }
        "forking application" => with(settings(1), &mut fork_a_child),
        "generations" => with_generations(settings(2), &mut |worker, generation| match generation {
            BROKEN => 5,
            _ => serve(worker),
        }),
        "hanging starts" => with_generations(
            MasterSettings { boot_timeout: Some(Duration::from_millis(200)), ..settings(1) },
            &mut |worker, generation| if generation == 0 { serve(worker) } else { read_line() },
        ),
        "slow starts" => with_generations(
            MasterSettings { graceful_timeout: Duration::from_secs(600), ..settings(1) },
            &mut |worker, generation| if generation == 0 { serve(worker) } else { read_line() },
        ),
        "recycling" => with(settings(3), &mut request_recycle),
        "reload request" => with_generations(
            MasterSettings { workers_may_reload: true, ..settings(1) },
            &mut |worker, generation| {
                if generation == 0 {
                    worker.notifier().unwrap().request_reload();
                }
                serve(worker)
            },
        ),
        "reload request denied" => with_generations(settings(1), &mut |mut worker, _| {
            worker.notifier().unwrap().request_reload();
            worker.ready(); // the master reads this after the request
            serve(worker)
        }),
        "nested master" => with_nested_masters(&settings(1), &settings(2), &mut serve),
        "busy nested master" => with_nested_masters(&settings(1), &settings(1), &mut finish_on_line),
        "late reload" => {
            with(MasterSettings { workers_may_reload: true, ..settings(1) }, &mut |mut worker| {
                worker.ready();
                wait_for_command(&mut worker);
                worker.notifier().unwrap().request_reload();
                0
            })
        }
        "new master" => {
            let old_master = std::env::var("OLD_MASTER").unwrap().parse().ok().and_then(Pid::from_raw);
            with(MasterSettings { old_master, ..settings(1) }, &mut serve)
        }
        _ => panic!("unknown scenario {scenario:?}"),
    }
}

/// Supervises workers, and exits as `supervise` demands.
fn with(settings: MasterSettings, work: &mut dyn FnMut(Worker) -> i32) -> ExitCode {
    with_generations(settings, &mut |worker, _| work(worker))
}

fn with_generations(settings: MasterSettings, work: &mut dyn FnMut(Worker, usize) -> i32) -> ExitCode {
    with_delegate(TestDelegate { settings, generation: 0, prints_hooks: false, work })
}

/// Each generation is a nested master with its own workers.
fn with_nested_masters(
    parent: &MasterSettings,
    nested: &MasterSettings,
    work: &mut dyn FnMut(Worker) -> i32,
) -> ExitCode {
    with_generations(MasterSettings { manages_masters: true, ..parent.clone() }, &mut |worker, generation| {
        print(&format!("master of generation {generation}"));
        let work = &mut |worker, _| work(worker);
        let mut delegate = TestDelegate { settings: nested.clone(), generation, prints_hooks: false, work };
        match supervise_nested(worker, delegate.settings.clone(), &mut delegate) {
            Role::Master(code) | Role::Worker(code) => code,
        }
    })
}

fn with_delegate(mut delegate: TestDelegate<'_>) -> ExitCode {
    print(&format!("signals before: {}", signal_state()));
    let role = supervise(SignalQueue::install().unwrap(), delegate.settings.clone(), &mut delegate);
    match role {
        Role::Master(code) => {
            print(&format!("signals after: {}", signal_state()));
            ExitCode::from(u8::try_from(code).unwrap())
        }
        Role::Worker(code) => {
            // Signals to the whole process group can arrive this late. They must not change the exit.
            kill_process(getpid(), Signal::TERM).unwrap();
            kill_process(getpid(), Signal::INT).unwrap();
            print(&format!("returned as {role:?}"));
            std::process::exit(code)
        }
    }
}

/// The signals that this process blocks, ignores and handles.
fn signal_state() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn serve(mut worker: Worker) -> i32 {
    worker.ready();
    wait_for_command(&mut worker);
    0
}

/// One of the first workers requests recycling as soon as it receives the message to reopen its logs.
fn request_recycle(mut worker: Worker) -> i32 {
    worker.ready();
    while wait_for_command(&mut worker) == WorkerCommand::ReopenLogs {
        if worker.age <= 3 {
            worker.notifier().unwrap().request_recycle();
        }
    }
    0
}

/// Reports when its uptime is long enough to be restarted immediately.
fn run_long(mut worker: Worker) -> i32 {
    worker.ready();
    let mut fds = worker.command_fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: 1, tv_nsec: 100_000_000 }));
    print("has run for a while");
    wait_for_command(&mut worker);
    0
}

/// Is busy until a line can be read.
fn finish_on_line(mut worker: Worker) -> i32 {
    worker.ready();
    loop {
        match wait_for_command_or_line(&mut worker) {
            Some(WorkerCommand::Stop) => return 0,
            Some(_) => {}
            None => {
                print("has finished its work");
                return 0;
            }
        }
    }
}

fn ignore_commands(mut worker: Worker) -> i32 {
    worker.ready();
    read_line()
}

fn outlive_master(mut worker: Worker) -> i32 {
    worker.ready();
    assert_eq!(wait_for_command(&mut worker), WorkerCommand::Stop);
    assert_eq!(worker.next_command(), None);
    let mut fds = worker.command_fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    if poll(&mut fds, Some(&Timespec::default())) == Ok(0) {
        print("does not spin");
    }
    0
}

fn run_a_child(mut worker: Worker) -> i32 {
    worker.ready();
    let status = Command::new("sh").args(["-c", "exit 7"]).status().unwrap();
    print(&format!("the worker's own child exited with {:?}", status.code()));
    wait_for_command(&mut worker);
    0
}

fn fork_a_child(mut worker: Worker) -> i32 {
    worker.ready();
    let child = sys::fork_a_reader();
    kill_process(child, Signal::TERM).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    let signal = status.terminating_signal().unwrap_or_default();
    print(&format!("the child was killed by {signal}, and the worker received {:?}", worker.next_command()));
    wait_for_command(&mut worker);
    0
}

fn wait_for_command(worker: &mut Worker) -> WorkerCommand {
    loop {
        if let Some(command) = worker.next_command() {
            print(&format!("receives {command:?}"));
            return command;
        }
        let mut fds = worker.command_fds().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut fds, None); // also after an interruption
    }
}

fn wait_for_command_or_line(worker: &mut Worker) -> Option<WorkerCommand> {
    loop {
        if let Some(command) = worker.next_command() {
            print(&format!("receives {command:?}"));
            return Some(command);
        }
        let (stdin, [signals, channel]) = (stdin(), worker.command_fds());
        let mut fds = [signals, channel, stdin.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut fds, None);
        if !fds[2].revents().is_empty() {
            return None;
        }
    }
}

/// Waits for a line that no test sends to this scenario, so until a signal kills the process.
fn read_line() -> i32 {
    let _ = stdin().read_line(&mut String::new());
    0
}
