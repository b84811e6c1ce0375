//! Ordering keys: who is busy, who waits, who holds, and which timers are set.

use std::collections::HashMap;

use bytes::Bytes;
use gristmill_core::Timestamp;

use super::entries::{busy_key, each_again};
use super::{Check, again};
use crate::contract::QueueError;
use crate::engine::due::DueValue;
use crate::engine::entry::EntryRecord;
use crate::engine::ids::EntryKey;
use crate::engine::keys::{DueKey, EndKey, Family, QueueId, WaitingKey, decode_named_key, named_key, number_key};
use crate::engine::records::{EndRecord, KeyRecord, PlaceRecord, Record, Spot, TimerRecord};
use crate::engine::store::View;

/// A timer that an ordering key has set is set off against it. One that nobody has set any more does nothing.
pub(super) fn check_timer(check: &mut Check<'_>, key: &[u8], value: &[u8]) -> Result<(), QueueError> {
    let DueKey { time, queue, .. } = DueKey::decode(key)?;
    match timer(value)? {
        TimerRecord::TimeToLive(entry) => check.issued(Family::Due, key, entry.number),
        TimerRecord::Key(name) => {
            let record = check.view.get(Family::Key, &named_key(queue, &name))?;
            let record = record.and_then(|bytes| KeyRecord::decode(&bytes).ok());
            if record.is_some_and(|record| record.timer == Some(time)) {
                check.timers.add(&(queue, name.as_str(), time.as_micros()), -1);
            }
        }
    }
    Ok(())
}

fn timer(value: &[u8]) -> Result<TimerRecord, QueueError> {
    match DueValue::decode(&Bytes::copy_from_slice(value))? {
        DueValue::Timer(timer) => Ok(timer),
        DueValue::Entry(_) => Err(QueueError::Corrupt("it is no timer".to_owned())),
    }
}

/// Reads the records of all keys, and the entries that wait for each.
pub(super) fn check(check: &mut Check<'_>) -> Result<(), QueueError> {
    check.each(Family::Key, |check, key, value| {
        let (queue, name) = decode_named_key(key)?;
        let record = KeyRecord::decode(value)?;
        check.issued(Family::Key, key, record.id);
        if !check.has_queue(Family::Key, key, queue) {
            return Ok(());
        }
        let waiting = waiting(check, key, (queue, name), &record)?;
        if waiting != record.waiting {
            check.problem(Family::Key, key, format!("it counts {} waiting; there are {waiting}", record.waiting));
        }
        check.busy.add(&(queue, name), -i128::from(record.busy));
        for entry in &record.held_by {
            if !holds(check.view, *entry, queue, name)? {
                let problem = format!("it is held by entry number {}, which is no dead letter that does", entry.number);
                check.problem(Family::Key, key, problem);
            }
        }
        match record.timer {
            Some(time) => check.timers.add(&(queue, name, time.as_micros()), 1),
            None if !record.is_in_use() => check.problem(Family::Key, key, "nobody uses it"),
            None if record.busy == 0 && record.held_by.is_empty() => {
                check.problem(Family::Key, key, "entries wait behind nobody");
            }
            None => {}
        }
        Ok(())
    })?;
    if !check.busy.is_even() {
        busy_again(check)?;
    }
    if !check.timers.is_even() {
        timers_again(check)?;
    }
    Ok(())
}

/// How many entries wait for a key; each must be one of its own.
fn waiting(
    check: &mut Check<'_>,
    key: &[u8],
    (queue, name): (QueueId, &str),
    record: &KeyRecord,
) -> Result<u64, QueueError> {
    let prefix = WaitingKey { queue, key: record.id, position: 0 }.encode();
    let mut count = 0;
    let mut strangers = 0;
    again(
        check.view,
        Family::Waiting,
        prefix.get(..prefix.len().saturating_sub(8)).unwrap_or_default(),
        |_, value| {
            count += 1;
            let entry = EntryRecord::decode(Bytes::copy_from_slice(value));
            strangers += u64::from(entry.is_ok_and(|entry| entry.key() != Some(name)));
        },
    )?;
    if strangers > 0 {
        check.problem(Family::Key, key, format!("{strangers} entries wait for it that have another key"));
    }
    Ok(count)
}

/// Whether an entry is a dead letter of this key that holds it.
fn holds(view: &dyn View, entry: EntryKey, queue: QueueId, name: &str) -> Result<bool, QueueError> {
    let Some(place) = view.get(Family::Place, &number_key(entry.number))? else { return Ok(false) };
    let Ok(PlaceRecord { at: Spot::Dead { queue: of, position }, .. }) = PlaceRecord::decode(&place) else {
        return Ok(false);
    };
    let Some(value) = view.get(Family::Dead, &EndKey { queue: of, position }.encode())? else { return Ok(false) };
    // One that cannot be read was reported already.
    let Ok(end) = EndRecord::decode(&value) else { return Ok(true) };
    let Ok(record) = EntryRecord::decode(end.entry) else { return Ok(true) };
    Ok(of == queue && entry.queue == queue && end.past.holds_key && record.key() == Some(name))
}

/// Which keys are not as busy as they say.
fn busy_again(check: &mut Check<'_>) -> Result<(), QueueError> {
    let (view, balance) = (check.view, &check.busy);
    let mut busy: HashMap<(QueueId, String), u64> = HashMap::new();
    each_again(view, |_, _, seen| {
        // What cannot be looked up was reported the first time.
        if let Ok(Some(name)) = busy_key(view, seen)
            && balance.is_off(&(seen.queue, name))
        {
            *busy.entry((seen.queue, name.to_owned())).or_default() += 1;
        }
    })?;
    let mut problems = Vec::new();
    again(view, Family::Key, &[], |key, value| {
        let (Ok((queue, name)), Ok(record)) = (decode_named_key(key), KeyRecord::decode(value)) else { return };
        if balance.is_off(&(queue, name)) {
            let found = busy.remove(&(queue, name.to_owned())).unwrap_or(0);
            if found != u64::from(record.busy) {
                let what = format!("it counts {} busy; there are {found}", record.busy);
                problems.push((Bytes::copy_from_slice(key), what));
            }
        }
    })?;
    for ((queue, name), found) in busy {
        if check.directory.queues.contains_key(&queue) {
            let key = Bytes::copy_from_slice(&named_key(queue, &name));
            problems.push((key, format!("it is missing, or cannot be read, and {found} entries are busy with it")));
        }
    }
    for (key, what) in problems {
        check.problem(Family::Key, &key, what);
    }
    Ok(())
}

/// Which keys wait for a timer that is not there.
fn timers_again(check: &mut Check<'_>) -> Result<(), QueueError> {
    let (view, balance) = (check.view, &check.timers);
    let mut missing: HashMap<(QueueId, String, Timestamp), Bytes> = HashMap::new();
    again(view, Family::Key, &[], |key, value| {
        let (Ok((queue, name)), Ok(record)) = (decode_named_key(key), KeyRecord::decode(value)) else { return };
        if let Some(time) = record.timer
            && balance.is_off(&(queue, name, time.as_micros()))
        {
            missing.insert((queue, name.to_owned(), time), Bytes::copy_from_slice(key));
        }
    })?;
    again(view, Family::Due, &[], |key, value| {
        if let (Ok(DueKey { time, queue, .. }), Ok(TimerRecord::Key(name))) = (DueKey::decode(key), timer(value)) {
            missing.remove(&(queue, name, time));
        }
    })?;
    for ((_, _, time), key) in missing {
        check.problem(Family::Key, &key, format!("the timer that it set to {time} is missing"));
    }
    Ok(())
}
