//! The versions of a handler that one dispatcher has: the one, and perhaps another that is tried.

use std::sync::Arc;

use gristmill_core::Outcome;
use gristmill_queue::{Delivery, Settle};
use std::time::{Duration, Instant};

use super::Dispatcher;
use super::trial::Trial;
use crate::cli::text::short_digest;
use crate::handler_log::HandlerLog;
use crate::registry::Handler;

/// What a dispatcher runs.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The version that handles events.
    pub handler: Arc<Handler>,
    /// One that is tried with a share of them.
    pub trial: Option<Arc<Trial>>,
}

impl From<Arc<Handler>> for Fleet {
    fn from(handler: Arc<Handler>) -> Self {
        Self { handler, trial: None }
    }
}

/// A version at work.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) handler: Arc<Handler>,
    pub(super) log: Arc<HandlerLog>,
    /// If it is one that is tried.
    trial: Option<Arc<Trial>>,
}

impl Version {
    pub(super) fn new(handler: Arc<Handler>, trial: Option<Arc<Trial>>) -> Arc<Self> {
        let version = short_digest(handler.component.digest());
        let log = HandlerLog::new(handler.config.name.clone(), version, handler.config.max_log_rate);
        Arc::new(Self { handler, log, trial })
    }
}

impl Dispatcher {
    /// Which version handles a delivery.
    pub(super) fn version_for(&self, delivery: &Delivery) -> &Arc<Version> {
        match &self.candidate {
            // A probe is for the version that fails.
            Some(candidate)
                if !self.breaker.is_open() && candidate.trial.as_ref().is_some_and(|trial| trial.takes(delivery)) =>
            {
                candidate
            }
            _ => &self.version,
        }
    }

    /// What follows from what a version made of a delivery: whoever watches how it does may forgive a failure.
    pub(super) fn verdict(&self, version: &Version, delivery: &Delivery, outcome: Outcome) -> Settle {
        let forgive = match &version.trial {
            Some(trial) => trial.note(delivery, &outcome).then_some(Duration::ZERO),
            None => self.breaker.note((&delivery.entry, delivery.forgiven), &outcome, Instant::now()),
        };
        Settle { forgive, ..self.settlement(version, delivery, outcome) }
    }
}
