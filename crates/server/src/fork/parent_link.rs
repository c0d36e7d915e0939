//! In a child: the link to its parent.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use super::{
    control::{ChildChannel, ChildEvent},
    progress::ChildProgress,
    relay_channel::{self, RelaySender},
};

/// How a child reports to its parent, and sends through it.
#[derive(Debug)]
pub(crate) struct ParentLink {
    pub(crate) progress: ChildProgress,
    control: Arc<ChildChannel>,
    relay: OnceLock<RelaySender>,
}

impl ParentLink {
    pub(super) fn new(progress: ChildProgress, control: &Arc<ChildChannel>) -> Self {
        Self { progress, control: Arc::clone(control), relay: OnceLock::new() }
    }

    /// The relay for the rest of the response, once the client's socket was full.
    pub(crate) fn relay(&self) -> Option<&RelaySender> {
        self.relay.get()
    }

    /// Sends the response through the parent from now on.
    pub(crate) fn start_relay(&self) -> io::Result<&RelaySender> {
        let (sender, receiver) = relay_channel::pair()?;
        // Set before the message: while the message is unread, the parent must not take the end of this child for the
        // end of the response.
        self.progress.set_relayed(true);
        let sent = self.control.send(self.progress.index(), ChildEvent::RelayStarted, Some(&receiver));
        if let Err(error) = sent {
            self.progress.set_relayed(false);
            return Err(error);
        }
        Ok(self.relay.get_or_init(|| sender))
    }

    /// The response is complete. The connection belongs to the parent again, and the child keeps running.
    pub(super) fn report_completion(&self) -> io::Result<()> {
        self.control.send(self.progress.index(), ChildEvent::ResponseComplete, None)
    }
}
