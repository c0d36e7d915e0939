//! The TLS configuration of the settings.

use mlws_config::Config;
use mlws_tls::{TicketKeys, TlsConfig};

use crate::error::StartupError;

/// Loads the certificates. `None` if HTTPS is not enabled. Logs warnings about them.
pub(crate) fn load(config: &Config, tickets: &TicketKeys) -> Result<Option<TlsConfig>, StartupError> {
    let options = config.tls.layer().map_err(|error| StartupError::Usage(error.to_string()))?;
    let Some(options) = options else { return Ok(None) };
    let tls = TlsConfig::load(&options, tickets).map_err(|error| StartupError::System(error.to_string()))?;
    for warning in &tls.warnings {
        log::warn!("{warning}");
    }
    Ok(Some(tls))
}

/// The keys of session tickets, which all workers of this master and of later generations share.
pub(crate) fn ticket_keys() -> Result<TicketKeys, StartupError> {
    TicketKeys::generate().map_err(|error| StartupError::System(error.to_string()))
}
