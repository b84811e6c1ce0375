//! Ordering keys: who of a key may be handled, and who waits behind.
//!
//! A key that is in use has one record: how many of its entries are busy (ready, leased, or between two attempts), how
//! many wait, and which dead letters hold it. A key that nobody uses has none, unless its rate must be remembered; then
//! a timer removes it.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::Timestamp;

use super::Now;
use super::entry::EntryRecord;
use super::ids::EntryKey;
use super::keys::{DueKey, Family, QueueId, WaitingKey, named_key};
use super::moves::{self, InHand};
use super::records::{KeyRecord, Record, TimerRecord};
use super::state::State;
use super::store::{Tx, View};
use super::sweep::SWEEP;
use crate::contract::{KeyOptions, QueueError, Rate};

/// How far ahead a rate's memory is believed: what lies further is left over from another clock.
const MAX_RATE_AHEAD: Duration = Duration::from_secs(24 * 3_600);

/// What an entry that joins its key has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It may be handled.
    Ready,
    /// It waits there.
    Waits(WaitingKey),
}

/// An entry joins its key at position `position`, behind all others.
pub(crate) fn join(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    position: u64,
    now: Now,
) -> Result<Joined, QueueError> {
    let mut record = match read(tx, queue, key)? {
        Some(record) => record,
        None => KeyRecord::new(state.next_number()?),
    };
    let options = state.queue(queue)?.options.key.clone();
    let steady = state.steady(now);
    let joined = if record.waiting == 0 && may_go(&record, &options, steady) {
        go(&mut record, &options, steady);
        Joined::Ready
    } else {
        if record.waiting == 0 {
            record.from = position;
        }
        record.waiting += 1;
        Joined::Waits(WaitingKey { queue, key: record.id, position })
    };
    settle_down(state, tx, queue, key, record, now)?;
    Ok(joined)
}

/// A busy entry of the key is busy no longer; the next ones go.
pub(crate) fn leave(state: &mut State, tx: &mut Tx<'_>, queue: QueueId, key: &str, now: Now) -> Result<(), QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(()) };
    record.busy = record.busy.saturating_sub(1);
    advance(state, tx, queue, key, record, now)
}

/// A busy entry of the key died, and holds it.
pub(crate) fn hold(tx: &mut Tx<'_>, key: &str, entry: EntryKey, queue: QueueId) -> Result<(), QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(()) };
    record.busy = record.busy.saturating_sub(1);
    record.held_by.push(entry);
    write(tx, queue, key, &record);
    Ok(())
}

/// A dead letter that holds the key is busy again.
pub(crate) fn resume(tx: &mut Tx<'_>, key: &str, entry: EntryKey, queue: QueueId) -> Result<(), QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(()) };
    record.held_by.retain(|held| *held != entry);
    record.busy += 1;
    write(tx, queue, key, &record);
    Ok(())
}

/// A dead letter that held the key is ready again: where several may go at a time, others may have a place beside it.
pub(crate) fn resumed(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    now: Now,
) -> Result<(), QueueError> {
    let Some(record) = read(tx, queue, key)? else { return Ok(()) };
    advance(state, tx, queue, key, record, now)
}

/// No dead letter holds the key any more; those that did.
pub(crate) fn free(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    now: Now,
) -> Result<Vec<EntryKey>, QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(Vec::new()) };
    let freed = std::mem::take(&mut record.held_by);
    advance(state, tx, queue, key, record, now)?;
    Ok(freed)
}

/// An entry that waited has gone elsewhere.
pub(crate) fn left_waiting(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    now: Now,
) -> Result<(), QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(()) };
    record.waiting = record.waiting.saturating_sub(1);
    settle_down(state, tx, queue, key, record, now)
}

/// A timer of the key is due.
pub(crate) fn timer(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    at: Timestamp,
    now: Now,
) -> Result<(), QueueError> {
    let Some(mut record) = read(tx, queue, key)? else { return Ok(()) };
    if record.timer == Some(at) {
        record.timer = None;
    }
    advance(state, tx, queue, key, record, now)
}

