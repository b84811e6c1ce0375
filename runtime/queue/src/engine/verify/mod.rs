//! The check of a whole store, in the manner of a file system's: every record of every family is read, and compared with
//! what the others say.
//!
//! | file | what is checked |
//! | --- | --- |
//! | `directory` | what the store says of itself: queues, lines, buckets, segments |
//! | `entries` | entries in all states: places, holders, counts, cursors |
//! | `links` | what points at entries: places, the order of completion, earlier publishes |
//! | `ordering` | ordering keys: who is busy, who waits, who holds, which timer is set |
//! | `data` | bodies and who refers to them, the log, state |
//!
//! **Memory** does not grow with the number of entries. What is kept: queues, lines, buckets and segments, as the writer
//! itself does; the keys of deliveries in flight, which `max_in_flight` bounds; and [`balance`]s. Lists that sort
//! differently are compared by lookups, or by balances and, where these are off, once more one by one.
//!
//! What cannot be read is reported and passed over; so is what a store's own checksums refuse, which every read checks.
//! Not noticed: the same number as an entry that never left its first ready key in two queues, and whether numbers,
//! times and contents that nothing else repeats are the right ones.

mod balance;
mod data;
mod directory;
mod entries;
mod links;
mod ordering;
#[cfg(test)]
pub(super) mod tests;

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use balance::Balance;
use directory::Directory;

use super::keys::{DueKey, EndKey, Family, LogKey, Meta, QueueId, ReadyKey, WaitingKey};
use super::keys::{LaneKey, after_prefix, decode_named_key, decode_number_key};
use super::records::Counts;
use super::store::View;
use crate::contract::{MAX_PROBLEMS, Problem, QueueError, VerifyReport};

/// Reads everything in the store and says what is wrong with it.
///
/// # Errors
/// When the store cannot be read at all. What is damaged is part of the report.
pub(crate) fn verify(view: &dyn View) -> Result<VerifyReport, QueueError> {
    let mut check = Check::new(view);
    directory::check(&mut check)?;
    entries::check_holders(&mut check)?;
    entries::check(&mut check)?;
    links::check(&mut check)?;
    ordering::check(&mut check)?;
    data::check(&mut check)?;
    entries::check_counts(&mut check);
    Ok(check.report)
}

/// A check in progress.
struct Check<'a> {
    view: &'a dyn View,
    report: VerifyReport,
    directory: Directory,
    /// Ready keys of deliveries in flight.
    held: HashSet<ReadyKey>,
    /// What was found of each queue.
    found: BTreeMap<QueueId, Real>,
    /// Ready entries that were found in each line.
    lines: BTreeMap<LaneKey, u64>,
    /// Entries that keep their ordering key busy; what the keys' records say.
    busy: Balance,
    /// Done entries; the order of completion.
    done: Balance,
    /// References to bodies; what the bodies' counts say.
    bodies: Balance,
    /// Timers that ordering keys have set; those that are there.
    timers: Balance,
}

/// What a queue really has.
#[derive(Default)]
struct Real {
    counts: Counts,
    /// Some of it cannot be read: its size is not known.
    unreadable: bool,
}

impl<'a> Check<'a> {
    fn new(view: &'a dyn View) -> Self {
        Self {
            view,
            report: VerifyReport::default(),
            directory: Directory::default(),
            held: HashSet::new(),
            found: BTreeMap::new(),
            lines: BTreeMap::new(),
            busy: Balance::new(),
            done: Balance::new(),
            bodies: Balance::new(),
            timers: Balance::new(),
        }
    }

    fn problem(&mut self, family: Family, key: &[u8], what: impl Into<String>) {
        if self.report.problems.len() >= MAX_PROBLEMS {
            self.report.more += 1;
            return;
        }
        self.report.problems.push(Problem { family: name(family), key: readable(family, key), what: what.into() });
    }

