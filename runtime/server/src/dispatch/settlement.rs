//! Settling: what has been judged meanwhile goes to the queue together, in one request.

use std::sync::Arc;

use gristmill_core::{Disposition, Outcome, OutcomeKind};
use gristmill_queue::{Confirm, Delivery, Publish, QueueError, Settle, SettleReply};
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::version::Version;
use super::{Dispatcher, Run};
use crate::cli::text::one_line;

/// How many workers' turns may wait to be settled; further ones wait with their slots.
pub(super) const MAX_SETTLEMENTS: usize = 64;
/// The most entries that one request makes or ends, unless a single settlement makes more.
const MAX_ENTRIES: usize = 10_000;
/// What holds more bytes than this keeps its slot until it is settled, so that there is no more of it than there are slots.
const LARGE: u64 = 16 << 10;

/// What came of settling a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The delivery is over, or its lease ends by itself.
    Over,
    /// The run does not count: what it read of the state has been changed since.
    Conflict,
}

/// A run that is over, and what follows from it.
pub(super) struct Judged {
    run: Box<Run>,
    settle: Box<Settle>,
}

/// What is said of a settlement when its answer has come.
struct Told {
    kind: OutcomeKind,
    reason: String,
}

impl Judged {
    pub(super) fn new(run: Box<Run>, settle: Settle) -> Self {
        Self { run, settle: Box::new(settle) }
    }
}

/// Whether a run keeps its slot until it is settled: where it may conflict, so that it runs again at once and before its
/// handler reads what it is about to write; and where it is large.
pub(super) fn keeps_slot(delivery: &Delivery, settle: &Settle) -> bool {
    let result = match &settle.outcome {
        Outcome::Ack { result: Some(result) } => result.len() as u64,
        _ => 0,
    };
    let bytes = || settle.emits.iter().map(|emit| emit.event.size()).sum::<u64>() + delivery.event.size() + result;
    settle.transaction.is_some() || bytes() > LARGE
}

impl Dispatcher {
    /// Settles what is judged, as much at once as has come meanwhile, until nobody can send any more.
    pub(super) async fn settle_as_they_come(self: Arc<Self>, mut judged: mpsc::Receiver<Vec<Judged>>) {
        let mut arrived = Vec::new();
        while judged.recv_many(&mut arrived, MAX_SETTLEMENTS).await > 0 {
            let judged = arrived.drain(..).flatten().map(|Judged { run, settle }| (run, *settle));
            let (runs, settles): (Vec<_>, Vec<_>) = judged.unzip();
            let deliveries: Vec<_> = runs.iter().map(|run| (&run.delivery, Some(&*run.version))).collect();
            // None has a transaction that could conflict.
            self.settle_all(&deliveries, settles).await;
        }
    }

    /// Settles deliveries, each in its own right, with the version that has handled it, if one has; what came of each.
    pub(super) async fn settle_all(
        &self,
        deliveries: &[(&Delivery, Option<&Version>)],
        mut settles: Vec<Settle>,
    ) -> Vec<Settled> {
        let told: Vec<_> = settles.iter().map(Told::new).collect();
        let mut answers = Vec::with_capacity(settles.len());
        while !settles.is_empty() {
            let rest = settles.split_off(fitting(&settles));
            let count = settles.len();
            match self.queue.settle(settles, Confirm::Committed).await {
                Ok(replies) => answers.extend(replies.into_iter().map(Ok)),
                Err(error) => answers.extend(std::iter::repeat_n(Err(error), count)),
            }
            settles = rest;
        }
        let now = self.clock.now();
        let (mut settled, mut refused) = (Vec::with_capacity(answers.len()), Vec::new());
        for (((delivery, version), told), answer) in deliveries.iter().zip(told).zip(answers) {
            if told.kind == OutcomeKind::Ack && matches!(answer, Ok(SettleReply::Settled(_))) {
                self.latencies.record(&delivery.queue, now.since(delivery.enqueued_at));
            }
            let is_conflict = matches!(answer, Ok(SettleReply::Conflict));
            settled.push(if is_conflict { Settled::Conflict } else { Settled::Over });
            if let Some(reason) = hear(delivery, told, answer) {
                let outcome = Outcome::HostError { reason };
                refused.push(match version {
                    Some(version) => self.verdict(version, delivery, outcome),
                    None => Settle::new(delivery.lease, outcome),
                });
            }
        }
        if !refused.is_empty()
            && let Err(error) = self.queue.settle(refused, Confirm::Committed).await
        {
            error!(handler = %self.name, %error, "cannot settle");
        }
        settled
    }

    pub(super) async fn settle_one(&self, settle: Settle) -> Result<SettleReply, QueueError> {
        let replies = self.queue.settle(vec![settle], Confirm::Committed).await?;
        replies.into_iter().next().ok_or_else(|| QueueError::Unavailable("a settlement without an answer".to_owned()))
    }

    /// What became of a delivery, without effects.
    pub(super) fn settlement(&self, version: &Version, delivery: &Delivery, outcome: Outcome) -> Settle {
        if let Some(reason) = outcome.reason() {
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                outcome = %outcome.kind(), reason = one_line(reason), "not acked");
        }
        let version = Some(version.handler.component.digest().to_owned());
        Settle { version, ..Settle::new(delivery.lease, outcome) }
    }
}

/// Says what came of a delivery that is settled. `Some`: its own outcome was refused, for this reason.
fn hear(delivery: &Delivery, told: Told, answer: Result<SettleReply, QueueError>) -> Option<String> {
    match answer {
        Ok(SettleReply::Settled(Disposition::DeadLetter)) => {
            let Told { kind, reason } = told;
            warn!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                outcome = %kind, reason, "dead-lettered");
        }
        Ok(SettleReply::Settled(_) | SettleReply::Conflict) => {}
        Ok(SettleReply::StaleLease) => {
            warn!(handler = %delivery.queue, entry = %delivery.entry, "settled too late: the lease had ended");
        }
        Ok(SettleReply::Unknown) => {
            error!(handler = %delivery.queue, entry = %delivery.entry, "the engine does not know its own lease");
        }
        Ok(SettleReply::Refused(refused)) => return Some(format!("an emitted event cannot be published: {refused}")),
        Ok(SettleReply::StateRefused(refused)) => {
            return Some(format!("a write to the state cannot be done: {refused}"));
        }
        // The lease ends by itself, and the entry comes back.
        Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle"),
    }
    None
}

impl Told {
    fn new(settle: &Settle) -> Self {
        let reason = settle.outcome.reason().map(one_line).unwrap_or_default();
        Self { kind: settle.outcome.kind(), reason }
    }
}

/// How many of these go into one request: at least one.
fn fitting(settles: &[Settle]) -> usize {
    let mut entries = 0;
    let fit = settles.iter().take_while(|settle| {
        let made = settle.emits.iter().map(|Publish { queues, .. }| queues.len()).sum::<usize>();
        entries += made + settle.with.len() + 1;
        entries <= MAX_ENTRIES
    });
    fit.count().max(1)
}