/// An entry that holds the key is to be handled again. The time when the key's rate allows that; `None`: now, and it is
/// counted.
pub(crate) fn again(
    state: &State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    now: Now,
) -> Result<Option<Timestamp>, QueueError> {
    /// It comes so much earlier than those who wait, so that they do not take its turn.
    const AHEAD: Duration = Duration::from_millis(1);
    let Some(rate) = state.queue(queue)?.options.key.rate else { return Ok(None) };
    let Some(mut record) = read(tx, queue, key)? else { return Ok(None) };
    let steady = state.steady(now);
    let wait = next_by_rate(&record, rate, steady).since(steady).saturating_sub(AHEAD);
    if !wait.is_zero() {
        return Ok(Some(now.wall.after(wait)));
    }
    record.rate_at = rate_at(&record, rate, steady).max(steady).after(interval(rate));
    write(tx, queue, key, &record);
    Ok(None)
}

/// Makes entries ready that waited, as many as may go.
fn advance(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    mut record: KeyRecord,
    now: Now,
) -> Result<(), QueueError> {
    let options = state.queue(queue)?.options.key.clone();
    let steady = state.steady(now);
    let mut moved = 0;
    while record.waiting > 0 && may_go(&record, &options, steady) {
        if moved >= SWEEP {
            // The others in a commit of their own.
            wake(state, tx, queue, (key, &mut record), now.wall)?;
            break;
        }
        moved += 1;
        let Some((spot, value)) = first_waiting(tx, queue, &record)? else {
            // Counted and not there: the record heals itself.
            record.waiting = 0;
            break;
        };
        record.from = spot.position + 1;
        record.waiting -= 1;
        let counts = &mut state.queue_mut(queue)?.counts;
        counts.waiting = counts.waiting.saturating_sub(1);
        let hand = match waiting_hand(tx, queue, value) {
            Ok(hand) => hand,
            Err(QueueError::Corrupt(problem)) => {
                tracing::error!(key, problem, "a waiting entry cannot be read; it is passed over and left where it is");
                continue;
            }
            Err(error) => return Err(error),
        };
        counts.bytes = counts.bytes.saturating_sub(hand.record.size());
        go(&mut record, &options, steady);
        tx.delete(Family::Waiting, spot.encode());
        moves::put_ready(state, tx, hand, super::keys::Lane::Normal, now)?;
    }
    settle_down(state, tx, queue, key, record, now)
}

fn waiting_hand(view: &dyn View, queue: QueueId, value: Bytes) -> Result<InHand, QueueError> {
    let entry = EntryRecord::decode(value)?;
    let place = super::read::place(view, entry.number)?;
    Ok(InHand::placed(queue, entry, place.past))
}

fn first_waiting(
    view: &dyn View,
    queue: QueueId,
    record: &KeyRecord,
) -> Result<Option<(WaitingKey, Bytes)>, QueueError> {
    let from = WaitingKey { queue, key: record.id, position: record.from }.encode();
    let to = WaitingKey { queue, key: record.id, position: u64::MAX }.encode();
    let mut found = None;
    let scanned = view.scan(Family::Waiting, &from, &to, &mut |key, value| {
        found = Some((WaitingKey::decode(key), Bytes::copy_from_slice(value)));
        ControlFlow::Break(())
    });
    match scanned {
        Err(QueueError::Corrupt(problem)) => {
            tracing::error!(queue, problem, "entries that wait for an ordering key cannot be read");
            return Ok(None);
        }
        scanned => scanned?,
    }
    found.map(|(key, value)| Ok((key?, value))).transpose()
}

fn may_go(record: &KeyRecord, options: &KeyOptions, steady: Timestamp) -> bool {
    record.held_by.is_empty()
        && record.busy < options.concurrency.max(1)
        && options.rate.is_none_or(|rate| next_by_rate(record, rate, steady) <= steady)
}

