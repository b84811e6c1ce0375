//! The transition from ready to leased.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Attempt, Outcome, OutcomeKind, Pattern, Timestamp};

use super::Now;
use super::chunk::Chunk;
use super::entry::{EntryRecord, shared_key};
use super::event::EncodedEvent;
use super::flight::Lease;
use super::ids::EntryKey;
use super::keys::{Family, Lane, LaneKey, QueueId, ReadyKey, number_key};
use super::line::Line;
use super::moves;
use super::page::{MAX_EXAMINED, line_range};
use super::read::past;
use super::records::{ClaimRecord, LeaseRecord, Past, PlaceRecord, Record};
use super::state::State;
use super::store::{Tx, View, try_scan};
use crate::contract::{Holder, LeaseToken, QueueError, Then};

/// What to claim.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) max: usize,
    pub(crate) types: Vec<Pattern>,
    pub(crate) lease: Option<Duration>,
    pub(crate) holder: Holder,
    pub(crate) then: Then,
    /// Goes through a pause for this reason.
    pub(crate) through: Option<String>,
}

/// A delivery whose event is still encoded.
pub(crate) struct Claimed {
    pub(crate) lease: LeaseToken,
    pub(crate) lease_for: Duration,
    pub(crate) entry: EntryKey,
    pub(crate) attempt: u32,
    pub(crate) forgiven: u32,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) key: Option<Arc<str>>,
    pub(crate) event: EncodedEvent,
    /// The data that lives apart, of an entry that is done by now.
    pub(crate) body: Option<Bytes>,
}

/// How far filtered claims have looked, by queue and filter. Entries only join a line at its end, so that what did not
/// match once need not be looked at again.
#[derive(Debug, Default)]
pub(crate) struct FilterCursors(HashMap<(QueueId, Vec<String>), FilterCursor>);

/// How far the claims with one filter have looked.
#[derive(Debug, Default)]
struct FilterCursor {
    lines: BTreeMap<LaneKey, u64>,
    /// The last one stopped because it had looked at enough.
    stopped: bool,
}

impl FilterCursors {
    /// Filters that are remembered.
    const MAX: usize = 256;

    fn name(queue: QueueId, types: &[Pattern]) -> (QueueId, Vec<String>) {
        (queue, types.iter().map(|pattern| pattern.as_str().to_owned()).collect())
    }

    /// Whether another look with this filter may find what the last one did not come to. Said once for each look: a
    /// claim that may not look at all, because the queue is paused or at a limit, must not be woken again and again.
    pub(crate) fn take_stopped(&mut self, queue: QueueId, types: &[Pattern]) -> bool {
        let cursor = if types.is_empty() { None } else { self.0.get_mut(&Self::name(queue, types)) };
        cursor.is_some_and(|cursor| std::mem::take(&mut cursor.stopped))
    }

    fn of(&mut self, queue: QueueId, types: &[Pattern]) -> &mut FilterCursor {
        let filter = Self::name(queue, types);
        if self.0.len() >= Self::MAX && !self.0.contains_key(&filter) {
            // Forgetting costs another look, nothing else.
            self.0.clear();
        }
        self.0.entry(filter).or_default()
    }
}

/// An entry that is about to be leased.
struct Picked {
    key: ReadyKey,
    record: EntryRecord,
    past: Option<Past>,
}

impl Picked {
    /// It was lost in a crash, and is handled while no other such entry is.
    const fn is_alone(&self) -> bool {
        self.key.line.lane.is_lost()
    }
}

/// Leases up to `max` entries, in the order that guarantee 6 promises.
pub(crate) fn claim(
    state: &mut State,
    tx: &mut Tx<'_>,
    filters: &mut FilterCursors,
    queue: QueueId,
    request: &Request,
    now: Now,
) -> Result<Vec<Claimed>, QueueError> {
    let max = request.max.min(state.queue(queue)?.allowance(now.monotonic));
    if max == 0 || state.queue(queue)?.keeps_out(request.through.as_deref()) {
        return Ok(Vec::new());
    }
    let picked = if request.types.is_empty() {
        pick_first(state, tx, queue, max)?
    } else {
        pick_matching(state, tx, filters.of(queue, &request.types), queue, (request, max))?
    };
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let queue_state = state.queue_mut(queue)?;
    queue_state.spend(picked.len(), now.monotonic);
    let count = picked.len() as u64;
    queue_state.counts.ready = queue_state.counts.ready.saturating_sub(count);
    queue_state.counts.leased += count;
    let first = state.next_numbers(count)?;
    match request.then {
        Then::Lease => lease(state, tx, queue, (request, first), picked, now),
        Then::Ack => ack(state, tx, queue, first, picked, now),
    }
}

