//! Integration tests with real masters, real workers and real signals.
//!
//! This program is both sides. Started by `cargo test`, it runs the tests below one after the other. Started by a test with
//! `--scenario NAME`, it is a master that supervises the workers of that scenario (`scenarios.rs`). Everything that its
//! processes print and log is passed to the test as lines.

mod scenarios;
mod sys;
mod test_master;

use std::collections::HashSet;
use std::panic::catch_unwind;
use std::process::ExitCode;

use rustix::process::{Pid, Signal};

use test_master::{TestMaster, is_alive, signal_to};

type Test = (&'static str, fn());

macro_rules! tests {
    ($($name:ident)*) => { [$((stringify!($name), $name as fn())),*] };
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, scenario] = &args[..]
        && flag == "--scenario"
    {
        return scenarios::run(scenario);
    }
    let tests: &[Test] = &tests![
        all_workers_start_and_readiness_is_reported_once
        a_killed_worker_is_replaced_and_the_log_names_the_signal
        a_worker_that_dies_after_a_long_uptime_is_restarted_immediately
        a_worker_has_no_descriptors_of_other_workers
        many_workers_that_die_at_the_same_time_are_restarted_and_leave_no_zombies
        fork_hooks_run_around_every_fork
        term_lets_a_busy_worker_finish
        a_repeated_term_has_no_effect
        quit_after_term_stops_a_busy_worker_immediately
        a_repeated_term_to_a_nested_master_has_no_effect
        quit_stops_a_busy_worker_immediately
        ctrl_c_stops_busy_workers_immediately
        term_to_every_process_is_one_command_to_drain
        a_worker_that_does_not_drain_is_killed_after_the_graceful_timeout
        a_worker_that_ignores_quit_is_killed
        a_worker_that_exits_before_any_was_ready_ends_the_master_with_its_exit_code
        a_worker_that_is_killed_before_any_was_ready_ends_the_master_with_exit_code_1
        a_worker_that_cannot_restart_backs_off_while_the_others_serve
        a_worker_that_cannot_be_forked_is_forked_later
        a_worker_that_panics_exits_with_its_own_code
        workers_stop_when_their_master_is_killed
        the_application_keeps_its_own_children
        a_process_forked_by_the_application_has_default_signals
        the_master_restores_the_previous_signal_handlers
        hup_starts_new_workers_and_drains_the_old_ones_when_they_are_ready
        a_generation_that_cannot_start_leaves_the_previous_one_serving
        a_rejected_reload_keeps_the_previous_configuration
        many_hups_in_a_row_are_few_reloads
        a_worker_that_hangs_while_it_boots_is_aborted
        a_worker_that_is_still_booting_does_not_delay_the_shutdown
        no_reload_begins_during_the_shutdown
        workers_are_recycled_one_at_a_time
        a_worker_can_request_a_reload
        a_reload_request_has_no_effect_unless_the_settings_allow_it
        ttin_and_ttou_change_the_number_of_workers
        winch_drains_all_workers_and_hup_starts_new_ones
        usr1_reaches_all_workers
        workers_that_hand_over_learn_when_no_worker_serves_on
        workers_of_a_nested_master_learn_when_no_worker_serves_on
        a_nested_master_starts_reloads_resizes_and_stops_with_its_parent
        a_nested_master_stops_when_its_parent_is_killed
        usr2_starts_a_new_master_that_takes_over
        signals_meant_for_the_master_have_no_effect_on_a_worker
        term_at_any_moment_of_the_start_stops_every_process
    ];
    let is_selected =
        |name: &str| args.iter().filter(|arg| !arg.starts_with('-')).all(|arg| name.contains(&**arg));
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| is_selected(name)) {
        let passed = catch_unwind(test).is_ok();
        failed += u32::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn all_workers_start_and_readiness_is_reported_once() {
    let mut master = TestMaster::start("steady");
    let workers: HashSet<_> = (0..3).map(|_| master.wait_for_worker()).collect();
    assert_eq!(workers.len(), 3);
    master.wait_for("workers ready");
    master.signal(Signal::TERM);
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.contains(&"workers ready".to_owned()));
    assert_eq!(lines.iter().filter(|line| line.contains("receives Drain")).count(), 3);
}

fn a_killed_worker_is_replaced_and_the_log_names_the_signal() {
    let mut master = TestMaster::start("steady");
    let workers = [(); 3].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    for victim in workers {
        signal_to(victim, Signal::KILL);
        master.wait_for(&format!(
            "Worker exited unexpectedly (pid: {}), killed by SIGKILL",
            victim.as_raw_pid()
        ));
        assert!(!is_alive(victim), "a zombie is left");
        assert!(!workers.contains(&master.wait_for_worker()));
    }
    master.signal(Signal::TERM);
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.contains(&"workers ready".to_owned()));
}

