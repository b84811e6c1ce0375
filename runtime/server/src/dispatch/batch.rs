//! Batches: several deliveries in one call, as one transaction of those that are acked.
//!
//! No attempt is spent until it is known whose it is. What fails as a whole (a trap, a time-out, too much memory, an answer
//! of the wrong length) runs again in halves, down to the delivery that fails by itself: one poison event costs its
//! neighbours some runs and no attempt. Acked deliveries whose effects were discarded, because not everything in their
//! batch was acked, run again without the others. All of that happens under the leases of the claim, which are extended
//! where another run would not fit.

use std::pin::pin;
use std::time::Instant;

use gristmill_core::{Outcome, Postmortem};
use gristmill_host::{BatchDelivery, BatchInvocation, BatchOutcome, BatchReport, Place};
use gristmill_queue::{Acked, Delivery, Extend, ExtendReply, Publish, Settle, SettleReply, Transaction};
use tracing::{debug, error, warn};

use super::version::Version;
use super::{Dispatcher, Phase, SETTLE_GRACE, pause};
use crate::cli::text::one_line;
use crate::postmortem;

/// Deliveries that run together, and how often in a row what they read was changed meanwhile.
struct Round {
    deliveries: Vec<Delivery>,
    conflicts: u32,
}

impl Round {
    const fn new(deliveries: Vec<Delivery>) -> Self {
        Self { deliveries, conflicts: 0 }
    }
}

/// What is left to do of a round.
enum Left {
    /// Nothing: every delivery is settled, or its lease ends by itself.
    Nothing,
    /// These run again, without the others.
    Again(Vec<Delivery>),
    /// These run again: what they read of the state has been changed.
    Conflict(Vec<Delivery>),
    /// It is not known which of these fails.
    Failed(Vec<Delivery>),
    /// One of these leases has ended, so that what the others did does not count either.
    Stale(Vec<Delivery>),
}

/// What the acks of a batch bring about: events, and what was read and written.
type Effects = (Vec<Publish>, Option<Transaction>);

/// What to keep of a call with a dead letter that it makes.
trait Autopsy: Fn(&Outcome) -> Option<Box<Postmortem>> + Send + Sync {}

impl<F: Fn(&Outcome) -> Option<Box<Postmortem>> + Send + Sync> Autopsy for F {}

/// The rounds still to come of one claim; the next is the last. All leases end at the same time.
struct Rounds<'a> {
    version: &'a Version,
    rounds: Vec<Round>,
    leases_end: Instant,
    /// The first run has the lease of the claim, which is long enough by itself.
    has_run: bool,
}

impl Dispatcher {
    /// Runs the handler until every delivery is settled.
    pub(super) async fn deliver_batch(&self, version: &Version, deliveries: Vec<Delivery>, claimed: Instant) {
        let Some(shortest) = deliveries.iter().map(|delivery| delivery.lease_for).min() else { return };
        let leases_end = claimed + shortest;
        let mut work = Rounds { version, rounds: vec![Round::new(deliveries)], leases_end, has_run: false };
        while let Some(place) = self.batch_place(&mut work).await {
            let Some(round) = work.rounds.pop() else { return };
            let conflicts = round.conflicts;
            match self.run_round(version, place, round.deliveries).await {
                Left::Nothing => {}
                Left::Again(deliveries) => work.rounds.push(Round::new(deliveries)),
                Left::Conflict(deliveries) => {
                    work.rounds.push(Round { deliveries, conflicts: conflicts + 1 });
                    tokio::time::sleep(pause(conflicts + 1)).await;
                }
                Left::Failed(mut deliveries) => {
                    let second = deliveries.split_off(deliveries.len() / 2);
                    work.rounds.extend([Round::new(second), Round::new(deliveries)]);
                }
                Left::Stale(deliveries) => {
                    let (tried, rounds) = (deliveries.len(), work.rounds.len() + 1);
                    work.rounds.push(Round::new(deliveries));
                    self.extend_all(&mut work).await;
                    if work.rounds.len() == rounds
                        && work.rounds.last().is_some_and(|round| round.deliveries.len() == tried)
                    {
                        error!(handler = %self.name, deliveries = tried,
                            "the queue refuses leases that it extends: these deliveries come back when their leases end");
                        work.rounds.pop();
                    }
                }
            }
        }
    }

