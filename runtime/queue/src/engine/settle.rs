//! The transitions out of leased: done, scheduled, ready again, or dead.

use std::time::Duration;

use gristmill_core::{Attempt, Disposition, Outcome};

use super::Now;
use super::claim::place;
use super::keys::{DueKey, EndKey, Family, Lane, LaneKey, ReadyKey, number_key};
use super::publish::{self, Prepared};
use super::records::{DoneOrderRecord, EndRecord, EntryRecord, PlaceAt, PlaceRecord, Record};
use super::state::{Lease, State};
use super::store::{Tx, View};
use crate::contract::{LeaseToken, PublishError, QueueError, SettleReply};

/// A settlement whose emitted events were validated and encoded outside the writer.
pub(crate) struct PreparedSettle {
    pub(crate) lease: LeaseToken,
    pub(crate) outcome: Outcome,
    pub(crate) version: Option<String>,
    pub(crate) emits: Result<Vec<Prepared>, PublishError>,
}

/// Settles what `request.lease` proves, if it is still held.
pub(crate) fn settle(
    state: &mut State,
    tx: &mut Tx<'_>,
    request: PreparedSettle,
    now: Now,
) -> Result<SettleReply, QueueError> {
    let Some(lease) = state.lease(request.lease) else { return Ok(SettleReply::StaleLease) };
    let emits = match (&request.outcome, request.emits) {
        (Outcome::Ack { .. }, Ok(emits)) => emits,
        (Outcome::Ack { .. }, Err(refused)) => return Ok(SettleReply::Refused(refused)),
        _ => Vec::new(),
    };
    let mut entries = 0;
    for emit in &emits {
        match publish::targets(state, &emit.queues) {
            Ok(targets) => entries += targets.len() as u64,
            Err(refused) => return Ok(SettleReply::Refused(refused)),
        }
    }
    if state.numbers_left() <= entries {
        return Err(QueueError::InvalidRequest("too many emitted events in one settlement".to_owned()));
    }
    let disposition =
        conclude(state, tx, request.lease.delivery, lease, (&request.outcome, request.version.as_deref()), now)?;
    for emit in emits {
        // Checked above: nothing can refuse it now.
        let _ = publish::publish(state, tx, emit, now)?;
    }
    Ok(SettleReply::Settled(disposition))
}

/// Ends a delivery with `outcome`, by the queue's retry policy. Also for leases that expired or were lost.
pub(crate) fn conclude(
    state: &mut State,
    tx: &mut Tx<'_>,
    delivery: u64,
    lease: Lease,
    (outcome, version): (&Outcome, Option<&str>),
    now: Now,
) -> Result<Disposition, QueueError> {
    let old = ReadyKey::try_from(lease.record.spot)?;
    let old_bytes = old.encode();
    let Some(bytes) = tx.get(Family::Ready, &old_bytes)? else {
        return Err(QueueError::Corrupt(format!("the entry of delivery {delivery} is missing")));
    };
    let record = EntryRecord::decode(bytes)?;
    let mut history = if lease.record.has_place { place(tx, record.number)?.history } else { Default::default() };
    let policy = state.queue(lease.queue)?.options.retry;
    let attempt = lease.record.attempt;
    let disposition = policy.decide(attempt, outcome, rand::random());
    // Everything that can fail has been read; from here on only writes.
    let fresh = state.next_number()?;
    tx.delete(Family::Ready, old_bytes);
    tx.delete(Family::Lease, number_key(delivery));
    if disposition != Disposition::Release {
        history.push(Attempt {
            attempt,
            outcome: outcome.kind(),
            reason: outcome.reason().map(str::to_owned),
            version: version.map(str::to_owned),
            started_at: lease.record.claimed_at,
            duration: now.wall.since(lease.record.claimed_at),
        });
    }
    let queue = state.queue_mut(lease.queue)?;
    queue.counts.leased = queue.counts.leased.saturating_sub(1);
    let moved = Moved { record, history, lease, fresh };
    match disposition {
        Disposition::Complete => complete(state, tx, moved, outcome, now)?,
        Disposition::DeadLetter => bury(state, tx, moved, attempt, now)?,
        Disposition::Release => {
            // Who shall be alone stays alone.
            let lane = if old.line.lane == Lane::Lost { Lane::Lost } else { Lane::Front };
            again(state, tx, moved, lane, attempt.saturating_sub(1), now)?;
        }
        Disposition::Retry(delay) => {
            state.queue_mut(lease.queue)?.totals.retried += 1;
            match delay {
                Duration::ZERO if *outcome == Outcome::Lost => again(state, tx, moved, Lane::Lost, attempt, now)?,
                delay => later(state, tx, moved, delay, attempt, now)?,
            }
        }
        Disposition::Defer(delay) => {
            state.queue_mut(lease.queue)?.totals.deferred += 1;
            later(state, tx, moved, delay, attempt.saturating_sub(1), now)?;
        }
    }
    state.remove_lease(delivery);
    Ok(disposition)
}