    /// Reads a family. What is corrupt is a problem, and does not end the check.
    fn each(
        &mut self,
        family: Family,
        mut look: impl FnMut(&mut Self, &[u8], &[u8]) -> Result<(), QueueError>,
    ) -> Result<(), QueueError> {
        let view = self.view;
        let mut records = 0;
        let mut failed = None;
        let scanned = view.scan(family, &[], &[], &mut |key, value| {
            records += 1;
            match look(self, key, value) {
                Ok(()) => ControlFlow::Continue(()),
                Err(QueueError::Corrupt(problem)) => {
                    self.problem(family, key, problem);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        self.report.records.insert(name(family), records);
        match (scanned, failed) {
            (_, Some(error)) => Err(error),
            (Err(QueueError::Corrupt(problem)), None) => {
                self.problem(family, &[], format!("it cannot be read behind {records} records: {problem}"));
                Ok(())
            }
            (scanned, None) => scanned,
        }
    }

    /// A number, a position or a delivery that this record has: issued, so that it is below the reserved number.
    fn issued(&mut self, family: Family, key: &[u8], number: u64) {
        let reserved = self.directory.reserved;
        if number >= reserved {
            self.problem(family, key, format!("number {number} was never issued: the next is {reserved} at least"));
        }
    }

    /// Whether there is this queue.
    fn has_queue(&mut self, family: Family, key: &[u8], queue: QueueId) -> bool {
        let exists = self.directory.queues.contains_key(&queue);
        if !exists {
            self.problem(family, key, format!("there is no queue number {queue}"));
        }
        exists
    }
}

/// Reads a part of a family once more. What cannot be read was reported the first time.
fn again(view: &dyn View, family: Family, prefix: &[u8], mut look: impl FnMut(&[u8], &[u8])) -> Result<(), QueueError> {
    let scanned = view.scan(family, prefix, &after_prefix(prefix), &mut |key, value| {
        look(key, value);
        ControlFlow::Continue(())
    });
    match scanned {
        Err(QueueError::Corrupt(_)) => Ok(()),
        other => other,
    }
}

/// What a family is called in reports.
const fn name(family: Family) -> &'static str {
    match family {
        Family::Meta => "meta",
        other => other.stored_name(),
    }
}

/// A key in words; in digits, if it is none.
fn readable(family: Family, key: &[u8]) -> String {
    let words = match family {
        Family::Meta => Meta::decode(key).ok().map(|key| format!("{key:?}")),
        Family::Ready => ReadyKey::decode(key).ok().map(|ReadyKey { line, position }| {
            let LaneKey { queue, priority, lane } = line;
            format!("queue {queue}, priority {priority}, lane {lane:?}, position {position}")
        }),
        Family::Waiting => WaitingKey::decode(key)
            .ok()
            .map(|at| format!("queue {}, key number {}, position {}", at.queue, at.key, at.position)),
        Family::Due => DueKey::decode(key)
            .ok()
            .map(|at| format!("queue {}, due at {}, position {}", at.queue, at.time, at.position)),
        Family::Done => EndKey::decode(key).ok().map(|at| format!("queue {}, number {}", at.queue, at.position)),
        Family::DoneOrder | Family::Dead | Family::Cancelled => {
            EndKey::decode(key).ok().map(|at| format!("queue {}, position {}", at.queue, at.position))
        }
        Family::Claim | Family::Lease => decode_number_key(key).ok().map(|number| format!("delivery {number}")),
        Family::Place => decode_number_key(key).ok().map(|number| format!("entry number {number}")),
        Family::Body | Family::BodyCount => decode_number_key(key).ok().map(|number| format!("body {number}")),
        Family::Log => LogKey::decode(key).ok().map(|at| format!("segment {}, position {}", at.segment, at.position)),
        Family::LogBody => LogKey::decode(key).ok().map(|at| format!("segment {}, body {}", at.segment, at.position)),
        Family::Key => decode_named_key(key).ok().map(|(queue, name)| format!("queue {queue}, key `{name}`")),
        Family::State => decode_named_key(key).ok().map(|(bucket, name)| format!("bucket {bucket}, key `{name}`")),
        Family::Origin => None,
    };
    words.unwrap_or_else(|| key.iter().map(|byte| format!("{byte:02x}")).collect())
}
