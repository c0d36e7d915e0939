//! The protocol of a service manager: the sockets that it hands over, and what it wants to be told.
//!
//! The one thing to know: what it says stands in the environment, and is taken out of it at once, so that neither the application nor
//! a program that it starts takes it for its own. See `sd_listen_fds(3)`, `sd_notify(3)` and `sd_watchdog_enabled(3)`.

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

/// The first descriptor that is handed over.
const FIRST_SOCKET: RawFd = 3;

/// What the service manager said. Without one, nothing is told to anybody.
#[derive(Default)]
pub(crate) struct Systemd {
    sockets: u16,
    /// Where it listens: a path, or `@` and an abstract name.
    notify: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// Takes what is meant for this process out of the environment, of Python and of the process alike. To be called before any fork.
    pub(crate) fn from_environment(py: Python<'_>) -> Result<Self, StartupError> {
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let us = Some(u64::from(std::process::id()));
        let mut names = vec!["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
        let mut sockets = 0;
        if number("LISTEN_PID") == us {
            names.extend(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]);
            let count = number("LISTEN_FDS").and_then(|count| u16::try_from(count).ok());
            sockets =
                count.ok_or_else(|| StartupError::Usage("LISTEN_FDS is no number of sockets".into()))?;
        }
        let watches_us = [None, us].contains(&number("WATCHDOG_PID"));
        let systemd = Self {
            sockets,
            notify: env::var_os("NOTIFY_SOCKET"),
            watchdog: number("WATCHDOG_USEC")
                .filter(|&time| watches_us && time > 0)
                .map(Duration::from_micros),
        };
        for name in names {
            take_variable(py, name).map_err(|error| {
                StartupError::from_exception(py, "the environment cannot be changed", &error)
            })?;
        }
        Ok(systemd)
    }

    /// The sockets that were handed over, which are then served instead of any other address.
    pub(crate) fn addresses(&self) -> Option<Vec<Address>> {
        let sockets = FIRST_SOCKET..FIRST_SOCKET + RawFd::from(self.sockets);
        (self.sockets > 0).then(|| sockets.map(Address::Descriptor).collect())
    }

    /// All is up, or up again after [`reloading`](Self::reloading).
    pub(crate) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// This process is the service now, and not the one that was started. Not for the child of process 1, which the service manager
    /// knows by another number.
    pub(crate) fn main_pid(&self) {
        self.send(&format!("MAINPID={}", std::process::id()));
    }

    /// A reload begins; `ready` tells its end.
    pub(crate) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"));
    }

    /// Lets a new master (USR2) notify the service manager too.
    pub(crate) fn pass_on(&self, command: &mut Command) {
        if let Some(socket) = &self.notify {
            command.env("NOTIFY_SOCKET", socket);
        }
        if let Some(watchdog) = self.watchdog {
            command.env("WATCHDOG_USEC", watchdog.as_micros().to_string());
        }
    }

    /// The end begins.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// How often to say [`alive`](Self::alive), if anybody wants to hear it: twice as often as is needed.
    pub(crate) fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|time| time / 2)
    }

    /// The master's loop turns.
    pub(crate) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, what: &str) {
        if let Some(socket) = &self.notify
            && let Err(error) = send(socket, what)
        {
            log::warn!("Failed to notify the service manager of {}: {error}", what.replace('\n', " "));
        }
    }
}

fn send(socket: &OsString, what: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_nonblocking(true)?; // one that does not read must not hold up the master
    datagram.send_to_addr(what.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_is_told_in_its_own_words() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let heard = || {
            let mut text = [0; 200];
            let length = manager.recv(&mut text).unwrap();
            String::from_utf8(text[..length].to_vec()).unwrap()
        };
        let systemd =
            Systemd { notify: Some(path.into()), watchdog: Some(Duration::from_secs(10)), sockets: 2 };
        systemd.ready("4 workers");
        assert_eq!(heard(), "READY=1\nSTATUS=4 workers");
        systemd.reloading();
        let words = heard();
        let clock = words.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(words.starts_with("RELOADING=1\n") && clock.unwrap().parse::<u64>().unwrap() > 0);
        systemd.alive();
        assert_eq!(heard(), "WATCHDOG=1");
        systemd.stopping();
        assert_eq!(heard(), "STOPPING=1\nSTATUS=stopping");
        systemd.main_pid();
        assert_eq!(heard(), format!("MAINPID={}", std::process::id()));
    }

    #[test]
    fn half_of_the_watchdogs_patience_is_the_interval_and_the_sockets_start_at_three() {
        let systemd = Systemd { watchdog: Some(Duration::from_secs(10)), sockets: 2, ..Systemd::default() };
        assert_eq!(systemd.watchdog_interval(), Some(Duration::from_secs(5)));
        assert_eq!(systemd.addresses(), Some(vec![Address::Descriptor(3), Address::Descriptor(4)]));
        assert_eq!(Systemd::default().addresses(), None);
        Systemd::default().alive(); // to nobody
    }
}
