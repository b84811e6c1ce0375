//! Another version by hand: deployed, or one that was there before.

use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::HandlerName;
use gristmill_host::{Want, digest};
use gristmill_queue::QueueError;
use tracing::info;

use super::prepare::{Choice, PrepareError, Prepared};
use super::record::{Kept, NoVersion, Origin};
use super::shadow::Shadow;
use super::versions::VersionsError;
use super::{Deployment, Shared};
use crate::cli::screen::Screen;
use crate::cli::text::{one_line, short_digest};
use crate::config::{CanaryOptions, HandlerConfig};
use crate::registry::Handler;
use crate::shadow::comparison::{Comparison, TooDifferent};

/// What came of a deployment or a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployed {
    /// The version that handles events from now on.
    pub current: Kept,
    /// The digest of the one that did before.
    pub before: String,
    /// What the new one imports that the old one did not and that needs a grant, a line each.
    pub wants: Vec<String>,
    /// A new version that has a share of the events first.
    pub tried: Option<Kept>,
    /// How it compares with the one before, if that was asked for.
    pub comparison: Option<Comparison>,
    /// A version that had a share of the events, and has it no more.
    pub ended: Option<Kept>,
}

impl Deployed {
    fn unchanged(current: Kept) -> Self {
        Self { before: current.digest.clone(), current, wants: Vec::new(), tried: None, comparison: None, ended: None }
    }
}

/// How a version that is deployed takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct How {
    /// At once, even if the configuration lets it have a share of the events first.
    pub at_once: bool,
    /// After it has been compared with the current version.
    pub shadow: Option<Shadow>,
}

/// Why a version was not deployed. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// There is no such handler.
    #[error("there is no handler `{handler}`; there are: {}", .known.join(", "))]
    Unknown {
        /// What was asked for.
        handler: HandlerName,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The configuration pins it to another component.
    #[error(
        "handler `{handler}`: runtime.toml pins it to {pinned}, and this is {actual}\nchange or remove its `digest` first"
    )]
    Pinned {
        /// The handler.
        handler: HandlerName,
        /// What it is pinned to.
        pinned: String,
        /// What was to be deployed.
        actual: String,
    },
    /// It cannot take over.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// There is no such version.
    #[error("handler `{handler}`: {error}")]
    NoVersion {
        /// The handler.
        handler: HandlerName,
        /// Why not.
        error: NoVersion,
    },
    /// It cannot be recorded.
    #[error("handler `{handler}`: {error}")]
    Versions {
        /// The handler.
        handler: HandlerName,
        /// Why not.
        error: VersionsError,
    },
    /// It does something else than the current version.
    #[error("handler `{handler}`: {error}\n\n{}", .comparison.render(Screen::Plain).trim_end())]
    Different {
        /// The handler.
        handler: HandlerName,
        /// What is too much.
        error: TooDifferent,
        /// How they compare.
        comparison: Box<Comparison>,
    },
    /// The stored events cannot be read.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The runtime is about to stop.
    #[error("the runtime is about to stop")]
    Stopping,
}

impl Deployment {
    /// Deploys a component by hand: from now on it handles the handler's events. The same one as before is nothing new.
    ///
    /// # Errors
    /// When it is not deployed; then nothing has changed.
    pub async fn deploy(&self, name: HandlerName, bytes: Bytes, how: How) -> Result<Deployed, DeployError> {
        self.uninterrupted(async move |shared| {
            let (handler, mut record) = shared.slot(&name)?;
            shared.note_tried(&name, &mut record);
            let actual = digest_of(&bytes).await;
            check_pin(&handler.config, &actual)?;
            if record.current.digest == actual {
                let ended = shared.end_trial(&name).await;
                return Ok(Deployed { ended, ..Deployed::unchanged(record.current) });
            }
            let config = shared.config();
            let workshop = shared.workshop(&config);
            let choice = workshop.version(bytes, actual, Origin::Deploy, Some(record));
            let next = workshop.prepare(&handler.config, choice).await?;
            let comparison = match how.shadow {
                Some(shadow) => Some(shared.compare(&handler, &next.handler, shadow).await?),
                None => None,
            };
            // What is tried has had its chance.
            let ended = shared.end_trial(&name).await;
            let deployed = match handler.config.canary {
                // Where every event fails, there is nothing to be careful of.
                Some(canary) if !how.at_once && !shared.is_circuit_open(&name) => {
                    shared.try_first(&handler, next, canary)
                }
                _ => shared.take_over(&handler, next).await?,
            };
            Ok(Deployed { comparison, ended, ..deployed })
        })
        .await
    }

