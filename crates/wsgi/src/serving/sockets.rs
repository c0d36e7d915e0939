//! The listening sockets: bound by this master, or handed over by the one that started it; and handed on to a second one.
//!
//! The one thing to know: a second master (USR2) is told of its sockets by two environment variables, which it takes out
//! of its environment at once, so that nothing the application starts takes itself for one.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::Command,
};

use mlws_server::{Address, Listener};
use mlws_supervisor::Pid;
use pyo3::prelude::*;
use rustix::{fs::Mode, process::umask};

use crate::{
    process::{Identity, Systemd, take_variable},
    refusal::Refusal,
    settings::Flags,
};

/// The descriptors of the sockets, separated by commas.
const SOCKETS: &str = "MLWS_SOCKETS";
/// The pid of the first master.
const FIRST: &str = "MLWS_FIRST_MASTER";

/// What a master listens on, and whom it has it from.
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<Listener>,
    /// The master that handed them over and may still serve on them.
    pub(crate) first: Option<Pid>,
    /// The files of Unix sockets that end with us.
    files: Vec<std::path::PathBuf>,
}

impl Sockets {
    /// Takes over what a first master or a service manager has handed on, else binds all addresses or none.
    pub(crate) fn open(
        py: Python<'_>,
        flags: &Flags,
        systemd: &Systemd,
        identity: Option<&Identity>,
    ) -> Result<Self, Refusal> {
        let (handed_over, backlog) = (systemd.addresses(), flags.sockets.backlog);
        let addresses = handed_over.as_ref().unwrap_or(&flags.sockets.bind);
        let files = addresses.iter().filter_map(|address| match address {
            Address::Unix(path) => Some(path.clone()),
            _ => None,
        });
        let mut sockets = Self { listeners: Vec::new(), first: None, files: Vec::new() };
        let told = |name| take_variable(py, name).map_err(|error| Refusal::System(error.to_string()));
        if let (Some(descriptors), first) = (told(SOCKETS)?, told(FIRST)?) {
            for descriptor in descriptors.split(',') {
                let number = descriptor.parse().map_err(io::Error::other);
                let adopted = number.and_then(|number| Listener::bind(&Address::Descriptor(number), backlog));
                sockets.listeners.push(adopted.map_err(|error| {
                    Refusal::System(format!("no socket was handed over as {SOCKETS}={descriptors}: {error}"))
                })?);
            }
            sockets.first = first.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            sockets.files = files.collect();
            return Ok(sockets);
        }
        for address in addresses {
            match bind(address, flags, identity) {
                Ok(listener) => sockets.listeners.push(listener),
                Err(error) => {
                    sockets.remove_files();
                    return Err(Refusal::System(format!("cannot listen on {address}: {error}")));
                }
            }
            if let Address::Unix(path) = address {
                sockets.files.push(path.clone());
            }
        }
        if handed_over.is_some() {
            let urls = sockets.urls();
            log::info!("the service manager has handed over the sockets, which replace --bind: {urls}");
        }
        Ok(sockets)
    }

    /// Where clients find it.
    pub(crate) fn urls(&self) -> String {
        self.listeners.iter().map(Listener::url).collect::<Vec<_>>().join(", ")
    }

    /// Starts `command` as a second master on the same sockets.
    pub(crate) fn start_second(&self, mut command: Command) -> io::Result<Pid> {
        // These copies outlive an exec, as ours do not. Nothing else is started while they are there.
        let copies = self.listeners.iter().map(|listener| Ok(rustix::io::dup(listener.as_fd())?));
        let copies = copies.collect::<io::Result<Vec<OwnedFd>>>()?;
        let numbers: Vec<_> = copies.iter().map(|copy| copy.as_raw_fd().to_string()).collect();
        command.env(SOCKETS, numbers.join(",")).env(FIRST, std::process::id().to_string());
        Ok(Pid::from_child(&command.spawn()?))
    }

    /// A Unix socket outlives its process as a file.
    pub(crate) fn remove_files(&self) {
        for path in &self.files {
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("cannot remove the socket file {}: {error}", path.display());
            }
        }
    }
}

/// Whether this process was started by a first master, beside it.
pub(crate) fn is_second_master() -> bool {
    std::env::var_os(FIRST).is_some()
}

/// A Unix socket belongs to the workers, and everybody may connect whom --umask lets in.
fn bind(address: &Address, flags: &Flags, identity: Option<&Identity>) -> io::Result<Listener> {
    let found = umask(Mode::from_raw_mode(flags.process.umask.unwrap_or(0)));
    let listener = Listener::bind(address, flags.sockets.backlog);
    umask(found);
    if let (Ok(_), Address::Unix(path), Some(identity)) = (&listener, address, identity) {
        identity.own(path).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    }
    listener
}