    /// Room for the next round, with leases that last longer than its run may; waiting for room does not use them up.
    /// `None`: nothing is left to do, or everything is given back.
    async fn batch_place(&self, work: &mut Rounds<'_>) -> Option<Place> {
        if work.rounds.is_empty() {
            return None;
        }
        let handler = &work.version.handler.clone();
        let limits = &handler.config.limits;
        let enough = limits.timeout + SETTLE_GRACE;
        let mut phase = self.phase.clone();
        let mut admit = pin!(handler.component.admit(limits));
        loop {
            // Half of the grace is for waiting, where a lease is as short as it may be.
            let left = work.leases_end.saturating_duration_since(Instant::now());
            let place = tokio::select! {
                biased;
                place = &mut admit => Some(place),
                _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => break,
                () = tokio::time::sleep(left.saturating_sub(enough - SETTLE_GRACE / 2)) => None,
            };
            let is_fresh = work.leases_end.saturating_duration_since(Instant::now()) >= enough - SETTLE_GRACE / 2;
            if !is_fresh || (work.has_run && work.leases_end.saturating_duration_since(Instant::now()) < enough) {
                self.extend_all(work).await;
                if work.rounds.is_empty() {
                    return None;
                }
            }
            if place.is_some() {
                work.has_run = true;
                return place;
            }
        }
        let deliveries = std::mem::take(&mut work.rounds).into_iter().flat_map(|round| round.deliveries);
        self.settle_alike(work.version, &deliveries.collect::<Vec<_>>(), &Outcome::Released, |_| None).await;
        None
    }

    /// Makes the leases of all that is left last from now as long as they did from the claim. What has ended comes back
    /// by itself, and is left out.
    async fn extend_all(&self, work: &mut Rounds<'_>) {
        let all = || work.rounds.iter().flat_map(|round| &round.deliveries);
        let Some(shortest) = all().map(|delivery| delivery.lease_for).min() else { return };
        let extend = all().map(|delivery| Extend { lease: delivery.lease, by: delivery.lease_for }).collect();
        let replies = match self.queue.extend(extend).await {
            Ok(replies) => replies,
            Err(error) => {
                error!(handler = %self.name, %error, "cannot extend the leases of a batch");
                work.rounds.clear();
                return;
            }
        };
        let mut replies = replies.into_iter();
        for round in &mut work.rounds {
            round.deliveries.retain(|delivery| match replies.next() {
                Some(ExtendReply::Extended) => true,
                reply => {
                    warn!(handler = %delivery.queue, entry = %delivery.entry, ?reply, "the lease has ended");
                    false
                }
            });
        }
        work.rounds.retain(|round| !round.deliveries.is_empty());
        work.leases_end = Instant::now() + shortest;
    }

    async fn run_round(&self, version: &Version, place: Place, batch: Vec<Delivery>) -> Left {
        debug!(handler = %self.name, deliveries = batch.len(), "delivering a batch");
        // Held until it is settled, as for a single delivery.
        let state = self.run_state(version);
        let mut phase = self.phase.clone();
        let invocation = BatchInvocation {
            queue: self.name.to_string(),
            deliveries: batch.iter().map(member).collect(),
            state: state.clone().map(|state| state as _),
            configuration: version.handler.configuration.get(),
            limits: version.handler.config.limits.clone(),
        };
        let report = tokio::select! {
            biased;
            report = version.handler.component.handle_batch_in(place, invocation) => Some(report),
            _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => None,
        };
        let Some(report) = report else {
            self.settle_alike(version, &batch, &Outcome::Released, |_| None).await;
            return Left::Nothing;
        };
        if let Some(first) = batch.first() {
            version.log.record(first, &report.logs);
        }
        let BatchReport { outcome, emits, state: used, discarded, logs, ledger } = report;
        let kinds: Vec<_> = match &outcome {
            BatchOutcome::Each(outcomes) => outcomes.iter().map(Outcome::kind).collect(),
            BatchOutcome::Whole(outcome) => vec![outcome.kind(); batch.len()],
        };
        self.metrics.note(&self.name, &ledger, kinds);
        let postmortem = |outcome: &Outcome| postmortem::of(outcome, &ledger, &logs);
        match outcome {
            BatchOutcome::Whole(outcome) => self.failed(version, batch, outcome, postmortem).await,
            BatchOutcome::Each(outcomes) => {
                let transaction = state.as_deref().and_then(|state| state.transaction(used));
                let emits = emits.into_iter().map(|emit| self.route(emit)).collect();
                let effects = if discarded { None } else { Some((emits, transaction)) };
                self.conclude(version, batch, outcomes, (effects, postmortem)).await
            }
        }
    }

