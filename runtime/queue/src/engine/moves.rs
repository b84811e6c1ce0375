//! Moves: how an entry leaves a state and enters another. Every transition is made of these, so that counts, places,
//! bodies and ordering keys stay right.

use bytes::Bytes;
use gristmill_core::{Attempt, Outcome, Timestamp};

use super::Now;
use super::body;
use super::due::DueValue;
use super::entry::EntryRecord;
use super::ids::EntryKey;
use super::keys::{DueKey, EndKey, Family, Lane, LaneKey, Meta, QueueId, ReadyKey, WaitingKey, number_key};
use super::ordering::{self, Joined};
use super::read::{Found, Whereabouts};
use super::records::{EndRecord, Past, PlaceRecord, Record, Spot, TimerRecord};
use super::state::State;
use super::store::Tx;
use crate::contract::{OnDead, Payload, QueueError};

/// An entry that has left a state and must enter another, in the same commit.
#[derive(Debug)]
pub(crate) struct InHand {
    pub(crate) queue: QueueId,
    pub(crate) record: EntryRecord,
    pub(crate) past: Past,
    /// It has a place in the store.
    placed: bool,
    /// How it is stored as it came in.
    encoded: Option<Bytes>,
}

impl InHand {
    /// One that comes in for the first time.
    pub(crate) fn new(queue: QueueId, record: EntryRecord) -> Self {
        Self::moved(queue, record, Past::default())
    }

    /// One that comes in for the first time, and may be encoded already.
    pub(crate) fn drafted(queue: QueueId, record: EntryRecord, encoded: Option<Bytes>) -> Self {
        Self { encoded, ..Self::new(queue, record) }
    }

    /// One that comes in with a past of its own.
    pub(crate) const fn moved(queue: QueueId, record: EntryRecord, past: Past) -> Self {
        Self { queue, record, past, placed: false, encoded: None }
    }

    /// One that has a place.
    pub(crate) const fn placed(queue: QueueId, record: EntryRecord, past: Past) -> Self {
        Self { queue, record, past, placed: true, encoded: None }
    }

    /// One that was leased: in time, if it had a time to live.
    fn leased(queue: QueueId, record: EntryRecord, past: Option<Past>) -> Self {
        let placed = past.is_some();
        let past = Past { holds_key: record.key().is_some(), ..past.unwrap_or_default() };
        let record = EntryRecord { dies_at: None, ..record };
        Self { queue, record, past, placed, encoded: None }
    }

    pub(crate) const fn key(&self) -> EntryKey {
        self.record.key_in(self.queue)
    }
}

/// Takes an entry out of the state that it was found in. Leased ones are taken by [`take_leased`].
pub(crate) fn take(state: &mut State, tx: &mut Tx<'_>, found: Found, now: Now) -> Result<InHand, QueueError> {
    let entry = found.key();
    let mut past = found.past;
    let counts = &mut state.queue_mut(found.queue)?.counts;
    let size = found.record.size();
    match found.at {
        Whereabouts::Leased(key) => {
            return Err(QueueError::Corrupt(format!("{key:?} is leased, and was to be taken like one that is not")));
        }
        Whereabouts::Ready(key) => {
            counts.ready = counts.ready.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(size);
            state.line_mut(key.line)?.left(key.position);
            tx.delete(Family::Ready, key.encode());
            past.holds_key = found.record.key().is_some();
        }
        Whereabouts::Due(key) => {
            counts.scheduled = counts.scheduled.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(size);
            tx.delete(Family::Due, key.encode());
        }
        Whereabouts::Waiting(key) => {
            counts.waiting = counts.waiting.saturating_sub(1);
            counts.bytes = counts.bytes.saturating_sub(size);
            tx.delete(Family::Waiting, key.encode());
            if let Some(name) = found.record.key() {
                ordering::left_waiting(state, tx, found.queue, name, now)?;
            }
        }
        Whereabouts::Dead(key) => {
            counts.dead = counts.dead.saturating_sub(1);
            tx.delete(Family::Dead, key.encode());
            if let Some(name) = found.record.key().filter(|_| past.holds_key) {
                ordering::resume(tx, name, entry, found.queue)?;
            }
        }
        Whereabouts::Cancelled(key) => {
            counts.cancelled = counts.cancelled.saturating_sub(1);
            tx.delete(Family::Cancelled, key.encode());
        }
        Whereabouts::Done(key) => {
            counts.done = counts.done.saturating_sub(1);
            tx.delete(Family::Done, key.encode());
        }
    }
    Ok(InHand { queue: found.queue, record: found.record, past, placed: found.placed, encoded: None })
}

