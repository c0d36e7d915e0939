//! Every log line of this crate. The form is `event: object, consequence`; the event is a stable prefix to search for.

use std::fmt::Display;
use std::time::Duration;

use rustix::process::Pid;

use crate::exit_status::ExitStatus;

macro_rules! messages {
    ($($level:ident $name:ident($($argument:ident: $type:ty),*) $text:literal;)*) => {
        $(pub(crate) fn $name($($argument: $type),*) {
            log::$level!($text);
        })*
    };
}

messages! {
    // The master.
    error master_poll_failed(error: impl Display) "Master failed to poll: {error}";
    error daemonize_failed(error: impl Display) "Failed to daemonize: {error}";
    info  handling_signal(name: &str) "Handling signal: {name}";
    info  shutting_down(timeout: Duration) "Shutting down: draining workers for at most {timeout:?}";
    info  shutting_down_now() "Shutting down: stopping workers immediately";
    info  draining_workers() "Draining all workers: the master stays, HUP starts new workers";
    info  workers_increased(count: usize) "Workers increased to {count} (TTIN)";
    info  workers_decreased(count: usize) "Workers decreased to {count} (TTOU)";

    // Workers.
    info  booting_worker(pid: Pid) "Booting worker (pid: {pid})";
    info  worker_ready(pid: Pid) "Worker ready (pid: {pid})";
    info  worker_replaced(pid: Pid, new: Pid) "Worker replaced (pid: {pid}), new pid {new}";
    info  worker_exited(pid: Pid, status: ExitStatus) "Worker exited (pid: {pid}), {status}";
    warn  worker_stop_failed(pid: Pid, status: ExitStatus) "Worker exited while stopping (pid: {pid}), {status}";
    error worker_lost(pid: Pid, status: ExitStatus, next: &str) "Worker exited unexpectedly (pid: {pid}), {status}, {next}";
    error worker_boot_failed(pid: Pid, status: ExitStatus, next: &str) "Worker failed to boot (pid: {pid}), {status}, {next}";
    error worker_boot_timeout(pid: Pid) "Worker boot timeout (pid: {pid}), sending SIGABRT";
    warn  worker_stop_timeout(pid: Pid) "Worker stop timeout (pid: {pid}), sending SIGKILL";
    error worker_panicked(pid: u32, status: i32) "Worker panicked (pid: {pid}), exiting with status {status}";
    error fork_failed(error: impl Display, next: &str) "Failed to fork worker: {error}, {next}";
    warn  channel_write_failed(error: impl Display) "Failed to write to the control channel: {error}";
    warn  channel_detach_failed(error: impl Display) "Failed to detach the control channel: {error}";

    // Reloads.
    info  reloading() "Reloading: starting new workers, previous workers keep serving";
    info  reload_complete(timeout: Duration) "Reload complete: new workers are serving, draining previous workers for at most {timeout:?}";
    error reload_rejected(reason: &str) "Reload failed, keeping the previous configuration: {reason}";
    error reload_failed(pid: Pid, status: ExitStatus) "Reload failed, keeping the previous workers: worker failed to boot (pid: {pid}), {status}";

    // Binary upgrades.
    info  new_master_started(pid: Pid) "New master started (pid: {pid})";
    warn  upgrade_in_progress(pid: Pid) "Upgrade already in progress: new master (pid: {pid})";
    error upgrade_failed(error: impl Display) "Upgrade failed: cannot start a new master: {error}";
    warn  new_master_exited(pid: Pid, status: ExitStatus) "New master exited (pid: {pid}), {status}, this master keeps serving";
    info  old_master_exited() "Old master exited: this master takes over";
}

/// How the log tells when a worker is restarted.
pub(crate) fn restart_in(delay: Duration) -> String {
    if delay.is_zero() { "restarting now".into() } else { format!("restarting in {delay:?}") }
}
