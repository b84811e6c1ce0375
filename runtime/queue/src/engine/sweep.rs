//! What happens because time passes: leases expire, entries and timers become due, ended entries and log segments are
//! reaped. And what an earlier process leaves behind. Each sweep is bounded; what remains is done in the next commit.

use std::ops::ControlFlow;

use bytes::Bytes;
use gristmill_core::{Outcome, State as EntryState};

use super::Now;
use super::done;
use super::due::DueValue;
use super::keys::{DueKey, Family, Lane, Meta, QueueId};
use super::log;
use super::moves::{self, BodyOf};
use super::ordering;
use super::page::{self, Wanted};
use super::read::{self, Found};
use super::records::TimerRecord;
use super::settle::{Ending, conclude};
use super::state::State;
use super::store::{Tx, View, try_scan};
use crate::contract::{Holder, QueueError, Retention};

/// The most entries that one sweep moves in one commit.
pub(crate) const SWEEP: usize = 1_000;

/// Whether a sweep left something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All there is.
    Finished,
    /// There may be more.
    More,
}

impl Progress {
    const fn of(count: usize) -> Self {
        if count >= SWEEP { Self::More } else { Self::Finished }
    }

    /// More, if either has more.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::More { self } else { other }
    }
}

/// Settles what earlier openings of the store had in their own hands.
pub(crate) fn lost(state: &mut State, tx: &mut Tx<'_>, outcome: &Outcome, now: Now) -> Result<Progress, QueueError> {
    let incarnation = state.incarnation;
    let is_old = |holder, issued| holder == Holder::Process && issued != incarnation;
    let deliveries = state.flight.select(SWEEP, |claim, _| is_old(claim.holder, claim.incarnation));
    for delivery in &deliveries {
        end(state, tx, *delivery, outcome, now)?;
    }
    Ok(Progress::of(deliveries.len()))
}

/// Settles leases whose time is over.
pub(crate) fn expire(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let over = state.flight.expired(now.monotonic, SWEEP);
    for delivery in &over {
        end(state, tx, *delivery, &Outcome::Expired, now)?;
    }
    Ok(Progress::of(over.len()))
}

