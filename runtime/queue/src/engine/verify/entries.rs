//! Entries in all states, and who holds those that are leased.

use bytes::Bytes;

use super::{Check, again};
use crate::contract::QueueError;
use crate::engine::due::DueValue;
use crate::engine::entry::EntryRecord;
use crate::engine::ids::EntryKey;
use crate::engine::keys::{
    DueKey, EndKey, Family, Key, Meta, QueueId, ReadyKey, WaitingKey, decode_number_key, named_key, number_key,
};
use crate::engine::read::{Whereabouts, is_first_spot};
use crate::engine::records::{ClaimRecord, EndRecord, KeyRecord, LeaseRecord, PlaceRecord, Record, Spot};
use crate::engine::store::View;

/// The families that entries are in.
const FAMILIES: [Family; 6] =
    [Family::Ready, Family::Waiting, Family::Due, Family::Done, Family::Dead, Family::Cancelled];

/// An entry where it was found. Leased entries count as ready here.
pub(super) struct Seen {
    pub(super) at: Whereabouts,
    pub(super) queue: QueueId,
    pub(super) record: EntryRecord,
    /// It ended, and holds its key.
    pub(super) holds_key: bool,
}

/// Where an entry with this key is.
fn whereabouts(family: Family, key: &[u8]) -> Result<(Whereabouts, QueueId, u64), QueueError> {
    let end = |at: fn(EndKey) -> Whereabouts| EndKey::decode(key).map(|key| (at(key), key.queue, key.position));
    Ok(match family {
        Family::Ready => ReadyKey::decode(key).map(|key| (Whereabouts::Ready(key), key.line.queue, key.position)),
        Family::Waiting => WaitingKey::decode(key).map(|key| (Whereabouts::Waiting(key), key.queue, key.position)),
        Family::Due => DueKey::decode(key).map(|key| (Whereabouts::Due(key), key.queue, key.position)),
        Family::Done => end(Whereabouts::Done),
        Family::Dead => end(Whereabouts::Dead),
        _ => end(Whereabouts::Cancelled),
    }?)
}

/// The entry in this record; `None`: it is a timer.
fn decode(at: Whereabouts, queue: QueueId, value: &[u8]) -> Result<Option<Seen>, QueueError> {
    let value = Bytes::copy_from_slice(value);
    let (record, holds_key) = match at {
        Whereabouts::Due(_) => match DueValue::decode(&value)? {
            DueValue::Entry(record) => (record, false),
            DueValue::Timer(_) => return Ok(None),
        },
        Whereabouts::Ready(_) | Whereabouts::Leased(_) | Whereabouts::Waiting(_) => {
            (EntryRecord::decode(value)?, false)
        }
        Whereabouts::Done(_) | Whereabouts::Dead(_) | Whereabouts::Cancelled(_) => {
            let end = EndRecord::decode(&value)?;
            (EntryRecord::decode(end.entry)?, end.past.holds_key)
        }
    };
    record.event.decode(None)?;
    record.event.body()?;
    Ok(Some(Seen { at, queue, record, holds_key }))
}

/// Every entry once more, but for those that cannot be read.
pub(super) fn each_again(view: &dyn View, mut look: impl FnMut(Family, &[u8], &Seen)) -> Result<(), QueueError> {
    for family in FAMILIES {
        again(view, family, &[], |key, value| {
            let seen = whereabouts(family, key).and_then(|(at, queue, _)| decode(at, queue, value));
            if let Ok(Some(seen)) = seen {
                look(family, key, &seen);
            }
        })?;
    }
    Ok(())
}

/// The place that is stored for an entry. One that cannot be read is reported elsewhere.
fn place(view: &dyn View, number: u64) -> Result<Option<PlaceRecord>, QueueError> {
    let place = view.get(Family::Place, &number_key(number))?;
    Ok(place.and_then(|bytes| PlaceRecord::decode(&bytes).ok()))
}

/// The ordering key that an entry keeps busy.
pub(super) fn busy_key<'a>(view: &dyn View, seen: &'a Seen) -> Result<Option<&'a str>, QueueError> {
    let Some(key) = seen.record.key() else { return Ok(None) };
    let is_busy = match seen.at {
        Whereabouts::Ready(_) | Whereabouts::Leased(_) => true,
        Whereabouts::Due(_) => place(view, seen.record.number)?.is_some_and(|place| place.past.holds_key),
        _ => false,
    };
    Ok(is_busy.then_some(key))
}

