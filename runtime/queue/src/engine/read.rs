//! Looking at entries: where one is, and what is known of it there. For the writer, which reads what its commit will
//! leave, and for readers beside it, on snapshots.

use bytes::Bytes;
use gristmill_core::State as EntryState;

use super::due::DueValue;
use super::entry::EntryRecord;
use super::ids::EntryKey;
use super::keys::{DueKey, EndKey, Family, Lane, LaneKey, Meta, QueueId, ReadyKey, WaitingKey, number_key};
use super::records::{EndRecord, LaneRecord, Past, PlaceRecord, Record, Spot};
use super::store::View;
use crate::contract::QueueError;

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    Ready(ReadyKey),
    /// Behind its line's cursor.
    Leased(ReadyKey),
    Due(DueKey),
    Waiting(WaitingKey),
    Done(EndKey),
    Dead(EndKey),
    Cancelled(EndKey),
}

impl Whereabouts {
    pub(crate) const fn state(self) -> EntryState {
        match self {
            Self::Ready(_) => EntryState::Ready,
            Self::Leased(_) => EntryState::Leased,
            Self::Due(_) => EntryState::Scheduled,
            Self::Waiting(_) => EntryState::Waiting,
            Self::Done(_) => EntryState::Done,
            Self::Dead(_) => EntryState::Dead,
            Self::Cancelled(_) => EntryState::Cancelled,
        }
    }
}

/// An entry, wherever it is.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) at: Whereabouts,
    pub(crate) queue: QueueId,
    pub(crate) record: EntryRecord,
    pub(crate) past: Past,
    /// It has a place in the store.
    pub(crate) placed: bool,
    pub(crate) result: Option<Bytes>,
}

impl Found {
    pub(crate) const fn key(&self) -> EntryKey {
        self.record.key_in(self.queue)
    }

    /// Attempts that count, a running one included.
    pub(crate) fn attempts(&self) -> u32 {
        self.past.attempts.saturating_add(u32::from(matches!(self.at, Whereabouts::Leased(_))))
    }
}

/// Who knows where the ready entries of a line begin: what is before is leased.
pub(crate) trait Cursors {
    fn cursor(&self, line: LaneKey) -> Result<u64, QueueError>;
}

/// The cursors as they are stored.
pub(crate) struct StoredCursors<'a>(pub(crate) &'a dyn View);

impl Cursors for StoredCursors<'_> {
    fn cursor(&self, line: LaneKey) -> Result<u64, QueueError> {
        let record = self.0.get(Family::Meta, &Meta::Lane(line).encode())?;
        Ok(record.map_or(Ok(0), |bytes| LaneRecord::decode(&bytes).map(|lane| lane.cursor))?)
    }
}

impl Cursors for super::state::State {
    fn cursor(&self, line: LaneKey) -> Result<u64, QueueError> {
        let line = self.queues.get(&line.queue).and_then(|queue| queue.lanes.get(&line));
        Ok(line.map_or(0, |line| line.record.cursor))
    }
}

/// The entry with this id; `None`: there is none (any more).
pub(crate) fn find(view: &dyn View, cursors: &dyn Cursors, key: EntryKey) -> Result<Option<Found>, QueueError> {
    let place = view.get(Family::Place, &number_key(key.number))?;
    let Some(place) = place.map(|bytes| PlaceRecord::decode(&bytes)).transpose()? else {
        return find_unplaced(view, cursors, key);
    };
    let found = match place.at {
        Spot::Ready { line, position } => {
            let at = ReadyKey { line: line.try_into()?, position };
            view.get(Family::Ready, &at.encode())?.map(|value| at_ready(view, cursors, at, value)).transpose()?
        }
        Spot::Due { time, queue, position } => {
            let at = DueKey { time, queue, position };
            match view.get(Family::Due, &at.encode())? {
                Some(value) => DueValue::entry(&value)?.map(|record| Found {
                    at: Whereabouts::Due(at),
                    queue,
                    record,
                    past: place.past,
                    placed: true,
                    result: None,
                }),
                None => None,
            }
        }
        Spot::Waiting { queue, key, position } => {
            let at = WaitingKey { queue, key, position };
            match view.get(Family::Waiting, &at.encode())? {
                Some(value) => Some(at_waiting(at, value, place.past)?),
                None => None,
            }
        }
        Spot::Dead { queue, position } => {
            let at = EndKey { queue, position };
            view.get(Family::Dead, &at.encode())?.map(|value| ended(Whereabouts::Dead(at), &value)).transpose()?
        }
        Spot::Cancelled { queue, position } => {
            let at = EndKey { queue, position };
            let value = view.get(Family::Cancelled, &at.encode())?;
            value.map(|value| ended(Whereabouts::Cancelled(at), &value)).transpose()?
        }
    };
    Ok(found.filter(|found| found.queue == key.queue))
}

