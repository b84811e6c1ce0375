//! The transition from ready to leased.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{EntryId, QueueName, Timestamp};

use super::Now;
use super::ids::EntryKey;
use super::keys::{Family, Lane, LaneKey, QueueId, ReadyKey, after_prefix, number_key};
use super::records::{EncodedEvent, EntryRecord, LaneRecord, LeaseRecord, PlaceRecord, Record};
use super::state::{Lease, State};
use super::store::{Tx, View};
use crate::contract::{LeaseToken, QueueError};

/// A delivery whose event is still encoded.
pub(crate) struct Claimed {
    pub(crate) lease: LeaseToken,
    pub(crate) lease_for: Duration,
    pub(crate) entry: EntryId,
    pub(crate) queue: QueueName,
    pub(crate) attempt: u32,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) event: EncodedEvent,
}

/// Leases up to `max` entries, in the order that guarantee 6 promises.
pub(crate) fn claim(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    max: usize,
    now: Now,
) -> Result<Vec<Claimed>, QueueError> {
    let mut claimed = Vec::new();
    for line in open_lines(state, queue)? {
        let wanted = match line.lane {
            Lane::Lost if state.lost_in_flight.is_some() => 0,
            Lane::Lost => (max - claimed.len()).min(1),
            Lane::Front | Lane::Normal => max - claimed.len(),
        };
        if wanted > 0 {
            claim_line(state, tx, line, wanted, now, &mut claimed)?;
        }
        if claimed.len() >= max {
            break;
        }
    }
    Ok(claimed)
}

/// The lines that hold ready entries, in the order of claiming.
fn open_lines(state: &State, queue: QueueId) -> Result<Vec<LaneKey>, QueueError> {
    let lanes = &state.queue(queue)?.lanes;
    let mut lines: Vec<_> = lanes.iter().filter(|(_, record)| record.ready > 0).map(|(line, _)| *line).collect();
    let rank = |lane| Lane::CLAIM_ORDER.iter().position(|other| *other == lane);
    lines.sort_by_key(|line| (std::cmp::Reverse(line.priority), rank(line.lane)));
    Ok(lines)
}

fn claim_line(
    state: &mut State,
    tx: &mut Tx<'_>,
    line: LaneKey,
    wanted: usize,
    now: Now,
    claimed: &mut Vec<Claimed>,
) -> Result<(), QueueError> {
    for (key, value) in head(tx, line, state.lane_mut(line)?, wanted)? {
        let (record, has_place, attempt) = match look(tx, key, value) {
            Ok(found) => found,
            Err(QueueError::Corrupt(problem)) => {
                tracing::error!(?key, problem, "an entry cannot be read; it is passed over and left where it is");
                pass_over(state, key)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let delivery = state.next_number()?;
        let entry = EntryKey { queue: line.queue, priority: record.priority, number: record.number };
        pass_over(state, key)?;
        let queue = state.queue_mut(line.queue)?;
        queue.counts.leased += 1;
        let options = queue.options;
        let name = queue.name.clone();
        let lease = LeaseRecord { spot: key.into(), number: record.number, attempt, claimed_at: now.wall, has_place };
        tx.put(Family::Lease, number_key(delivery), lease.encode());
        let deadline = now.monotonic.after(options.lease);
        state.add_lease(delivery, Lease { record: lease, queue: line.queue, deadline });
        if line.lane == Lane::Lost {
            state.lost_in_flight = Some(delivery);
        }
        claimed.push(Claimed {
            lease: LeaseToken { incarnation: state.incarnation, delivery },
            lease_for: options.lease,
            entry: state.entry_id(entry)?,
            queue: name,
            attempt,
            max_attempts: options.retry.max_attempts,
            enqueued_at: record.enqueued_at,
            event: record.event,
        });
    }
    Ok(())
}

/// The entry at a ready key, whether it has a place, and which attempt a claim of it would be.
fn look(view: &dyn View, key: ReadyKey, value: Bytes) -> Result<(EntryRecord, bool, u32), QueueError> {
    let record = EntryRecord::decode(value)?;
    let has_place = !is_first_spot(key, &record);
    let attempt = if has_place { place(view, record.number)?.attempts.saturating_add(1) } else { 1 };
    Ok((record, has_place, attempt))
}

/// What is at `key` is ready no longer.
fn pass_over(state: &mut State, key: ReadyKey) -> Result<(), QueueError> {
    let counts = &mut state.queue_mut(key.line.queue)?.counts;
    counts.ready = counts.ready.saturating_sub(1);
    let lane = state.lane_mut(key.line)?;
    lane.cursor = key.position + 1;
    lane.ready = lane.ready.saturating_sub(1);
    Ok(())
}

/// The first ready entries of a line. Starts at the cursor: never a scan over what was consumed.
pub(crate) fn head(
    view: &dyn View,
    line: LaneKey,
    lane: &LaneRecord,
    max: usize,
) -> Result<Vec<(ReadyKey, Bytes)>, QueueError> {
    let from = ReadyKey { line, position: lane.cursor }.encode();
    let to = after_prefix(from.get(..from.len().saturating_sub(8)).unwrap_or_default());
    let mut found = Vec::new();
    let mut failed = None;
    view.scan(Family::Ready, &from, &to, &mut |key, value| {
        match ReadyKey::decode(key) {
            Ok(key) => found.push((key, Bytes::copy_from_slice(value))),
            Err(error) => failed = Some(error),
        }
        if failed.is_some() || found.len() >= max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    failed.map_or(Ok(found), |error| Err(error.into()))
}

/// Whether an entry stands where it was put when it was published: then it has no place.
pub(crate) fn is_first_spot(key: ReadyKey, record: &EntryRecord) -> bool {
    key.position == record.number && key.line.lane == Lane::Normal && key.line.priority == record.priority
}

/// The place of an entry that must have one.
pub(crate) fn place(view: &dyn View, number: u64) -> Result<PlaceRecord, QueueError> {
    match view.get(Family::Place, &number_key(number))? {
        Some(bytes) => Ok(PlaceRecord::decode(&bytes)?),
        None => Err(QueueError::Corrupt(format!("the place of entry number {number} is missing"))),
    }
}
