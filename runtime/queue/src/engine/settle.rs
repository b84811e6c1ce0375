//! The transitions out of leased: done, scheduled, ready again, or dead.

use std::time::Duration;

use gristmill_core::{Attempt, Disposition, Outcome, Postmortem};

use super::Now;
use super::flight::Lease;
use super::keys::{EndKey, Family, Lane};
use super::kv::{Checked, MAX_CONFLICTS};
use super::moves::{self, InHand};
use super::publish::{self, Admission, Prepared};
use super::records::{DoneOrderRecord, Record};
use super::state::State;
use super::store::Tx;
use crate::contract::{Acked, LeaseToken, PublishError, QueueError, SettleReply, Transaction};

/// A settlement whose emitted events were validated and encoded outside the writer.
pub(crate) struct PreparedSettle {
    pub(crate) lease: LeaseToken,
    pub(crate) outcome: Outcome,
    pub(crate) version: Option<String>,
    pub(crate) forgive: Option<Duration>,
    pub(crate) postmortem: Option<Box<Postmortem>>,
    pub(crate) emits: Result<Vec<Prepared>, PublishError>,
    pub(crate) transaction: Option<Transaction>,
    /// Acked together with it.
    pub(crate) with: Vec<Acked>,
}

impl PreparedSettle {
    pub(crate) const fn new(lease: LeaseToken, outcome: Outcome) -> Self {
        Self {
            lease,
            outcome,
            version: None,
            forgive: None,
            postmortem: None,
            emits: Ok(Vec::new()),
            transaction: None,
            with: Vec::new(),
        }
    }
}

/// Settles what `request.lease` proves, if it is still held.
pub(crate) fn settle(
    state: &mut State,
    tx: &mut Tx<'_>,
    request: PreparedSettle,
    now: Now,
) -> Result<SettleReply, QueueError> {
    let Some(lease) = state.flight.get(request.lease) else { return Ok(not_held(state, request.lease)) };
    let (queue, delivery) = (lease.queue(), request.lease.delivery);
    for other in &request.with {
        if state.flight.get(other.lease).is_none() {
            return Ok(not_held(state, other.lease));
        }
    }
    if !matches!(request.outcome, Outcome::Ack { .. }) {
        let PreparedSettle { version, postmortem, forgive, .. } = request;
        let ending = Ending { version, postmortem, forgive };
        return conclude(state, tx, delivery, (&request.outcome, ending), now).map(SettleReply::Settled);
    }
    let emits = match request.emits {
        Ok(emits) => emits,
        Err(refused) => return Ok(SettleReply::Refused(refused)),
    };
    // Everything that can be refused is asked before anything is changed.
    for emit in &emits {
        if let Err(refused) = publish::decide(state, tx, emit, Admission::Emitted, now)? {
            return Ok(SettleReply::Refused(refused));
        }
    }
    let entries: u64 = emits.iter().map(|emit| emit.targets.len() as u64 * 4 + 4).sum();
    let acked = request.with.len() as u64 + 1;
    if state.numbers_left() <= entries + acked * 8 {
        return Err(QueueError::InvalidRequest("too many emitted events in one settlement".to_owned()));
    }
    let plan = match &request.transaction {
        None => None,
        Some(transaction) => match state.buckets.check(tx, transaction, Some(delivery))? {
            Checked::Planned(plan) => Some(plan),
            Checked::Refused(refused) => return Ok(SettleReply::StateRefused(refused)),
            Checked::Conflict => {
                conflicted(state, request.lease, transaction);
                return Ok(SettleReply::Conflict);
            }
        },
    };
    let disposition = conclude(state, tx, delivery, (&request.outcome, Ending::of(request.version.clone())), now)?;
    for Acked { lease, result } in request.with {
        state.woken.extend(state.flight.get(lease).map(Lease::queue));
        conclude(state, tx, lease.delivery, (&Outcome::Ack { result }, Ending::of(request.version.clone())), now)?;
    }
    for emit in emits {
        // One that another emit of the same settlement repeats is a duplicate, which is no reason to stop.
        if let Err(refused) = publish::publish(state, tx, emit, Admission::Emitted, now)? {
            tracing::warn!(%refused, "an emitted event repeats another of the same settlement, and was dropped");
        }
    }
    if let Some(plan) = plan {
        state.buckets.apply(tx, plan)?;
    }
    state.woken.insert(queue);
    Ok(SettleReply::Settled(disposition))
}

fn not_held(state: &mut State, token: LeaseToken) -> SettleReply {
    if state.was_issued(token) { SettleReply::StaleLease } else { SettleReply::Unknown }
}

/// Something that the delivery read has changed. After the third time, it has its buckets to itself.
fn conflicted(state: &mut State, token: LeaseToken, transaction: &Transaction) {
    let Some(lease) = state.flight.get_mut(token) else { return };
    lease.conflicts += 1;
    if lease.conflicts >= MAX_CONFLICTS {
        state.buckets.reserve(transaction, token.delivery);
    }
}

