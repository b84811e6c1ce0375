//! Transitions into a queue: publish, and the events that an ack emits.

use gristmill_core::QueueName;

use super::Now;
use super::ids::EntryKey;
use super::keys::{DueKey, Family, Lane, LaneKey, QueueId, ReadyKey};
use super::records::{EncodedEvent, EntryRecord, PlaceRecord, Record};
use super::state::State;
use super::store::Tx;
use crate::contract::{EntryRef, PublishError, QueueError};

/// An event that was validated and encoded outside the writer.
pub(crate) struct Prepared {
    pub(crate) event: EncodedEvent,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) delay: Option<std::time::Duration>,
    pub(crate) priority: u8,
}

/// Puts the event into all of its queues, or refuses it.
pub(crate) fn publish(
    state: &mut State,
    tx: &mut Tx<'_>,
    event: Prepared,
    now: Now,
) -> Result<Result<Vec<EntryRef>, PublishError>, QueueError> {
    let targets = match targets(state, &event.queues) {
        Ok(targets) => targets,
        Err(refused) => return Ok(Err(refused)),
    };
    if state.numbers_left() < targets.len() as u64 {
        return Err(QueueError::InvalidRequest("too many events at once: publish smaller batches".to_owned()));
    }
    let mut entries = Vec::with_capacity(targets.len());
    for (queue, name) in targets {
        let number = state.next_number()?;
        let record = EntryRecord {
            number,
            priority: event.priority,
            enqueued_at: now.wall,
            at: now.wall,
            event: event.event.clone(),
        };
        match event.delay {
            None => {
                let line = LaneKey { queue, priority: event.priority, lane: Lane::Normal };
                make_ready(state, tx, ReadyKey { line, position: number }, record, now)?;
            }
            Some(delay) => {
                let key = DueKey { time: now.wall.after(delay), queue, position: number };
                schedule(state, tx, key, record)?;
                let place = PlaceRecord { at: key.into(), attempts: 0, history: Default::default() };
                tx.put(Family::Place, super::keys::number_key(number), place.encode());
            }
        }
        state.queue_mut(queue)?.totals.published += 1;
        let key = EntryKey { queue, priority: event.priority, number };
        entries.push(EntryRef { queue: name, entry: state.entry_id(key)? });
    }
    Ok(Ok(entries))
}

/// Whether [`publish`] would accept an event for these queues.
pub(crate) fn targets(state: &State, queues: &[QueueName]) -> Result<Vec<(QueueId, QueueName)>, PublishError> {
    let mut targets = Vec::with_capacity(queues.len());
    for name in queues {
        let id = state.queue_id(name).map_err(|_| PublishError::UnknownQueue(name.clone()))?;
        if targets.iter().all(|(known, _)| *known != id) {
            targets.push((id, name.clone()));
        }
    }
    Ok(targets)
}

/// Puts an entry at a position that was never used before.
pub(crate) fn make_ready(
    state: &mut State,
    tx: &mut Tx<'_>,
    key: ReadyKey,
    record: EntryRecord,
    now: Now,
) -> Result<(), QueueError> {
    let record = EntryRecord { at: now.wall, ..record };
    tx.put(Family::Ready, key.encode(), record.encode());
    state.lane_mut(key.line)?.ready += 1;
    state.queue_mut(key.line.queue)?.counts.ready += 1;
    state.woken.insert(key.line.queue);
    Ok(())
}

/// Puts an entry where it waits for its time.
pub(crate) fn schedule(state: &mut State, tx: &mut Tx<'_>, key: DueKey, record: EntryRecord) -> Result<(), QueueError> {
    let record = EntryRecord { at: key.time, ..record };
    let bytes = key.encode();
    if bytes < state.due_cursor {
        // The clock was set back: what is new lies before what was swept.
        tx.put(Family::Meta, super::keys::Meta::DueCursor.encode(), bytes.clone());
        state.due_cursor.clone_from(&bytes);
    }
    tx.put(Family::Due, bytes, record.encode());
    state.next_due = Some(state.next_due.map_or(key.time, |next| next.min(key.time)));
    state.queue_mut(key.queue)?.counts.scheduled += 1;
    Ok(())
}