/// Ends a lease by itself. One whose entry cannot be read is given up: it must not hold up the others.
fn end(state: &mut State, tx: &mut Tx<'_>, delivery: u64, outcome: &Outcome, now: Now) -> Result<(), QueueError> {
    match conclude(state, tx, delivery, (outcome, Ending::default()), now) {
        Ok(_) => Ok(()),
        Err(QueueError::Corrupt(problem)) => {
            tracing::error!(delivery, problem, "a leased entry cannot be read; it is left where it is");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Makes scheduled entries ready whose time has come, and does what timers ask for.
pub(crate) fn due(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    if state.next_due.is_none_or(|next| next > now.wall) {
        return Ok(Progress::Finished);
    }
    let mut found: Vec<(DueKey, Bytes)> = Vec::new();
    let mut next_due = None;
    try_scan(tx, Family::Due, &state.due_cursor, &[], |key, value| {
        let key = DueKey::decode(key)?;
        if key.time > now.wall || found.len() >= SWEEP {
            next_due = Some(key.time);
            return Ok(ControlFlow::Break(()));
        }
        found.push((key, Bytes::copy_from_slice(value)));
        Ok(ControlFlow::Continue(()))
    })?;
    state.next_due = next_due;
    if let Some((last, _)) = found.last() {
        // Before anything is scheduled anew, which may set it back.
        state.due_cursor = last.encode();
        tx.put(Family::Meta, Meta::DueCursor.encode(), Bytes::copy_from_slice(&state.due_cursor));
    }
    for (key, value) in &found {
        match look(tx, state, *key, value) {
            Ok(Some(due)) => fire(state, tx, *key, due, now)?,
            Ok(None) => {}
            Err(QueueError::Corrupt(problem)) => {
                tracing::error!(?key, problem, "what is due cannot be read; it is left where it is");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Progress::of(found.len()))
}

/// What is due.
enum Due {
    Entry(Found),
    /// The entry whose life ends, if it is anywhere.
    EndOfLife(Option<Found>),
    Key(String),
    /// Its queue was deleted.
    Nothing,
}

/// Everything about it that may turn out to be unreadable, before anything is changed.
fn look(tx: &Tx<'_>, state: &State, key: DueKey, value: &Bytes) -> Result<Option<Due>, QueueError> {
    if tx.get(Family::Due, &key.encode())?.is_none() {
        // A timer before it in the same sweep has ended the entry.
        return Ok(None);
    }
    Ok(Some(match DueValue::decode(value)? {
        DueValue::Entry(record) => {
            let past = read::place(tx, record.number)?.past;
            let at = read::Whereabouts::Due(key);
            Due::Entry(Found { at, queue: key.queue, record, past, placed: true, result: None })
        }
        DueValue::Timer(_) if !state.queues.contains_key(&key.queue) => Due::Nothing,
        DueValue::Timer(TimerRecord::TimeToLive(entry)) => Due::EndOfLife(read::find(tx, state, entry)?),
        DueValue::Timer(TimerRecord::Key(name)) => Due::Key(name),
    }))
}

fn fire(state: &mut State, tx: &mut Tx<'_>, key: DueKey, due: Due, now: Now) -> Result<(), QueueError> {
    if !matches!(due, Due::Entry(_)) {
        tx.delete(Family::Due, key.encode());
    }
    match due {
        Due::Entry(found) => {
            let hand = moves::take(state, tx, found, now)?;
            let held = hand.record.key().filter(|_| hand.past.holds_key);
            match held.map(|name| ordering::again(state, tx, key.queue, name, now)).transpose()? {
                None => moves::admit(state, tx, hand, now),
                Some(None) => moves::put_ready(state, tx, hand, Lane::Normal, now),
                Some(Some(later)) => moves::put_due(state, tx, hand, later),
            }
        }
        Due::EndOfLife(Some(found)) => end_of_life(state, tx, found, now),
        Due::Key(name) => ordering::timer(state, tx, key.queue, &name, key.time, now),
        Due::EndOfLife(None) | Due::Nothing => Ok(()),
    }
}

/// An entry that nobody has ever claimed is dead.
fn end_of_life(state: &mut State, tx: &mut Tx<'_>, found: Found, now: Now) -> Result<(), QueueError> {
    let waits = matches!(found.at.state(), EntryState::Scheduled | EntryState::Waiting | EntryState::Ready);
    // Who was claimed has no deadline any more; one that is leased for the first time still has.
    if !waits || found.record.dies_at.is_none_or(|dies_at| dies_at > now.wall) {
        return Ok(());
    }
    let lived = now.wall.since(found.record.enqueued_at);
    let mut hand = moves::take(state, tx, found, now)?;
    let reason = format!("nobody claimed it within its time to live; it was {lived:?} old");
    moves::note(&mut hand.past, &Outcome::TimeToLive { reason }, now);
    moves::put_dead(state, tx, hand, now)
}

/// Whether retention has anything to look at.
pub(crate) fn has_ended(state: &State) -> bool {
    !state.log.is_empty()
        || state.queues.values().any(|queue| {
            let (counts, options) = (&queue.counts, &queue.options);
            let limited = |count: u64, retention: Retention| count > 0 && retention != Retention::default();
            limited(counts.done, options.done)
                || limited(counts.dead, options.dead)
                || limited(counts.cancelled, options.cancelled)
        })
}

/// Reaps ended entries that are too many or too old, and log segments.
pub(crate) fn retention(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let queues: Vec<_> = state.queues.iter().filter(|(_, queue)| !queue.deleting).map(|(id, _)| *id).collect();
    let mut budget = SWEEP;
    for id in queues {
        budget -= done::reap(state, tx, id, budget, now)?;
        for kind in [EntryState::Dead, EntryState::Cancelled] {
            budget -= reap_list(state, tx, id, (kind, budget), now)?;
        }
    }
    let log = log::drop_old(state, tx, now)?;
    Ok(log.and(if budget == 0 { Progress::More } else { Progress::Finished }))
}

/// How many of so many are too many.
pub(crate) fn excess(count: u64, retention: Retention) -> usize {
    let max = retention.count.unwrap_or(u64::MAX);
    usize::try_from(count.saturating_sub(max)).unwrap_or(usize::MAX)
}

fn reap_list(
    state: &mut State,
    tx: &mut Tx<'_>,
    id: QueueId,
    (kind, budget): (EntryState, usize),
    now: Now,
) -> Result<usize, QueueError> {
    let queue = state.queue(id)?;
    let (count, retention) = match kind {
        EntryState::Dead => (queue.counts.dead, queue.options.dead),
        _ => (queue.counts.cancelled, queue.options.cancelled),
    };
    if count == 0 || budget == 0 || retention == Retention::default() {
        return Ok(0);
    }
    let excess = excess(count, retention);
    let wanted = Wanted { queue: id, state: kind, limit: budget, after: None, from: queue.from };
    let part = page::page(tx, state, &wanted)?;
    let is_old = |found: &Found| retention.age.is_some_and(|age| now.wall.since(found.record.at) >= age);
    let old: Vec<_> =
        part.found.into_iter().enumerate().take_while(|(i, found)| *i < excess || is_old(found)).collect();
    let reaped = old.len();
    for (_, found) in old {
        let at = found.at;
        let hand = moves::take(state, tx, found, now)?;
        moves::forget(state, tx, &hand, BodyOf::Entry, now)?;
        let from = &mut state.queue_mut(id)?.from;
        match at {
            read::Whereabouts::Dead(key) => from.dead = key.position + 1,
            read::Whereabouts::Cancelled(key) => from.cancelled = key.position + 1,
            _ => {}
        }
    }
    Ok(reaped)
}