fn find_unplaced(view: &dyn View, cursors: &dyn Cursors, key: EntryKey) -> Result<Option<Found>, QueueError> {
    let line = LaneKey { queue: key.queue, priority: key.priority, lane: Lane::Normal };
    let first = ReadyKey { line, position: key.number };
    if let Some(value) = view.get(Family::Ready, &first.encode())? {
        return at_ready(view, cursors, first, value).map(Some);
    }
    let done = EndKey { queue: key.queue, position: key.number };
    view.get(Family::Done, &done.encode())?.map(|value| ended(Whereabouts::Done(done), &value)).transpose()
}

/// The entry at a ready key.
pub(crate) fn at_ready(
    view: &dyn View,
    cursors: &dyn Cursors,
    key: ReadyKey,
    value: Bytes,
) -> Result<Found, QueueError> {
    let record = EntryRecord::decode(value)?;
    let past = past(view, key, &record)?;
    let placed = past.is_some();
    let at = if key.position < cursors.cursor(key.line)? { Whereabouts::Leased(key) } else { Whereabouts::Ready(key) };
    Ok(Found { at, queue: key.line.queue, record, past: past.unwrap_or_default(), placed, result: None })
}

/// The entry at a waiting key.
pub(crate) fn at_waiting(at: WaitingKey, value: Bytes, past: Past) -> Result<Found, QueueError> {
    let record = EntryRecord::decode(value)?;
    Ok(Found { at: Whereabouts::Waiting(at), queue: at.queue, record, past, placed: true, result: None })
}

/// An entry that has ended.
pub(crate) fn ended(at: Whereabouts, value: &Bytes) -> Result<Found, QueueError> {
    let (Whereabouts::Done(key) | Whereabouts::Dead(key) | Whereabouts::Cancelled(key)) = at else {
        return Err(QueueError::Corrupt("an entry that has not ended among those that have".to_owned()));
    };
    let end = EndRecord::decode(value)?;
    let placed = !matches!(at, Whereabouts::Done(_));
    let record = EntryRecord::decode(end.entry)?;
    Ok(Found { at, queue: key.queue, record, past: end.past, placed, result: end.result })
}

/// Whether an entry stands where it was put when it was published: then it has no place.
pub(crate) fn is_first_spot(key: ReadyKey, record: &EntryRecord) -> bool {
    key.position == record.number && key.line.lane == Lane::Normal && key.line.priority == record.priority
}

/// What has happened to the entry at a ready key; `None`: nothing, and it has no place.
pub(crate) fn past(view: &dyn View, key: ReadyKey, record: &EntryRecord) -> Result<Option<Past>, QueueError> {
    if is_first_spot(key, record) { Ok(None) } else { Ok(Some(place(view, record.number)?.past)) }
}

/// The place of an entry that must have one.
pub(crate) fn place(view: &dyn View, number: u64) -> Result<PlaceRecord, QueueError> {
    match view.get(Family::Place, &number_key(number))? {
        Some(bytes) => Ok(PlaceRecord::decode(&bytes)?),
        None => Err(QueueError::Corrupt(format!("the place of entry number {number} is missing"))),
    }
}
