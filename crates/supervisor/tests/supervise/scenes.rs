//! The masters and workers that the tests watch. All of this runs in a process started for one scene.
//!
//! The one thing to know: what a process says, and what it logs, goes to standard output in whole lines.

use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use mlws_supervisor::{ForkHooks, News, Order, Role, Settings, Worker, supervise};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::sys;

/// How many workers the scene "many" has.
pub(crate) const MANY: usize = 100;

fn say(what: &str) {
    rustix::io::write(stdout(), format!("{} {what}\n", getpid().as_raw_pid()).as_bytes()).unwrap();
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}\n", record.level(), record.args());
        rustix::io::write(stdout(), line.as_bytes()).unwrap();
    }

    fn flush(&self) {}
}

struct SayingHooks;

impl ForkHooks for SayingHooks {
    fn before(&self) {
        say("before a fork");
    }

    fn after_in_parent(&self) {
        say("after it in the master");
    }

    fn after_in_child(&self) {
        say("after it in the worker");
    }
}

pub(crate) fn play(scene: &str) -> ExitCode {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let settings = |workers| Settings { workers, ..Settings::default() };
    match scene {
        "steady" => with(&settings(3), &(), &mut obey),
        "long life" => with(&settings(1), &(), &mut live_long),
        "counting" => with(&settings(3), &(), &mut |worker| {
            say(&format!("descriptors: {}", std::fs::read_dir("/proc/self/fd").unwrap().count()));
            obey(worker)
        }),
        "many" => with(&settings(MANY), &(), &mut obey),
        "hooked" => with(&settings(1), &SayingHooks, &mut obey),
        "busy" => with(&settings(1), &(), &mut be_busy),
        "deaf" => {
            with(&Settings { graceful_timeout: Duration::from_millis(100), ..settings(1) }, &(), &mut be_deaf)
        }
        "stillborn" => {
            with(&settings(2), &(), &mut |worker| if worker.number == 1 { 3 } else { read_line() })
        }
        "crash at birth" => with(&settings(1), &(), &mut |_| {
            kill_process(getpid(), Signal::KILL).unwrap();
            read_line()
        }),
        "no successors" => {
            with(&settings(2), &(), &mut |worker| if worker.age <= 2 { obey(worker) } else { 5 })
        }
        "panic" => with(&settings(1), &(), &mut |mut worker| {
            worker.ready();
            std::panic::set_hook(Box::new(|_| ())); // the log line is what counts here
            panic!("as it should");
        }),
        "orphans" => with(&settings(2), &(), &mut outlive_the_master),
        "parents" => {
            let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
            let code = with(&settings(1), &(), &mut be_a_parent);
            say(&format!("master's own child ended with {:?}", child.wait().unwrap().code()));
            code
        }
        "forking application" => with(&settings(1), &(), &mut fork_a_child),
        _ => panic!("there is no scene {scene:?}"),
    }
}

/// Supervises, and ends the process as it is asked to.
fn with(settings: &Settings, hooks: &dyn ForkHooks, work: &mut dyn FnMut(Worker) -> i32) -> ExitCode {
    say(&format!("signals before: {}", signal_state()));
    let role = supervise(
        settings,
        hooks,
        &mut |news| {
            if news == News::Ready {
                say("all are ready");
            }
        },
        work,
    );
    match role {
        Role::Master(code) => {
            say(&format!("signals after: {}", signal_state()));
            ExitCode::from(u8::try_from(code).unwrap())
        }
        Role::Worker(code) => {
            // Sent to all processes, these can come as late as now. They must not cut the end short.
            kill_process(getpid(), Signal::TERM).unwrap();
            kill_process(getpid(), Signal::INT).unwrap();
            say(&format!("returned as {role:?}"));
            std::process::exit(code)
        }
    }
}

/// The signals this process blocks, ignores and catches.
fn signal_state() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn obey(mut worker: Worker) -> i32 {
    worker.ready();
    wait_for_order(&mut worker);
    0
}

/// Says when it is older than what the supervisor calls a short life.
fn live_long(mut worker: Worker) -> i32 {
    worker.ready();
    let mut orders = worker.orders().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let _ = poll(&mut orders, Some(&Timespec { tv_sec: 1, tv_nsec: 100_000_000 }));
    say("has lived for a while");
    wait_for_order(&mut worker);
    0
}

/// Has work to do from the beginning, which ends when a line can be read.
fn be_busy(mut worker: Worker) -> i32 {
    worker.ready();
    loop {
        match wait_for_order_or_line(&mut worker) {
            Some(Order::Drain) => {}
            Some(Order::Stop) => return 0,
            None => {
                say("has finished its work");
                return 0;
            }
        }
    }
}

fn be_deaf(mut worker: Worker) -> i32 {
    worker.ready();
    read_line()
}

fn outlive_the_master(mut worker: Worker) -> i32 {
    worker.ready();
    assert_eq!(wait_for_order(&mut worker), Order::Stop);
    assert_eq!(worker.next_order(), None);
    let mut watched = worker.orders().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    if poll(&mut watched, Some(&Timespec::default())) == Ok(0) {
        say("is quiet");
    }
    0
}

fn be_a_parent(mut worker: Worker) -> i32 {
    worker.ready();
    let status = Command::new("sh").args(["-c", "exit 7"]).status().unwrap();
    say(&format!("worker's own child ended with {:?}", status.code()));
    wait_for_order(&mut worker);
    0
}

fn fork_a_child(mut worker: Worker) -> i32 {
    worker.ready();
    let child = sys::fork_a_reader();
    kill_process(child, Signal::TERM).unwrap();
    let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
    let signal = status.terminating_signal().unwrap_or_default();
    say(&format!(
        "the child was killed by {signal}, and the order to the worker is {:?}",
        worker.next_order()
    ));
    wait_for_order(&mut worker);
    0
}

fn wait_for_order(worker: &mut Worker) -> Order {
    loop {
        if let Some(order) = worker.next_order() {
            say(&format!("hears {order:?}"));
            return order;
        }
        let mut watched = worker.orders().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut watched, None); // interrupted or not, ask again
    }
}

fn wait_for_order_or_line(worker: &mut Worker) -> Option<Order> {
    loop {
        if let Some(order) = worker.next_order() {
            say(&format!("hears {order:?}"));
            return Some(order);
        }
        let (stdin, [signals, line]) = (stdin(), worker.orders());
        let mut watched =
            [signals, line, stdin.as_fd()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = poll(&mut watched, None);
        if !watched[2].revents().is_empty() {
            return None;
        }
    }
}

/// Waits for a line that no test sends to this scene, so for a signal that kills.
fn read_line() -> i32 {
    let _ = stdin().read_line(&mut String::new());
    0
}