fn go(record: &mut KeyRecord, options: &KeyOptions, steady: Timestamp) {
    record.busy += 1;
    if let Some(rate) = options.rate {
        record.rate_at = rate_at(record, rate, steady).max(steady).after(interval(rate));
    }
}

fn interval(rate: Rate) -> Duration {
    Duration::try_from_secs_f64(1.0 / rate.per_second).unwrap_or(MAX_RATE_AHEAD)
}

/// The rate's own time. What is far ahead was left by a clock that was set back since.
fn rate_at(record: &KeyRecord, rate: Rate, steady: Timestamp) -> Timestamp {
    let far = MAX_RATE_AHEAD.max(interval(rate).saturating_mul(rate.burst.saturating_add(1)));
    if record.rate_at.since(steady) > far { steady } else { record.rate_at }
}

/// When the rate allows the next entry.
fn next_by_rate(record: &KeyRecord, rate: Rate, steady: Timestamp) -> Timestamp {
    let ahead = interval(rate).saturating_mul(rate.burst.max(1) - 1);
    Timestamp::EPOCH.after(rate_at(record, rate, steady).since(Timestamp::EPOCH.after(ahead)))
}

/// Stores the record, or removes it when nobody needs it; sets a timer if its rate holds it up or must be remembered.
fn settle_down(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    key: &str,
    mut record: KeyRecord,
    now: Now,
) -> Result<(), QueueError> {
    let options = &state.queue(queue)?.options.key;
    let steady = state.steady(now);
    let rate_at = options.rate.map_or(steady, |rate| rate_at(&record, rate, steady));
    let wanted = match options.rate {
        Some(rate) if record.waiting > 0 && record.busy < options.concurrency.max(1) && record.held_by.is_empty() => {
            Some(next_by_rate(&record, rate, steady))
        }
        Some(_) if !record.is_in_use() && rate_at > steady => Some(rate_at),
        _ => None,
    };
    if wanted.is_none() && !record.is_in_use() {
        tx.delete(Family::Key, named_key(queue, key));
        return Ok(());
    }
    if let Some(wanted) = wanted {
        // Timers go by the wall clock, and rates by the steady one: only the distance is the same.
        wake(state, tx, queue, (key, &mut record), now.wall.after(wanted.since(steady)))?;
    }
    write(tx, queue, key, &record);
    Ok(())
}

/// Has the key looked after at this time, or a moment later; if it is not in any case.
fn wake(
    state: &mut State,
    tx: &mut Tx<'_>,
    queue: QueueId,
    (key, record): (&str, &mut KeyRecord),
    at: Timestamp,
) -> Result<(), QueueError> {
    if record.timer.is_none() {
        let at = at.after(Duration::from_millis(1));
        record.timer = Some(at);
        let due = DueKey { time: at, queue, position: state.next_number()? };
        moves::set_timer(state, tx, due, TimerRecord::Key(key.to_owned()));
    }
    Ok(())
}

pub(crate) fn read(view: &dyn View, queue: QueueId, key: &str) -> Result<Option<KeyRecord>, QueueError> {
    let record = view.get(Family::Key, &named_key(queue, key));
    match record.and_then(|bytes| Ok(bytes.map(|bytes| KeyRecord::decode(&bytes)).transpose()?)) {
        Ok(record) => Ok(record),
        Err(error @ QueueError::Unavailable(_)) => Err(error),
        Err(error) => {
            // An entry on its way must not be lost for it. Those that wait behind are stuck; verification names them.
            tracing::error!(key, %error, "an ordering key cannot be read, and begins anew");
            Ok(None)
        }
    }
}

fn write(tx: &mut Tx<'_>, queue: QueueId, key: &str, record: &KeyRecord) {
    tx.put(Family::Key, named_key(queue, key), record.encode());
}
