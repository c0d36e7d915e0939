//! Real masters, real workers, real signals.
//!
//! The one thing to know: this program is both sides. Started by `cargo test` it runs the tests below, one after the
//! other. Started with `--play NAME` by a test, it is a master that supervises the workers of that scene (`scenes.rs`),
//! and everything its processes say and log comes back to the test as lines.

mod scenes;
mod show;
mod sys;

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::process::ExitCode;

use rustix::process::{Pid, Signal};

use show::{Show, is_alive, signal_to};

type Test = (&'static str, fn());

macro_rules! tests {
    ($($name:ident)*) => { [$((stringify!($name), $name as fn())),*] };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, scene] = &args[..]
        && flag == "--play"
    {
        return scenes::play(scene);
    }
    let tests: &[Test] = &tests![
        all_workers_come_up_and_it_is_announced_once
        a_killed_worker_is_replaced_and_the_log_names_the_signal
        a_worker_that_dies_after_a_long_life_is_replaced_at_once
        a_worker_has_no_descriptors_of_the_other_workers
        many_that_die_at_once_are_all_replaced_and_leave_no_zombies
        hooks_surround_every_fork
        term_lets_a_busy_worker_finish
        a_second_term_changes_nothing
        quit_after_term_ends_a_busy_worker_at_once
        a_second_term_to_masters_under_a_master_changes_nothing
        quit_ends_a_busy_worker_at_once
        ctrl_c_ends_busy_workers_at_once
        term_to_every_process_is_one_order_to_drain
        a_worker_that_does_not_drain_is_killed_after_the_graceful_timeout
        a_worker_that_does_not_obey_quit_is_killed
        a_worker_that_ends_before_ready_on_the_first_start_ends_the_command_with_its_code
        a_worker_that_is_killed_before_ready_on_the_first_start_ends_the_command_with_1
        a_worker_that_cannot_start_later_on_backs_off_while_the_others_serve
        a_worker_that_cannot_be_forked_is_forked_later
        a_worker_that_panics_ends_with_its_own_code
        workers_stop_when_their_master_is_killed
        the_application_keeps_its_own_children
        a_process_forked_by_the_application_has_default_signals
        the_master_gives_back_its_signal_handlers
        hup_brings_new_workers_and_sends_the_old_ones_home_when_they_are_ready
        a_generation_that_cannot_start_leaves_the_old_one_serving
        settings_that_cannot_be_read_leave_all_as_it_was
        many_hups_at_once_are_few_reloads
        a_start_that_hangs_is_aborted
        who_still_starts_does_not_hold_up_the_end
        no_reload_begins_while_all_end
        a_worn_worker_is_followed_by_an_heir_one_at_a_time
        a_worker_that_asks_for_a_reload_gets_one
        a_worker_may_not_reload_unless_the_settings_say_so
        ttin_and_ttou_change_the_number_of_workers
        winch_sends_all_home_and_hup_brings_new_ones
        usr1_reaches_all_workers
        workers_that_hand_over_are_told_when_nobody_goes_on
        workers_under_a_second_master_are_told_when_nobody_goes_on
        a_master_under_a_master_starts_reloads_counts_and_ends_with_it
        a_killed_master_above_ends_all_below_it
        usr2_starts_a_second_master_that_takes_over
        signals_meant_for_the_master_do_nothing_to_a_worker
        a_term_at_any_moment_of_the_start_is_heard_and_leaves_nothing_behind
    ];
    let wanted =
        |name: &str| args.iter().filter(|arg| !arg.starts_with('-')).all(|arg| name.contains(&**arg));
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| wanted(name)) {
        let passed = catch_unwind(test).is_ok();
        failed += u32::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all_workers_come_up_and_it_is_announced_once() {
    let mut show = Show::start("steady");
    let workers: HashSet<_> = (0..3).map(|_| show.worker_is_up()).collect();
    assert_eq!(workers.len(), 3);
    show.hears("all are ready");
    show.signal(Signal::TERM);
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.contains(&"all are ready".to_owned()));
    assert_eq!(lines.iter().filter(|line| line.contains("hears Drain")).count(), 3);
}

fn a_killed_worker_is_replaced_and_the_log_names_the_signal() {
    let mut show = Show::start("steady");
    let workers = [(); 3].map(|()| show.worker_is_up());
    show.hears("all are ready");
    for victim in workers {
        signal_to(victim, Signal::KILL);
        show.hears(&format!("worker {} was killed by SIGKILL", victim.as_raw_pid()));
        assert!(!is_alive(victim), "a zombie is left");
        assert!(!workers.contains(&show.worker_is_up()));
    }
    show.signal(Signal::TERM);
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.contains(&"all are ready".to_owned()));
}