/// Takes an entry that was leased, whose lease is gone already.
pub(crate) fn take_leased(
    state: &mut State,
    tx: &mut Tx<'_>,
    key: ReadyKey,
    (record, past): (EntryRecord, Option<Past>),
) -> Result<InHand, QueueError> {
    let queue = key.line.queue;
    let counts = &mut state.queue_mut(queue)?.counts;
    counts.leased = counts.leased.saturating_sub(1);
    counts.bytes = counts.bytes.saturating_sub(record.size());
    tx.delete(Family::Ready, key.encode());
    Ok(InHand::leased(queue, record, past))
}

/// Lets an entry into a queue that was not there before: at once, or when it is due.
pub(crate) fn enter(
    state: &mut State,
    tx: &mut Tx<'_>,
    hand: InHand,
    due: Option<Timestamp>,
    now: Now,
) -> Result<EntryKey, QueueError> {
    let (entry, dies_at) = (hand.key(), hand.record.dies_at);
    match due {
        None => admit(state, tx, hand, now)?,
        Some(time) => put_due(state, tx, hand, time)?,
    }
    set_end_of_life(state, tx, entry, dies_at)?;
    state.queue_mut(entry.queue)?.totals.published += 1;
    Ok(entry)
}

/// Lets an entry in that does not hold its key yet: behind the others of its key, or at once.
pub(crate) fn admit(state: &mut State, tx: &mut Tx<'_>, hand: InHand, now: Now) -> Result<(), QueueError> {
    let Some(key) = hand.record.key() else { return put_ready(state, tx, hand, Lane::Normal, now) };
    let position = if hand.placed { state.next_number()? } else { hand.record.number };
    match ordering::join(state, tx, hand.queue, key, position, now)? {
        Joined::Ready => put_ready(state, tx, hand, Lane::Normal, now),
        Joined::Waits(spot) => put_waiting(state, tx, hand, spot, now),
    }
}

/// At the end of a line: at a position that was never used before. The first time, that is the entry's number.
pub(crate) fn put_ready(
    state: &mut State,
    tx: &mut Tx<'_>,
    hand: InHand,
    lane: Lane,
    now: Now,
) -> Result<(), QueueError> {
    let line = LaneKey { queue: hand.queue, priority: hand.record.priority, lane };
    let is_first = !hand.placed && lane == Lane::Normal && hand.past.is_empty();
    let position = if is_first { hand.record.number } else { state.next_number()? };
    let key = ReadyKey { line, position };
    let number = number_key(hand.record.number);
    let size = hand.record.size();
    let as_it_came = hand.encoded.filter(|_| is_first && hand.record.at == now.wall);
    let record = EntryRecord { at: now.wall, ..hand.record };
    if !is_first {
        let past = Past { holds_key: false, ..hand.past };
        tx.put(Family::Place, number, PlaceRecord { at: key.into(), past }.encode());
    }
    let bytes = match as_it_came {
        Some(bytes) => {
            tx.put(Family::Ready, key.encode(), bytes.clone());
            bytes
        }
        None => tx.put_with(Family::Ready, key.encode(), record.encoded_len(), |bytes| record.encode_into(bytes)),
    };
    state.line_mut(line)?.joined(position, bytes);
    let counts = &mut state.queue_mut(line.queue)?.counts;
    counts.ready += 1;
    counts.bytes = counts.bytes.saturating_add(size);
    state.woken.insert(line.queue);
    Ok(())
}