/// What is kept of a delivery besides its outcome.
#[derive(Default)]
pub(crate) struct Ending {
    pub(crate) version: Option<String>,
    pub(crate) postmortem: Option<Box<Postmortem>>,
    /// The attempt is not spent; the entry comes back after so long.
    pub(crate) forgive: Option<Duration>,
}

impl Ending {
    fn of(version: Option<String>) -> Self {
        Self { version, ..Self::default() }
    }
}

/// Ends a delivery with `outcome`, by the queue's retry policy. Also for leases that expired or were lost.
pub(crate) fn conclude(
    state: &mut State,
    tx: &mut Tx<'_>,
    delivery: u64,
    (outcome, ending): (&Outcome, Ending),
    now: Now,
) -> Result<Disposition, QueueError> {
    let Ending { version, postmortem, forgive } = ending;
    let Some(lease) = state.remove_lease(tx, delivery) else {
        return Err(QueueError::Corrupt(format!("delivery {delivery} is missing")));
    };
    let Lease { key, record, past, attempt, claimed_at, .. } = lease;
    let queue = key.line.queue;
    // Who shall be alone stays alone.
    let back = if key.line.lane.is_lost() { Lane::Lost } else { Lane::Front };
    if state.queue(queue)?.is_at_its_limit() {
        state.woken.insert(queue);
    }
    let policy = state.queue(queue)?.options.retry;
    let mut disposition = match forgive {
        Some(after) => Disposition::of_forgiven(after),
        None => policy.decide(attempt, outcome, rand::random()),
    };
    let mut hand = moves::take_leased(state, tx, key, (record, past))?;
    hand.past.forgiven = hand.past.forgiven.saturating_add(u32::from(forgive.is_some()));
    // A release says that nobody has handled it.
    if disposition != Disposition::Release || forgive.is_some() {
        hand.past.history.push(Attempt {
            attempt,
            outcome: outcome.kind(),
            reason: outcome.reason().map(str::to_owned),
            version,
            started_at: claimed_at,
            duration: now.wall.since(claimed_at),
            forgiven: forgive.is_some(),
        });
    }
    match disposition {
        Disposition::Complete => {
            state.queue_mut(queue)?.totals.acked += 1;
            hand.past.attempts = attempt;
            let result = match outcome {
                Outcome::Ack { result } => result.clone(),
                _ => None,
            };
            moves::put_done(state, tx, hand, result, now)?;
        }
        Disposition::DeadLetter => {
            hand.past.attempts = attempt;
            hand.past.postmortem = postmortem;
            moves::put_dead(state, tx, hand, now)?;
        }
        Disposition::Release => moves::put_ready(state, tx, hand, back, now)?,
        Disposition::Retry(delay) | Disposition::Defer(delay) => {
            let counts = matches!(disposition, Disposition::Retry(_));
            if counts {
                hand.past.attempts = attempt;
            }
            if let Some(max_age) = exceeded_age(state, &hand, delay, now)? {
                let reason = format!("the next attempt would begin after the maximum age of {max_age:?}");
                moves::note(&mut hand.past, &Outcome::MaxAge { reason }, now);
                hand.past.postmortem = postmortem;
                moves::put_dead(state, tx, hand, now)?;
                disposition = Disposition::DeadLetter;
            } else {
                let totals = &mut state.queue_mut(queue)?.totals;
                *(if counts { &mut totals.retried } else { &mut totals.deferred }) += 1;
                if delay.is_zero() && *outcome == Outcome::Lost {
                    moves::put_ready(state, tx, hand, Lane::Lost, now)?;
                } else {
                    moves::put_due(state, tx, hand, now.wall.after(delay))?;
                }
            }
        }
    }
    Ok(disposition)
}

/// The maximum age, if an attempt after this delay would begin later than that.
fn exceeded_age(state: &State, hand: &InHand, delay: Duration, now: Now) -> Result<Option<Duration>, QueueError> {
    let born = hand.past.redriven_at.unwrap_or(hand.record.enqueued_at);
    let age = now.wall.after(delay).since(born);
    Ok(state.queue(hand.queue)?.options.max_age.filter(|max_age| age > *max_age))
}

/// Adds what this commit completed to the order of completion.
pub(crate) fn note_done(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<(), QueueError> {
    for (queue, numbers) in std::mem::take(&mut state.effects.done) {
        // A queue may have been deleted in the same commit.
        if state.queues.contains_key(&queue) {
            let key = EndKey { queue, position: state.next_number()? };
            tx.put(Family::DoneOrder, key.encode(), DoneOrderRecord { at: now.wall, numbers }.encode());
        }
    }
    Ok(())
}
