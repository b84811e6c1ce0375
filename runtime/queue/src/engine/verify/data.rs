//! Data: bodies and who refers to them, the log, state.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::entries::each_again;
use super::{Check, again};
use crate::contract::QueueError;
use crate::engine::body;
use crate::engine::event::{BodyRef, EncodedEvent};
use crate::engine::keys::{Family, Key, LogKey, Meta, decode_named_key, decode_number_key, number_key};
use crate::engine::kv;
use crate::engine::records::{LogRecord, NumberRecord, Record};
use crate::engine::store::View;

pub(super) fn check(check: &mut Check<'_>) -> Result<(), QueueError> {
    // Entries have told of their bodies already.
    log(check)?;
    bodies(check)?;
    state(check)
}

/// What a segment has.
#[derive(Default)]
struct Segment {
    events: u64,
    /// Events with a body to which the segment refers.
    referring: u64,
    /// Bodies to which the segment refers.
    bodies: u64,
    unreadable: bool,
}

fn log(check: &mut Check<'_>) -> Result<(), QueueError> {
    let mut segments: BTreeMap<u64, Segment> = BTreeMap::new();
    let oldest = check.directory.segments.keys().next().copied();
    check.each(Family::Log, |check, key, value| {
        let at = LogKey::decode(key)?;
        check.issued(Family::Log, key, at.position);
        let segment = segments.entry(at.segment).or_default();
        segment.events += 1;
        let read = read_log(value);
        segment.unreadable |= read.is_err();
        let Some(body) = read? else { return Ok(()) };
        let reference = LogKey { segment: at.segment, position: body.number };
        if check.view.get(Family::LogBody, &reference.encode())?.is_some() {
            segment.referring += 1;
            check.bodies.add(&(body.number, body.length), 1);
        } else if Some(at.segment) != oldest || segment.referring > 0 {
            // The oldest segment may be about to go: its bodies go first, in their order.
            check.problem(Family::Log, key, format!("its segment does not refer to its body {}", body.number));
        }
        Ok(())
    })?;
    check.each(Family::LogBody, |check, key, _| {
        let at = LogKey::decode(key)?;
        check.issued(Family::LogBody, key, at.position);
        segments.entry(at.segment).or_default().bodies += 1;
        Ok(())
    })?;
    compare_segments(check, &segments);
    Ok(())
}

/// The body of a logged event.
fn read_log(value: &[u8]) -> Result<Option<BodyRef>, QueueError> {
    let event = EncodedEvent::from_bytes(LogRecord::decode(value)?.event);
    event.decode(None)?;
    Ok(event.body()?)
}

fn compare_segments(check: &mut Check<'_>, segments: &BTreeMap<u64, Segment>) {
    let mut problems = Vec::new();
    for (id, found) in segments {
        if !check.directory.segments.contains_key(id) {
            problems.push((*id, format!("it is missing, and has {} events and {} bodies", found.events, found.bodies)));
        } else if found.bodies > found.referring && !found.unreadable {
            let problem = format!("it refers to {} bodies; its events have {}", found.bodies, found.referring);
            problems.push((*id, problem));
        }
    }
    for (id, record) in &check.directory.segments {
        let events = segments.get(id).map_or(0, |found| found.events);
        if record.events != events {
            problems.push((*id, format!("it counts {} events; there are {events}", record.events)));
        }
    }
    for (id, problem) in problems {
        check.problem(Family::Meta, &Meta::Segment(id).encode(), problem);
    }
}

fn bodies(check: &mut Check<'_>) -> Result<(), QueueError> {
    check.each(Family::Body, |check, key, value| {
        let number = decode_number_key(key)?;
        check.issued(Family::Body, key, number);
        // A count that cannot be read is reported with it.
        let references = body::references(check.view, number).unwrap_or(1);
        check.bodies.add(&(number, value.len() as u64), -i128::from(references));
        Ok(())
    })?;
    check.each(Family::BodyCount, |check, key, value| {
        let number = decode_number_key(key)?;
        let count = NumberRecord::decode(value)?.0;
        if count < 2 {
            check.problem(Family::BodyCount, key, format!("it counts {count}, which is not counted"));
        }
        if check.view.get(Family::Body, &number_key(number))?.is_none() {
            check.problem(Family::BodyCount, key, "there is no such body");
        }
        Ok(())
    })?;
    if check.bodies.is_even() { Ok(()) } else { bodies_again(check) }
}

/// Which bodies have other references, or another length, than they should.
fn bodies_again(check: &mut Check<'_>) -> Result<(), QueueError> {
    let (view, balance) = (check.view, &check.bodies);
    let mut wanted: HashMap<BodyRef, u64> = HashMap::new();
    let mut want = |body: BodyRef| {
        if balance.is_off(&(body.number, body.length)) {
            *wanted.entry(body).or_default() += 1;
        }
    };
    each_again(view, |_, _, seen| {
        if let Ok(Some(body)) = seen.record.event.body() {
            want(body);
        }
    })?;
    again(view, Family::Log, &[], |key, value| {
        if let (Ok(at), Ok(Some(body))) = (LogKey::decode(key), read_log(value))
            && has_reference(view, at.segment, body.number)
        {
            want(body);
        }
    })?;
    let mut problems = Vec::new();
    again(view, Family::Body, &[], |key, value| {
        let Ok(number) = decode_number_key(key) else { return };
        let body = BodyRef { number, length: value.len() as u64 };
        if !balance.is_off(&(body.number, body.length)) {
            return;
        }
        let found = wanted.remove(&body).unwrap_or(0);
        let counted = body::references(view, number).unwrap_or(1);
        if found != counted {
            problems.push((Key::from_slice(key), format!("it counts {counted} references; there are {found}")));
        }
    })?;
    for (BodyRef { number, length }, times) in wanted {
        let problem = format!("{times} references are to {length} bytes, and there is no such body");
        problems.push((number_key(number), problem));
    }
    for (key, problem) in problems {
        check.problem(Family::Body, &key, problem);
    }
    Ok(())
}

fn has_reference(view: &dyn View, segment: u64, number: u64) -> bool {
    view.get(Family::LogBody, &LogKey { segment, position: number }.encode()).is_ok_and(|value| value.is_some())
}

/// Buckets have as many bytes as they count.
fn state(check: &mut Check<'_>) -> Result<(), QueueError> {
    let mut bytes: BTreeMap<u32, u64> = BTreeMap::new();
    check.each(Family::State, |check, key, value| {
        let (bucket, name) = decode_named_key(key)?;
        if !check.directory.buckets.contains_key(&bucket) {
            check.problem(Family::State, key, format!("there is no bucket number {bucket}"));
        }
        // One that cannot be read counts as what is there: the version byte is not part of it.
        *bytes.entry(bucket).or_default() += (name.len() + value.len().saturating_sub(1)) as u64;
        kv::decode_value(&Bytes::copy_from_slice(value))?;
        Ok(())
    })?;
    let mut problems = Vec::new();
    for (id, bucket) in &check.directory.buckets {
        let found = bytes.get(id).copied().unwrap_or(0);
        if found != bucket.bytes {
            problems.push((Meta::Bucket(*id).encode(), format!("it counts {} bytes; there are {found}", bucket.bytes)));
        }
    }
    for (key, problem) in problems {
        check.problem(Family::Meta, &key, problem);
    }
    Ok(())
}
