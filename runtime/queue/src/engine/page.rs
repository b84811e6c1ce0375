//! Pages: the entries of a queue in one state, in the order in which the state processes them. What lists show and what
//! bulk operations walk over.

use std::ops::ControlFlow;

use bytes::Bytes;
use gristmill_core::{State as EntryState, Timestamp};

use super::due::DueValue;
use super::ids::EntryKey;
use super::keys::{
    DueKey, EndKey, Family, Key, Lane, LaneKey, Meta, QueueId, ReadyKey, WaitingKey, after_prefix, decode_number_key,
};
use super::ordering;
use super::read::{Cursors, Found, Whereabouts, at_ready, at_waiting, ended, place};
use super::records::{ClaimRecord, DoneOrderRecord, LaneRecord, LeaseRecord, ListCursors, Record};
use super::store::{View, for_each, try_scan};
use crate::contract::QueueError;

/// The most keys of other queues, or of entries that do not matter, that one page looks at.
pub(crate) const MAX_EXAMINED: usize = 4_096;

/// A part of a queue's entries in one state.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) found: Vec<Found>,
    /// Where the next part begins; `None`: there is no more.
    pub(crate) next: Option<Key>,
}

/// What to look at.
pub(crate) struct Wanted {
    pub(crate) queue: QueueId,
    pub(crate) state: EntryState,
    /// At most so many.
    pub(crate) limit: usize,
    /// [`Part::next`] of the part before.
    pub(crate) after: Option<Key>,
    /// Where the queue's ended entries begin.
    pub(crate) from: ListCursors,
}

/// The next part.
pub(crate) fn page(view: &dyn View, cursors: &dyn Cursors, wanted: &Wanted) -> Result<Part, QueueError> {
    match wanted.state {
        EntryState::Ready => ready(view, cursors, wanted),
        EntryState::Leased => leased(view, cursors, wanted),
        EntryState::Scheduled => scheduled(view, wanted),
        EntryState::Waiting => waiting(view, wanted),
        EntryState::Done => done(view, wanted),
        EntryState::Dead => list(view, wanted, Family::Dead, wanted.from.dead, Whereabouts::Dead),
        EntryState::Cancelled => list(view, wanted, Family::Cancelled, wanted.from.cancelled, Whereabouts::Cancelled),
    }
}

/// The lines of a queue as they are stored.
pub(crate) fn lanes(view: &dyn View, queue: QueueId) -> Result<Vec<(LaneKey, LaneRecord)>, QueueError> {
    let mut lanes = Vec::new();
    let prefix = Meta::Lane(LaneKey { queue, priority: 0, lane: Lane::Front }).encode();
    for_each(view, Family::Meta, prefix.get(..5).unwrap_or_default(), |key, value| {
        if let Meta::Lane(lane) = Meta::decode(key)? {
            lanes.push((lane, LaneRecord::decode(value)?));
        }
        Ok(())
    })?;
    Ok(lanes)
}

/// All ready keys of a line, from this position on.
pub(crate) fn line_range(line: LaneKey, position: u64) -> (Key, Key) {
    let from = ReadyKey { line, position }.encode();
    let to = after_prefix(from.get(..from.len().saturating_sub(8)).unwrap_or_default());
    (from, to)
}

/// Where the due entries begin, as it is stored.
pub(crate) fn due_cursor(view: &dyn View) -> Result<Key, QueueError> {
    let cursor = view.get(Family::Meta, &Meta::DueCursor.encode())?;
    Ok(cursor.map(|bytes| Key::from_slice(&bytes)).unwrap_or_default())
}

fn ready(view: &dyn View, cursors: &dyn Cursors, wanted: &Wanted) -> Result<Part, QueueError> {
    let mut walk = Walk::new(wanted);
    // In the order of their keys, which is not quite that of claiming: lost entries come last of their priority.
    let mut lines: Vec<_> = lanes(view, wanted.queue)?.into_iter().map(|(line, _)| line).collect();
    lines.sort_by_key(|line| ReadyKey { line: *line, position: 0 }.encode());
    for line in lines {
        let (from, to) = line_range(line, cursors.cursor(line)?);
        walk.over(view, Family::Ready, &from, &to, |key, value| {
            at_ready(view, cursors, ReadyKey::decode(key)?, value).map(Some)
        })?;
    }
    Ok(walk.part)
}

