//! Which work of the event loop costs so much, because of TLS, that the application's lock (Python's GIL) should be free meanwhile.

use super::{CONNECTIONS, EventLoop, Slot};
use crate::connection::Connection;

impl EventLoop {
    /// Whether the next iteration has handshakes to do, or more of a large response to encrypt. A handshake costs a fifth of a
    /// millisecond and more. A response is sent by the event loop only if it did not leave at once.
    pub(crate) fn has_costly_encryption(&self) -> bool {
        if self.context.settings.tls.is_none() {
            return false;
        }
        let events = self.events.iter().filter_map(|event| event.token().0.checked_sub(CONNECTIONS));
        let mut tokens = events.chain(self.runnable.iter().copied());
        self.acceptor.is_busy()
            || tokens.any(|token| {
                let connection = self.slots.get(token).and_then(Slot::connection);
                connection.is_some_and(Connection::has_costly_encryption)
            })
    }
}