    /// What the host could not do, it can do for none of them, and who ended the call meant all of it; for anything else, one may be to blame.
    async fn failed(
        &self,
        version: &Version,
        batch: Vec<Delivery>,
        outcome: Outcome,
        postmortem: impl Autopsy,
    ) -> Left {
        if batch.len() > 1 && !matches!(outcome, Outcome::HostError { .. } | Outcome::Killed { .. }) {
            debug!(handler = %self.name, deliveries = batch.len(), outcome = %outcome.kind(),
                reason = outcome.reason().map(one_line).unwrap_or_default(), "a batch failed; running it again in halves");
            return Left::Failed(batch);
        }
        self.settle_alike(version, &batch, &outcome, postmortem).await;
        Left::Nothing
    }

    /// Settles every delivery by its verdict; the acked ones with the effects, unless those were discarded.
    async fn conclude(
        &self,
        version: &Version,
        batch: Vec<Delivery>,
        outcomes: Vec<Outcome>,
        (effects, postmortem): (Option<Effects>, impl Autopsy),
    ) -> Left {
        let (mut acked, mut results, mut others, mut settles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (delivery, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Ack { result } => {
                    acked.push(delivery);
                    results.push(result);
                }
                other => {
                    let postmortem = postmortem(&other);
                    settles.push(Settle { postmortem, ..self.verdict(version, &delivery, other) });
                    others.push(delivery);
                }
            }
        }
        let others: Vec<_> = others.iter().map(|delivery| (delivery, Some(version))).collect();
        self.settle_all(&others, settles).await;
        let Some((emits, transaction)) = effects else {
            debug!(handler = %self.name, deliveries = acked.len(),
                "not all of a batch was acked: its effects are discarded, and the acked deliveries run again");
            return Left::Again(acked);
        };
        let mut each = acked.iter().zip(results);
        let Some((first, result)) = each.next() else { return Left::Nothing };
        let with = each.map(|(other, result)| Acked { lease: other.lease, result }).collect();
        let settle = Settle { emits, transaction, with, ..self.settlement(version, first, Outcome::Ack { result }) };
        self.settle_together(version, acked, settle).await
    }

    async fn settle_together(&self, version: &Version, acked: Vec<Delivery>, settle: Settle) -> Left {
        match self.settle_one(settle).await {
            Ok(SettleReply::Settled(_)) => {
                let now = self.clock.now();
                for delivery in &acked {
                    // For who watches how the version does.
                    self.verdict(version, delivery, Outcome::Ack { result: None });
                    self.latencies.record(&delivery.queue, now.since(delivery.enqueued_at));
                }
            }
            Ok(SettleReply::Conflict) => return Left::Conflict(acked),
            Ok(SettleReply::StaleLease) => return Left::Stale(acked),
            Ok(SettleReply::Unknown) => {
                error!(handler = %self.name, "the engine does not know its own leases");
            }
            Ok(SettleReply::Refused(refused)) => {
                let reason = format!("an emitted event cannot be published: {refused}");
                return self.refused(version, acked, reason).await;
            }
            Ok(SettleReply::StateRefused(refused)) => {
                let reason = format!("a write to the state cannot be done: {refused}");
                return self.refused(version, acked, reason).await;
            }
            // The leases end by themselves, and the entries come back.
            Err(error) => error!(handler = %self.name, %error, "cannot settle a batch"),
        }
        Left::Nothing
    }

    /// Whose effects cannot be done is not known either.
    async fn refused(&self, version: &Version, acked: Vec<Delivery>, reason: String) -> Left {
        if acked.len() > 1 {
            return Left::Failed(acked);
        }
        self.settle_alike(version, &acked, &Outcome::HostError { reason }, |_| None).await;
        Left::Nothing
    }

    async fn settle_alike(&self, version: &Version, batch: &[Delivery], outcome: &Outcome, postmortem: impl Autopsy) {
        let settle = |delivery| {
            let postmortem = postmortem(outcome);
            Settle { postmortem, ..self.verdict(version, delivery, outcome.clone()) }
        };
        let deliveries: Vec<_> = batch.iter().map(|delivery| (delivery, Some(version))).collect();
        self.settle_all(&deliveries, batch.iter().map(settle).collect()).await;
    }
}

fn member(delivery: &Delivery) -> BatchDelivery {
    BatchDelivery {
        delivery_id: delivery.entry.to_string(),
        attempt: delivery.attempt,
        max_attempts: delivery.max_attempts,
        enqueued_at: delivery.enqueued_at,
        event: delivery.event.clone(),
    }
}
