//! Whom TLS trusts when a component is fetched: the authorities of the system, and those of `ca-file`.

use std::path::Path;

use reqwest::Certificate;

use super::SourceError;
use crate::tls;

/// The authorities of `ca-file` as PEM, if there is one. Afterwards, clients can be made. Blocks.
pub(super) fn authorities(ca_file: Option<&Path>) -> Result<Option<Vec<u8>>, SourceError> {
    tls::use_ring();
    // Where the system has no authorities, the client for registries would panic.
    reqwest::Client::builder().build().map_err(|error| SourceError::NoAuthorities(super::error::causes(error)))?;
    let Some(path) = ca_file else { return Ok(None) };
    let refuse = |reason: String| SourceError::Authorities { path: path.to_owned(), reason };
    let pem = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if certificates.is_empty() => Err(refuse("there is no certificate in it".to_owned())),
        Ok(_) => Ok(Some(pem)),
        Err(error) => Err(refuse(super::error::causes(error))),
    }
}
