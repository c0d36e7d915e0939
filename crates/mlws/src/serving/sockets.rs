//! The listening sockets: bound by this master or inherited from the old master, and passed on to a new master.
//!
//! A new master (USR2) receives its sockets through two environment variables. It removes them from its environment
//! immediately, so that programs which the application starts do not inherit them.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use mlws_server::{Address, Listener, SocketFile};
use mlws_supervisor::{Pid, SignalQueue};
use pyo3::prelude::*;
use rustix::{fs::Mode, process::umask};

use mlws_config::{Config, ProxyOptions};
use mlws_sys::{Credentials, give_socket, signal_name};

use crate::{
    error::StartupError,
    process::{Systemd, descriptors, take_variable},
};

/// The descriptors of the sockets, separated by commas.
const SOCKETS: &str = "MLWS_SOCKETS";
/// The pid of the old master.
const OLD_MASTER: &str = "MLWS_FIRST_MASTER";
/// How many times a start tries to bind an address that is in use, as gunicorn does. A server that was stopped just before may still
/// serve its last requests.
const BIND_ATTEMPTS: u32 = 5;
/// The time between two attempts.
const BIND_INTERVAL: Duration = Duration::from_secs(1);

/// What a master listens on.
pub(crate) struct Sockets {
    pub(crate) listeners: Vec<Listener>,
    /// The master that handed them over and may still serve on them.
    pub(crate) old_master: Option<Pid>,
    /// The configured address of each listener.
    bound: Vec<Address>,
    /// The files of Unix sockets, to be removed at exit.
    files: Vec<SocketFile>,
}

/// New sockets that are bound but not used yet. Dropping them removes their files.
pub(crate) struct PreparedSockets {
    added: Option<Sockets>,
    wanted: Vec<Address>,
}

impl Drop for PreparedSockets {
    fn drop(&mut self) {
        if let Some(added) = &self.added {
            added.remove_files();
        }
    }
}

/// An address as Python represents it.
#[derive(IntoPyObject)]
pub(crate) enum PyAddress {
    Tcp((String, u16)),
    Unix(String),
}

impl Sockets {
    /// Inherits the sockets of the old master or of a service manager. Otherwise binds all addresses or none.
    pub(crate) fn open(
        py: Python<'_>,
        signals: &SignalQueue,
        config: &Config,
        systemd: &Systemd,
        credentials: Option<&Credentials>,
    ) -> Result<Self, StartupError> {
        let (inherited, backlog) = (systemd.addresses(), config.sockets.backlog);
        let configured = wanted(config);
        let addresses = inherited.as_ref().unwrap_or(&configured);
        let take = |name| take_variable(py, name).map_err(|error| StartupError::System(error.to_string()));
        if let (Some(descriptors), old_master) = (take(SOCKETS)?, take(OLD_MASTER)?) {
            let mut sockets =
                Self { listeners: Vec::new(), old_master: None, bound: addresses.clone(), files: Vec::new() };
            for (index, descriptor) in descriptors.split(',').enumerate() {
                let number = descriptor.parse().map_err(io::Error::other);
                let adopted = number.and_then(|number| Listener::bind(&Address::Descriptor(number), backlog));
                let listener = adopted.map_err(|error| {
                    StartupError::System(format!("invalid {SOCKETS}={descriptors}: {error}"))
                })?;
                sockets.add(match addresses.get(index) {
                    Some(address @ Address::Unix(path)) => marked(listener.at_path(path), address, config),
                    Some(address) => marked(listener, address, config),
                    None => listener,
                });
            }
            sockets.old_master = old_master.and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
            return Ok(sockets);
        }
        let sockets = Self::bind_all(py, Some(signals), addresses, config, credentials)?;
        if inherited.is_some() {
            let urls = sockets.urls();
            log::info!("Inherited sockets from the service manager, --bind is ignored: {urls}");
        }
        Ok(sockets)
    }

    /// Binds all addresses or none. With `signals`, waits for an address that is in use.
    fn bind_all(
        py: Python<'_>,
        signals: Option<&SignalQueue>,
        addresses: &[Address],
        config: &Config,
        credentials: Option<&Credentials>,
    ) -> Result<Self, StartupError> {
        let mut sockets =
            Self { listeners: Vec::new(), old_master: None, bound: Vec::new(), files: Vec::new() };
        for address in addresses {
            match bind_while_in_use(py, signals, address, config, credentials) {
                Ok(listener) if matches!(address, Address::Descriptor(_)) => {
                    sockets.listeners.push(marked(listener, address, config));
                }
                Ok(listener) => sockets.add(marked(listener, address, config)),
                Err(error) => {
                    sockets.remove_files();
                    return Err(StartupError::System(format!("cannot listen on {address}: {error}")));
                }
            }
            sockets.bound.push(address.clone());
        }
        Ok(sockets)
    }

    fn add(&mut self, listener: Listener) {
        match listener.file() {
            Ok(file) => self.files.extend(file),
            Err(error) => {
                log::warn!("Socket file of {} will not be removed at exit: {error}", listener.url());
            }
        }
        self.listeners.push(listener);
    }

    /// Binds the addresses of other settings that are new. `None` if the addresses stay the same.
    pub(crate) fn prepare(
        &self,
        py: Python<'_>,
        config: &Config,
        systemd: &Systemd,
        credentials: Option<&Credentials>,
    ) -> Result<Option<PreparedSockets>, StartupError> {
        let wanted = wanted(config);
        if systemd.addresses().is_some() || self.old_master.is_some() || wanted == self.bound {
            return Ok(None);
        }
        let new: Vec<_> = wanted.iter().filter(|address| !self.bound.contains(address)).cloned().collect();
        let added = Self::bind_all(py, None, &new, config, credentials)?; // the master does not wait while it serves
        Ok(Some(PreparedSockets { added: Some(added), wanted }))
    }