fn a_worker_that_dies_after_a_long_uptime_is_restarted_immediately() {
    let mut master = TestMaster::start("long uptime");
    let worker = master.wait_for_worker();
    master.wait_for("has run for a while");
    signal_to(worker, Signal::ALARM);
    master.wait_for("killed by SIGALRM, restarting now");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_has_no_descriptors_of_other_workers() {
    let mut master = TestMaster::start("descriptors");
    let counts = [(); 3].map(|()| master.wait_for("descriptors: "));
    let counts: HashSet<_> = counts.iter().map(|line| line.rsplit(": ").next()).collect();
    assert_eq!(counts.len(), 1, "each one has the same number");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn many_workers_that_die_at_the_same_time_are_restarted_and_leave_no_zombies() {
    let mut master = TestMaster::start("many");
    let workers = [(); scenarios::MANY].map(|()| master.wait_for_worker());
    for worker in workers {
        signal_to(worker, Signal::KILL);
    }
    for worker in workers {
        master.wait_for(&format!(
            "Worker exited unexpectedly (pid: {}), killed by SIGKILL",
            worker.as_raw_pid()
        ));
        assert!(!is_alive(worker));
        master.wait_for_worker();
    }
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn fork_hooks_run_around_every_fork() {
    let mut master = TestMaster::start("fork hooks");
    master.wait_for_worker();
    let said =
        ["hook before", "hook after in parent", "hook after in child"].map(|line| master.wait_for(line));
    assert_eq!(said[0].split(' ').next(), said[1].split(' ').next(), "these run in the same process");
    assert_ne!(said[0].split(' ').next(), said[2].split(' ').next(), "and this in another one");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn term_lets_a_busy_worker_finish() {
    let mut master = TestMaster::start("busy");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("receives Drain");
    master.write_line();
    master.wait_for("has finished its work");
    assert_eq!(master.wait_for_exit().0, Some(0));
}

/// `timeout`, `uvx` and process managers send TERM to the group and to the master.
fn a_repeated_term_has_no_effect() {
    let mut master = TestMaster::start("busy");
    let worker = master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("receives Drain");
    master.signal(Signal::TERM);
    master.signal_group(Signal::TERM);
    signal_to(worker, Signal::TERM);
    master.write_line();
    master.wait_for("has finished its work");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(
        !lines.iter().any(|line| line.contains("receives Stop") || line.contains("immediately")),
        "{lines:#?}"
    );
}

fn quit_after_term_stops_a_busy_worker_immediately() {
    let mut master = TestMaster::start("busy");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("receives Drain");
    master.signal(Signal::QUIT);
    master.wait_for("receives Stop");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

fn a_repeated_term_to_a_nested_master_has_no_effect() {
    let mut master = TestMaster::start("busy nested master");
    master.wait_for_worker();
    master.wait_for("workers ready");
    master.signal_group(Signal::TERM);
    master.wait_for("receives Drain");
    master.signal_group(Signal::TERM);
    master.signal(Signal::TERM);
    master.write_line();
    master.wait_for("has finished its work");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(
        !lines.iter().any(|line| line.contains("receives Stop") || line.contains("immediately")),
        "{lines:#?}"
    );
}

fn quit_stops_a_busy_worker_immediately() {
    let mut master = TestMaster::start("busy");
    master.wait_for_worker();
    master.signal(Signal::QUIT);
    master.wait_for("receives Stop");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

/// A terminal sends INT to the master and its workers.
fn ctrl_c_stops_busy_workers_immediately() {
    let mut master = TestMaster::start("busy");
    master.wait_for_worker();
    master.signal_group(Signal::INT);
    master.wait_for("receives Stop");
    master.wait_for("INFO Shutting down: stopping workers immediately");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("has finished")));
}

/// A service manager may send TERM to every process of a service.
fn term_to_every_process_is_one_command_to_drain() {
    let mut master = TestMaster::start("busy");
    master.wait_for_worker();
    master.signal_group(Signal::TERM);
    master.wait_for("receives Drain");
    master.wait_for("INFO Shutting down: draining workers");
    master.signal_group(Signal::INT);
    master.wait_for("receives Stop");
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_that_does_not_drain_is_killed_after_the_graceful_timeout() {
    let mut master = TestMaster::start("unresponsive");
    let worker = master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("Shutting down: draining workers for at most 100ms");
    master.wait_for(&format!("Worker stop timeout (pid: {}), sending SIGKILL", worker.as_raw_pid()));
    assert_eq!(master.wait_for_exit().0, Some(0));
    assert!(!is_alive(worker));
}

fn a_worker_that_ignores_quit_is_killed() {
    let mut master = TestMaster::start("unresponsive");
    master.wait_for_worker();
    master.signal(Signal::QUIT);
    master.wait_for("Worker stop timeout");
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_that_exits_before_any_was_ready_ends_the_master_with_its_exit_code() {
    let (code, lines) = TestMaster::start("boot failure").wait_for_exit();
    assert_eq!(code, Some(3));
    assert!(
        lines
            .iter()
            .any(|line| line.contains("Worker failed to boot") && line.ends_with("status 3, shutting down"))
    );
    assert!(!lines.contains(&"workers ready".to_owned()));
}

fn a_worker_that_is_killed_before_any_was_ready_ends_the_master_with_exit_code_1() {
    let (code, lines) = TestMaster::start("boot crash").wait_for_exit();
    assert_eq!(code, Some(1));
    assert!(
        lines.iter().any(|line| line.contains("Worker failed to boot") && line.contains("killed by SIGKILL"))
    );
}

fn a_worker_that_cannot_restart_backs_off_while_the_others_serve() {
    let mut master = TestMaster::start("failing restarts");
    let [victim, other] = [(); 2].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    signal_to(victim, Signal::KILL);
    master.wait_for("killed by SIGKILL");
    for delay in ["200ms", "400ms", "800ms"] {
        master.wait_for(&format!("status 5, restarting in {delay}"));
    }
    assert!(is_alive(other));
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_that_cannot_be_forked_is_forked_later() {
    let mut master = TestMaster::start("steady");
    let victim = [(); 3].map(|()| master.wait_for_worker())[0];
    master.wait_for("workers ready");
    let previous = master.limit_descriptors(Some(0));
    signal_to(victim, Signal::KILL);
    master.wait_for("Failed to fork worker: Too many open files");
    master.wait_for("Failed to fork worker: Too many open files");
    master.limit_descriptors(previous);
    master.wait_for_worker();
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_that_panics_exits_with_its_own_code() {
    let mut master = TestMaster::start("panic");
    master.wait_for_worker();
    master.wait_for("Worker panicked");
    master.wait_for("returned as Worker(70)");
    master.wait_for("status 70, restarting");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn workers_stop_when_their_master_is_killed() {
    let mut master = TestMaster::start("orphans");
    let workers = [(); 2].map(|()| master.wait_for_worker());
    master.signal(Signal::KILL);
    for worker in workers {
        let pid = worker.as_raw_pid();
        master.wait_for(&format!("{pid} receives Stop"));
        master.wait_for(&format!("{pid} does not spin"));
    }
    assert_eq!(master.wait_for_exit().0, None);
}

fn the_application_keeps_its_own_children() {
    let mut master = TestMaster::start("workers with children");
    master.wait_for_worker();
    master.wait_for("the worker's own child exited with Some(7)");
    master.signal(Signal::TERM);
    master.wait_for("the master's own child exited with Some(7)");
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_process_forked_by_the_application_has_default_signals() {
    let mut master = TestMaster::start("forking application");
    master.wait_for_worker();
    master.wait_for("the child was killed by 15, and the worker received None");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn the_master_restores_the_previous_signal_handlers() {
    let mut master = TestMaster::start("steady");
    let before = master.wait_for("signals before: ");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    let after = master.wait_for("signals after: ");
    assert_eq!(before.rsplit(": ").next(), after.rsplit(": ").next());
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn hup_starts_new_workers_and_drains_the_old_ones_when_they_are_ready() {
    let mut master = TestMaster::start("steady");
    let old = [(); 3].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    master.signal(Signal::HUP);
    master.wait_for("event Reloading");
    let new = [(); 3].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    for worker in old {
        master.wait_for(&format!("Worker exited (pid: {})", worker.as_raw_pid()));
    }
    assert!(new.iter().all(|worker| is_alive(*worker)));
    assert!(!old.iter().any(|worker| is_alive(*worker)));
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_generation_that_cannot_start_leaves_the_previous_one_serving() {
    let mut master = TestMaster::start("generations");
    let old = [(); 2].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    master.signal(Signal::HUP);
    master.wait_for("Reload failed, keeping the previous workers");
    master.wait_for("event ReloadFailed");
    assert!(old.iter().all(|worker| is_alive(*worker)));
    master.signal(Signal::HUP);
    let new = [(); 2].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    for worker in old {
        master.wait_for(&format!("Worker exited (pid: {})", worker.as_raw_pid()));
    }
    assert!(new.iter().all(|worker| is_alive(*worker)));
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_rejected_reload_keeps_the_previous_configuration() {
    let mut master = TestMaster::start("steady");
    master.wait_for("workers ready");
    for _ in 0..2 {
        master.signal(Signal::HUP);
        master.wait_for("event Reloading");
        master.wait_for("workers ready");
    }
    master.signal(Signal::HUP);
    master.wait_for("Reload failed, keeping the previous configuration: as intended");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn many_hups_in_a_row_are_few_reloads() {
    let mut master = TestMaster::start("many");
    master.wait_for("workers ready");
    for _ in 0..50 {
        master.signal(Signal::HUP);
    }
    master.wait_for("event Reloading");
    master.wait_for("workers ready");
    master.signal(Signal::TERM);
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    let more = lines.iter().filter(|line| line.contains("event Reloading")).count();
    assert!(more < 10, "{more} more reloads");
}

fn a_worker_that_hangs_while_it_boots_is_aborted() {
    let mut master = TestMaster::start("hanging starts");
    let old = master.wait_for_worker();
    master.wait_for("workers ready");
    master.signal(Signal::HUP);
    master.wait_for("Worker boot timeout");
    master.wait_for("killed by SIGABRT");
    assert!(is_alive(old));
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_that_is_still_booting_does_not_delay_the_shutdown() {
    let mut master = TestMaster::start("slow starts");
    let old = master.wait_for_worker();
    master.wait_for("workers ready");
    master.signal(Signal::HUP);
    master.wait_for("event Reloading");
    master.signal(Signal::TERM);
    master.wait_for(&format!("Worker exited (pid: {})", old.as_raw_pid()));
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn no_reload_begins_during_the_shutdown() {
    let mut master = TestMaster::start("late reload");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("receives Drain");
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("Reloading")), "{lines:#?}");
}

fn workers_are_recycled_one_at_a_time() {
    let mut master = TestMaster::start("recycling");
    let old = [(); 3].map(|()| master.wait_for_worker());
    master.wait_for("workers ready");
    master.signal(Signal::USR1);
    for _ in old {
        let new = master.wait_for_worker().as_raw_pid();
        master.wait_for(&format!("new pid {new}"));
        master.wait_for("receives HandOver");
    }
    for worker in old {
        master.wait_for(&format!("Worker exited (pid: {})", worker.as_raw_pid()));
    }
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_worker_can_request_a_reload() {
    let mut master = TestMaster::start("reload request");
    let old = master.wait_for_worker();
    master.wait_for("event Reloading");
    let new = master.wait_for_worker();
    master.wait_for(&format!("Worker exited (pid: {})", old.as_raw_pid()));
    assert!(is_alive(new));
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_reload_request_has_no_effect_unless_the_settings_allow_it() {
    let mut master = TestMaster::start("reload request denied");
    let worker = master.wait_for_worker(); // logged after the request
    master.signal(Signal::TTIN);
    master.wait_for_worker();
    assert!(is_alive(worker));
    master.signal(Signal::TERM);
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("Reloading")), "{lines:#?}");
}

fn ttin_and_ttou_change_the_number_of_workers() {
    let mut master = TestMaster::start("steady");
    for _ in 0..3 {
        master.wait_for_worker();
    }
    master.signal(Signal::TTIN);
    master.wait_for("Workers increased to 4");
    master.wait_for_worker();
    for left in ["3", "2", "1"] {
        master.signal(Signal::TTOU);
        master.wait_for(&format!("Workers decreased to {left}"));
        master.wait_for("receives HandOver");
        master.wait_for("Worker exited (");
    }
    master.signal(Signal::TTOU); // one always remains
    master.signal(Signal::TTIN);
    master.wait_for("Workers increased to 2");
    master.wait_for_worker();
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn winch_drains_all_workers_and_hup_starts_new_ones() {
    let mut master = TestMaster::start("steady");
    master.wait_for("workers ready");
    for _ in 0..3 {
        master.wait_for_worker();
    }
    master.signal(Signal::WINCH);
    master.wait_for("receives Drain");
    for _ in 0..3 {
        master.wait_for("Worker exited (");
    }
    master.signal(Signal::HUP);
    for _ in 0..3 {
        master.wait_for_worker();
    }
    master.wait_for("workers ready");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn usr1_reaches_all_workers() {
    let mut master = TestMaster::start("recycling");
    master.wait_for("workers ready");
    master.signal(Signal::USR1);
    master.wait_for("event ReopenLogs");
    for _ in 0..3 {
        master.wait_for("receives ReopenLogs");
    }
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn workers_that_hand_over_learn_when_no_worker_serves_on() {
    for end in [Signal::TERM, Signal::WINCH] {
        check_hand_over_then_drain(TestMaster::start("busy"), end);
    }
}

fn workers_of_a_nested_master_learn_when_no_worker_serves_on() {
    check_hand_over_then_drain(TestMaster::start("busy nested master"), Signal::TERM);
}

fn check_hand_over_then_drain(mut master: TestMaster, end: Signal) {
    let old = master.wait_for_worker().as_raw_pid();
    master.wait_for("workers ready");
    master.signal(Signal::HUP);
    master.wait_for(&format!("{old} receives HandOver"));
    master.wait_for("workers ready");
    master.signal(end);
    master.wait_for(&format!("{old} receives Drain"));
    master.signal(Signal::QUIT);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn a_nested_master_starts_reloads_resizes_and_stops_with_its_parent() {
    let mut master = TestMaster::start("nested master");
    master.wait_for("master of generation 0");
    let up = [(); 3].map(|()| master.wait_for_worker());
    for _ in 0..2 {
        master.wait_for("workers ready");
    }
    master.signal(Signal::TTIN);
    master.wait_for("Workers increased to 3");
    master.wait_for_worker();
    master.signal(Signal::HUP);
    master.wait_for("master of generation 1");
    for _ in 0..3 {
        master.wait_for_worker();
    }
    for _ in 0..4 {
        master.wait_for("Worker exited (");
    }
    assert!(!up.iter().any(|worker| is_alive(*worker)));
    master.signal_group(Signal::TERM);
    let (code, lines) = master.wait_for_exit();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|line| line.contains("immediately")), "{lines:#?}");
}

fn a_nested_master_stops_when_its_parent_is_killed() {
    let mut master = TestMaster::start("nested master");
    for _ in 0..3 {
        master.wait_for_worker();
    }
    master.signal(Signal::KILL);
    for _ in 0..2 {
        master.wait_for("receives Stop");
    }
    assert_eq!(master.wait_for_exit().0, None);
}

fn usr2_starts_a_new_master_that_takes_over() {
    let mut master = TestMaster::start("steady");
    for _ in 0..3 {
        master.wait_for_worker();
    }
    master.signal(Signal::USR2);
    let line = master.wait_for("New master started (pid: ");
    let new_master =
        Pid::from_raw(line.rsplit(' ').next().unwrap().trim_end_matches(')').parse().unwrap()).unwrap();
    master.wait_for_worker();
    master.signal(Signal::USR2);
    master.wait_for("Upgrade already in progress");
    signal_to(new_master, Signal::TERM);
    master.wait_for("event NewMasterExited");
    master.signal(Signal::USR2);
    let line = master.wait_for("New master started (pid: ");
    let new_master =
        Pid::from_raw(line.rsplit(' ').next().unwrap().trim_end_matches(')').parse().unwrap()).unwrap();
    master.wait_for_worker();
    master.signal(Signal::TERM);
    master.wait_for("event OldMasterExited");
    signal_to(new_master, Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn signals_meant_for_the_master_have_no_effect_on_a_worker() {
    let mut master = TestMaster::start("busy");
    let worker = master.wait_for_worker();
    for signal in [Signal::HUP, Signal::USR2, Signal::TTIN, Signal::TTOU, Signal::WINCH] {
        signal_to(worker, signal);
    }
    master.write_line();
    master.wait_for("has finished its work");
    master.signal(Signal::TERM);
    assert_eq!(master.wait_for_exit().0, Some(0));
}

fn term_at_any_moment_of_the_start_stops_every_process() {
    let mut moment = 0_u64;
    let rounds = if std::env::var_os("MLWS_SOAK").is_some() { 10_000 } else { 200 };
    for round in 0..rounds {
        // Steps of the golden section are spread evenly, wherever the start is fast or slow.
        moment = (moment + 4944) % 8000;
        let mut master = TestMaster::start("steady");
        master.collect_for_micros(moment);
        if round % 2 == 0 {
            master.signal(Signal::TERM);
        } else {
            master.signal_group(Signal::TERM);
        }
        let (code, lines) = master.wait_for_exit();
        // Before there is a master, TERM kills. Its signal handlers are installed before it boots its first worker.
        let supervised = lines.iter().any(|line| line.contains("Booting worker"));
        assert!(code == Some(0) || code.is_none() && !supervised, "{code:?} after {lines:#?}");
    }
}