/// Entries that somebody handles, in the order of their claims.
fn leased(view: &dyn View, cursors: &dyn Cursors, wanted: &Wanted) -> Result<Part, QueueError> {
    // The cursor is a delivery's number: claims and leases are in two families.
    let after = wanted.after.as_deref().map(decode_number_key).transpose()?;
    let mut deliveries: Vec<(u64, ReadyKey, Timestamp)> = Vec::new();
    each_delivery(view, |number, key, claimed_at| {
        if key.line.queue == wanted.queue && after.is_none_or(|after| number > after) {
            deliveries.push((number, key, claimed_at));
        }
    })?;
    deliveries.sort_unstable_by_key(|(number, ..)| *number);
    let mut part = Part::default();
    let mut last = None;
    for (number, key, claimed_at) in deliveries {
        // Settled ones are still named by the claim that they belong to.
        let Some(value) = view.get(Family::Ready, &key.encode())? else { continue };
        if part.found.len() >= wanted.limit {
            part.next = last.map(super::keys::number_key);
            break;
        }
        let mut found = at_ready(view, cursors, key, value)?;
        found.record.at = claimed_at;
        part.found.push(found);
        last = Some(number);
    }
    Ok(part)
}

/// Every delivery in flight, and some that are settled but belong to a claim that is not.
fn each_delivery(view: &dyn View, mut visit: impl FnMut(u64, ReadyKey, Timestamp)) -> Result<(), QueueError> {
    for_each(view, Family::Claim, &[], |key, value| {
        let first = decode_number_key(key)?;
        let record = ClaimRecord::decode(value)?;
        for (key, number) in record.keys()?.into_iter().zip(first..) {
            visit(number, key, record.claimed_at);
        }
        Ok(())
    })?;
    for_each(view, Family::Lease, &[], |key, value| {
        let record = LeaseRecord::decode(value)?;
        visit(decode_number_key(key)?, record.key()?, record.claimed_at);
        Ok(())
    })
}

/// When a leased entry was claimed, as its entry does not say. Looks at all that is in flight, which is bounded.
pub(crate) fn claimed_at(view: &dyn View, leased: ReadyKey) -> Result<Option<Timestamp>, QueueError> {
    let mut found = None;
    each_delivery(view, |_, key, claimed_at| {
        if key == leased {
            found = Some(claimed_at);
        }
    })?;
    Ok(found)
}

fn scheduled(view: &dyn View, wanted: &Wanted) -> Result<Part, QueueError> {
    let mut walk = Walk::new(wanted);
    walk.over(view, Family::Due, &due_cursor(view)?, &[], |key, value| {
        let at = DueKey::decode(key)?;
        if at.queue != wanted.queue {
            return Ok(None);
        }
        let Some(record) = DueValue::entry(&value)? else { return Ok(None) };
        let past = place(view, record.number)?.past;
        Ok(Some(Found { at: Whereabouts::Due(at), queue: at.queue, record, past, placed: true, result: None }))
    })?;
    Ok(walk.part)
}

/// Entries behind others, key by key.
fn waiting(view: &dyn View, wanted: &Wanted) -> Result<Part, QueueError> {
    let prefix = wanted.queue.to_be_bytes();
    let mut walk = Walk::new(wanted);
    walk.over(view, Family::Waiting, &prefix, &after_prefix(&prefix), |key, value| {
        waiter(view, WaitingKey::decode(key)?, &value).map(Some)
    })?;
    Ok(walk.part)
}

