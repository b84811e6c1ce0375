//! The event log: what was published, in segments, so that a queue can be filled with it again. A segment is as long as
//! a sixteenth of the retention, and falls away whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use gristmill_core::Timestamp;

use super::Now;
use super::body;
use super::event::EncodedEvent;
use super::keys::{Family, Key, LogKey, Meta, QueueId, after_prefix};
use super::records::{LogRecord, Record, SegmentRecord};
use super::state::State;
use super::store::{Tx, View, for_each, try_scan};
use super::sweep::{Progress, SWEEP};
use crate::contract::QueueError;

/// Into how many segments the retention is cut.
const SEGMENTS: u32 = 16;
/// A segment has at most so many events.
const MAX_EVENTS: u64 = 1_000_000;

/// The segments that there are.
#[derive(Debug, Default)]
pub(crate) struct Log {
    segments: BTreeMap<u64, SegmentRecord>,
    dirty: bool,
}

impl Log {
    pub(crate) fn read(view: &dyn View) -> Result<Self, QueueError> {
        let mut segments = BTreeMap::new();
        for_each(view, Family::Meta, &Meta::Segment(0).kind(), |key, value| {
            if let Meta::Segment(id) = Meta::decode(key)? {
                segments.insert(id, SegmentRecord::decode(value)?);
            }
            Ok(())
        })?;
        Ok(Self { segments, dirty: false })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Adds the record of the segment that is written to.
    pub(crate) fn finish(&mut self, tx: &mut Tx<'_>) {
        if std::mem::take(&mut self.dirty)
            && let Some((id, segment)) = self.segments.last_key_value()
        {
            tx.put(Family::Meta, Meta::Segment(*id).encode(), segment.encode());
        }
    }

    /// The first segment, from this one on, that has anything published at `from` or later, and will stay.
    fn first_since(&self, segment: u64, from: Timestamp) -> Option<u64> {
        let mut wanted = self.segments.range(segment..).filter(|(_, segment)| !is_going(segment));
        wanted.find(|(_, segment)| segment.last_at >= from).map(|(id, _)| *id)
    }
}

/// Whether a segment is being dropped: then some of its bodies are gone, whatever the clock says by now.
fn is_going(segment: &SegmentRecord) -> bool {
    segment.last_at < segment.started_at
}

/// A published event as the log keeps it.
pub(crate) struct Logged<'a> {
    pub(crate) event: &'a EncodedEvent,
    pub(crate) priority: u8,
    pub(crate) key: Option<&'a str>,
    pub(crate) queues: Vec<QueueId>,
}

/// Notes a publish, if there is a log.
pub(crate) fn append(state: &mut State, tx: &mut Tx<'_>, logged: Logged<'_>, now: Now) -> Result<(), QueueError> {
    let Some(retention) = state.settings.log_retention else { return Ok(()) };
    let length = (retention / SEGMENTS).max(Duration::from_secs(1));
    let open = state
        .log
        .segments
        .last_key_value()
        .filter(|(_, segment)| segment.events < MAX_EVENTS && now.wall.since(segment.started_at) < length);
    let id = match open {
        Some((id, _)) => *id,
        None => {
            // A segment that is written to no more must be stored as it is.
            state.log.finish(tx);
            let id = state.next_number()?;
            let segment = SegmentRecord { started_at: now.wall, last_at: now.wall, events: 0 };
            state.log.segments.insert(id, segment);
            id
        }
    };
    let record = LogRecord {
        at: now.wall,
        priority: logged.priority,
        key: logged.key.map(str::to_owned),
        queues: logged.queues,
        event: logged.event.as_bytes().clone(),
    };
    let position = state.next_number()?;
    tx.put(Family::Log, LogKey { segment: id, position }.encode(), record.encode());
    if let Some(body) = logged.event.body()? {
        body::share(tx, logged.event)?;
        tx.put(Family::LogBody, LogKey { segment: id, position: body.number }.encode(), Vec::new());
    }
    if let Some(segment) = state.log.segments.get_mut(&id) {
        segment.events += 1;
        segment.last_at = segment.last_at.max(now.wall);
    }
    state.log.dirty = true;
    Ok(())
}

/// Drops the oldest segment if everything in it is older than the retention. First its bodies, then all of it.
pub(crate) fn drop_old(state: &mut State, tx: &mut Tx<'_>, now: Now) -> Result<Progress, QueueError> {
    let retention = state.settings.log_retention.unwrap_or_default();
    let Some((&id, &segment)) = state.log.segments.first_key_value() else { return Ok(Progress::Finished) };
    if !is_going(&segment) && now.wall.since(segment.last_at) < retention {
        return Ok(Progress::Finished);
    }
    let from = LogKey { segment: id, position: 0 }.encode();
    let to = after_prefix(&id.to_be_bytes());
    let mut bodies = Vec::new();
    tx.scan(Family::LogBody, &from, &to, &mut |key, _| {
        bodies.push(LogKey::decode(key));
        if bodies.len() >= SWEEP { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let is_last = bodies.len() < SWEEP;
    for key in bodies {
        let key = key?;
        body::release_number(state, tx, key.position)?;
        tx.delete(Family::LogBody, key.encode());
    }
    if !is_last {
        let going = SegmentRecord { last_at: Timestamp::EPOCH, ..segment };
        tx.put(Family::Meta, Meta::Segment(id).encode(), going.encode());
        state.log.segments.insert(id, going);
    } else {
        tx.delete_range(Family::Log, from, to);
        tx.delete(Family::Meta, Meta::Segment(id).encode());
        state.log.segments.remove(&id);
    }
    Ok(Progress::More)
}

/// What the log has behind `after`, from `from` on; up to `limit` events, and where the next part begins.
pub(crate) fn part(
    state: &State,
    view: &dyn View,
    (from, after): (Timestamp, Option<&Key>),
    limit: usize,
) -> Result<(Vec<LogRecord>, Option<Key>), QueueError> {
    let reached = after.map_or(Ok(0), |after| LogKey::decode(after).map(|after| after.segment))?;
    // What it had come to may have been dropped since, or be about to.
    let Some(segment) = state.log.first_since(reached, from) else { return Ok((Vec::new(), None)) };
    let mut start = LogKey { segment, position: 0 }.encode();
    if let Some(after) = after {
        let mut behind = after.clone();
        behind.push(0);
        start = start.max(behind);
    }
    let mut records = Vec::new();
    let mut last = None;
    let mut more = false;
    try_scan(view, Family::Log, &start, &[], |key, value| {
        if records.len() >= limit {
            more = true;
            return Ok(ControlFlow::Break(()));
        }
        last = Some(Key::from_slice(key));
        records.push(LogRecord::decode(value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((records, last.filter(|_| more)))
}
