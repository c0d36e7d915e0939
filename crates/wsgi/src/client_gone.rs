//! `environ["mylittlewebserver.client_gone"]`: lets an application stop its work when the client has disconnected.
//!
//! It can be called at any time and from any thread. Keeping the object does not keep the connection open.

use mlws_server::Client;
use pyo3::prelude::*;

/// `client_gone() -> bool`: true once the kernel has reported that the client closed the connection.
#[pyclass(frozen, module = "mylittlewebserver")]
pub(crate) struct ClientGone(Client);

impl ClientGone {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }
}

#[pymethods]
impl ClientGone {
    fn __call__(&self) -> bool {
        self.0.is_gone()
    }
}
