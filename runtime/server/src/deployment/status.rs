//! What people are shown of a deployment.

use std::sync::PoisonError;

use gristmill_core::{HandlerName, Timestamp};

use super::Deployment;
use super::record::Kept;

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

/// A handler and its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerStatus {
    /// Its name, and its queue's.
    pub name: HandlerName,
    /// What the host calls.
    pub interface: String,
    /// What it is pinned to by the configuration.
    pub pinned: Option<String>,
    /// Its versions; the first handles events.
    pub versions: Vec<Kept>,
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
        });
        status.collect()
    }

    /// What came of reading the configuration again.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        self.shared.reloads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
