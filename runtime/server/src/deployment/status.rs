//! What people are shown of a deployment.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use gristmill_core::{Clock as _, HandlerName, SystemClock, Timestamp};

use tracing::info;

use super::Deployment;
use super::record::Kept;
use crate::dispatch::breaker::OpenCircuit;
use crate::dispatch::trial::Standing;

/// How often the configuration was read again, and what came of it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// How often it was applied.
    pub applied: u64,
    /// How often it was refused, and nothing changed.
    pub refused: u64,
    /// Why it was refused last, and when; `None`: what is written is what holds.
    pub error: Option<(Timestamp, String)>,
    /// Settings that are written, and hold after a restart only.
    pub restart: Vec<String>,
}

impl Reloads {
    /// As the process begins, with what is wrong then.
    pub(super) fn at_start(complaints: &[String]) -> Self {
        let error = (!complaints.is_empty()).then(|| (SystemClock::new().now(), complaints.join("\n")));
        Self { error, ..Self::default() }
    }
}

/// A version that was tried, and had to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// Its digest.
    pub digest: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// A version that is tried with a share of the deliveries.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryStatus {
    /// The version.
    pub version: Kept,
    /// Its share of the deliveries, 0 to 1.
    pub share: f64,
    /// How it goes.
    pub standing: Standing,
    /// How long until it may take over.
    pub left: Duration,
}

/// A handler and its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct HandlerStatus {
    /// Its name, and its queue's.
    pub name: HandlerName,
    /// What the host calls.
    pub interface: String,
    /// What it is pinned to by the configuration.
    pub pinned: Option<String>,
    /// Its versions; the first handles events.
    pub versions: Vec<Kept>,
    /// One that is tried.
    pub canary: Option<CanaryStatus>,
    /// The one that was tried last and had to go, since the process began.
    pub rolled_back: Option<RolledBack>,
    /// Why it gets no deliveries, if a breaker has seen to that.
    pub circuit: Option<OpenCircuit>,
}

impl Deployment {
    /// Every handler, by name.
    #[must_use]
    pub fn handlers(&self) -> Vec<HandlerStatus> {
        let slots = self.shared.slots();
        let status = slots.iter().map(|(name, slot)| HandlerStatus {
            name: name.clone(),
            interface: slot.handler.component.form().to_owned(),
            pinned: slot.handler.config.digest.clone(),
            versions: slot.record.versions().cloned().collect(),
            canary: slot.tried.as_ref().map(|tried| CanaryStatus {
                version: tried.version.clone(),
                share: tried.trial.options().share,
                standing: tried.trial.standing(),
                left: tried.ends.saturating_duration_since(Instant::now()),
            }),
            rolled_back: slot.rolled_back.clone(),
            circuit: slot.work.breaker().open(),
        });
        status.collect()
    }

    /// The folder of plugins is refused as a whole, or is fine again.
    pub fn note_folder(&self, folder: &Path, error: Option<String>) {
        let mut plugins = self.shared.plugins();
        match error {
            Some(error) => drop(plugins.wrong.insert(folder.to_owned(), error)),
            None if plugins.wrong.remove(folder).is_some() => info!("the folder of plugins is looked at again"),
            None => {}
        }
    }

    /// Files in the folder of plugins that are not loaded, and why not. What they were before may be at work.
    #[must_use]
    pub fn wrong_plugins(&self) -> Vec<(PathBuf, String)> {
        self.shared.plugins().wrong.iter().map(|(path, why)| (path.clone(), why.clone())).collect()
    }

    /// Whether a handler's breaker may yet resume its queue by itself: it has not tried, or is about to.
    #[must_use]
    pub fn is_to_be_probed(&self, name: &HandlerName) -> bool {
        let slots = self.shared.slots();
        slots.get(name).is_some_and(|slot| slot.work.breaker().is_undecided())
    }

    /// What came of reading the configuration again.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.shared.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
