//! The listening sockets: bound by this master or inherited from the old master, and passed on to a new master.
//!
//! A new master (USR2) receives its sockets through two environment variables. It removes them from its environment
//! immediately, so that programs which the application starts do not inherit them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Command,
};

use mlws_server::{Address, Listener, SocketFile};
use mlws_supervisor::Pid;
use pyo3::prelude::*;
use rustix::{fs::Mode, process::umask};

use crate::{
    process::{Identity, Systemd, descriptors, privileged::give_socket, take_variable},
    refusal::Refusal,
    settings::Flags,
};

/// The descriptors of the sockets, separated by commas.
const SOCKETS: &str = "MLWS_SOCKETS";
/// The pid of the old master.
const OLD_MASTER: &str = "MLWS_FIRST_MASTER";

/// What a master listens on.
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<Listener>,
    /// The master that passed them on and may still serve on them.
    pub(crate) old_master: Option<Pid>,
    /// The address of each listener, as it was asked for.
    bound: Vec<Address>,
    /// The files of Unix sockets among them, to be removed at the end.
    files: Vec<SocketFile>,
}

/// Where a listener is, as Python has it.
#[derive(IntoPyObject)]
pub(crate) enum Place {
    Tcp((String, u16)),
    Unix(String),
}

impl Sockets {
    /// Inherits the sockets of the old master or of a service manager, else binds all addresses or none.
    pub(crate) fn open(
        py: Python<'_>,
        flags: &Flags,
        systemd: &Systemd,
        identity: Option<&Identity>,
    ) -> Result<Self, Refusal> {
        let (handed_over, backlog) = (systemd.addresses(), flags.sockets.backlog);
        let addresses = handed_over.as_ref().unwrap_or(&flags.sockets.bind);
        let told = |name| take_variable(py, name).map_err(|error| Refusal::System(error.to_string()));
        if let (Some(descriptors), old_master) = (told(SOCKETS)?, told(OLD_MASTER)?) {
            let mut sockets =
                Self { listeners: Vec::new(), old_master: None, bound: addresses.clone(), files: Vec::new() };
            for (index, descriptor) in descriptors.split(',').enumerate() {
                let number = descriptor.parse().map_err(io::Error::other);
                let adopted = number.and_then(|number| Listener::bind(&Address::Descriptor(number), backlog));
                let listener = adopted.map_err(|error| {
                    Refusal::System(format!("no socket was handed over as {SOCKETS}={descriptors}: {error}"))
                })?;
                sockets.add(match addresses.get(index) {
                    Some(Address::Unix(path)) => listener.at_path(path),
                    _ => listener,
                });
            }
            sockets.old_master = old_master.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            return Ok(sockets);
        }
        let sockets = Self::bind_all(addresses, flags, identity)?;
        if handed_over.is_some() {
            let urls = sockets.urls();
            log::info!("the service manager has handed over the sockets, which replace --bind: {urls}");
        }
        Ok(sockets)
    }

    /// Binds all addresses or none.
    fn bind_all(addresses: &[Address], flags: &Flags, identity: Option<&Identity>) -> Result<Self, Refusal> {
        let mut sockets =
            Self { listeners: Vec::new(), old_master: None, bound: Vec::new(), files: Vec::new() };
        for address in addresses {
            match bind(address, flags, identity) {
                Ok(listener) if matches!(address, Address::Descriptor(_)) => sockets.listeners.push(listener),
                Ok(listener) => sockets.add(listener),
                Err(error) => {
                    sockets.remove_files();
                    return Err(Refusal::System(format!("cannot listen on {address}: {error}")));
                }
            }
            sockets.bound.push(address.clone());
        }
        Ok(sockets)
    }

    fn add(&mut self, listener: Listener) {
        match listener.file() {
            Ok(file) => self.files.extend(file),
            Err(error) => log::warn!("{} will not be removed at the end: {error}", listener.url()),
        }
        self.listeners.push(listener);
    }