/// Claims and leases: what they name must be leased, and held once.
pub(super) fn check_holders(check: &mut Check<'_>) -> Result<(), QueueError> {
    check.each(Family::Claim, |check, key, value| {
        let first = decode_number_key(key)?;
        let keys = ClaimRecord::decode(value)?.keys()?;
        check.issued(Family::Claim, key, first.saturating_add(keys.len().saturating_sub(1) as u64));
        let mut open = 0;
        for held in keys {
            open += usize::from(holds(check, Family::Claim, key, held)?);
        }
        if open == 0 {
            check.problem(Family::Claim, key, "none of its entries is there");
        }
        Ok(())
    })?;
    check.each(Family::Lease, |check, key, value| {
        check.issued(Family::Lease, key, decode_number_key(key)?);
        let held = LeaseRecord::decode(value)?.key()?;
        if !holds(check, Family::Lease, key, held)? {
            check.problem(Family::Lease, key, "its entry is not there");
        }
        Ok(())
    })
}

/// Notes who holds an entry. False: it is not there.
fn holds(check: &mut Check<'_>, family: Family, key: &[u8], held: ReadyKey) -> Result<bool, QueueError> {
    if check.view.get(Family::Ready, &held.encode())?.is_none() {
        // One that is settled is still named by its claim, until all of them are.
        return Ok(false);
    }
    if held.position >= check.directory.cursor(held.line) {
        check.problem(family, key, format!("it holds an entry that is ready, not leased: {held:?}"));
    } else if !check.held.insert(held) {
        check.problem(family, key, format!("it holds an entry that another holds as well: {held:?}"));
    }
    Ok(true)
}

/// Reads every entry.
pub(super) fn check(check: &mut Check<'_>) -> Result<(), QueueError> {
    for family in FAMILIES {
        check.each(family, |check, key, value| {
            let (at, queue, position) = whereabouts(family, key)?;
            check.issued(family, key, position);
            if let Whereabouts::Due(_) = at
                && key < check.directory.due_cursor.as_slice()
            {
                check.problem(family, key, "it is before the place from which on due entries are looked for");
            }
            match decode(at, queue, value) {
                Ok(None) => super::ordering::check_timer(check, key, value),
                Ok(Some(seen)) => {
                    count(check, key, at, queue, Some(&seen));
                    one(check, family, key, &seen)
                }
                Err(error) => {
                    // The first byte tells entries from timers.
                    if !matches!(at, Whereabouts::Due(_)) || value.first() == Some(&0) {
                        count(check, key, at, queue, None);
                    }
                    Err(error)
                }
            }
        })?;
    }
    Ok(())
}

/// Counts an entry where it is.
fn count(check: &mut Check<'_>, key: &[u8], at: Whereabouts, queue: QueueId, seen: Option<&Seen>) {
    let real = check.found.entry(queue).or_default();
    let counts = &mut real.counts;
    let mut nobodys = false;
    match at {
        Whereabouts::Ready(at) | Whereabouts::Leased(at) => {
            if at.position >= check.directory.cursor(at.line) {
                counts.ready += 1;
                *check.lines.entry(at.line).or_default() += 1;
            } else if check.held.contains(&at) {
                counts.leased += 1;
            } else if seen.is_some() {
                counts.leased += 1;
                nobodys = true;
            }
        }
        Whereabouts::Due(_) => counts.scheduled += 1,
        Whereabouts::Waiting(_) => counts.waiting += 1,
        Whereabouts::Done(_) => counts.done += 1,
        Whereabouts::Dead(_) => counts.dead += 1,
        Whereabouts::Cancelled(_) => counts.cancelled += 1,
    }
    if !at.state().has_ended() {
        match seen {
            Some(seen) => counts.bytes = counts.bytes.saturating_add(seen.record.size()),
            None => real.unreadable = true,
        }
    }
    if nobodys {
        check.problem(Family::Ready, key, "it is leased, and nobody holds it");
    }
}

fn one(check: &mut Check<'_>, family: Family, key: &[u8], seen: &Seen) -> Result<(), QueueError> {
    check.issued(family, key, seen.record.number);
    if let Some(body) = seen.record.event.body()? {
        check.bodies.add(&(body.number, body.length), 1);
    }
    if !check.has_queue(family, key, seen.queue) {
        return Ok(());
    }
    one_place(check, family, key, seen)?;
    if let Some(name) = busy_key(check.view, seen)? {
        check.busy.add(&(seen.queue, name), 1);
    }
    let from = check.directory.queues.get(&seen.queue).map(|queue| queue.from).unwrap_or_default();
    let is_hidden = match seen.at {
        Whereabouts::Dead(at) => at.position < from.dead,
        Whereabouts::Cancelled(at) => at.position < from.cancelled,
        _ => false,
    };
    if is_hidden {
        check.problem(family, key, "it is before the place where its queue's list begins");
    }
    match seen.at {
        Whereabouts::Done(_) => check.done.add(&(seen.queue, seen.record.number), 1),
        Whereabouts::Waiting(at) => waiting(check, key, at, seen)?,
        Whereabouts::Dead(_) if seen.holds_key => dead(check, key, seen)?,
        _ => {}
    }
    Ok(())
}

