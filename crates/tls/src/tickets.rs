//! Session tickets (RFC 8446, section 4.6.1, and RFC 5077) that every worker accepts, without any message between workers.
//!
//! The master draws a secret. The key of each epoch of six hours is derived from the one before, so processes that were forked at any
//! time agree. A process keeps the keys of two epochs and erases older ones.
//!
//! A ticket is the epoch, a random nonce, and the state of the session encrypted by AES-256-GCM. The key also depends on the
//! configuration: a session is not resumed after the certificates or the accepted client CAs have changed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{SHA256, digest},
    hkdf::{HKDF_SHA256, Salt},
};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::error::TlsError;

/// How long a key is current, in seconds. Also the lifetime of a ticket.
const EPOCH: u32 = 6 * 60 * 60;
const KEY_LENGTH: usize = 32;
/// The number of the epoch, at the beginning of a ticket.
const EPOCH_LENGTH: usize = 8;
/// A clock that jumps by more than this many epochs (68 years) does not advance the keys.
const MAX_EPOCHS: u64 = 100_000;

type Key = Zeroizing<[u8; KEY_LENGTH]>;

/// The keys of the current and the previous epoch. Forked processes inherit them and advance them by the clock.
#[derive(Clone)]
pub struct TicketKeys(Arc<Mutex<Keys>>);

#[derive(Clone)]
struct Keys {
    epoch: u64,
    current: Key,
    previous: Option<Key>,
}

impl TicketKeys {
    /// Draws a secret.
    pub fn generate() -> Result<Self, TlsError> {
        let mut current = Key::default();
        aws_lc_rs::rand::fill(&mut current[..])
            .map_err(|_| TlsError("the system has no random numbers for session tickets".into()))?;
        Ok(Self(Arc::new(Mutex::new(Keys { epoch: epoch(SystemTime::now()), current, previous: None }))))
    }

    /// A producer of tickets for one configuration, described by `context`.
    pub(crate) fn ticketer(&self, context: &[u8]) -> Ticketer {
        let context = digest(&SHA256, context).as_ref().to_vec();
        Ticketer { keys: self.clone(), context, now: SystemTime::now }
    }

    /// The key of an epoch. `None` if it is gone or in the future.
    fn key(&self, wanted: Option<u64>, now: SystemTime) -> Option<(u64, Key)> {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.advance(epoch(now));
        match wanted {
            Some(wanted) if wanted + 1 == keys.epoch => keys.previous.clone().map(|key| (wanted, key)),
            Some(wanted) if wanted != keys.epoch => None,
            _ => Some((keys.epoch, keys.current.clone())),
        }
    }
}

impl Keys {
    fn advance(&mut self, to: u64) {
        if to.saturating_sub(self.epoch) > MAX_EPOCHS {
            return;
        }
        while self.epoch < to {
            let next = derive(&self.current, b"mlws ticket epoch");
            self.previous = Some(std::mem::replace(&mut self.current, next));
            self.epoch += 1;
        }
    }
}

fn epoch(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / u64::from(EPOCH)
}

fn derive(key: &Key, info: &[u8]) -> Key {
    let mut derived = Key::default();
    let info = [info];
    let pseudorandom = Salt::new(HKDF_SHA256, &[]).extract(&key[..]);
    let filled = pseudorandom.expand(&info, HKDF_SHA256).and_then(|output| output.fill(&mut derived[..]));
    filled.expect("HKDF-SHA256 yields 32 bytes");
    derived
}

/// Encrypts and decrypts the tickets of one configuration.
pub(crate) struct Ticketer {
    keys: TicketKeys,
    context: Vec<u8>,
    now: fn() -> SystemTime,
}

impl Ticketer {
    fn cipher(&self, key: &Key) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, &derive(key, &self.context)[..]).ok()
    }
}

impl std::fmt::Debug for Ticketer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Ticketer")
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        EPOCH
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (epoch, key) = self.keys.key(None, (self.now)())?;
        let mut sealed = plain.to_vec();
        let epoch = epoch.to_be_bytes();
        let nonce = self.cipher(&key)?.seal_in_place_append_tag(Aad::from(epoch), &mut sealed).ok()?;
        Some([&epoch[..], nonce.as_ref(), &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (epoch, rest) = ticket.split_first_chunk::<EPOCH_LENGTH>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let (_, key) = self.keys.key(Some(u64::from_be_bytes(*epoch)), (self.now)())?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.cipher(&key)?.open_in_place(nonce, Aad::from(*epoch), &mut sealed).ok()?;
        Some(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn start() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000 * u64::from(EPOCH))
    }

    fn keys() -> TicketKeys {
        let keys = TicketKeys::generate().unwrap();
        keys.0.lock().unwrap().epoch = 1_000;
        keys
    }

    /// As if the process had been forked.
    fn forked(keys: &TicketKeys) -> TicketKeys {
        TicketKeys(Arc::new(Mutex::new(keys.0.lock().unwrap().clone())))
    }

    fn at(keys: &TicketKeys, context: &[u8], now: fn() -> SystemTime) -> Ticketer {
        Ticketer { now, ..keys.ticketer(context) }
    }

    fn later(epochs: u64) -> SystemTime {
        start() + Duration::from_secs(epochs * u64::from(EPOCH))
    }

    #[test]
    fn processes_forked_at_any_time_accept_the_tickets_of_each_other() {
        let master = keys();
        let early = forked(&master);
        let ticket = at(&early, b"a", || later(2)).encrypt(b"state").unwrap();
        assert_eq!(at(&forked(&master), b"a", || later(2)).decrypt(&ticket).unwrap(), b"state");
        assert_eq!(at(&forked(&master), b"a", || later(3)).decrypt(&ticket).unwrap(), b"state");
    }

    #[test]
    fn a_ticket_is_rejected_after_two_epochs_before_its_epoch_and_by_another_configuration() {
        let keys = keys();
        let ticket = at(&forked(&keys), b"a", || later(1)).encrypt(b"state").unwrap();
        assert!(at(&forked(&keys), b"a", || later(3)).decrypt(&ticket).is_none());
        assert!(at(&forked(&keys), b"a", || later(0)).decrypt(&ticket).is_none());
        assert!(at(&forked(&keys), b"b", || later(1)).decrypt(&ticket).is_none());
        assert!(at(&self::keys(), b"a", || later(1)).decrypt(&ticket).is_none());
    }

    #[test]
    fn bytes_that_are_not_a_ticket_are_rejected() {
        let ticketer = at(&keys(), b"a", start);
        let ticket = ticketer.encrypt(b"state").unwrap();
        for length in 0..ticket.len() {
            assert!(ticketer.decrypt(&ticket[..length]).is_none());
        }
        for index in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[index] ^= 1;
            assert!(ticketer.decrypt(&changed).is_none(), "byte {index}");
        }
    }

    #[test]
    fn a_clock_that_jumps_does_not_keep_the_process_busy() {
        let ticketer = at(&keys(), b"a", || UNIX_EPOCH + Duration::from_secs(u64::MAX / 1024));
        let ticket = ticketer.encrypt(b"state").unwrap();
        assert_eq!(ticketer.decrypt(&ticket).unwrap(), b"state");
    }
}