    /// Adds the new sockets and closes those that are not wanted any more. Running workers have their own handles.
    pub(crate) fn commit(&mut self, mut prepared: PreparedSockets) {
        let Some(mut new) = prepared.added.take() else { return };
        let mut removed: Vec<PathBuf> = Vec::new();
        for (address, listener) in std::mem::take(&mut self.bound).into_iter().zip(self.listeners.drain(..)) {
            if prepared.wanted.contains(&address) {
                new.bound.push(address);
                new.listeners.push(listener);
            } else if let Address::Unix(path) = address {
                removed.extend(std::path::absolute(path));
            }
        }
        for file in std::mem::take(&mut self.files) {
            // Old workers that still serve on it will stop. New clients must use another address.
            if removed.iter().any(|path| path == file.path()) {
                let _ = file.remove();
            } else {
                new.files.push(file);
            }
        }
        *self = new;
        log::info!("Addresses changed: {}", self.urls());
    }

    /// Reads the modes of Unix sockets again: a hook or an operator may have changed them since they were bound.
    pub(crate) fn read_modes(&mut self) {
        self.listeners.iter_mut().for_each(Listener::read_mode);
    }

    /// Warns of Unix sockets whose peers are not trusted because other users can connect. In gunicorn they are trusted.
    pub(crate) fn warn_of_untrusted_peers(&self, proxies: &ProxyOptions) {
        let is_unix = |listener: &&Listener| listener.local_address().is_none();
        for listener in self.listeners.iter().filter(is_unix) {
            for (networks, option, ignored) in proxies.trusted_lists() {
                if !networks.is_empty() && !networks.contains_unix(listener.is_private()) {
                    log::warn!(
                        "untrusted peers: {} {}, so {ignored}; if only the proxy can reach it, add unix: to {option}, or exclude others with --umask 007",
                        listener.url(),
                        open_to(listener.mode())
                    );
                }
            }
        }
    }

    /// The address of each listener.
    pub(crate) fn py_addresses(&self) -> Vec<PyAddress> {
        let addresses = self.bound.iter().zip(&self.listeners).map(|(address, listener)| match address {
            Address::Unix(path) => PyAddress::Unix(path.to_string_lossy().into_owned()),
            _ => PyAddress::Tcp(listener.server_name_and_port()),
        });
        addresses.collect()
    }

    /// Sets whether HTTPS is enabled, for the URLs.
    pub(crate) fn set_tls(&mut self, is_enabled: bool) {
        for listener in &mut self.listeners {
            listener.set_tls(is_enabled);
        }
    }

    /// The URL and the descriptor of each listener.
    pub(crate) fn py_listeners(&self) -> Vec<(String, RawFd)> {
        self.listeners.iter().map(|listener| (listener.url(), listener.as_fd().as_raw_fd())).collect()
    }

    /// The URLs of all listeners.
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
                log::warn!("Failed to remove the socket file {}: {error}", file.path().display());
            }
        }
    }
}

/// The addresses of the settings.
fn wanted(config: &Config) -> Vec<Address> {
    config.sockets.bind.iter().chain(&config.tls.insecure_bind).cloned().collect()
}

/// Marks the listener of an address that serves plain HTTP in any case.
fn marked(listener: Listener, address: &Address, config: &Config) -> Listener {
    if config.tls.insecure_bind.contains(address) { listener.insecure() } else { listener }
}

/// Who can connect to a Unix socket that is not private.
fn open_to(mode: Option<u32>) -> String {
    match mode {
        Some(mode) => format!("has mode {mode:04o} and is open to every user"),
        None => "has no file of a known mode and may be open to every user".into(),
    }
}

/// Whether this process was started by an old master (USR2).
pub(crate) fn is_new_master() -> bool {
    std::env::var_os(OLD_MASTER).is_some()
}

/// Binds. With `signals`, tries again every second while the address is in use, unless a signal ends this process.
fn bind_while_in_use(
    py: Python<'_>,
    signals: Option<&SignalQueue>,
    address: &Address,
    config: &Config,
    credentials: Option<&Credentials>,
) -> io::Result<Listener> {
    let Some(signals) = signals else { return bind(address, config, credentials) };
    for attempt in 1..BIND_ATTEMPTS {
        match bind(address, config, credentials) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                log::warn!(
                    "Address in use: {address}, trying again in 1 s (attempt {attempt} of {BIND_ATTEMPTS})"
                );
            }
            bound => return bound,
        }
        if let Some(signal) = py.detach(|| signals.wait_for_exit(BIND_INTERVAL)) {
            let name = signal_name(signal.as_raw());
            return Err(io::Error::new(io::ErrorKind::Interrupted, format!("stopped by {name}")));
        }
    }
    bind(address, config, credentials)
}

/// Binds. A Unix socket belongs to the workers, and every user may connect unless --umask forbids it.
fn bind(address: &Address, config: &Config, credentials: Option<&Credentials>) -> io::Result<Listener> {
    let found = umask(Mode::from_raw_mode(config.process.umask.unwrap_or(0)));
    let bound = bind_for(address, config, credentials.filter(|credentials| credentials.gives_up_root()));
    umask(found);
    bound
}

/// Binds a Unix socket with the credentials of `owner`. If they do not suffice, root binds it and changes its owner.
fn bind_for(address: &Address, config: &Config, owner: Option<&Credentials>) -> io::Result<Listener> {
    let listen = || Listener::bind_as(address, config.sockets.backlog, config.sockets.reuse_port);
    let (Address::Unix(path), Some(owner)) = (address, owner) else { return listen() };
    match owner.run_as(listen) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        bound => return bound,
    }
    let listener = listen()?;
    give_socket(path, owner).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(listener)
}
