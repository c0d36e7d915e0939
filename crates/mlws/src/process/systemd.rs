//! systemd's protocols: socket activation, notifications and the watchdog. See `sd_listen_fds(3)`, `sd_notify(3)` and
//! `sd_watchdog_enabled(3)`.
//!
//! The variables are removed from the environment immediately, so that neither the application nor programs that it starts use them.
//! Notifications never block. The crate `sd-notify` blocks, needs `NOTIFY_SOCKET` in the environment and lacks abstract names, so it is
//! not used.

use std::{
    env,
    ffi::OsString,
    io,
    os::{
        fd::RawFd,
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process::Command,
    time::Duration,
};

use mlws_server::Address;
use pyo3::prelude::*;
use rustix::time::{ClockId, clock_gettime};

use super::environment_variable::take_variable;
use crate::error::StartupError;

/// The first descriptor of socket activation (`SD_LISTEN_FDS_START`).
const FIRST_SOCKET: RawFd = 3;

/// The connection to the service manager. Without one, notifications have no effect.
#[derive(Default)]
pub(crate) struct Systemd {
    sockets: u16,
    /// `NOTIFY_SOCKET`: a path, or `@` and an abstract name.
    notify: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Reads the variables for this process and removes them from the environment of Python and of the process. Must be called before any
    /// fork.
    pub(crate) fn from_environment(py: Python<'_>) -> Result<Self, StartupError> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let own_pid = Some(u64::from(std::process::id()));
        let mut names = vec!["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
        let mut sockets = 0;
        if number("LISTEN_PID") == own_pid {
            names.extend(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]);
            let count = number("LISTEN_FDS").and_then(|count| u16::try_from(count).ok());
            sockets = count.ok_or_else(|| {
                StartupError::Usage("invalid LISTEN_FDS: expected a number of sockets".into())
            })?;
        }
        let is_for_this_process = [None, own_pid].contains(&number("WATCHDOG_PID"));
        let systemd = Self {
            sockets,
            notify: env::var_os("NOTIFY_SOCKET"),
            watchdog: number("WATCHDOG_USEC")
                .filter(|&time| is_for_this_process && time > 0)
                .map(Duration::from_micros),
        };
        for name in names {
            take_variable(py, name).map_err(|error| {
                StartupError::from_exception(py, "changing the environment failed", &error)
            })?;
        }
        Ok(systemd)
    }

    /// The addresses of inherited sockets, which replace all configured addresses.
    pub(crate) fn addresses(&self) -> Option<Vec<Address>> {
        let sockets = FIRST_SOCKET..FIRST_SOCKET + RawFd::from(self.sockets);
        (self.sockets > 0).then(|| sockets.map(Address::Descriptor).collect())
    }

    /// The server is ready, initially or after [`reloading`](Self::reloading).
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// This process is the main process of the service. Not to be called in the child of process 1 of a container, whose pid differs outside.
    pub(crate) fn main_pid(&self) {
        self.send(&format!("MAINPID={}", std::process::id()));
    }

    /// A reload starts. `ready` reports its end.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"));
    }

    /// Restores the variables for a new master (USR2).
    pub(crate) fn pass_on(&self, command: &mut Command) {
        if let Some(socket) = &self.notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        if let Some(watchdog) = self.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
    }

    /// The shutdown starts.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// How often [`alive`](Self::alive) must be called: twice as often as the watchdog requires.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The master is alive.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.notify
            && let Err(error) = send(socket, state)
        {
            log::warn!("Failed to notify the service manager of {}: {error}", state.replace('\n', " "));
        }
    }
}

fn send(socket: &OsString, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?; // the master must not wait for a receiver that does not read
    datagram.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_follow_the_protocol() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let received = || {
            let mut text = [0; 200];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        let systemd =
            Systemd { notify: Some(path.into()), watchdog: Some(Duration::from_secs(10)), sockets: 2 };
        systemd.ready("4 workers");
        assert_eq!(received(), "READY=1\nSTATUS=4 workers");
        systemd.reloading();
        let message = received();
        let clock = message.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(message.starts_with("RELOADING=1\n") && clock.unwrap().parse::<u64>().unwrap() > 0);
        systemd.alive();
        assert_eq!(received(), "WATCHDOG=1");
        systemd.stopping();
        assert_eq!(received(), "STOPPING=1\nSTATUS=stopping");
        systemd.main_pid();
        assert_eq!(received(), format!("MAINPID={}", std::process::id()));
    }

    #[test]
    fn the_interval_is_half_of_the_watchdog_timeout_and_sockets_start_at_three() {
        let systemd = Systemd { watchdog: Some(Duration::from_secs(10)), sockets: 2, ..Systemd::default() };
        assert_eq!(systemd.watchdog_interval(), Some(Duration::from_secs(5)));
        assert_eq!(systemd.addresses(), Some(vec![Address::Descriptor(3), Address::Descriptor(4)]));
        assert_eq!(Systemd::default().addresses(), None);
        Systemd::default().alive(); // has no effect
    }
}