/// Until its time comes.
pub(crate) fn put_due(state: &mut State, tx: &mut Tx<'_>, hand: InHand, time: Timestamp) -> Result<(), QueueError> {
    let key = DueKey { time, queue: hand.queue, position: state.next_number()? };
    let place = PlaceRecord { at: key.into(), past: hand.past };
    tx.put(Family::Place, number_key(hand.record.number), place.encode());
    let size = hand.record.size();
    let record = EntryRecord { at: time, ..hand.record };
    put_due_value(state, tx, key, &DueValue::Entry(record));
    let counts = &mut state.queue_mut(hand.queue)?.counts;
    counts.scheduled += 1;
    counts.bytes = counts.bytes.saturating_add(size);
    Ok(())
}

/// Sets the timer of an entry's time to live, if it has one.
fn set_end_of_life(
    state: &mut State,
    tx: &mut Tx<'_>,
    entry: EntryKey,
    dies_at: Option<Timestamp>,
) -> Result<(), QueueError> {
    if let Some(time) = dies_at {
        let key = DueKey { time, queue: entry.queue, position: state.next_number()? };
        set_timer(state, tx, key, TimerRecord::TimeToLive(entry));
    }
    Ok(())
}

/// Something to be done at a time.
pub(crate) fn set_timer(state: &mut State, tx: &mut Tx<'_>, key: DueKey, timer: TimerRecord) {
    put_due_value(state, tx, key, &DueValue::Timer(timer));
}

fn put_due_value(state: &mut State, tx: &mut Tx<'_>, key: DueKey, value: &DueValue) {
    let bytes = key.encode();
    if bytes < state.due_cursor {
        // The clock was set back: what is new lies before what was swept.
        tx.put(Family::Meta, Meta::DueCursor.encode(), Bytes::copy_from_slice(&bytes));
        state.due_cursor.clone_from(&bytes);
    }
    tx.put(Family::Due, bytes, value.encode());
    state.next_due = Some(state.next_due.map_or(key.time, |next| next.min(key.time)));
}

fn put_waiting(state: &mut State, tx: &mut Tx<'_>, hand: InHand, spot: WaitingKey, now: Now) -> Result<(), QueueError> {
    let past = Past { holds_key: false, ..hand.past };
    let place = PlaceRecord { at: spot.into(), past };
    tx.put(Family::Place, number_key(hand.record.number), place.encode());
    let size = hand.record.size();
    let record = EntryRecord { at: now.wall, ..hand.record };
    tx.put(Family::Waiting, spot.encode(), record.encode());
    let counts = &mut state.queue_mut(hand.queue)?.counts;
    counts.waiting += 1;
    counts.bytes = counts.bytes.saturating_add(size);
    Ok(())
}

/// Done, with what its handler returned.
pub(crate) fn put_done(
    state: &mut State,
    tx: &mut Tx<'_>,
    mut hand: InHand,
    result: Option<Bytes>,
    now: Now,
) -> Result<(), QueueError> {
    let options = &state.queue(hand.queue)?.options;
    let (payload, keeps) = (options.payload, options.done.count != Some(0));
    let key = hand.key();
    if hand.placed {
        tx.delete(Family::Place, number_key(key.number));
    }
    if !keeps || payload == Payload::Drop {
        body::release(state, tx, &hand.record.event)?;
    }
    state.effects.ended.push(key);
    if keeps {
        hand.record.at = now.wall;
        if payload == Payload::Drop
            && let Ok(header) = hand.record.event.without_data()
        {
            // One that cannot be taken apart is kept whole.
            hand.record.event = header;
        }
        hand.past.holds_key = false;
        let (record, past, result) = (&hand.record, &hand.past, result.as_ref());
        let end = EndKey { queue: hand.queue, position: key.number }.encode();
        tx.put_with(Family::Done, end, EndRecord::encoded_len(record, result), |bytes| {
            EndRecord::encode_into(record, past, result, bytes);
        });
        state.effects.done.entry(hand.queue).or_default().push(key.number);
        state.queue_mut(hand.queue)?.counts.done += 1;
    }
    free_key(state, tx, hand.queue, hand.record.key(), now)
}