/// An entry on its way out of leased.
struct Moved {
    record: EntryRecord,
    history: gristmill_core::History,
    lease: Lease,
    /// A number for its new position.
    fresh: u64,
}

fn complete(state: &mut State, tx: &mut Tx<'_>, moved: Moved, outcome: &Outcome, now: Now) -> Result<(), QueueError> {
    let number = moved.record.number;
    let key = EndKey { queue: moved.lease.queue, number };
    let order = EndKey { queue: moved.lease.queue, number: moved.fresh };
    let result = match outcome {
        Outcome::Ack { result } => result.as_ref().map(|bytes| bytes.to_vec()),
        _ => None,
    };
    // One that cannot be taken apart is kept whole.
    let header = moved.record.event.without_data().unwrap_or_else(|_| moved.record.event.clone());
    let header = EntryRecord { at: now.wall, event: header, ..moved.record };
    let end =
        EndRecord { entry: header.encode(), attempts: moved.lease.record.attempt, history: moved.history, result };
    tx.put(Family::Done, key.encode(), end.encode());
    tx.put(Family::DoneOrder, order.encode(), DoneOrderRecord { number, at: now.wall }.encode());
    forget_place(tx, &moved.lease, number);
    let queue = state.queue_mut(moved.lease.queue)?;
    queue.counts.done += 1;
    queue.totals.acked += 1;
    Ok(())
}

fn bury(state: &mut State, tx: &mut Tx<'_>, moved: Moved, attempts: u32, now: Now) -> Result<(), QueueError> {
    let number = moved.record.number;
    let record = EntryRecord { at: now.wall, ..moved.record };
    let end = EndRecord { entry: record.encode(), attempts, history: moved.history, result: None };
    tx.put(Family::Dead, EndKey { queue: moved.lease.queue, number }.encode(), end.encode());
    forget_place(tx, &moved.lease, number);
    let queue = state.queue_mut(moved.lease.queue)?;
    queue.counts.dead += 1;
    queue.totals.dead_lettered += 1;
    Ok(())
}

fn again(
    state: &mut State,
    tx: &mut Tx<'_>,
    moved: Moved,
    lane: Lane,
    attempts: u32,
    now: Now,
) -> Result<(), QueueError> {
    let line = LaneKey { queue: moved.lease.queue, priority: moved.record.priority, lane };
    let key = ReadyKey { line, position: moved.fresh };
    let place = PlaceRecord { at: PlaceAt::Ready(key.into()), attempts, history: moved.history };
    tx.put(Family::Place, number_key(moved.record.number), place.encode());
    publish::make_ready(state, tx, key, moved.record, now)
}

fn later(
    state: &mut State,
    tx: &mut Tx<'_>,
    moved: Moved,
    delay: Duration,
    attempts: u32,
    now: Now,
) -> Result<(), QueueError> {
    let key = DueKey { time: now.wall.after(delay), queue: moved.lease.queue, position: moved.fresh };
    let place = PlaceRecord { at: key.into(), attempts, history: moved.history };
    tx.put(Family::Place, number_key(moved.record.number), place.encode());
    publish::schedule(state, tx, key, moved.record)
}

fn forget_place(tx: &mut Tx<'_>, lease: &Lease, number: u64) {
    if lease.record.has_place {
        tx.delete(Family::Place, number_key(number));
    }
}
