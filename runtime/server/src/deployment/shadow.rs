//! A version compared with the current one, over stored events, before it is deployed.

use gristmill_core::Timestamp;
use tracing::info;

use super::{DeployError, Shared};
use crate::cli::text::short_digest;
use crate::registry::Handler;
use crate::shadow::comparison::{Bar, Comparison};
use crate::shadow::selection::Selection;
use crate::shadow::{Plan, Version, compare};
use crate::state::RunState;

/// What is compared, and what is good enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shadow {
    /// Over which events.
    pub selection: Selection,
    /// Above what the version is not deployed; `None`: it is deployed whatever differs.
    pub bar: Option<Bar>,
}

impl Shared {
    /// Runs both versions beside the handler's own work, with as many calls at once as the handler may have.
    pub(super) async fn compare(
        &self,
        old: &Handler,
        new: &Handler,
        shadow: Shadow,
    ) -> Result<Comparison, DeployError> {
        let name = old.config.name.clone();
        let now = self.clock.now();
        let plan = Plan {
            old: Version::of(old),
            new: Version::of(new),
            state: Some(std::sync::Arc::new(RunState::new(self.queue.clone()))),
            max_attempts: old.config.queue.retry.max_attempts,
            now,
            seed: now.since(Timestamp::EPOCH).as_nanos() as u64,
            concurrency: old.config.concurrency,
        };
        let samples = shadow.selection.samples(self.queue.clone(), name.clone()).await?;
        let comparison = compare(plan, samples).await?;
        let (digest, selection) = (short_digest(new.component.digest()), shadow.selection);
        info!(handler = %name, new = digest, %selection, events = comparison.events, same = comparison.same,
            different = comparison.different, "a new version was compared with the current one");
        match shadow.bar.map(|bar| comparison.check(bar)) {
            Some(Err(error)) => {
                let comparison = Box::new(comparison);
                Err(DeployError::Different { handler: name, error, comparison })
            }
            _ => Ok(comparison),
        }
    }
}