/// Dead: its key goes on, or is held by it.
pub(crate) fn put_dead(state: &mut State, tx: &mut Tx<'_>, mut hand: InHand, now: Now) -> Result<(), QueueError> {
    let holds = hand.past.holds_key && state.queue(hand.queue)?.options.key.on_dead == OnDead::Hold;
    let held = hand.past.holds_key;
    hand.past.holds_key = holds;
    hand.record.dies_at = None;
    let (queue, entry) = (hand.queue, hand.key());
    let position = state.next_number()?;
    let key = hand.record.key().map(str::to_owned);
    put_end(tx, Family::Dead, hand, EndKey { queue, position }, Spot::Dead { queue, position }, now);
    let queue_state = state.queue_mut(queue)?;
    queue_state.counts.dead += 1;
    queue_state.totals.dead_lettered += 1;
    state.effects.ended.push(entry);
    state.effects.died.push(entry);
    match key.as_deref() {
        Some(key) if holds => ordering::hold(tx, key, entry, queue),
        Some(key) if held => ordering::leave(state, tx, queue, key, now),
        _ => Ok(()),
    }
}

/// Cancelled.
pub(crate) fn put_cancelled(state: &mut State, tx: &mut Tx<'_>, mut hand: InHand, now: Now) -> Result<(), QueueError> {
    let held = std::mem::take(&mut hand.past.holds_key);
    let (queue, entry) = (hand.queue, hand.key());
    let position = state.next_number()?;
    let key = hand.record.key().map(str::to_owned);
    put_end(tx, Family::Cancelled, hand, EndKey { queue, position }, Spot::Cancelled { queue, position }, now);
    let queue_state = state.queue_mut(queue)?;
    queue_state.counts.cancelled += 1;
    queue_state.totals.cancelled += 1;
    state.effects.ended.push(entry);
    free_key(state, tx, queue, key.as_deref().filter(|_| held), now)
}

fn put_end(tx: &mut Tx<'_>, family: Family, hand: InHand, key: EndKey, spot: Spot, now: Now) {
    let number = number_key(hand.record.number);
    let record = EntryRecord { at: now.wall, ..hand.record };
    // The place says where, the record what has happened.
    tx.put(Family::Place, number, PlaceRecord { at: spot, past: Past::default() }.encode());
    tx.put(family, key.encode(), EndRecord::encode(&record, &hand.past, None));
}

/// Gone, without a trace. Its body goes too, unless the caller has taken it over.
pub(crate) fn forget(
    state: &mut State,
    tx: &mut Tx<'_>,
    hand: &InHand,
    body: BodyOf,
    now: Now,
) -> Result<(), QueueError> {
    if hand.placed {
        tx.delete(Family::Place, number_key(hand.record.number));
    }
    if body == BodyOf::Entry {
        body::release(state, tx, &hand.record.event)?;
    }
    state.effects.ended.push(hand.key());
    free_key(state, tx, hand.queue, hand.record.key().filter(|_| hand.past.holds_key), now)
}

/// Whose an entry's body is when the entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyOf {
    /// It goes with it.
    Entry,
    /// It goes on with another entry.
    Another,
}

fn free_key(state: &mut State, tx: &mut Tx<'_>, queue: QueueId, key: Option<&str>, now: Now) -> Result<(), QueueError> {
    key.map_or(Ok(()), |key| ordering::leave(state, tx, queue, key, now))
}

/// A line in an entry's history that says why it is dead, although no attempt failed.
pub(crate) fn note(past: &mut Past, outcome: &Outcome, now: Now) {
    past.history.push(Attempt {
        attempt: past.attempts,
        outcome: outcome.kind(),
        reason: outcome.reason().map(str::to_owned),
        version: None,
        started_at: now.wall,
        duration: std::time::Duration::ZERO,
        forgiven: false,
    });
}
