//! [`MasterSettings`]: how a master keeps its workers.

use std::time::Duration;

use rustix::process::Pid;

/// How a master keeps its workers.
#[derive(Debug, Clone)]
pub struct MasterSettings {
    /// The number of workers. 0 means 1.
    pub workers: usize,
    /// How long workers may take to finish their requests after the command to drain. Then they are killed.
    pub graceful_timeout: Duration,
    /// How long a worker may take from its fork until it is ready. Then it gets ABRT, and one second later KILL.
    pub boot_timeout: Option<Duration>,
    /// The interval of [`MasterEvent::Heartbeat`](crate::MasterEvent::Heartbeat).
    pub heartbeat_interval: Option<Duration>,
    /// The interval of [`Delegate::refresh`](crate::Delegate::refresh).
    pub refresh_interval: Option<Duration>,
    /// The workers are nested masters, so the signals that change the number of workers are forwarded to them.
    pub manages_masters: bool,
    /// Whether signals that the nested masters receive count as sent to this master. False if they run as another user, which
    /// could not send a signal to this process.
    pub accepts_forwarded_signals: bool,
    /// The master that has started this one as a binary upgrade. Its exit is reported as
    /// [`MasterEvent::OldMasterExited`](crate::MasterEvent::OldMasterExited).
    pub old_master: Option<Pid>,
    /// Whether workers may request a reload with [`MasterNotifier::request_reload`](crate::MasterNotifier::request_reload).
    /// Otherwise such a request has no effect.
    pub workers_may_reload: bool,
}

impl Default for MasterSettings {
    fn default() -> MasterSettings {
        MasterSettings {
            workers: 1,
            graceful_timeout: Duration::from_secs(30),
            boot_timeout: None,
            heartbeat_interval: None,
            refresh_interval: None,
            manages_masters: false,
            accepts_forwarded_signals: false,
            old_master: None,
            workers_may_reload: false,
        }
    }
}