fn a_worker_that_dies_after_a_long_life_is_replaced_at_once() {
    let mut show = Show::start("long life");
    let worker = show.worker_is_up();
    show.hears("has lived for a while");
    signal_to(worker, Signal::ALARM);
    show.hears("was killed by SIGALRM; a new one starts at once");
    show.worker_is_up();
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_has_no_descriptors_of_the_other_workers() {
    let mut show = Show::start("counting");
    let counts = [(); 3].map(|()| show.hears("descriptors: "));
    let counts: HashSet<_> = counts.iter().map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(counts.len(), 1, "each one has as many");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn many_that_die_at_once_are_all_replaced_and_leave_no_zombies() {
    let mut show = Show::start("many");
    let workers = [(); scenes::MANY].map(|()| show.worker_is_up());
    for worker in workers {
        signal_to(worker, Signal::KILL);
    }
    for worker in workers {
        show.hears(&format!("worker {} was killed by SIGKILL", worker.as_raw_pid()));
        assert!(!is_alive(worker));
        show.worker_is_up();
    }
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn hooks_surround_every_fork() {
    let mut show = Show::start("hooked");
    show.worker_is_up();
    let said =
        ["before a fork", "after it in the master", "after it in the worker"].map(|line| show.hears(line));
    assert_eq!(said[0].split(' ').next(), said[1].split(' ').next(), "these run in the same process");
    assert_ne!(said[0].split(' ').next(), said[2].split(' ').next(), "and this in another one");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn term_lets_a_busy_worker_finish() {
    let mut show = Show::start("busy");
    show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("hears Drain");
    show.writes_line();
    show.hears("has finished its work");
    assert_eq!(show.end().0, Some(0));
}

/// `timeout`, `uvx` and process managers send TERM to the group and to the master.
fn a_second_term_changes_nothing() {
    let mut show = Show::start("busy");
    let worker = show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("hears Drain");
    show.signal(Signal::TERM);
    show.signal_to_all(Signal::TERM);
    signal_to(worker, Signal::TERM);
    show.writes_line();
    show.hears("has finished its work");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("hears Stop") || line.contains("at once")), "{lines:#?}");
}

fn quit_after_term_ends_a_busy_worker_at_once() {
    let mut show = Show::start("busy");
    show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("hears Drain");
    show.signal(Signal::QUIT);
    show.hears("hears Stop");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

fn a_second_term_to_masters_under_a_master_changes_nothing() {
    let mut show = Show::start("busy masters");
    show.worker_is_up();
    show.hears("all are ready");
    show.signal_to_all(Signal::TERM);
    show.hears("hears Drain");
    show.signal_to_all(Signal::TERM);
    show.signal(Signal::TERM);
    show.writes_line();
    show.hears("has finished its work");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("hears Stop") || line.contains("at once")), "{lines:#?}");
}

fn quit_ends_a_busy_worker_at_once() {
    let mut show = Show::start("busy");
    show.worker_is_up();
    show.signal(Signal::QUIT);
    show.hears("hears Stop");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

/// A terminal sends INT to the master and its workers.
fn ctrl_c_ends_busy_workers_at_once() {
    let mut show = Show::start("busy");
    show.worker_is_up();
    show.signal_to_all(Signal::INT);
    show.hears("hears Stop");
    show.hears("INFO stopping at once");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

/// A service manager may send TERM to every process of a service.
fn term_to_every_process_is_one_order_to_drain() {
    let mut show = Show::start("busy");
    show.worker_is_up();
    show.signal_to_all(Signal::TERM);
    show.hears("hears Drain");
    show.hears("INFO stopping: the workers may finish");
    show.signal_to_all(Signal::INT);
    show.hears("hears Stop");
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_that_does_not_drain_is_killed_after_the_graceful_timeout() {
    let mut show = Show::start("deaf");
    let worker = show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("may finish what they run, for at most 100ms");
    show.hears(&format!("worker {} has not stopped in time and is killed", worker.as_raw_pid()));
    assert_eq!(show.end().0, Some(0));
    assert!(!is_alive(worker));
}

fn a_worker_that_does_not_obey_quit_is_killed() {
    let mut show = Show::start("deaf");
    show.worker_is_up();
    show.signal(Signal::QUIT);
    show.hears("has not stopped in time and is killed");
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_that_ends_before_ready_on_the_first_start_ends_the_command_with_its_code() {
    let (code, lines) = Show::start("stillborn").end();
    assert_eq!(code, Some(3));
    assert!(lines.iter().any(|line| line.contains("ended with status 3 before it was ready")));
    assert!(!lines.contains(&"all are ready".to_owned()));
}

fn a_worker_that_is_killed_before_ready_on_the_first_start_ends_the_command_with_1() {
    let (code, lines) = Show::start("crash at birth").end();
    assert_eq!(code, Some(1));
    assert!(lines.iter().any(|line| line.contains("was killed by SIGKILL before it was ready")));
}

fn a_worker_that_cannot_start_later_on_backs_off_while_the_others_serve() {
    let mut show = Show::start("no successors");
    let [victim, other] = [(); 2].map(|()| show.worker_is_up());
    show.hears("all are ready");
    signal_to(victim, Signal::KILL);
    show.hears("was killed by SIGKILL");
    for pause in ["200ms", "400ms", "800ms"] {
        show.hears(&format!("ended with status 5 before it was ready; a new one starts in {pause}"));
    }
    assert!(is_alive(other));
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_that_cannot_be_forked_is_forked_later() {
    let mut show = Show::start("steady");
    let victim = [(); 3].map(|()| show.worker_is_up())[0];
    show.hears("all are ready");
    let usual = show.limit_descriptors(Some(0));
    signal_to(victim, Signal::KILL);
    show.hears("no worker could be forked: Too many open files");
    show.hears("no worker could be forked: Too many open files");
    show.limit_descriptors(usual);
    show.worker_is_up();
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_that_panics_ends_with_its_own_code() {
    let mut show = Show::start("panic");
    show.worker_is_up();
    show.hears("its work panicked");
    show.hears("returned as Worker(70)");
    show.hears("ended with status 70");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn workers_stop_when_their_master_is_killed() {
    let mut show = Show::start("orphans");
    let workers = [(); 2].map(|()| show.worker_is_up());
    show.signal(Signal::KILL);
    for worker in workers {
        let pid = worker.as_raw_pid();
        show.hears(&format!("{pid} hears Stop"));
        show.hears(&format!("{pid} is quiet"));
    }
    assert_eq!(show.end().0, None);
}

fn the_application_keeps_its_own_children() {
    let mut show = Show::start("parents");
    show.worker_is_up();
    show.hears("worker's own child ended with Some(7)");
    show.signal(Signal::TERM);
    show.hears("master's own child ended with Some(7)");
    assert_eq!(show.end().0, Some(0));
}

fn a_process_forked_by_the_application_has_default_signals() {
    let mut show = Show::start("forking application");
    show.worker_is_up();
    show.hears("the child was killed by 15, and the order to the worker is None");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn the_master_gives_back_its_signal_handlers() {
    let mut show = Show::start("steady");
    let before = show.hears("signals before: ");
    show.worker_is_up();
    show.signal(Signal::TERM);
    let after = show.hears("signals after: ");
    assert_eq!(before.rsplit(": ").next(), after.rsplit(": ").next());
    assert_eq!(show.end().0, Some(0));
}

fn hup_brings_new_workers_and_sends_the_old_ones_home_when_they_are_ready() {
    let mut show = Show::start("steady");
    let old = [(); 3].map(|()| show.worker_is_up());
    show.hears("all are ready");
    show.signal(Signal::HUP);
    show.hears("hears of Reloading");
    let new = [(); 3].map(|()| show.worker_is_up());
    show.hears("all are ready");
    for worker in old {
        show.hears(&format!("worker {} has ended", worker.as_raw_pid()));
    }
    assert!(new.iter().all(|worker| is_alive(*worker)));
    assert!(!old.iter().any(|worker| is_alive(*worker)));
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_generation_that_cannot_start_leaves_the_old_one_serving() {
    let mut show = Show::start("generations");
    let old = [(); 2].map(|()| show.worker_is_up());
    show.hears("all are ready");
    show.signal(Signal::HUP);
    show.hears("the reload has failed, so the old workers serve on");
    show.hears("hears of ReloadFailed");
    assert!(old.iter().all(|worker| is_alive(*worker)));
    show.signal(Signal::HUP);
    let new = [(); 2].map(|()| show.worker_is_up());
    show.hears("all are ready");
    for worker in old {
        show.hears(&format!("worker {} has ended", worker.as_raw_pid()));
    }
    assert!(new.iter().all(|worker| is_alive(*worker)));
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn settings_that_cannot_be_read_leave_all_as_it_was() {
    let mut show = Show::start("steady");
    show.hears("all are ready");
    for _ in 0..2 {
        show.signal(Signal::HUP);
        show.hears("hears of Reloading");
        show.hears("all are ready");
    }
    show.signal(Signal::HUP);
    show.hears("cannot reload, so all goes on as before: as it should");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn many_hups_at_once_are_few_reloads() {
    let mut show = Show::start("many");
    show.hears("all are ready");
    for _ in 0..50 {
        show.signal(Signal::HUP);
    }
    show.hears("hears of Reloading");
    show.hears("all are ready");
    show.signal(Signal::TERM);
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    let more = lines.iter().filter(|line| line.contains("hears of Reloading")).count();
    assert!(more < 10, "{more} more reloads");
}

fn a_start_that_hangs_is_aborted() {
    let mut show = Show::start("hanging starts");
    let old = show.worker_is_up();
    show.hears("all are ready");
    show.signal(Signal::HUP);
    show.hears("was not ready in time and is aborted");
    show.hears("was killed by SIGABRT");
    assert!(is_alive(old));
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn who_still_starts_does_not_hold_up_the_end() {
    let mut show = Show::start("slow starts");
    let old = show.worker_is_up();
    show.hears("all are ready");
    show.signal(Signal::HUP);
    show.hears("hears of Reloading");
    show.signal(Signal::TERM);
    show.hears(&format!("worker {} has ended", old.as_raw_pid()));
    assert_eq!(show.end().0, Some(0));
}

fn no_reload_begins_while_all_end() {
    let mut show = Show::start("late reload");
    show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("hears Drain");
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("reloading")), "{lines:#?}");
}

fn a_worn_worker_is_followed_by_an_heir_one_at_a_time() {
    let mut show = Show::start("worn");
    let old = [(); 3].map(|()| show.worker_is_up());
    show.hears("all are ready");
    show.signal(Signal::USR1);
    for _ in old {
        let heir = show.worker_is_up().as_raw_pid();
        show.hears(&format!("is followed by {heir}"));
        show.hears("hears HandOver");
    }
    for worker in old {
        show.hears(&format!("worker {} has ended", worker.as_raw_pid()));
    }
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_that_asks_for_a_reload_gets_one() {
    let mut show = Show::start("asks for a reload");
    let old = show.worker_is_up();
    show.hears("hears of Reloading");
    let new = show.worker_is_up();
    show.hears(&format!("worker {} has ended", old.as_raw_pid()));
    assert!(is_alive(new));
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_worker_may_not_reload_unless_the_settings_say_so() {
    let mut show = Show::start("asks for a reload in vain");
    let worker = show.worker_is_up(); // said after the request
    show.signal(Signal::TTIN);
    show.worker_is_up();
    assert!(is_alive(worker));
    show.signal(Signal::TERM);
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("Reloading")), "{lines:#?}");
}

fn ttin_and_ttou_change_the_number_of_workers() {
    let mut show = Show::start("steady");
    for _ in 0..3 {
        show.worker_is_up();
    }
    show.signal(Signal::TTIN);
    show.hears("one worker more: 4");
    show.worker_is_up();
    for left in ["3", "2", "1"] {
        show.signal(Signal::TTOU);
        show.hears(&format!("one worker fewer: {left}"));
        show.hears("hears HandOver");
        show.hears("has ended");
    }
    show.signal(Signal::TTOU); // one always stays
    show.signal(Signal::TTIN);
    show.hears("one worker more: 2");
    show.worker_is_up();
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn winch_sends_all_home_and_hup_brings_new_ones() {
    let mut show = Show::start("steady");
    show.hears("all are ready");
    for _ in 0..3 {
        show.worker_is_up();
    }
    show.signal(Signal::WINCH);
    show.hears("hears Drain");
    for _ in 0..3 {
        show.hears("has ended");
    }
    show.signal(Signal::HUP);
    for _ in 0..3 {
        show.worker_is_up();
    }
    show.hears("all are ready");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn usr1_reaches_all_workers() {
    let mut show = Show::start("worn");
    show.hears("all are ready");
    show.signal(Signal::USR1);
    show.hears("hears of Reopen");
    for _ in 0..3 {
        show.hears("hears Reopen");
    }
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn workers_that_hand_over_are_told_when_nobody_goes_on() {
    for end in [Signal::TERM, Signal::WINCH] {
        told_first_to_hand_over_and_then_to_drain(Show::start("busy"), end);
    }
}

fn workers_under_a_second_master_are_told_when_nobody_goes_on() {
    told_first_to_hand_over_and_then_to_drain(Show::start("busy masters"), Signal::TERM);
}

fn told_first_to_hand_over_and_then_to_drain(mut show: Show, end: Signal) {
    let old = show.worker_is_up().as_raw_pid();
    show.hears("all are ready");
    show.signal(Signal::HUP);
    show.hears(&format!("{old} hears HandOver"));
    show.hears("all are ready");
    show.signal(end);
    show.hears(&format!("{old} hears Drain"));
    show.signal(Signal::QUIT);
    assert_eq!(show.end().0, Some(0));
}

fn a_master_under_a_master_starts_reloads_counts_and_ends_with_it() {
    let mut show = Show::start("masters");
    show.hears("master of generation 0");
    let up = [(); 3].map(|()| show.worker_is_up());
    for _ in 0..2 {
        show.hears("all are ready");
    }
    show.signal(Signal::TTIN);
    show.hears("one worker more: 3");
    show.worker_is_up();
    show.signal(Signal::HUP);
    show.hears("master of generation 1");
    for _ in 0..3 {
        show.worker_is_up();
    }
    for _ in 0..4 {
        show.hears("has ended");
    }
    assert!(!up.iter().any(|worker| is_alive(*worker)));
    show.signal_to_all(Signal::TERM);
    let (code, lines) = show.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("at once")), "{lines:#?}");
}

fn a_killed_master_above_ends_all_below_it() {
    let mut show = Show::start("masters");
    for _ in 0..3 {
        show.worker_is_up();
    }
    show.signal(Signal::KILL);
    for _ in 0..2 {
        show.hears("hears Stop");
    }
    assert_eq!(show.end().0, None);
}

fn usr2_starts_a_second_master_that_takes_over() {
    let mut show = Show::start("steady");
    for _ in 0..3 {
        show.worker_is_up();
    }
    show.signal(Signal::USR2);
    let line = show.hears("a second master starts beside this one: ");
    let second = Pid::from_raw(line.rsplit(' ').next().unwrap().parse().unwrap()).unwrap();
    show.worker_is_up();
    show.signal(Signal::USR2);
    show.hears("there is a second master already");
    signal_to(second, Signal::TERM);
    show.hears("hears of SecondIsGone");
    show.signal(Signal::USR2);
    let line = show.hears("a second master starts beside this one: ");
    let second = Pid::from_raw(line.rsplit(' ').next().unwrap().parse().unwrap()).unwrap();
    show.worker_is_up();
    show.signal(Signal::TERM);
    show.hears("hears of FirstIsGone");
    signal_to(second, Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn signals_meant_for_the_master_do_nothing_to_a_worker() {
    let mut show = Show::start("busy");
    let worker = show.worker_is_up();
    for signal in [Signal::HUP, Signal::USR2, Signal::TTIN, Signal::TTOU, Signal::WINCH] {
        signal_to(worker, signal);
    }
    show.writes_line();
    show.hears("has finished its work");
    show.signal(Signal::TERM);
    assert_eq!(show.end().0, Some(0));
}

fn a_term_at_any_moment_of_the_start_is_heard_and_leaves_nothing_behind() {
    let mut moment = 0_u64;
    let rounds = if std::env::var_os("MLWS_SOAK").is_some() { 10_000 } else { 200 };
    for round in 0..rounds {
        // Steps of the golden section are spread evenly, wherever the start is fast or slow.
        moment = (moment + 4944) % 8000;
        let mut show = Show::start("steady");
        show.goes_on_for_micros(moment);
        if round % 2 == 0 {
            show.signal(Signal::TERM);
        } else {
            show.signal_to_all(Signal::TERM);
        }
        let (code, lines) = show.end();
        // Before there is a master, TERM kills. That it has caught its signals is known by the first worker it forks.
        let supervised = lines.iter().any(|line| line.contains("worker"));
        assert!(code == Some(0) || code.is_none() && !supervised, "{code:?} after {lines:#?}");
    }
}
