//! Making a version ready, before anything is changed: which bytes it is, that they load, and what is to be recorded.

use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::Timestamp;
use gristmill_host::{Host, digest};
use tracing::{debug, info, warn};

use super::record::{Kept, Origin, Record};
use super::versions::{Versions, VersionsError};
use crate::cli::text::{one_line, short_digest};
use crate::config::{Config, HandlerConfig};
use crate::http::model::Time;
use crate::registry::{self, Handler, HandlerError};

/// A handler that can take over.
#[derive(Debug)]
pub struct Prepared {
    /// It, loaded.
    pub handler: Arc<Handler>,
    /// What its versions will be.
    pub(super) record: Record,
    /// Its component, if it is still to be kept and recorded.
    pub(super) new: Option<Bytes>,
}

/// Why a handler cannot take over.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It does not load.
    #[error(transparent)]
    Handler(Box<HandlerError>),
    /// What is kept of its versions is of no use.
    #[error("handler `{handler}`: {error}")]
    Versions {
        /// The handler.
        handler: gristmill_core::HandlerName,
        /// Why.
        error: VersionsError,
    },
    /// Something was interrupted.
    #[error("handler `{handler}`: {error}")]
    Interrupted {
        /// The handler.
        handler: gristmill_core::HandlerName,
        /// What.
        error: tokio::task::JoinError,
    },
}

impl From<HandlerError> for PrepareError {
    fn from(error: HandlerError) -> Self {
        Self::Handler(Box::new(error))
    }
}

/// Whose versions, on which host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workshop<'a> {
    pub(super) host: &'a Host,
    pub(super) versions: &'a Arc<Versions>,
    pub(super) config: &'a Config,
    pub(super) now: Timestamp,
    /// Whether the process begins, so that a version which ran before is better than none.
    pub(super) is_start: bool,
}

impl Prepared {
    /// Tells the log.
    pub fn tell(&self) {
        let component = &self.handler.component;
        info!(handler = %component.name(), digest = component.digest(),
            compile_ms = u64::try_from(component.compile_time().as_millis()).unwrap_or(u64::MAX), "loaded");
        for gap in component.gaps() {
            debug!(handler = %component.name(), "{}", one_line(&gap.to_string()));
        }
        if self.record.source.as_ref() != Some(&self.record.current.digest) {
            let source = self.record.source.as_deref().map(short_digest).unwrap_or_default();
            info!(handler = %component.name(), source, since = %self.record.current.since.0,
                "what its source has was rolled back, or another version was deployed: that one runs");
        }
    }
}

/// What a handler is to run.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) bytes: Bytes,
    pub(super) record: Record,
    /// Whether that is not recorded yet.
    pub(super) is_new: bool,
}

impl Workshop<'_> {
    /// Chooses what the handler shall run: what its source has, if that has changed since it was looked at last, or else
    /// the version that is current by its record. The source has `given`, if somebody has just read it.
    pub(super) async fn choose(self, handler: &HandlerConfig, given: Option<Bytes>) -> Result<Choice, PrepareError> {
        let record = self.record(handler).await?;
        let is_pinned_to_another =
            |record: &Record| handler.digest.as_ref().is_some_and(|pin| *pin != record.current.digest);
        let read = match given {
            Some(bytes) => Ok(bytes),
            None => registry::read(handler, self.config).await,
        };
        let bytes = match (read, record.clone()) {
            (Ok(bytes), _) => bytes,
            // Whether a registry answers should not decide whether a runtime starts.
            (Err(error), Some(record))
                if self.is_start && handler.component.is_remote() && !is_pinned_to_another(&record) =>
            {
                warn!(handler = %handler.name, "{}; going on with {}", one_line(&error.to_string()), record.current.digest);
                let bytes = self.component(&record.current.digest).await;
                let bytes = bytes.map_err(|error| PrepareError::Versions { handler: handler.name.clone(), error })?;
                return Ok(Choice { bytes, record, is_new: false });
            }
            (Err(error), _) => return Err(error.into()),
        };
        let delivered = digest(&bytes);
        let Some(record) = record else { return Ok(self.version(bytes, delivered, Origin::Source, None)) };
        let current = record.current.digest.clone();
        if record.source.as_ref() != Some(&delivered) || is_pinned_to_another(&record) {
            return Ok(self.version(bytes, delivered, Origin::Source, Some(record)));
        }
        if current == delivered {
            return Ok(Choice { bytes, record, is_new: false });
        }
        match self.component(&current).await {
            Ok(bytes) => Ok(Choice { bytes, record, is_new: false }),
            Err(error) => {
                warn!(handler = %handler.name, %error, "taking what its source has instead");
                Ok(self.version(bytes, delivered, Origin::Source, Some(record)))
            }
        }
    }

    /// What is current by the record, whatever the source has. `None`: there is no record.
    pub(super) async fn recorded(self, handler: &HandlerConfig) -> Result<Option<Choice>, PrepareError> {
        let Some(record) = self.record(handler).await? else { return Ok(None) };
        let bytes = self.component(&record.current.digest).await;
        let bytes = bytes.map_err(|error| PrepareError::Versions { handler: handler.name.clone(), error })?;
        Ok(Some(Choice { bytes, record, is_new: false }))
    }

    /// These bytes, as a version after those of `record`.
    pub(super) fn version(self, bytes: Bytes, digest: String, origin: Origin, record: Option<Record>) -> Choice {
        let version = Kept { digest, size: bytes.len() as u64, origin, since: Time(self.now) };
        let record = match record {
            Some(mut record) => {
                record.activate(version, self.config.keep_versions as usize);
                record
            }
            None => Record::new(version),
        };
        Choice { bytes, record, is_new: true }
    }

    /// Loads what was chosen.
    pub(super) async fn prepare(self, handler: &HandlerConfig, choice: Choice) -> Result<Prepared, PrepareError> {
        let Choice { bytes, record, is_new } = choice;
        let place = match (is_new, record.current.origin) {
            (true, Origin::Source) => handler.component.to_string(),
            (true, Origin::Deploy) => "the component that was sent".to_owned(),
            (false, _) => format!("its version {}", short_digest(&record.current.digest)),
        };
        let loaded = registry::load_version(self.host, handler, self.config, (bytes.clone(), place)).await?;
        Ok(Prepared { handler: Arc::new(loaded), record, new: is_new.then_some(bytes) })
    }

    async fn record(self, handler: &HandlerConfig) -> Result<Option<Record>, PrepareError> {
        let (versions, name) = (self.versions.clone(), handler.name.clone());
        match tokio::task::spawn_blocking(move || versions.record(&name)).await {
            Ok(record) => record.map_err(|error| PrepareError::Versions { handler: handler.name.clone(), error }),
            Err(error) => Err(PrepareError::Interrupted { handler: handler.name.clone(), error }),
        }
    }

    pub(super) async fn component(self, digest: &str) -> Result<Bytes, VersionsError> {
        let (versions, wanted) = (self.versions.clone(), digest.to_owned());
        match tokio::task::spawn_blocking(move || versions.component(&wanted)).await {
            Ok(bytes) => bytes,
            Err(_) => Err(VersionsError::Component { digest: digest.to_owned() }),
        }
    }
}