/// Up to `max` entries that wait for one ordering key and are wanted, in their order.
pub(crate) fn waiting_for(
    view: &dyn View,
    queue: QueueId,
    name: &str,
    max: usize,
    mut is_wanted: impl FnMut(&Found) -> bool,
) -> Result<Vec<EntryKey>, QueueError> {
    let Some(record) = ordering::read(view, queue, name)? else { return Ok(Vec::new()) };
    let spot = |position| WaitingKey { queue, key: record.id, position }.encode();
    let mut found = Vec::new();
    let mut examined = 0;
    view.scan(Family::Waiting, &spot(record.from), &spot(u64::MAX), &mut |key, value| {
        examined += 1;
        match WaitingKey::decode(key).map_err(QueueError::from).and_then(|key| waiter(view, key, value)) {
            Ok(waiter) if is_wanted(&waiter) => found.push(waiter.key()),
            Ok(_) => {}
            Err(error) => tracing::error!(?key, %error, "an entry cannot be read, and is left out"),
        }
        if found.len() < max && examined < MAX_EXAMINED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

fn waiter(view: &dyn View, at: WaitingKey, value: &[u8]) -> Result<Found, QueueError> {
    let value = Bytes::copy_from_slice(value);
    let number = super::entry::EntryRecord::decode(value.clone())?.number;
    at_waiting(at, value, place(view, number)?.past)
}

/// Done entries in the order of completion. Many share a record; the cursor names the record and how many of it were
/// shown.
fn done(view: &dyn View, wanted: &Wanted) -> Result<Part, QueueError> {
    let start = EndKey { queue: wanted.queue, position: wanted.from.done }.encode();
    let (from, mut skip) = match wanted.after.as_deref() {
        None => (start, 0),
        Some(after) => {
            let (order, shown) = after.split_at_checked(start.len()).ok_or(super::keys::BadKey)?;
            (Key::from_slice(order).max(start), decode_number_key(shown)?)
        }
    };
    let mut part = Part::default();
    try_scan(view, Family::DoneOrder, &from, &after_prefix(&wanted.queue.to_be_bytes()), |key, value| {
        // Of the first record only, readable or not.
        let shown = usize::try_from(std::mem::take(&mut skip)).unwrap_or(usize::MAX);
        let order = match DoneOrderRecord::decode(value) {
            Ok(order) => order,
            Err(error) => {
                tracing::error!(?key, %error, "done entries cannot be read, and are left out");
                return Ok(ControlFlow::Continue(()));
            }
        };
        for (index, number) in (0u64..).zip(order.numbers).skip(shown) {
            if part.found.len() >= wanted.limit {
                let mut next = Key::from_slice(key);
                next.extend_from_slice(&index.to_be_bytes());
                part.next = Some(next);
                return Ok(ControlFlow::Break(()));
            }
            let at = EndKey { queue: wanted.queue, position: number };
            let found = view.get(Family::Done, &at.encode());
            match found.and_then(|value| value.map(|value| ended(Whereabouts::Done(at), &value)).transpose()) {
                Ok(found) => part.found.extend(found),
                Err(QueueError::Corrupt(problem)) => {
                    tracing::error!(?at, problem, "a done entry cannot be read, and is left out");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(part)
}

fn list(
    view: &dyn View,
    wanted: &Wanted,
    family: Family,
    from: u64,
    whereabouts: fn(EndKey) -> Whereabouts,
) -> Result<Part, QueueError> {
    let from = EndKey { queue: wanted.queue, position: from }.encode();
    let mut walk = Walk::new(wanted);
    walk.over(view, family, &from, &after_prefix(&wanted.queue.to_be_bytes()), |key, value| {
        ended(whereabouts(EndKey::decode(key)?), &value).map(Some)
    })?;
    Ok(walk.part)
}

/// Gathers a part from one range or several, which are in the order of their keys.
struct Walk<'a> {
    wanted: &'a Wanted,
    examined: usize,
    last: Option<Key>,
    part: Part,
}

impl<'a> Walk<'a> {
    fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, examined: 0, last: None, part: Part::default() }
    }

    fn over(
        &mut self,
        view: &dyn View,
        family: Family,
        from: &[u8],
        to: &[u8],
        mut look: impl FnMut(&[u8], Bytes) -> Result<Option<Found>, QueueError>,
    ) -> Result<(), QueueError> {
        if self.part.next.is_some() {
            return Ok(());
        }
        let mut start = Key::from_slice(from);
        if let Some(after) = &self.wanted.after {
            // The first key behind it.
            let mut behind = after.clone();
            behind.push(0);
            start = start.max(behind);
        }
        if !to.is_empty() && start.as_slice() >= to {
            return Ok(());
        }
        try_scan(view, family, &start, to, |key, value| {
            if self.part.found.len() >= self.wanted.limit || self.examined >= MAX_EXAMINED {
                self.part.next.clone_from(&self.last);
                return Ok(ControlFlow::Break(()));
            }
            self.examined += 1;
            self.last = Some(Key::from_slice(key));
            match look(key, Bytes::copy_from_slice(value)) {
                Ok(found) => self.part.found.extend(found),
                Err(QueueError::Corrupt(problem)) => {
                    tracing::error!(?key, problem, "an entry cannot be read, and is left out");
                }
                Err(error) => return Err(error),
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Deletes up to `max` keys with this prefix; false: there may be more.
pub(crate) fn delete_some(
    tx: &mut super::store::Tx<'_>,
    family: Family,
    prefix: &[u8],
    max: usize,
) -> Result<bool, QueueError> {
    let mut keys = Vec::new();
    tx.scan(family, prefix, &after_prefix(prefix), &mut |key, _| {
        keys.push(Key::from_slice(key));
        if keys.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    let is_last = keys.len() < max;
    for key in keys {
        tx.delete(family, key);
    }
    Ok(is_last)
}