    /// Goes back to a version that is kept: the one whose digest begins with `asked`, or the one that was current before.
    ///
    /// # Errors
    /// When there is no such version, or it cannot run any more; then nothing has changed.
    pub async fn roll_back(&self, name: HandlerName, asked: Option<String>) -> Result<Deployed, DeployError> {
        self.uninterrupted(async move |shared| {
            let (handler, mut record) = shared.slot(&name)?;
            if asked.is_none()
                && let Some(tried) = shared.end_trial(&name).await
            {
                info!(handler = %name, version = short_digest(&tried.digest), "the version that was tried is rolled back by hand");
                return Ok(Deployed { ended: Some(tried), ..Deployed::unchanged(record.current) });
            }
            let version = record
                .roll_back(asked.as_deref(), shared.clock.now())
                .map_err(|error| DeployError::NoVersion { handler: name.clone(), error })?;
            check_pin(&handler.config, &version.digest)?;
            shared.note_tried(&name, &mut record);
            if handler.component.digest() == version.digest {
                let ended = shared.end_trial(&name).await;
                return Ok(Deployed { ended, ..Deployed::unchanged(version) });
            }
            let config = shared.config();
            let workshop = shared.workshop(&config);
            let bytes = workshop
                .component(&version.digest)
                .await
                .map_err(|error| DeployError::Versions { handler: name.clone(), error })?;
            let choice = Choice { bytes, record, is_new: true };
            shared.take_over(&handler, workshop.prepare(&handler.config, choice).await?).await
        })
        .await
    }
}

impl Shared {
    /// Puts `next` in the place of `old`, on the disk and then in fact.
    async fn take_over(&self, old: &Handler, next: Prepared) -> Result<Deployed, DeployError> {
        let name = next.handler.config.name.clone();
        self.record(&next).await.map_err(|error| DeployError::Versions { handler: name.clone(), error })?;
        let wants = wants(old, &next.handler);
        let before = old.component.digest().to_owned();
        let current = next.record.current.clone();
        info!(handler = %name, from = short_digest(&before), to = short_digest(&current.digest), "another version takes over");
        self.switch(next);
        Ok(Deployed { current, before, wants, tried: None, comparison: None, ended: None })
    }

    /// Lets `next` have a share of the events first.
    fn try_first(self: &Arc<Self>, old: &Handler, next: Prepared, canary: CanaryOptions) -> Deployed {
        let (wants, tried) = (wants(old, &next.handler), next.record.current.clone());
        let name = next.handler.config.name.clone();
        self.try_out(next, canary);
        let current = self.slots().get(&name).map_or_else(|| tried.clone(), |slot| slot.record.current.clone());
        Deployed { before: current.digest.clone(), current, wants, tried: Some(tried), comparison: None, ended: None }
    }
}

/// What a version imports that the one before does not, as far as it needs a grant; also told to the log.
fn wants(old: &Handler, new: &Handler) -> Vec<String> {
    let wants: Vec<_> = new.component.wants_beyond(&old.component).iter().filter_map(described).collect();
    for want in &wants {
        info!(handler = %new.config.name, "unlike the version before, it imports {want}");
    }
    wants
}

/// What an import needs that the version before did not have. `None`: no grant, and so nothing of interest.
fn described(want: &Want) -> Option<String> {
    let grant = want.grant?;
    let import = one_line(&want.import);
    Some(if want.is_granted {
        format!("{import}, which the grant `{}` covers", grant.name())
    } else {
        format!("{import}, and gets nothing of it without: grant = {{ {} = {} }}", grant.name(), grant.example())
    })
}

/// What identifies bytes; for many, that takes a while.
async fn digest_of(bytes: &Bytes) -> String {
    let bytes = bytes.clone();
    tokio::task::spawn_blocking(move || digest(&bytes)).await.unwrap_or_default()
}

/// Whether `digest` may run, by the configuration.
fn check_pin(config: &HandlerConfig, digest: &str) -> Result<(), DeployError> {
    match &config.digest {
        Some(pinned) if pinned != digest => {
            let (handler, pinned, actual) = (config.name.clone(), pinned.clone(), digest.to_owned());
            Err(DeployError::Pinned { handler, pinned, actual })
        }
        _ => Ok(()),
    }
}
