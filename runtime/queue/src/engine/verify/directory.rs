//! What the store says of itself: the `Meta` family.

use std::collections::{BTreeMap, BTreeSet};

use gristmill_core::QueueName;

use super::Check;
use crate::contract::QueueError;
use crate::engine::keys::{DueKey, Family, Key, LaneKey, Meta, QueueId};
use crate::engine::records::{
    BucketRecord, LaneRecord, NumberRecord, QueueRecord, Record, SegmentRecord, StoreRecord, decode_options,
};

#[derive(Default)]
pub(super) struct Directory {
    /// No number from here on was issued.
    pub(super) reserved: u64,
    pub(super) due_cursor: Key,
    pub(super) queues: BTreeMap<QueueId, QueueRecord>,
    pub(super) lines: BTreeMap<LaneKey, LaneRecord>,
    pub(super) buckets: BTreeMap<u32, BucketRecord>,
    pub(super) segments: BTreeMap<u64, SegmentRecord>,
}

/// Reads all of it.
pub(super) fn check(check: &mut Check<'_>) -> Result<(), QueueError> {
    let mut last_queue = 0;
    let mut options = BTreeSet::new();
    let mut store = false;
    let mut reserved = false;
    check.each(Family::Meta, |check, key, value| {
        let directory = &mut check.directory;
        match Meta::decode(key)? {
            Meta::Store => {
                store = true;
                StoreRecord::decode(value)?;
            }
            Meta::Reserved => {
                reserved = true;
                directory.reserved = NumberRecord::decode(value)?.0;
            }
            Meta::DueCursor => {
                DueKey::decode(value)?;
                directory.due_cursor = Key::from_slice(value);
            }
            Meta::LastQueue => last_queue = NumberRecord::decode(value)?.0,
            Meta::Queue(id) => {
                let record = QueueRecord::decode(value)?;
                let name = QueueName::new(&record.name);
                directory.queues.insert(id, record);
                name.map_err(|error| QueueError::Corrupt(error.to_string()))?;
            }
            Meta::Options(id) => {
                options.insert(id);
                decode_options(value)?;
            }
            Meta::Lane(line) => {
                directory.lines.insert(line, LaneRecord::decode(value)?);
            }
            Meta::Bucket(id) => {
                directory.buckets.insert(id, BucketRecord::decode(value)?);
            }
            Meta::Segment(id) => {
                directory.segments.insert(id, SegmentRecord::decode(value)?);
            }
        }
        Ok(())
    })?;
    for (is_there, meta) in [(store, Meta::Store), (reserved, Meta::Reserved)] {
        if !is_there && check.report.records.values().any(|records| *records > 0) {
            check.problem(Family::Meta, &meta.encode(), "it is missing");
        }
    }
    if !reserved {
        // Nothing more is known of numbers.
        check.directory.reserved = u64::MAX;
    }
    queues(check, last_queue, &options);
    rest(check);
    Ok(())
}

fn queues(check: &mut Check<'_>, last_queue: u64, options: &BTreeSet<QueueId>) {
    let mut names = BTreeSet::new();
    let queues: Vec<_> =
        check.directory.queues.iter().map(|(id, queue)| (*id, queue.name.clone(), queue.deleting)).collect();
    for (id, name, deleting) in queues {
        let key = Meta::Queue(id).encode();
        if !options.contains(&id) {
            check.problem(Family::Meta, &key, "its options are missing");
        }
        if u64::from(id) > last_queue {
            check.problem(
                Family::Meta,
                &key,
                format!("its number was never given to a queue: the last was {last_queue}"),
            );
        }
        if !deleting && !names.insert(name.clone()) {
            check.problem(Family::Meta, &key, format!("another queue is called `{name}` as well"));
        }
    }
    for id in options {
        if !check.directory.queues.contains_key(id) {
            check.problem(Family::Meta, &Meta::Options(*id).encode(), format!("there is no queue number {id}"));
        }
    }
}

/// Lines, buckets and segments.
fn rest(check: &mut Check<'_>) {
    let lines: Vec<_> = check.directory.lines.iter().map(|(line, record)| (*line, record.cursor)).collect();
    for (line, cursor) in lines {
        let key = Meta::Lane(line).encode();
        check.has_queue(Family::Meta, &key, line.queue);
        check.issued(Family::Meta, &key, cursor.saturating_sub(1));
    }
    let mut names = BTreeSet::new();
    let buckets: Vec<_> = check.directory.buckets.iter().map(|(id, bucket)| (*id, bucket.name.clone())).collect();
    for (id, name) in buckets {
        if !names.insert(name.clone()) {
            check.problem(
                Family::Meta,
                &Meta::Bucket(id).encode(),
                format!("another bucket is called `{name}` as well"),
            );
        }
    }
    let segments: Vec<_> = check.directory.segments.keys().copied().collect();
    for id in segments {
        check.issued(Family::Meta, &Meta::Segment(id).encode(), id);
    }
}

impl Directory {
    /// Where the ready entries of a line begin.
    pub(super) fn cursor(&self, line: LaneKey) -> u64 {
        self.lines.get(&line).map_or(0, |line| line.cursor)
    }
}
