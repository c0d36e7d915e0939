//! The masters and workers that the tests watch. All of this runs in a process started for one scene.
//!
//! The one thing to know: what a process says, and what it logs, goes to standard output in whole lines.

use std::io::{stdin, stdout};
use std::os::fd::AsFd;
use std::process::{Command, ExitCode};
use std::time::Duration;

use mlws_supervisor::{
    ForkHooks, News, Order, Owner, Pid, Role, Settings, Worker, supervise, supervise_under,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::sys;

/// How many workers the scene "many" has.
pub(crate) const MANY: usize = 100;
/// The generation of the scene "generations" that cannot start.
const BROKEN: usize = 1;
/// The generation that the settings of scenes with three workers do not allow.
const REFUSED: usize = 3;

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

/// Whose workers play.
struct Play<'a> {
    settings: Settings,
    /// How often it was told to reload.
    generation: usize,
    says_hooks: bool,
    work: &'a mut dyn FnMut(Worker, usize) -> i32,
}

impl ForkHooks for Play<'_> {
    fn before(&self) {
        if self.says_hooks {
            say("before a fork");
        }
    }

    fn after_in_parent(&self) {
        if self.says_hooks {
            say("after it in the master");
        }
    }

    fn after_in_child(&self) {
        if self.says_hooks {
            say("after it in the worker");
        }
    }
}

impl Owner for Play<'_> {
    fn work(&mut self, worker: Worker) -> i32 {
        (self.work)(worker, self.generation)
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Ready { .. } => say("all are ready"),
            News::Tick => {}
            news => say(&format!("hears of {news:?}")),
        }
    }

    fn reload(&mut self) -> Result<Settings, String> {
        self.generation += 1;
        if self.generation == REFUSED && self.settings.workers == 3 {
            Err("as it should".into())
        } else {
            Ok(self.settings.clone())
        }
    }

    fn start_second(&mut self) -> std::io::Result<Pid> {
        let this = getpid().as_raw_pid().to_string();
        let second =
            Command::new(std::env::current_exe()?).args(["--play", "second"]).env("FIRST", this).spawn()?;
        Ok(Pid::from_child(&second))
    }
}

pub(crate) fn play(scene: &str) -> ExitCode {
    log::set_logger(&Lines).unwrap();
    log::set_max_level(log::LevelFilter::Debug);
    let settings = |workers| Settings { workers, ..Settings::default() };
    match scene {
        "steady" => with(settings(3), &mut obey),
        "long life" => with(settings(1), &mut live_long),
        "counting" => with(settings(3), &mut |worker| {
            say(&format!("descriptors: {}", std::fs::read_dir("/proc/self/fd").unwrap().count()));
            obey(worker)
        }),
        "many" => with(settings(MANY), &mut obey),
        "hooked" => play_with(Play {
            settings: settings(1),
            generation: 0,
            says_hooks: true,
            work: &mut |worker, _| obey(worker),
        }),
        "busy" => with(settings(1), &mut be_busy),
        "deaf" => {
            with(Settings { graceful_timeout: Duration::from_millis(100), ..settings(1) }, &mut be_deaf)
        }
        "stillborn" => with(settings(2), &mut |worker| if worker.number == 1 { 3 } else { read_line() }),
        "crash at birth" => with(settings(1), &mut |_| {
            kill_process(getpid(), Signal::KILL).unwrap();
            read_line()
        }),
        "no successors" => with(settings(2), &mut |worker| if worker.age <= 2 { obey(worker) } else { 5 }),
        "panic" => with(settings(1), &mut |mut worker| {
            worker.ready();
            std::panic::set_hook(Box::new(|_| ())); // the log line is what counts here
            panic!("as it should");
        }),
        "orphans" => with(settings(2), &mut outlive_the_master),
        "parents" => {
            let mut child = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
            let code = with(settings(1), &mut be_a_parent);
            say(&format!("master's own child ended with {:?}", child.wait().unwrap().code()));
            code
        }
        "forking application" => with(settings(1), &mut fork_a_child),
        "generations" => with_generations(settings(2), &mut |worker, generation| match generation {
            BROKEN => 5,
            _ => obey(worker),
        }),
        "hanging starts" => with_generations(
            Settings { boot_timeout: Some(Duration::from_millis(200)), ..settings(1) },
            &mut |worker, generation| if generation == 0 { obey(worker) } else { read_line() },
        ),
        "slow starts" => with_generations(
            Settings { graceful_timeout: Duration::from_secs(600), ..settings(1) },
            &mut |worker, generation| if generation == 0 { obey(worker) } else { read_line() },
        ),
        "worn" => with(settings(3), &mut wear_out),
        "asks for a reload" => with_generations(
            Settings { workers_may_reload: true, ..settings(1) },
            &mut |worker, generation| {
                if generation == 0 {
                    worker.voice().unwrap().asks_for_reload();
                }
                obey(worker)
            },
        ),
        "asks for a reload in vain" => with_generations(settings(1), &mut |mut worker, _| {
            worker.voice().unwrap().asks_for_reload();
            worker.ready(); // the master reads this after the request
            obey(worker)
        }),
        "masters" => with_masters(&settings(1), &settings(2), &mut obey),
        "busy masters" => with_masters(&settings(1), &settings(1), &mut be_busy),
        "late reload" => with(Settings { workers_may_reload: true, ..settings(1) }, &mut |mut worker| {
            worker.ready();
            wait_for_order(&mut worker);
            worker.voice().unwrap().asks_for_reload();
            0
        }),
        "second" => {
            let first = std::env::var("FIRST").unwrap().parse().ok().and_then(Pid::from_raw);
            with(Settings { first, ..settings(1) }, &mut obey)
        }
        _ => panic!("there is no scene {scene:?}"),
    }
}

/// Supervises, and ends the process as it is asked to.
fn with(settings: Settings, work: &mut dyn FnMut(Worker) -> i32) -> ExitCode {
    with_generations(settings, &mut |worker, _| work(worker))
}

fn with_generations(settings: Settings, work: &mut dyn FnMut(Worker, usize) -> i32) -> ExitCode {
    play_with(Play { settings, generation: 0, says_hooks: false, work })
}

/// The workers are those of a master for each generation.
fn with_masters(above: &Settings, below: &Settings, work: &mut dyn FnMut(Worker) -> i32) -> ExitCode {
    with_generations(Settings { is_above_masters: true, ..above.clone() }, &mut |worker, generation| {
        say(&format!("master of generation {generation}"));
        let work = &mut |worker, _| work(worker);
        let mut play = Play { settings: below.clone(), generation, says_hooks: false, work };
        match supervise_under(worker, play.settings.clone(), &mut play) {
            Role::Master(code) | Role::Worker(code) => code,
        }
    })
}

fn play_with(mut play: Play<'_>) -> ExitCode {
    say(&format!("signals before: {}", signal_state()));
    let role = supervise(play.settings.clone(), &mut play);
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

/// Is worn as soon as it is told to open its logs anew, if it is of the first workers.
fn wear_out(mut worker: Worker) -> i32 {
    worker.ready();
    while wait_for_order(&mut worker) == Order::Reopen {
        if worker.age <= 3 {
            worker.voice().unwrap().is_worn();
        }
    }
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
            Some(Order::Stop) => return 0,
            Some(_) => {}
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