/// An entry must be where its place says, or where an entry without a place is.
fn one_place(check: &mut Check<'_>, family: Family, key: &[u8], seen: &Seen) -> Result<(), QueueError> {
    let number = seen.record.number;
    let place = check.view.get(Family::Place, &number_key(number))?.map(|bytes| PlaceRecord::decode(&bytes));
    let wanted = match seen.at {
        Whereabouts::Ready(at) | Whereabouts::Leased(at) if is_first_spot(at, &seen.record) => None,
        Whereabouts::Ready(at) | Whereabouts::Leased(at) => Some(Spot::from(at)),
        Whereabouts::Due(at) => Some(at.into()),
        Whereabouts::Waiting(at) => Some(at.into()),
        Whereabouts::Dead(EndKey { queue, position }) => Some(Spot::Dead { queue, position }),
        Whereabouts::Cancelled(EndKey { queue, position }) => Some(Spot::Cancelled { queue, position }),
        Whereabouts::Done(at) => {
            if at.position != number {
                check.problem(family, key, format!("it holds entry number {number}"));
            }
            None
        }
    };
    match (place, wanted) {
        (None, Some(_)) => check.problem(family, key, format!("the place of entry number {number} is missing")),
        (Some(Ok(place)), Some(wanted)) if place.at != wanted => {
            check.problem(family, key, format!("entry number {number} is somewhere else as well: {:?}", place.at));
        }
        (Some(Ok(place)), None) => {
            check.problem(family, key, format!("entry number {number} needs no place, and has one: {:?}", place.at));
        }
        _ => {}
    }
    if let (None, Whereabouts::Ready(at)) = (wanted, seen.at) {
        let done = EndKey { queue: at.line.queue, position: number };
        if check.view.get(Family::Done, &done.encode())?.is_some() {
            check.problem(family, key, format!("entry number {number} is done as well"));
        }
    }
    Ok(())
}

/// An entry waits for a key that knows of it.
fn waiting(check: &mut Check<'_>, key: &[u8], at: WaitingKey, seen: &Seen) -> Result<(), QueueError> {
    match key_record(check.view, seen)? {
        None => check.problem(Family::Waiting, key, "it waits for an ordering key that is not in use"),
        Some(record) if record.id != at.key => {
            check.problem(Family::Waiting, key, format!("its ordering key has the number {}", record.id));
        }
        Some(record) if at.position < record.from => {
            let problem = format!("its ordering key looks for entries that wait from {} on", record.from);
            check.problem(Family::Waiting, key, problem);
        }
        Some(_) => {}
    }
    Ok(())
}

/// A dead letter that holds its key is known to the key.
fn dead(check: &mut Check<'_>, key: &[u8], seen: &Seen) -> Result<(), QueueError> {
    let entry = EntryKey { queue: seen.queue, priority: seen.record.priority, number: seen.record.number };
    if !key_record(check.view, seen)?.is_some_and(|record| record.held_by.contains(&entry)) {
        check.problem(Family::Dead, key, "it holds its ordering key, which does not know it");
    }
    Ok(())
}

/// The record of an entry's ordering key. One that cannot be read is reported elsewhere, and counts as missing here.
fn key_record(view: &dyn View, seen: &Seen) -> Result<Option<KeyRecord>, QueueError> {
    let Some(name) = seen.record.key() else { return Ok(None) };
    let record = view.get(Family::Key, &named_key(seen.queue, name))?;
    Ok(record.and_then(|bytes| KeyRecord::decode(&bytes).ok()))
}

/// Compares what was found with what queues and lines say of themselves.
pub(super) fn check_counts(check: &mut Check<'_>) {
    let mut problems: Vec<(Key, String)> = Vec::new();
    for (id, queue) in &check.directory.queues {
        let real = check.found.get(id);
        let (counts, found) = (queue.counts, real.map(|real| real.counts).unwrap_or_default());
        let mut compared = vec![
            ("scheduled", counts.scheduled, found.scheduled),
            ("waiting", counts.waiting, found.waiting),
            ("ready", counts.ready, found.ready),
            ("leased", counts.leased, found.leased),
            ("done", counts.done, found.done),
            ("dead", counts.dead, found.dead),
            ("cancelled", counts.cancelled, found.cancelled),
        ];
        if !real.is_some_and(|real| real.unreadable) {
            compared.push(("bytes", counts.bytes, found.bytes));
        }
        for (what, counted, found) in compared.into_iter().filter(|(_, counted, found)| counted != found) {
            problems.push((Meta::Queue(*id).encode(), format!("it counts {counted} {what}; there are {found}")));
        }
    }
    for (line, record) in &check.directory.lines {
        let found = check.lines.remove(line).unwrap_or(0);
        if record.ready != found {
            let key = Meta::Lane(*line).encode();
            problems.push((key, format!("it counts {} ready; there are {found}", record.ready)));
        }
    }
    for (line, found) in &check.lines {
        problems.push((Meta::Lane(*line).encode(), format!("it is missing, and {found} entries are in that line")));
    }
    for (key, what) in problems {
        check.problem(Family::Meta, &key, what);
    }
}