    /// After a reload: binds what is new among the addresses, keeps what was there, and lets the rest go. Workers of before have
    /// their own handles.
    pub(crate) fn follow(
        &mut self,
        flags: &Flags,
        systemd: &Systemd,
        identity: Option<&Identity>,
    ) -> Result<(), Refusal> {
        if systemd.addresses().is_some() || self.old_master.is_some() || flags.sockets.bind == self.bound {
            return Ok(());
        }
        let fresh: Vec<_> =
            flags.sockets.bind.iter().filter(|address| !self.bound.contains(address)).cloned().collect();
        let mut new = Self::bind_all(&fresh, flags, identity)?;
        let mut left: Vec<PathBuf> = Vec::new();
        for (address, listener) in std::mem::take(&mut self.bound).into_iter().zip(self.listeners.drain(..)) {
            if flags.sockets.bind.contains(&address) {
                new.bound.push(address);
                new.listeners.push(listener);
            } else if let Address::Unix(path) = address {
                left.extend(std::path::absolute(path));
            }
        }
        for file in std::mem::take(&mut self.files) {
            // Who still serves on it is going; a client that comes now has to come to another address.
            if left.iter().any(|path| path == file.path()) {
                let _ = file.remove();
            } else {
                new.files.push(file);
            }
        }
        *self = new;
        log::info!("the addresses have changed: {}", self.urls());
        Ok(())
    }

    /// Where each listener is.
    pub(crate) fn places(&self) -> Vec<Place> {
        let places = self.bound.iter().zip(&self.listeners).map(|(address, listener)| match address {
            Address::Unix(path) => Place::Unix(path.to_string_lossy().into_owned()),
            _ => Place::Tcp(listener.server_name_and_port()),
        });
        places.collect()
    }

    /// Where clients find it.
    pub(crate) fn urls(&self) -> String {
        self.listeners.iter().map(Listener::url).collect::<Vec<_>>().join(", ")
    }

    /// Starts `command` as a new master on the same sockets.
    pub(crate) fn spawn_upgrade(&self, mut command: Command) -> io::Result<Pid> {
        // Unlike the originals, these duplicates are inherited across exec. No other program is started while they exist.
        let copies = self.listeners.iter().map(|listener| Ok(rustix::io::dup(listener.as_fd())?));
        let copies = copies.collect::<io::Result<Vec<OwnedFd>>>()?;
        let numbers: Vec<_> = copies.iter().map(|copy| copy.as_raw_fd().to_string()).collect();
        command.env(SOCKETS, numbers.join(",")).env(OLD_MASTER, std::process::id().to_string());
        let new_master = Pid::from_child(&command.spawn()?);
        descriptors::restore(new_master); // it raises its own limit
        Ok(new_master)
    }

    /// A Unix socket outlives its process as a file.
    pub(crate) fn remove_files(&self) {
        for file in &self.files {
            if let Err(error) = file.remove() {
                log::warn!("cannot remove the socket file {}: {error}", file.path().display());
            }
        }
    }
}

/// Whether this process was started by an old master (USR2).
pub(crate) fn is_new_master() -> bool {
    std::env::var_os(OLD_MASTER).is_some()
}

/// A Unix socket belongs to the workers, and everybody may connect whom --umask lets in.
fn bind(address: &Address, flags: &Flags, identity: Option<&Identity>) -> io::Result<Listener> {
    let found = umask(Mode::from_raw_mode(flags.process.umask.unwrap_or(0)));
    let bound = bind_for(address, flags, identity.filter(|identity| identity.gives_up_root()));
    umask(found);
    bound
}

/// Binds a Unix socket with the rights of `owner`, or where they do not suffice as root, who then gives it away.
fn bind_for(address: &Address, flags: &Flags, owner: Option<&Identity>) -> io::Result<Listener> {
    let listen = || Listener::bind_as(address, flags.sockets.backlog, flags.sockets.reuse_port);
    let (Address::Unix(path), Some(owner)) = (address, owner) else { return listen() };
    match owner.run_as(listen) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        bound => return bound,
    }
    let listener = listen()?;
    give_socket(path, owner).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(listener)
}
