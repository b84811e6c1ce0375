//! What points at entries: places, the order of completion, earlier publishes.

use std::collections::HashMap;

use bytes::Bytes;

use super::entries::each_again;
use super::{Check, again};
use crate::contract::QueueError;
use crate::engine::due::DueValue;
use crate::engine::entry::EntryRecord;
use crate::engine::keys::{
    DueKey, EndKey, Family, QueueId, ReadyKey, WaitingKey, decode_number_key, decode_origin_key,
};
use crate::engine::read::Whereabouts;
use crate::engine::records::{DoneOrderRecord, EndRecord, OriginRecord, PlaceRecord, Record, Spot};
use crate::engine::store::View;

pub(super) fn check(check: &mut Check<'_>) -> Result<(), QueueError> {
    check.each(Family::Place, |check, key, value| {
        let number = decode_number_key(key)?;
        check.issued(Family::Place, key, number);
        let place = PlaceRecord::decode(value)?;
        // What cannot be read there was reported with it.
        if let Ok(found) = number_at(check.view, place.at)
            && found != Some(number)
        {
            let is = found.map_or("nothing is there".to_owned(), |found| format!("entry number {found} is there"));
            check.problem(Family::Place, key, format!("it points to {:?}, and {is}", place.at));
        }
        Ok(())
    })?;
    check.each(Family::DoneOrder, |check, key, value| {
        let at = EndKey::decode(key)?;
        check.issued(Family::DoneOrder, key, at.position);
        let order = DoneOrderRecord::decode(value)?;
        if !check.has_queue(Family::DoneOrder, key, at.queue) {
            return Ok(());
        }
        if check.directory.queues.get(&at.queue).is_some_and(|queue| at.position < queue.from.done) {
            check.problem(Family::DoneOrder, key, "it is before the place where its queue's list begins");
        }
        for number in order.numbers {
            // Those that were purged are still in the order.
            let done = EndKey { queue: at.queue, position: number };
            if check.view.get(Family::Done, &done.encode())?.is_some() {
                check.done.add(&(at.queue, number), -1);
            }
        }
        Ok(())
    })?;
    if !check.done.is_even() {
        order_again(check)?;
    }
    check.each(Family::Origin, |check, key, value| {
        decode_origin_key(key)?;
        for entry in OriginRecord::decode(value)?.entries {
            check.issued(Family::Origin, key, entry.number);
        }
        Ok(())
    })
}

/// The number of the entry at this spot.
fn number_at(view: &dyn View, spot: Spot) -> Result<Option<u64>, QueueError> {
    let (family, key) = match spot {
        Spot::Ready { line, position } => (Family::Ready, ReadyKey { line: line.try_into()?, position }.encode()),
        Spot::Due { time, queue, position } => (Family::Due, DueKey { time, queue, position }.encode()),
        Spot::Waiting { queue, key, position } => (Family::Waiting, WaitingKey { queue, key, position }.encode()),
        Spot::Dead { queue, position } => (Family::Dead, EndKey { queue, position }.encode()),
        Spot::Cancelled { queue, position } => (Family::Cancelled, EndKey { queue, position }.encode()),
    };
    let Some(value) = view.get(family, &key)? else { return Ok(None) };
    let record = match family {
        Family::Due => match DueValue::entry(&value)? {
            Some(record) => record,
            None => return Ok(None),
        },
        Family::Dead | Family::Cancelled => EntryRecord::decode(EndRecord::decode(&value)?.entry)?,
        _ => EntryRecord::decode(value)?,
    };
    Ok(Some(record.number))
}

/// Which done entries are not in the order of completion exactly once.
fn order_again(check: &mut Check<'_>) -> Result<(), QueueError> {
    let mut missing: HashMap<(QueueId, u64), (Bytes, u32)> = HashMap::new();
    each_again(check.view, |_, key, seen| {
        let done = (seen.queue, seen.record.number);
        if matches!(seen.at, Whereabouts::Done(_)) && check.done.is_off(&done) {
            missing.insert(done, (Bytes::copy_from_slice(key), 0));
        }
    })?;
    again(check.view, Family::DoneOrder, &[], |key, value| {
        let (Ok(at), Ok(order)) = (EndKey::decode(key), DoneOrderRecord::decode(value)) else { return };
        for number in order.numbers {
            if let Some((_, times)) = missing.get_mut(&(at.queue, number)) {
                *times += 1;
            }
        }
    })?;
    for (key, times) in missing.into_values().filter(|(_, times)| *times != 1) {
        check.problem(Family::Done, &key, format!("it is in the order of completion {times} times, not once"));
    }
    Ok(())
}
