//! Several events through one instance: batch handlers.

use std::sync::Arc;

use gristmill_core::{Event, Outcome, StateReader, StateUse, Timestamp};
use sha2::{Digest, Sha256};
use tracing::debug;

use crate::component::Component;
use crate::configuration::Configuration;
use crate::execution::{Execution, Work};
use crate::interfaces::Interface;
use crate::interfaces::batch::wrong_length;
use crate::invocation::{Invocation, Place};
use crate::ledger::Ledger;
use crate::log::LogLine;
use crate::options::Limits;
use crate::outbox::Emit;

/// Deliveries to be handled together.
#[derive(Clone, Debug)]
pub struct BatchInvocation {
    /// The queue's name.
    pub queue: String,
    /// What is to be handled, in this order. Never empty.
    pub deliveries: Vec<BatchDelivery>,
    /// The state that it reads. `None`: there is nothing in it.
    pub state: Option<Arc<dyn StateReader>>,
    /// What the handler is configured with.
    pub configuration: Configuration,
    /// What the handler may use, for all of them together.
    pub limits: Limits,
}

/// One of a batch.
#[derive(Clone, Debug)]
pub struct BatchDelivery {
    /// The entry's id: the same for every attempt at this event in this queue.
    pub delivery_id: String,
    /// 1 for the first.
    pub attempt: u32,
    /// `None`: no limit.
    pub max_attempts: Option<u32>,
    /// When the event entered the queue.
    pub enqueued_at: Timestamp,
    /// The event.
    pub event: Arc<Event>,
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchReport {
    /// The verdicts, or why there are none. Text in them is the guest's: escape it before a person reads it.
    pub outcome: BatchOutcome,
    /// What is to be published; empty unless every verdict is an ack.
    ///
    /// An event without an id of its own gets one of the batch and the number of the call. The batch's is the delivery's
    /// where there is only one, and else the first delivery's with a digest of all of them: the same deliveries in the
    /// same order get the same ids, and others do not.
    pub emits: Vec<Emit>,
    /// What was read of the state and is to be written to it. The acks stand only if what was read is still so. Empty if
    /// nothing is acked, or if [`discarded`](Self::discarded).
    pub state: StateUse,
    /// Whether it would emit or write, which does not count because some verdicts are acks and some are not: then the
    /// acked deliveries have to be handled again, without the others.
    pub discarded: bool,
    /// What was logged, whatever the outcome.
    pub logs: Vec<LogLine>,
    /// What it cost.
    pub ledger: Ledger,
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchOutcome {
    /// With a verdict for each delivery, in their order.
    Each(Vec<Outcome>),
    /// With none: what happened is no verdict, or there was not one for each delivery.
    Whole(Outcome),
}

impl Component {
    /// Handles several events in one instance, one after the other or as the handler likes, and otherwise as
    /// [`handle`](Self::handle) does.
    ///
    /// Only components whose interface is [`BatchHandler`](crate::Interface::BatchHandler) can; others answer with a host
    /// error. [`handle`](Self::handle) gives such a component a batch of one.
    pub async fn handle_batch(&self, batch: BatchInvocation) -> BatchReport {
        let place = self.admit(&batch.limits).await;
        self.handle_batch_in(place, batch).await
    }

    /// The same in a place that [`admit`](Self::admit) gave for the same limits.
    pub async fn handle_batch_in(&self, place: Place, batch: BatchInvocation) -> BatchReport {
        if self.interface() != Interface::BatchHandler {
            return BatchReport::host_error("the component handles events one by one");
        }
        let Some(stand_in) = stand_in(&batch).map(Box::new) else {
            return BatchReport::host_error("the batch is empty");
        };
        let count = batch.deliveries.len();
        let work = Work::Batch { stand_in, deliveries: invocations(batch) };
        let Execution { outcomes, emits, state, logs, ledger } = self.execute(place, work).await;
        let outcome = match outcomes {
            Ok(each) if each.len() == count => BatchOutcome::Each(each),
            Ok(other) => BatchOutcome::Whole(wrong_length(count, other.len())),
            Err(outcome) => BatchOutcome::Whole(outcome),
        };
        let (acks, has_effects) = (outcome.acks(), !emits.is_empty() || !state.writes.is_empty());
        let discarded = 0 < acks && acks < count && has_effects;
        let (emits, state) = if acks == 0 || discarded { (Vec::new(), StateUse::default()) } else { (emits, state) };
        debug!(handler = %self.name(), outcome = outcome.describe(), duration = ?ledger.wall, "handled a batch");
        BatchReport { outcome, emits, state, discarded, logs, ledger }
    }
}

impl BatchOutcome {
    /// How many deliveries are acked.
    #[must_use]
    pub fn acks(&self) -> usize {
        match self {
            Self::Each(outcomes) => outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Ack { .. })).count(),
            Self::Whole(_) => 0,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Each(outcomes) => format!("{} of {} acked", self.acks(), outcomes.len()),
            Self::Whole(outcome) => outcome.kind().to_string(),
        }
    }
}

impl BatchReport {
    fn host_error(reason: &str) -> Self {
        Self {
            outcome: BatchOutcome::Whole(Outcome::HostError { reason: reason.to_owned() }),
            emits: Vec::new(),
            state: StateUse::default(),
            discarded: false,
            logs: Vec::new(),
            ledger: Ledger::default(),
        }
    }
}

/// What stands for the batch as a whole: its id, and the event that has passed through the most handlers, from which the
/// hops of emitted events count. `None` for no deliveries.
fn stand_in(batch: &BatchInvocation) -> Option<Invocation> {
    let furthest = batch.deliveries.iter().max_by_key(|delivery| delivery.event.hops())?.clone();
    let ids = || batch.deliveries.iter().map(|delivery| delivery.delivery_id.as_str());
    let delivery_id = id_of(ids())?;
    Some(Invocation { delivery_id, state: batch.state.clone(), ..invocation(batch, furthest) })
}

/// The delivery's own id, or the first one's and as much of a digest of all as needs no second look.
fn id_of<'a>(mut ids: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let all = ids.clone();
    let first = ids.next()?;
    if ids.next().is_none() {
        return Some(first.to_owned());
    }
    let mut digest = Sha256::new();
    for id in all {
        digest.update(id);
        // No id has it.
        digest.update(b"\n");
    }
    let shown: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{first}-{shown}"))
}

fn invocations(mut batch: BatchInvocation) -> Vec<Invocation> {
    let deliveries = std::mem::take(&mut batch.deliveries);
    deliveries.into_iter().map(|delivery| invocation(&batch, delivery)).collect()
}

/// Without the state: the stand-in has it.
fn invocation(batch: &BatchInvocation, delivery: BatchDelivery) -> Invocation {
    let BatchDelivery { delivery_id, attempt, max_attempts, enqueued_at, event } = delivery;
    Invocation {
        delivery_id,
        queue: batch.queue.clone(),
        attempt,
        max_attempts,
        enqueued_at,
        event,
        state: None,
        configuration: batch.configuration.clone(),
        limits: batch.limits.clone(),
    }
}
