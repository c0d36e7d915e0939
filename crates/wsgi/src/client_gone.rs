//! `environ["mylittlewebserver.client_gone"]`: whether the client has left, for an application that would stop its work then.
//!
//! The one thing to know: it can be asked at any time and from any thread, and an application that keeps it keeps no connection open.

use mlws_server::Client;
use pyo3::prelude::*;

/// `client_gone() -> bool`: true once the client has closed its connection, as far as the system has info of it.
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