/// The first entries of the queue's lines.
fn pick_first(state: &mut State, tx: &Tx<'_>, queue: QueueId, max: usize) -> Result<Vec<Picked>, QueueError> {
    let mut picked = Vec::new();
    for line in open_lines(state, queue)? {
        let wanted = match line.lane {
            Lane::Lost if state.lost_in_flight.is_some() || picked.iter().any(Picked::is_alone) => 0,
            Lane::Lost => (max - picked.len()).min(1),
            _ => max - picked.len(),
        };
        let before = picked.len();
        while picked.len() - before < wanted {
            let line_state = state.line_mut(line)?;
            if line_state.window.is_empty() && !refill(tx, line, line_state, wanted)? {
                break;
            }
            let Some((position, value)) = line_state.pop() else { break };
            picked.extend(look(tx, ReadyKey { line, position }, value, &mut state.queue_mut(queue)?.counts.ready)?);
        }
        if picked.len() >= max {
            break;
        }
    }
    Ok(picked)
}

/// Reads the first entries of a line into memory. Starts at the cursor: never a scan over what was consumed. False:
/// there are none.
fn refill(tx: &Tx<'_>, line: LaneKey, state: &mut Line, wanted: usize) -> Result<bool, QueueError> {
    if state.record.ready == 0 {
        return Ok(false);
    }
    let (from, to) = line_range(line, state.record.cursor);
    let mut chunk = Chunk::default();
    let mut room = state.room().max(wanted);
    try_scan(tx, Family::Ready, &from, &to, |key, value| {
        state.remember(ReadyKey::decode(key)?.position, chunk.copy(value));
        room -= 1;
        let more = room > 0 && (state.has_room() || state.window.len() < wanted);
        Ok(if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(!state.window.is_empty())
}

/// The entry at a ready key, with its past; `None`: it cannot be read, and is passed over.
fn look(view: &dyn View, key: ReadyKey, value: Bytes, ready: &mut u64) -> Result<Option<Picked>, QueueError> {
    let looked = EntryRecord::decode(value).map_err(QueueError::from).and_then(|record| {
        let past = past(view, key, &record)?;
        Ok(Picked { key, record, past })
    });
    match looked {
        Ok(picked) => Ok(Some(picked)),
        Err(QueueError::Corrupt(problem)) => {
            tracing::error!(?key, problem, "an entry cannot be read; it is passed over and left where it is");
            *ready = ready.saturating_sub(1);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The lines that hold ready entries, in the order of claiming.
fn open_lines(state: &State, queue: QueueId) -> Result<Vec<LaneKey>, QueueError> {
    let lanes = &state.queue(queue)?.lanes;
    let mut lines: Vec<_> = lanes.iter().filter(|(_, line)| line.record.ready > 0).map(|(line, _)| *line).collect();
    let rank = |lane| Lane::CLAIM_ORDER.iter().position(|other| *other == lane);
    lines.sort_by_key(|line| (std::cmp::Reverse(line.priority), rank(line.lane)));
    Ok(lines)
}

/// The first entries whose type matches. They move to a line of their own, so that what is behind a line's cursor is
/// leased, and what is before it is not.
fn pick_matching(
    state: &mut State,
    tx: &mut Tx<'_>,
    cursor: &mut FilterCursor,
    queue: QueueId,
    (request, max): (&Request, usize),
) -> Result<Vec<Picked>, QueueError> {
    let FilterCursor { lines: cursors, stopped } = cursor;
    *stopped = false;
    let mut picked = Vec::new();
    let mut examined = 0;
    for line in open_lines(state, queue)? {
        let is_lost = line.lane.is_lost();
        if is_lost && (state.lost_in_flight.is_some() || picked.iter().any(Picked::is_alone)) {
            continue;
        }
        let wanted = if is_lost { 1 } else { max - picked.len() };
        let start = state.line_mut(line)?.record.cursor.max(cursors.get(&line).copied().unwrap_or(0));
        let (from, to) = line_range(line, start);
        let mut found = Vec::new();
        let mut next = start;
        try_scan(tx, Family::Ready, &from, &to, |key, value| {
            if found.len() >= wanted || examined >= MAX_EXAMINED {
                return Ok(ControlFlow::Break(()));
            }
            examined += 1;
            let (key, matched) = matching(key, value, &request.types)?;
            next = key.position + 1;
            found.extend(matched.map(|record| (key, record)));
            Ok(ControlFlow::Continue(()))
        })?;
        if !is_lost {
            cursors.insert(line, next);
        }
        for (key, record) in found {
            match set_aside(state, tx, key, record) {
                Ok(aside) => picked.push(aside),
                Err(QueueError::Corrupt(problem)) => {
                    tracing::error!(?key, problem, "an entry cannot be read; it is passed over and left where it is");
                }
                Err(error) => return Err(error),
            }
        }
        if picked.len() >= max || examined >= MAX_EXAMINED {
            *stopped = examined >= MAX_EXAMINED;
            break;
        }
    }
    Ok(picked)
}

fn matching(key: &[u8], value: &[u8], types: &[Pattern]) -> Result<(ReadyKey, Option<EntryRecord>), QueueError> {
    let key = ReadyKey::decode(key)?;
    let record = match EntryRecord::decode(Bytes::copy_from_slice(value)) {
        Ok(record) => record,
        Err(error) => {
            tracing::error!(?key, %error, "an entry cannot be read; it is passed over and left where it is");
            return Ok((key, None));
        }
    };
    let matches = record.event.head().is_ok_and(|head| types.iter().any(|pattern| pattern.matches(head.ty)));
    Ok((key, matches.then_some(record)))
}

fn set_aside(state: &mut State, tx: &mut Tx<'_>, key: ReadyKey, record: EntryRecord) -> Result<Picked, QueueError> {
    let past = past(tx, key, &record)?.unwrap_or_default();
    state.line_mut(key.line)?.left(key.position);
    tx.delete(Family::Ready, key.encode());
    let line = LaneKey { lane: key.line.lane.aside(), ..key.line };
    let aside = ReadyKey { line, position: state.next_number()? };
    state.line_mut(line)?.record.cursor = aside.position + 1;
    tx.put(Family::Ready, aside.encode(), record.encode());
    tx.put(Family::Place, number_key(record.number), PlaceRecord { at: aside.into(), past: past.clone() }.encode());
    Ok(Picked { key: aside, record, past: Some(past) })
}

fn lease(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    (request, first): (&Request, u64),
    picked: Vec<Picked>,
    now: Now,
) -> Result<Vec<Claimed>, QueueError> {
    let queue_state = state.queue(queue)?;
    let max_attempts = queue_state.options.retry.max_attempts;
    let lease_for = request.lease.unwrap_or(queue_state.options.lease);
    let deadline = now.monotonic.after(lease_for);
    match request.holder {
        Holder::Process => {
            let record = ClaimRecord::new(now.wall, picked.iter().map(|picked| picked.key));
            tx.put(Family::Claim, number_key(first), record.encode());
        }
        Holder::Outside => {
            for (delivery, picked) in (first..).zip(&picked) {
                let record = LeaseRecord {
                    line: picked.key.line.into(),
                    position: picked.key.position,
                    incarnation: state.incarnation,
                    claimed_at: now.wall,
                    deadline: now.wall.after(lease_for),
                };
                tx.put(Family::Lease, number_key(delivery), record.encode());
            }
        }
    }
    let mut claimed = Vec::with_capacity(picked.len());
    let mut leases = Vec::with_capacity(picked.len());
    for (delivery, picked) in (first..).zip(picked) {
        if picked.is_alone() {
            state.lost_in_flight = Some(delivery);
        }
        let attempt = picked.past.as_ref().map_or(0, |past| past.attempts).saturating_add(1);
        let entry = picked.record.key_in(queue);
        claimed.push(Claimed {
            lease: LeaseToken { incarnation: state.incarnation, delivery },
            lease_for,
            entry,
            attempt,
            forgiven: picked.past.as_ref().map_or(0, |past| past.forgiven),
            max_attempts,
            enqueued_at: picked.record.enqueued_at,
            key: shared_key(picked.record.key()),
            event: picked.record.event.clone(),
            body: None,
        });
        let Picked { key, record, past, .. } = picked;
        leases.push(Some(Lease { key, record, past, attempt, claimed_at: now.wall, deadline, conflicts: 0 }));
    }
    match request.holder {
        Holder::Process => state.flight.add(first, state.incarnation, Holder::Process, leases),
        Holder::Outside => {
            for (delivery, lease) in (first..).zip(leases) {
                state.flight.add(delivery, state.incarnation, Holder::Outside, vec![lease]);
            }
        }
    }
    Ok(claimed)
}

/// Done at once, in the commit that claims them.
fn ack(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    first: u64,
    picked: Vec<Picked>,
    now: Now,
) -> Result<Vec<Claimed>, QueueError> {
    let mut claimed = Vec::with_capacity(picked.len());
    for (delivery, Picked { key, record, past, .. }) in (first..).zip(picked) {
        let attempt = past.as_ref().map_or(0, |past| past.attempts).saturating_add(1);
        // The body may be gone before the claimant reads it.
        let body = match super::body::load(tx, &record.event) {
            Ok(body) => body,
            Err(QueueError::Corrupt(problem)) => {
                let mut hand = moves::take_leased(state, tx, key, (record, past))?;
                let reason = format!("the stored event cannot be read: {problem}");
                moves::note(&mut hand.past, &Outcome::Reject { reason }, now);
                moves::put_dead(state, tx, hand, now)?;
                continue;
            }
            Err(error) => return Err(error),
        };
        state.queue_mut(queue)?.totals.acked += 1;
        claimed.push(Claimed {
            lease: LeaseToken { incarnation: state.incarnation, delivery },
            lease_for: Duration::ZERO,
            entry: record.key_in(queue),
            attempt,
            forgiven: past.as_ref().map_or(0, |past| past.forgiven),
            max_attempts: state.queue(queue)?.options.retry.max_attempts,
            enqueued_at: record.enqueued_at,
            key: shared_key(record.key()),
            event: record.event.clone(),
            body,
        });
        let mut hand = moves::take_leased(state, tx, key, (record, past))?;
        hand.past.attempts = attempt;
        hand.past.history.push(Attempt {
            attempt,
            outcome: OutcomeKind::Ack,
            reason: None,
            version: None,
            started_at: now.wall,
            duration: Duration::ZERO,
            forgiven: false,
        });
        moves::put_done(state, tx, hand, None, now)?;
    }
    Ok(claimed)
}
