//! The acceptor: listening sockets, and when a connection is accepted from one. The last may be the queue of connections that other
//! workers hand over ([`crate::handover`]).
//!
//! A door is closed while nobody waits behind it, and pauses where accepting makes no sense for a while: no descriptors are left,
//! there are too many connections, or another worker should have the next one (see `shares`).

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Registry, Token, unix::SourceFd};

use crate::{HandoverQueue, Listener, Settings, handover::Arrival, worker_loads::WorkerLoad};

/// How long accepting pauses when there are no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the log hears of that at most.
const QUIET: Duration = Duration::from_secs(1);
/// How long a worker holds back for others that have fewer connections.
const MOMENT: Duration = Duration::from_millis(1);
/// How many connections it takes then, should the others have left them: one, and one more for each so many that it has.
const ONE_MORE: usize = 16;

pub(crate) struct Acceptor {
    all: Vec<ListenerState>,
    /// The URL of each listener.
    urls: Arc<[String]>,
    /// How many connections there may be.
    bound: usize,
    share: Option<WorkerLoad>,
    /// When the log last heard that accepting pauses.
    told: Option<Instant>,
}

enum Source {
    Listener(Listener),
    Handover(Arc<HandoverQueue>),
}

struct ListenerState {
    source: Source,
    /// Connections may be waiting.
    open: bool,
    /// No accepting before this time.
    paused: Option<Instant>,
    /// How many connections may still be taken in spite of a large share.
    in_spite: usize,
}

impl Acceptor {
    /// Watches each listener under the token that is its index.
    pub(crate) fn new(
        listeners: Vec<Listener>,
        registry: &Registry,
        settings: &Settings,
    ) -> io::Result<Self> {
        let urls = listeners.iter().map(Listener::url).collect();
        let handover = settings.handover.clone().map(Source::Handover);
        let sources = listeners.into_iter().map(Source::Listener).chain(handover);
        let door = |source| ListenerState { source, open: true, paused: None, in_spite: 0 };
        let all: Vec<_> = sources.map(door).collect();
        for (index, door) in all.iter().enumerate() {
            registry.register(&mut SourceFd(&door.descriptor()), Token(index), Interest::READABLE)?;
        }
        Ok(Self {
            all,
            urls,
            bound: settings.connections,
            share: settings.shares.as_ref().map(|(shares, slot)| WorkerLoad::take(Arc::clone(shares), *slot)),
            told: None,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Somebody may be at this door. All are gone once the loop drains, while an event may still be on its way.
    pub(crate) fn knock(&mut self, index: usize) {
        if let Some(door) = self.all.get_mut(index) {
            door.open = true;
        }
    }

    /// Whether accepting can go on at once.
    pub(crate) fn is_busy(&self) -> bool {
        self.all.iter().any(|door| door.open && door.paused.is_none())
    }

    /// When the first pause ends.
    pub(crate) fn pause(&self) -> Option<Instant> {
        self.all.iter().filter_map(|door| door.paused).min()
    }

    /// Those of the listeners.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let listeners = self.all.iter().filter(|door| matches!(door.source, Source::Listener(_)));
        listeners.map(ListenerState::descriptor)
    }

    /// The URL of each listener, also after they were closed.
    pub(crate) fn urls(&self) -> Arc<[String]> {
        Arc::clone(&self.urls)
    }

    /// Whether a client waits at this door, there is no room for it, and no other worker should have it.
    pub(crate) fn lacks_room(&self, index: usize, now: Instant, connections: usize) -> bool {
        let door = &self.all[index];
        connections >= self.bound
            && door.open
            && door.paused.is_none_or(|until| until <= now)
            && !self.share.as_ref().is_some_and(WorkerLoad::is_large)
            && matches!(&door.source, Source::Listener(listener) if listener.has_client())
    }

    /// The next connection from this door, unless nobody waits there or it pauses. `connections` are those that there are.
    pub(crate) fn accept(&mut self, index: usize, now: Instant, connections: usize) -> Option<Arrival> {
        let door = &mut self.all[index];
        if door.paused.is_some_and(|until| until <= now) {
            door.paused = None;
        }
        while door.open && door.paused.is_none() {
            if connections >= self.bound {
                door.paused = Some(now + PAUSE);
            } else if door.holds_back(self.share.as_ref(), connections) {
                door.paused = Some(now + MOMENT);
            } else {
                match door.source.accept(index, &self.urls) {
                    Ok(accepted) => return Some(accepted),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        (door.open, door.in_spite) = (false, 0);
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        door.paused = Some(now + PAUSE);
                        if self.told.is_none_or(|told| now >= told + QUIET) {
                            self.told = Some(now);
                            log::warn!("accepting pauses: {error}");
                        }
                    }
                }
            }
        }
        None
    }

    /// So many connections there are now.
    pub(crate) fn tell(&mut self, connections: usize) {
        if let Some(share) = &mut self.share {
            share.tell(connections);
        }
    }

    /// From now on this worker does not count for the others, and takes whoever is at its acceptor.
    pub(crate) fn leave_shares(&mut self) {
        self.share = None;
        self.all.iter_mut().for_each(|door| door.paused = None);
    }

    /// Takes no connections that others hand over any more.
    pub(crate) fn close_handover(&mut self, registry: &Registry) {
        let is_handover = |door: &mut ListenerState| matches!(door.source, Source::Handover(_));
        for door in self.all.extract_if(.., is_handover) {
            let _ = registry.deregister(&mut SourceFd(&door.descriptor()));
        }
    }

    /// Closes them all for good.
    pub(crate) fn close(&mut self, registry: &Registry) {
        self.leave_shares();
        for door in self.all.drain(..) {
            let _ = registry.deregister(&mut SourceFd(&door.descriptor()));
        }
    }
}

impl Source {
    fn accept(&self, index: usize, urls: &[String]) -> io::Result<Arrival> {
        match self {
            Self::Listener(listener) => {
                let (socket, peer) = listener.accept()?;
                Ok(Arrival { socket, peer, listener: index, handed_over: None })
            }
            Self::Handover(queue) => queue.receive(urls),
        }
    }
}

impl ListenerState {
    fn descriptor(&self) -> RawFd {
        match &self.source {
            Source::Listener(listener) => listener.as_fd().as_raw_fd(),
            Source::Handover(queue) => queue.as_fd().as_raw_fd(),
        }
    }

    /// Whether another worker should have the next connection: once, then this one takes a few, and holds back again.
    fn holds_back(&mut self, share: Option<&WorkerLoad>, connections: usize) -> bool {
        if !share.is_some_and(WorkerLoad::is_large) {
            self.in_spite = 0;
            return false;
        }
        let holds_back = self.in_spite == 0;
        self.in_spite = if holds_back { 1 + connections / ONE_MORE } else { self.in_spite - 1 };
        holds_back
    }
}

/// Errors of `accept` that concern the connection that was to be accepted, not the listener (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::CONNABORTED, Errno::PROTO, Errno::PERM, Errno::NETDOWN, Errno::NOPROTOOPT, Errno::HOSTDOWN]
        .iter()
        .chain(&[Errno::HOSTUNREACH, Errno::OPNOTSUPP, Errno::NETUNREACH, Errno::INTR])
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
