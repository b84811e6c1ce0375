//! Looking: stats, lists and single entries, on a snapshot and outside the writer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::{EntryId, Event, History, QueueName, State, Timestamp};

use super::claim::head;
use super::ids::EntryKey;
use super::keys::{DueKey, EndKey, Family, Lane, LaneKey, Meta, QueueId, ReadyKey, after_prefix, number_key};
use super::records::{
    DoneOrderRecord, EndRecord, EntryRecord, LaneRecord, LeaseRecord, PlaceAt, PlaceRecord, QueueRecord, Record,
};
use super::state::for_each;
use super::store::View;
use crate::contract::{Entry, List, Page, QueueError, QueueStats};

/// How many scheduled entries of all queues are looked at for [`QueueStats::next_due`].
const DUE_EXAMINED: usize = 4_096;
/// The longest page.
pub(crate) const MAX_PAGE: usize = 1_000;

/// Reads what one store knows.
pub(crate) struct Reading<'a> {
    pub(crate) view: &'a dyn View,
    pub(crate) salt: u32,
    pub(crate) now: Timestamp,
}

impl Reading<'_> {
    /// Counts of every queue.
    pub(crate) fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let due = self.next_due()?;
        let mut stats = Vec::new();
        for (id, record) in self.queues()? {
            let oldest = self.oldest_ready(id)?;
            stats.push(QueueStats {
                queue: name(&record)?,
                scheduled: record.counts.scheduled,
                ready: record.counts.ready,
                leased: record.counts.leased,
                done: record.counts.done,
                dead: record.counts.dead,
                oldest_ready: oldest.map(|since| self.now.since(since)),
                next_due: due.get(&id).copied(),
                totals: record.totals(),
            });
        }
        stats.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(stats)
    }

    /// One entry.
    pub(crate) fn get(&self, id: &EntryId) -> Result<Option<Entry>, QueueError> {
        let Some(key) = EntryKey::parse(id, self.salt) else { return Ok(None) };
        let Some(found) = find(self.view, key)? else { return Ok(None) };
        let Some(record) = self.queues()?.remove(&key.queue) else { return Ok(None) };
        self.entry(found, key.queue, &name(&record)?).map(Some)
    }

    /// A page of entries.
    pub(crate) fn list(&self, request: &List) -> Result<Page, QueueError> {
        let queues = self.queues()?;
        let wanted = queues.iter().find(|(_, record)| record.name == request.queue.as_str());
        let Some((&id, record)) = wanted else { return Err(QueueError::UnknownQueue(request.queue.clone())) };
        let after = request.cursor.as_deref().map(decode_cursor).transpose()?;
        let mut items = match request.state {
            State::Ready => self.ready(id, request.limit, after)?,
            State::Leased => self.leased(id, request.limit, after)?,
            State::Scheduled => self.scheduled(id, request.limit, after)?,
            State::Done => self.done(id, record.done_from, request.limit, after)?,
            State::Dead => self.dead(id, request.limit, after)?,
        };
        let more = items.len() > request.limit;
        items.truncate(request.limit);
        let next = if more { items.last().map(|(key, _)| encode_cursor(key)) } else { None };
        let entries = items.into_iter().map(|(_, found)| self.entry(found, id, &request.queue));
        Ok(Page { entries: entries.collect::<Result<_, _>>()?, next })
    }

    fn queues(&self) -> Result<BTreeMap<QueueId, QueueRecord>, QueueError> {
        let mut queues = BTreeMap::new();
        let prefix = Meta::Queue(0).encode();
        for_each(self.view, Family::Meta, prefix.get(..1).unwrap_or_default(), |key, value| {
            if let Meta::Queue(id) = Meta::decode(key)? {
                queues.insert(id, QueueRecord::decode(value)?);
            }
            Ok(())
        })?;
        Ok(queues)
    }

    fn lanes(&self, queue: QueueId) -> Result<Vec<(LaneKey, LaneRecord)>, QueueError> {
        let mut lanes = Vec::new();
        let prefix = Meta::Lane(LaneKey { queue, priority: 0, lane: Lane::Front }).encode();
        for_each(self.view, Family::Meta, prefix.get(..5).unwrap_or_default(), |key, value| {
            if let Meta::Lane(lane) = Meta::decode(key)? {
                lanes.push((lane, LaneRecord::decode(value)?));
            }
            Ok(())
        })?;
        Ok(lanes)
    }

    fn oldest_ready(&self, queue: QueueId) -> Result<Option<Timestamp>, QueueError> {
        let mut oldest: Option<Timestamp> = None;
        for (line, lane) in self.lanes(queue)? {
            if lane.ready > 0 {
                for (_, value) in head(self.view, line, &lane, 1)? {
                    let at = EntryRecord::decode(value)?.at;
                    oldest = Some(oldest.map_or(at, |known| known.min(at)));
                }
            }
        }
        Ok(oldest)
    }

    fn next_due(&self) -> Result<BTreeMap<QueueId, Timestamp>, QueueError> {
        let mut due = BTreeMap::new();
        let mut examined = 0;
        self.view.scan(Family::Due, &self.due_cursor()?, &[], &mut |key, _| {
            if let Ok(key) = DueKey::decode(key) {
                due.entry(key.queue).or_insert(key.time);
            }
            examined += 1;
            if examined < DUE_EXAMINED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(due)
    }

    fn due_cursor(&self) -> Result<Vec<u8>, QueueError> {
        let cursor = self.view.get(Family::Meta, &Meta::DueCursor.encode())?;
        Ok(cursor.map(|bytes| bytes.to_vec()).unwrap_or_default())
    }

    /// One more than `limit`, where there are so many.
    fn ready(&self, queue: QueueId, limit: usize, after: Option<Vec<u8>>) -> Result<Vec<Item>, QueueError> {
        let mut items = Vec::new();
        for (line, lane) in self.lanes(queue)? {
            let first = ReadyKey { line, position: lane.cursor }.encode();
            let end = after_prefix(first.get(..first.len().saturating_sub(8)).unwrap_or_default());
            let from = later(first, after.as_deref());
            if from < end {
                collect(self.view, (Family::Ready, &from, &end), limit, &mut items, |key, value| {
                    let key = ReadyKey::decode(key)?;
                    at_ready(self.view, key, value, State::Ready).map(Some)
                })?;
            }
        }
        Ok(items)
    }

    fn leased(&self, queue: QueueId, limit: usize, after: Option<Vec<u8>>) -> Result<Vec<Item>, QueueError> {
        let from = later(Vec::new(), after.as_deref());
        let mut items = Vec::new();
        collect(self.view, (Family::Lease, &from, &[]), limit, &mut items, |_, value| {
            let lease = LeaseRecord::decode(&value)?;
            let key = ReadyKey::try_from(lease.spot)?;
            if key.line.queue != queue {
                return Ok(None);
            }
            let Some(value) = self.view.get(Family::Ready, &key.encode())? else { return Ok(None) };
            let found = at_ready(self.view, key, value, State::Leased)?;
            let record = EntryRecord { at: lease.claimed_at, ..found.record };
            Ok(Some(Found { record, ..found }))
        })?;
        Ok(items)
    }

    fn scheduled(&self, queue: QueueId, limit: usize, after: Option<Vec<u8>>) -> Result<Vec<Item>, QueueError> {
        let from = later(self.due_cursor()?, after.as_deref());
        let mut items = Vec::new();
        collect(self.view, (Family::Due, &from, &[]), limit, &mut items, |key, value| {
            if DueKey::decode(key)?.queue != queue {
                return Ok(None);
            }
            let record = EntryRecord::decode(value)?;
            let place = super::claim::place(self.view, record.number)?;
            Ok(Some(Found {
                state: State::Scheduled,
                record,
                attempts: place.attempts,
                history: place.history,
                result: None,
            }))
        })?;
        Ok(items)
    }

    fn done(&self, queue: QueueId, from: u64, limit: usize, after: Option<Vec<u8>>) -> Result<Vec<Item>, QueueError> {
        let from = later(EndKey { queue, number: from }.encode(), after.as_deref());
        let end = after_prefix(&queue.to_be_bytes());
        let mut items = Vec::new();
        collect(self.view, (Family::DoneOrder, &from, &end), limit, &mut items, |_, value| {
            let number = DoneOrderRecord::decode(&value)?.number;
            let value = self.view.get(Family::Done, &EndKey { queue, number }.encode())?;
            value.map(|value| ended(&value, State::Done)).transpose()
        })?;
        Ok(items)
    }

    fn dead(&self, queue: QueueId, limit: usize, after: Option<Vec<u8>>) -> Result<Vec<Item>, QueueError> {
        let from = later(EndKey { queue, number: 0 }.encode(), after.as_deref());
        let end = after_prefix(&queue.to_be_bytes());
        let mut items = Vec::new();
        collect(self.view, (Family::Dead, &from, &end), limit, &mut items, |_, value| {
            ended(&value, State::Dead).map(Some)
        })?;
        Ok(items)
    }

    fn entry(&self, found: Found, queue: QueueId, name: &QueueName) -> Result<Entry, QueueError> {
        let key = EntryKey { queue, priority: found.record.priority, number: found.record.number };
        let id = key.id(self.salt).ok_or_else(|| QueueError::Corrupt("an entry's id is too long".to_owned()))?;
        Ok(Entry {
            id,
            queue: name.clone(),
            state: found.state,
            priority: found.record.priority,
            attempts: found.attempts,
            enqueued_at: found.record.enqueued_at,
            at: found.record.at,
            event: Arc::new(found.record.event.decode().unwrap_or_else(|_| unreadable())),
            history: found.history,
            result: found.result,
        })
    }
}

/// A key, for the cursor, and what is there.
type Item = (Vec<u8>, Found);

/// An entry, wherever it is.
struct Found {
    state: State,
    record: EntryRecord,
    attempts: u32,
    history: History,
    result: Option<Bytes>,
}

/// The state of an entry, if it exists.
pub(crate) fn state_of(view: &dyn View, key: EntryKey) -> Result<Option<State>, QueueError> {
    Ok(find(view, key)?.map(|found| found.state))
}

fn find(view: &dyn View, key: EntryKey) -> Result<Option<Found>, QueueError> {
    let first = ReadyKey {
        line: LaneKey { queue: key.queue, priority: key.priority, lane: Lane::Normal },
        position: key.number,
    };
    let spot = match view.get(Family::Place, &number_key(key.number))? {
        Some(bytes) => match PlaceRecord::decode(&bytes)? {
            PlaceRecord { at: PlaceAt::Ready(spot), .. } => ReadyKey::try_from(spot)?,
            PlaceRecord { at: PlaceAt::Due { time, queue, position }, attempts, history } => {
                let due = DueKey { time, queue, position };
                let Some(value) = view.get(Family::Due, &due.encode())? else { return Ok(None) };
                let record = EntryRecord::decode(value)?;
                return Ok(Some(Found { state: State::Scheduled, record, attempts, history, result: None }));
            }
        },
        None => first,
    };
    if let Some(value) = view.get(Family::Ready, &spot.encode())? {
        let lane = view.get(Family::Meta, &Meta::Lane(spot.line).encode())?;
        let cursor = lane.map_or(Ok(0), |bytes| LaneRecord::decode(&bytes).map(|lane| lane.cursor))?;
        let state = if spot.position < cursor { State::Leased } else { State::Ready };
        return at_ready(view, spot, value, state).map(Some);
    }
    let end = EndKey { queue: key.queue, number: key.number }.encode();
    for (family, state) in [(Family::Done, State::Done), (Family::Dead, State::Dead)] {
        if let Some(value) = view.get(family, &end)? {
            return ended(&value, state).map(Some);
        }
    }
    Ok(None)
}

fn at_ready(view: &dyn View, key: ReadyKey, value: Bytes, state: State) -> Result<Found, QueueError> {
    let record = EntryRecord::decode(value)?;
    let (attempts, history) = if super::claim::is_first_spot(key, &record) {
        (0, History::default())
    } else {
        let place = super::claim::place(view, record.number)?;
        (place.attempts, place.history)
    };
    let attempts = if state == State::Leased { attempts.saturating_add(1) } else { attempts };
    Ok(Found { state, record, attempts, history, result: None })
}

fn ended(value: &[u8], state: State) -> Result<Found, QueueError> {
    let end = EndRecord::decode(value)?;
    Ok(Found {
        state,
        record: EntryRecord::decode(Bytes::from(end.entry))?,
        attempts: end.attempts,
        history: end.history,
        result: end.result.map(Bytes::from),
    })
}

/// Adds to `items` until there is one more than `limit`.
fn collect(
    view: &dyn View,
    (family, from, to): (Family, &[u8], &[u8]),
    limit: usize,
    items: &mut Vec<Item>,
    mut found: impl FnMut(&[u8], Bytes) -> Result<Option<Found>, QueueError>,
) -> Result<(), QueueError> {
    let mut failed = None;
    view.scan(family, from, to, &mut |key, value| {
        if items.len() > limit {
            return ControlFlow::Break(());
        }
        match found(key, Bytes::copy_from_slice(value)) {
            Ok(Some(entry)) => items.push((key.to_vec(), entry)),
            Ok(None) => {}
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(()), Err)
}

/// The first key to look at: `first`, or the one behind the cursor's.
fn later(first: Vec<u8>, after: Option<&[u8]>) -> Vec<u8> {
    match after {
        Some(after) => first.max([after, &[0]].concat()),
        None => first,
    }
}

/// Stands for an event whose record is damaged, so that its entry can still be looked at.
fn unreadable() -> Event {
    Event::new("unreadable", "/gristmill/unreadable", "gristmill.unreadable")
}

fn name(record: &QueueRecord) -> Result<QueueName, QueueError> {
    QueueName::new(&record.name).map_err(|error| QueueError::Corrupt(error.to_string()))
}

fn encode_cursor(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode_cursor(text: &str) -> Result<Vec<u8>, QueueError> {
    let bad = || QueueError::InvalidRequest("the cursor is not one that a list returned as `next`".to_owned());
    if text.len() > 64 || text.is_empty() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    bytes.collect::<Option<Vec<u8>>>().ok_or_else(bad)
}
