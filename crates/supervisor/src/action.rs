//! [`Action`]: what a signal or a command of the parent makes a master do. Pure functions.

use rustix::process::Signal;

use crate::worker::WorkerCommand;
use crate::worker_handle::Drain;

/// The life of a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MasterPhase {
    /// No worker was ever ready. The first one that exits now ends the master with its exit code.
    Starting,
    Serving,
    Stopping {
        code: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    ReopenLogs,
    /// Read again what the master has published.
    Refresh,
    IncreaseWorkers,
    DecreaseWorkers,
    Reload,
    /// Start a new master.
    Upgrade,
    /// Drain all workers, and stay.
    DrainWorkers,
    /// Drain all workers, then exit.
    ShutDown(Drain),
    /// Stop all workers immediately, then exit.
    StopNow,
}

impl Action {
    /// What a signal makes a master do. A nested master handles only signals to exit, and forwards the others.
    pub(crate) fn for_signal(signal: Signal, phase: MasterPhase, is_nested: bool) -> Option<Action> {
        match (signal, phase) {
            (Signal::INT | Signal::QUIT, _) => Some(Action::StopNow),
            (Signal::TERM, _) => Some(Action::ShutDown(Drain::Final)),
            _ if is_nested => None,
            (Signal::USR1, _) => Some(Action::ReopenLogs),
            (_, MasterPhase::Stopping { .. }) => None,
            (Signal::HUP, _) => Some(Action::Reload),
            (Signal::USR2, _) => Some(Action::Upgrade),
            (Signal::TTIN, _) => Some(Action::IncreaseWorkers),
            (Signal::TTOU, _) => Some(Action::DecreaseWorkers),
            (Signal::WINCH, MasterPhase::Serving) => Some(Action::DrainWorkers),
            _ => None, // CHLD: the master reaps workers whenever it wakes up
        }
    }
}

/// What its parent makes a nested master do.
impl From<WorkerCommand> for Action {
    fn from(command: WorkerCommand) -> Action {
        match command {
            WorkerCommand::ReopenLogs => Action::ReopenLogs,
            WorkerCommand::Refresh => Action::Refresh,
            WorkerCommand::IncreaseWorkers => Action::IncreaseWorkers,
            WorkerCommand::DecreaseWorkers => Action::DecreaseWorkers,
            WorkerCommand::HandOver => Action::ShutDown(Drain::HandOver),
            WorkerCommand::Drain => Action::ShutDown(Drain::Final),
            WorkerCommand::Stop => Action::StopNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_an_action_that_depends_on_the_phase() {
        let phases = [MasterPhase::Starting, MasterPhase::Serving, MasterPhase::Stopping { code: 0 }];
        let shut_down = Some(Action::ShutDown(Drain::Final));
        for (signal, expected) in [
            (Signal::TERM, [shut_down; 3]),
            (Signal::INT, [Some(Action::StopNow); 3]),
            (Signal::QUIT, [Some(Action::StopNow); 3]),
            (Signal::USR1, [Some(Action::ReopenLogs); 3]),
            (Signal::HUP, [Some(Action::Reload), Some(Action::Reload), None]),
            (Signal::USR2, [Some(Action::Upgrade), Some(Action::Upgrade), None]),
            (Signal::TTIN, [Some(Action::IncreaseWorkers), Some(Action::IncreaseWorkers), None]),
            (Signal::TTOU, [Some(Action::DecreaseWorkers), Some(Action::DecreaseWorkers), None]),
            (Signal::WINCH, [None, Some(Action::DrainWorkers), None]),
            (Signal::CHILD, [None; 3]),
        ] {
            assert_eq!(phases.map(|phase| Action::for_signal(signal, phase, false)), expected, "{signal:?}");
        }
    }

    #[test]
    fn a_nested_master_handles_only_signals_to_exit() {
        for (signal, expected) in [
            (Signal::TERM, Some(Action::ShutDown(Drain::Final))),
            (Signal::INT, Some(Action::StopNow)),
            (Signal::QUIT, Some(Action::StopNow)),
            (Signal::USR1, None),
            (Signal::HUP, None),
            (Signal::USR2, None),
            (Signal::TTIN, None),
            (Signal::WINCH, None),
        ] {
            assert_eq!(Action::for_signal(signal, MasterPhase::Serving, true), expected, "{signal:?}");
        }
    }
}
