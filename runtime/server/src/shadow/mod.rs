//! Shadow replay: stored events run through two versions of a handler side by side, and what they do is compared.
//!
//! | module | holds |
//! | --- | --- |
//! | [`comparison`] | what came of it, and whether that is good enough |
//! | `difference` | in what two runs differ |
//! | `page` | how a person reads it |
//! | [`selection`] | which stored events |
//! | `words` | what differs, in few words |
//!
//! Each event goes through the old version and then through the new one, each in a fresh instance, as a
//! [replay](gristmill_host::Replay): both see the same time, the same random numbers and the same state, neither sends
//! anything, and what they would emit and write is compared and thrown away. Neither sees what the run of another event
//! would have written: every run begins from the one snapshot. A handler of batches gets each event as a batch of one,
//! because no two batches are alike.
//!
//! An event that differs goes through the old version once more: where that differs from itself, the difference says
//! nothing about the new one, and the event is counted as not deterministic. An event for which both versions would use
//! the network is not compared, because what a handler does with an answer cannot be seen without one.

pub mod comparison;
mod difference;
mod page;
pub mod selection;
mod words;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use gristmill_core::{EntryId, Event, OutcomeKind, QueueName, StateReader, Timestamp};
use gristmill_host::{Component, Configuration, Invocation, Limits, Refused, Replay, Replayed};
use gristmill_queue::Entry;
use tokio::task::JoinSet;

use self::comparison::{Comparison, Differing, Judged, Obstacle};
use crate::registry::Handler;

/// One of two versions of a handler.
#[derive(Clone, Debug)]
pub struct Version {
    /// What runs.
    pub component: Component,
    /// What it is configured with.
    pub configuration: Configuration,
    /// What it may use.
    pub limits: Limits,
}

impl Version {
    /// The version that `handler` is.
    #[must_use]
    pub fn of(handler: &Handler) -> Self {
        let (component, limits) = (handler.component.clone(), handler.config.limits.clone());
        Self { component, configuration: handler.configuration.get(), limits }
    }
}

/// What is compared, and under which circumstances.
#[derive(Debug)]
pub struct Plan {
    /// What handles events now.
    pub old: Version,
    /// What is to.
    pub new: Version,
    /// The state that every run begins from; `None`: there is nothing in it. See [`RunState`](crate::state::RunState),
    /// which takes one snapshot for all that read through it.
    pub state: Option<Arc<dyn StateReader>>,
    /// What runs are told of the most attempts that an entry has.
    pub max_attempts: Option<u32>,
    /// What the clock says in every run.
    pub now: Timestamp,
    /// What the random numbers of all runs are made of, together with the entry: two comparisons with one seed see the same.
    pub seed: u64,
    /// How many events are compared at once, at least 1. Each takes the room of one invocation.
    pub concurrency: usize,
}

/// A stored event, as its handler saw it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its entry.
    pub entry: EntryId,
    /// The entry's queue.
    pub queue: QueueName,
    /// 1 for the first.
    pub attempt: u32,
    /// When it entered the queue.
    pub enqueued_at: Timestamp,
    /// The event, with its data.
    pub event: Arc<Event>,
}

/// The last attempt at an entry. An entry that is done has lost its data, unless the queue keeps it.
impl From<Entry> for Sample {
    fn from(entry: Entry) -> Self {
        let Entry { id, queue, attempts, enqueued_at, event, .. } = entry;
        Self { entry: id, queue, attempt: attempts.max(1), enqueued_at, event }
    }
}

/// Runs every sample through both versions and says where they differ. Dropping the future stops all runs.
///
/// To be called where handlers may run: the runs are tasks of the runtime that calls it. At most
/// [`concurrency`](Plan::concurrency) samples are in memory at a time.
///
/// # Errors
/// The first that the stream of samples has: what was compared until then does not count.
pub async fn compare<E>(plan: Plan, samples: impl Stream<Item = Result<Sample, E>>) -> Result<Comparison, E> {
    let plan = Arc::new(plan);
    let mut samples = pin!(samples.fuse());
    let mut running = JoinSet::new();
    let mut numbers = 0_u64..;
    let files_were_read_only = plan.old.component.may_write_files() || plan.new.component.may_write_files();
    let mut comparison = Comparison { files_were_read_only, ..Comparison::default() };
    let mut differing = BTreeMap::new();
    loop {
        while running.len() < plan.concurrency.max(1) {
            let (Some(sample), Some(number)) = (samples.try_next().await?, numbers.next()) else { break };
            let plan = Arc::clone(&plan);
            running.spawn(async move { (number, plan.judge(sample).await) });
        }
        let Some(finished) = running.join_next().await else { break };
        // Only a fault of our own ends a task otherwise; it is no fault of the new version.
        let (number, judged) = finished.unwrap_or((u64::MAX, Judged::NotComparable(Obstacle::Host)));
        if let Some(one) = comparison.count(judged) {
            differing.insert(number, one);
        }
    }
    comparison.list(differing.into_values());
    Ok(comparison)
}

impl Plan {
    async fn judge(&self, sample: Sample) -> Judged {
        let old = self.run(&self.old, &sample).await;
        let new = self.run(&self.new, &sample).await;
        if let Some(obstacle) = obstacle(&old, &new) {
            return Judged::NotComparable(obstacle);
        }
        let differences = difference::between(&old, &new);
        if differences.is_empty() {
            return Judged::Same;
        }
        let again = self.run(&self.old, &sample).await;
        if !difference::between(&old, &again).is_empty() {
            return Judged::Unsteady;
        }
        Judged::Different(Differing::new(&sample, differences))
    }

    async fn run(&self, version: &Version, sample: &Sample) -> Replayed {
        let Version { component, configuration, limits } = version;
        let invocation = Invocation {
            delivery_id: sample.entry.to_string(),
            queue: sample.queue.to_string(),
            attempt: sample.attempt,
            max_attempts: self.max_attempts,
            enqueued_at: sample.enqueued_at,
            event: Arc::clone(&sample.event),
            state: self.state.clone(),
            configuration: configuration.clone(),
            limits: limits.clone(),
        };
        component.replay(invocation, Replay { now: self.now, seed: seed_of(self.seed, &sample.entry) }).await
    }
}

/// Why two runs cannot be compared, if they cannot.
fn obstacle(old: &Replayed, new: &Replayed) -> Option<Obstacle> {
    let is_ours = |run: &Replayed| matches!(run.report.outcome.kind(), OutcomeKind::HostError | OutcomeKind::Killed);
    let both = |count: fn(&Refused) -> u32| count(&old.refused) > 0 && count(&new.refused) > 0;
    if is_ours(old) || is_ours(new) {
        Some(Obstacle::Host)
    } else if both(|refused| refused.http) {
        Some(Obstacle::Http)
    } else if both(|refused| refused.sockets) {
        Some(Obstacle::Sockets)
    } else {
        None
    }
}

/// FNV-1a: the same in every release.
fn seed_of(seed: u64, entry: &EntryId) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    let add = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    entry.as_str().as_bytes().iter().chain(&seed.to_le_bytes()).fold(BASIS, add)
}
