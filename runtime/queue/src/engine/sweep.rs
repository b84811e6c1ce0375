//! What happens because time passes: leases expire, entries become due, done ones are reaped. And what a crash leaves
//! behind: lost leases. Each sweep is bounded; what remains is done in the next commit.

use std::ops::ControlFlow;

use bytes::Bytes;
use gristmill_core::Outcome;

use super::Now;
use super::claim::place;
use super::keys::{DueKey, EndKey, Family, Lane, LaneKey, Meta, QueueId, ReadyKey, number_key};
use super::publish::make_ready;
use super::records::{DoneOrderRecord, EntryRecord, PlaceAt, PlaceRecord, Record};
use super::settle::conclude;
use super::state::{Lease, State};
use super::store::{Tx, View};
use crate::contract::QueueError;

/// The most entries that one sweep moves in one commit.
const SWEEP: usize = 1_000;

/// Whether a sweep left something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All there is.
    Finished,
    /// There may be more.
    More,
}

impl Progress {
    fn of(count: usize) -> Self {
        if count >= SWEEP { Self::More } else { Self::Finished }
    }
}

/// Settles leases that an earlier process held.
pub(crate) fn lost(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let mut deliveries: Vec<_> = state.leases.keys().copied().collect();
    deliveries.sort_unstable();
    deliveries.truncate(SWEEP);
    let count = deliveries.len();
    for delivery in deliveries {
        if let Some(lease) = state.leases.get(&delivery).copied() {
            end(state, tx, delivery, lease, &Outcome::Lost, now)?;
        }
    }
    Ok(Progress::of(count))
}

/// Settles leases whose time is over.
pub(crate) fn expire(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let over: Vec<_> =
        state.deadlines.iter().take_while(|(deadline, _)| *deadline <= now.monotonic).take(SWEEP).copied().collect();
    for (_, delivery) in &over {
        if let Some(lease) = state.leases.get(delivery).copied() {
            end(state, tx, *delivery, lease, &Outcome::Expired, now)?;
        }
    }
    Ok(Progress::of(over.len()))
}

/// Ends a lease by itself. One whose entry cannot be read is given up: it must not hold up the others.
fn end(
    state: &mut State,
    tx: &mut Tx<'_>,
    delivery: u64,
    lease: Lease,
    outcome: &Outcome,
    now: Now,
) -> Result<(), QueueError> {
    match conclude(state, tx, delivery, lease, (outcome, None), now) {
        Ok(_) => Ok(()),
        Err(QueueError::Corrupt(problem)) => {
            tracing::error!(delivery, problem, "a leased entry cannot be read; it is left where it is");
            state.remove_lease(delivery);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes scheduled entries ready whose time has come.
pub(crate) fn due(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    if state.next_due.is_none_or(|next| next > now.wall) {
        return Ok(Progress::Finished);
    }
    let mut found: Vec<(DueKey, Bytes)> = Vec::new();
    let mut failed = None;
    let mut next_due = None;
    tx.scan(Family::Due, &state.due_cursor, &[], &mut |key, value| {
        match DueKey::decode(key) {
            Ok(key) if key.time > now.wall || found.len() >= SWEEP => next_due = Some(key.time),
            Ok(key) => {
                found.push((key, Bytes::copy_from_slice(value)));
                return ControlFlow::Continue(());
            }
            Err(error) => failed = Some(error),
        }
        ControlFlow::Break(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    state.next_due = next_due;
    for (key, value) in &found {
        let record = EntryRecord::decode(value.clone())?;
        let line = LaneKey { queue: key.queue, priority: record.priority, lane: Lane::Normal };
        let ready = ReadyKey { line, position: state.next_number()? };
        let old = place(tx, record.number)?;
        tx.put(
            Family::Place,
            number_key(record.number),
            PlaceRecord { at: PlaceAt::Ready(ready.into()), ..old }.encode(),
        );
        tx.delete(Family::Due, key.encode());
        let queue = state.queue_mut(key.queue)?;
        queue.counts.scheduled = queue.counts.scheduled.saturating_sub(1);
        make_ready(state, tx, ready, record, now)?;
    }
    if let Some((last, _)) = found.last() {
        state.due_cursor = last.encode();
        tx.put(Family::Meta, Meta::DueCursor.encode(), state.due_cursor.clone());
    }
    Ok(Progress::of(found.len()))
}

/// Reaps done entries that are too many or too old.
pub(crate) fn retention(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let queues: Vec<_> = state.queues.iter().filter(|(_, q)| q.counts.done > 0).map(|(id, _)| *id).collect();
    let mut budget = SWEEP;
    for id in queues {
        budget -= reap(state, tx, id, budget, now)?;
    }
    Ok(if budget == 0 { Progress::More } else { Progress::Finished })
}

fn reap(state: &mut State, tx: &mut Tx<'_>, id: QueueId, budget: usize, now: Now) -> Result<usize, QueueError> {
    let queue = state.queue(id)?;
    let options = queue.options;
    let excess = usize::try_from(queue.counts.done.saturating_sub(options.done_max)).unwrap_or(usize::MAX);
    let from = EndKey { queue: id, number: queue.done_from }.encode();
    let to = super::keys::after_prefix(&id.to_be_bytes());
    let mut old = Vec::new();
    let mut failed = None;
    tx.scan(Family::DoneOrder, &from, &to, &mut |key, value| match DoneOrderRecord::decode(value) {
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
        Ok(done) => {
            let is_old = old.len() < excess || now.wall.since(done.at) >= options.done_retention;
            if old.len() >= budget || !is_old {
                return ControlFlow::Break(());
            }
            old.push((key.to_vec(), done.number));
            ControlFlow::Continue(())
        }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let Some((last, _)) = old.last() else { return Ok(0) };
    let done_from = EndKey::decode(last)?.number + 1;
    let count = old.len();
    for (order, number) in old {
        tx.delete(Family::DoneOrder, order);
        tx.delete(Family::Done, EndKey { queue: id, number }.encode());
    }
    let queue = state.queue_mut(id)?;
    queue.counts.done = queue.counts.done.saturating_sub(count as u64);
    queue.done_from = done_from;
    Ok(count)
}
