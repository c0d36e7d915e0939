//! The certificates of the settings, and their renewal.
//!
//! The master checks the files regularly. It alone may be allowed to read them, so it publishes the contents of renewed files in an
//! anonymous file, which its workers have inherited, and notifies them. No worker is replaced.

use std::{
    fs::{File, metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
    time::{Duration, SystemTime},
};

use mlws_config::Config;
use mlws_tls::{TicketKeys, TlsConfig, TlsError, TlsFiles, TlsOptions};
use rustix::fs::MemfdFlags;

use crate::error::StartupError;

/// How often the master checks the files. Also how long it waits for the second one of two files that change one after the other.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// What changes when a file is replaced or written: inode, size and modification time. `None` if the file is missing.
type FileState = Option<(u64, u64, i64, i64)>;

/// The certificates in effect.
pub(crate) struct Certificates {
    options: TlsOptions,
    ticket_keys: TicketKeys,
    pub(crate) config: TlsConfig,
    /// The contents of the files, for workers.
    published: Arc<File>,
    /// The files when they were last loaded or rejected.
    known: Vec<FileState>,
    /// Changed files that could not be used. They get a second try.
    failed: Option<Vec<FileState>>,
}

impl Certificates {
    /// Loads the certificates. `None` if HTTPS is not enabled. Logs warnings about them.
    pub(crate) fn load(config: &Config, ticket_keys: &TicketKeys) -> Result<Option<Self>, StartupError> {
        let options = config.tls.layer(config.http2.alpn_protocols());
        let options = options.map_err(|error| StartupError::Usage(error.to_string()))?;
        let Some(options) = options else { return Ok(None) };
        let system = |error: String| StartupError::System(error);
        let known = file_states(&options);
        let (files, config) = read(&options, ticket_keys).map_err(|error| system(error.to_string()))?;
        log_warnings(&config);
        let published = publish(None, &files)
            .map_err(|error| system(format!("no memory for the certificates of workers: {error}")))?;
        let ticket_keys = ticket_keys.clone();
        Ok(Some(Self { options, ticket_keys, config, published: published.into(), known, failed: None }))
    }

    /// In the master: loads files that have changed. Returns true if workers must do the same. Files that cannot be used are reported
    /// once, and the certificates in effect stay.
    pub(crate) fn renew(&mut self) -> bool {
        let found = file_states(&self.options);
        if found == self.known {
            return false;
        }
        match self.try_renew() {
            Ok(()) => {
                log::info!("Certificates renewed");
                (self.known, self.failed) = (found, None);
                true
            }
            Err(error) if self.failed.as_ref() == Some(&found) => {
                log::error!("Certificates not renewed, the previous ones stay in effect: {error}");
                (self.known, self.failed) = (found, None);
                false
            }
            Err(_) => {
                self.failed = Some(found);
                false
            }
        }
    }

    fn try_renew(&mut self) -> Result<(), String> {
        let (files, config) = read(&self.options, &self.ticket_keys).map_err(|error| error.to_string())?;
        let now = SystemTime::now();
        if config.has_expired(now) && !self.config.has_expired(now) {
            return Err("the new certificate has expired".into());
        }
        publish(Some(&self.published), &files).map_err(|error| error.to_string())?;
        log_warnings(&config);
        self.config.replace(config);
        Ok(())
    }

    /// In a worker: puts into effect what the master has published.
    pub(crate) fn refresh(&mut self) {
        let refreshed = self.published().and_then(|files| {
            let config = TlsConfig::load(&self.options, &files, &self.ticket_keys);
            config.map_err(io::Error::other)
        });
        match refreshed {
            Ok(config) => self.config.replace(config),
            Err(error) => {
                log::error!(
                    "Certificates not renewed in this worker, the previous ones stay in effect: {error}"
                );
            }
        }
    }

    fn published(&self) -> io::Result<TlsFiles> {
        let length = usize::try_from(self.published.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.published.read_exact_at(&mut bytes, 0)?;
        TlsFiles::decode(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The keys of session tickets, which all workers of this master and of later generations share.
pub(crate) fn ticket_keys() -> Result<TicketKeys, StartupError> {
    TicketKeys::generate().map_err(|error| StartupError::System(error.to_string()))
}

fn read(options: &TlsOptions, ticket_keys: &TicketKeys) -> Result<(TlsFiles, TlsConfig), TlsError> {
    let files = TlsFiles::read(options)?;
    let config = TlsConfig::load(options, &files, ticket_keys)?;
    Ok((files, config))
}

/// Writes to `file`, or to a new file without a name that exists in memory only.
fn publish(file: Option<&File>, files: &TlsFiles) -> io::Result<File> {
    let file = match file {
        Some(file) => file.try_clone()?,
        None => File::from(rustix::fs::memfd_create("mlws-certificates", MemfdFlags::CLOEXEC)?),
    };
    let bytes = files.encode();
    file.set_len(bytes.len() as u64)?;
    file.write_all_at(&bytes, 0)?;
    Ok(file)
}

fn log_warnings(config: &TlsConfig) {
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
}

/// Follows symbolic links, which renewal tools replace.
fn file_states(options: &TlsOptions) -> Vec<FileState> {
    let state = |path| {
        let found = metadata(path).ok()?;
        Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
    };
    options.paths().into_iter().map(|(_, path)| state(path)).collect()
}
