//! In a child: its links to its parent.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use super::{
    control::{ChildEvent, ControlChannel},
    progress::ChildProgress,
    relay_channel::{self, RelaySender},
};

/// What a child has to report to its parent, and to send through it.
#[derive(Debug)]
pub(crate) struct ParentLink {
    pub(crate) progress: ChildProgress,
    control: Arc<ControlChannel>,
    relay: OnceLock<RelaySender>,
}

impl ParentLink {
    pub(super) fn new(progress: ChildProgress, control: &Arc<ControlChannel>) -> Self {
        Self { progress, control: Arc::clone(control), relay: OnceLock::new() }
    }

    /// Where the rest of the response goes, once the client's socket was full.
    pub(crate) fn relay(&self) -> Option<&RelaySender> {
        self.relay.get()
    }

    /// From now on, the response goes through the parent.
    pub(crate) fn start_relay(&self) -> io::Result<&RelaySender> {
        let (sender, receiver) = relay_channel::pair()?;
        // Before the message: the parent must not take this child's end for the end of the response while the message is unread.
        self.progress.set_relayed(true);
        let sent = self.control.send(self.progress.index(), ChildEvent::RelayStarted, Some(&receiver));
        if let Err(error) = sent {
            self.progress.set_relayed(false);
            return Err(error);
        }
        Ok(self.relay.get_or_init(|| sender))
    }

    /// The response is complete, the connection is the parent's again, and the child runs on.
    pub(super) fn report_completion(&self) -> io::Result<()> {
        self.control.send(self.progress.index(), ChildEvent::ResponseComplete, None)
    }
}
