//! What was promised, and whether it is so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use gristmill_core::{Clock as _, QueueName};
use gristmill_core::{EntryId, Event, ManualClock, Outcome, State, SystemClock};
use gristmill_queue::{Claim, Confirm, Engine, Entry, List, OnLoss, Publish, Queue, QueueError, Settle, StateSnapshot};

use super::child::{ACKS, BUCKET, TRANSACTIONS, data_of, open, queue};

/// Promises, as they were heard.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Entries, and the event of each.
    published: BTreeMap<EntryId, String>,
    deliveries: BTreeSet<u64>,
    acked: BTreeSet<EntryId>,
    transacted: BTreeSet<String>,
}

impl Ledger {
    pub(crate) fn note(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap();
        match kind {
            "published" => {
                let (event, entries) = rest.split_once(' ').unwrap();
                for entry in entries.split(' ') {
                    let known = self.published.insert(EntryId::new(entry).unwrap(), event.to_owned());
                    assert_eq!(known, None, "{entry} issued twice");
                }
            }
            "delivery" => assert!(self.deliveries.insert(rest.parse().unwrap()), "delivery {rest} issued twice"),
            "acked" => drop(self.acked.insert(EntryId::new(rest).unwrap())),
            "transacted" => drop(self.transacted.insert(rest.to_owned())),
            _ => panic!("not a promise: {line}"),
        }
    }

    pub(crate) fn has_everything(&self) -> bool {
        let Self { published, deliveries, acked, transacted } = self;
        [published.len(), deliveries.len(), acked.len(), transacted.len()].into_iter().all(|count| count > 0)
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { published, deliveries, acked, transacted } = self;
        let counts = (published.len(), deliveries.len(), acked.len(), transacted.len());
        write!(f, "{} entries, {} deliveries, {} durable acks, {} transactions", counts.0, counts.1, counts.2, counts.3)
    }
}

/// Every entry of a queue.
async fn entries(
    engine: &Engine,
    name: QueueName,
    wrong: &mut Vec<String>,
) -> Result<BTreeMap<EntryId, Entry>, QueueError> {
    let mut entries = BTreeMap::new();
    for state in State::ALL {
        let mut cursor = None;
        loop {
            let page = engine.list(List { queue: name.clone(), state, limit: 1_000, cursor }).await?;
            for entry in page.entries {
                let keeps_data = !matches!(entry.state, State::Done | State::Cancelled);
                if keeps_data && entry.event.data != data_of(&entry.event.id) {
                    wrong.push(format!("{} ({}) has other data", entry.id, entry.event.id));
                }
                if let Some(known) = entries.insert(entry.id.clone(), entry) {
                    wrong.push(format!("{} is in two states", known.id));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
    }
    Ok(entries)
}

/// Everything that is not as it was promised in the store that a cut has left in `directory`.
pub(crate) async fn problems(directory: &Path, ledger: &Ledger) -> Vec<String> {
    // Stands still while somebody looks: what is scheduled stays so.
    let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
    let mut wrong = Vec::new();
    let opened = match open(directory, clock.clone(), 16 << 20, OnLoss::Refuse).await {
        Ok(engine) => Ok(engine),
        Err(error) => {
            wrong.push(format!("it is refused: {error}"));
            // To see what is lost.
            open(directory, clock, 16 << 20, OnLoss::Accept).await
        }
    };
    let looked = match opened {
        Ok(engine) => look(&engine, ledger, &mut wrong).await,
        Err(error) => Err(error),
    };
    if let Err(error) = looked {
        wrong.push(format!("it cannot be used: {error}"));
    }
    wrong
}

async fn look(engine: &Engine, ledger: &Ledger, wrong: &mut Vec<String>) -> Result<(), QueueError> {
    let work = entries(engine, queue("work"), wrong).await?;
    let also = entries(engine, queue("also"), wrong).await?;
    let sink = entries(engine, queue("sink"), wrong).await?;
    for (id, event) in &ledger.published {
        match work.get(id).or_else(|| also.get(id)) {
            None => wrong.push(format!("{id} ({event}) was acknowledged and is gone")),
            Some(entry) if entry.event.id != *event => {
                wrong.push(format!("{id} is {}, and was {event}", entry.event.id));
            }
            Some(_) => {}
        }
    }
    both_or_none(&work, &also, wrong);
    let state = engine.snapshot().await?;
    let all: BTreeMap<_, _> = work.into_iter().chain(also).collect();
    one_commit(&all, &sink, &*state, wrong)?;
    for id in &ledger.acked {
        if all.get(id).is_some_and(|entry| entry.state != State::Done) {
            wrong.push(format!("the ack of {id} was to be durable, and is gone"));
        }
    }
    let transactions = keys(&*state, "transaction/")?;
    for key in &ledger.transacted {
        if !transactions.contains(key) {
            wrong.push(format!("the transaction of {key} was acknowledged and is gone"));
        }
    }
    counted(&*state, TRANSACTIONS, transactions.len(), wrong)?;
    drop(state);
    counts(engine, wrong).await?;
    nothing_is_issued_twice(engine, ledger, wrong).await?;
    engine.close().await
}

/// An event that was published to two queues is in both.
fn both_or_none(work: &BTreeMap<EntryId, Entry>, also: &BTreeMap<EntryId, Entry>, wrong: &mut Vec<String>) {
    let named = |entries: &BTreeMap<EntryId, Entry>| -> BTreeSet<String> {
        entries.values().map(|entry| entry.event.id.clone()).filter(|id| id.contains("-both-")).collect()
    };
    for id in named(work).symmetric_difference(&named(also)) {
        wrong.push(format!("{id} is in one of its two queues"));
    }
}

/// What an ack brings with it is there if the ack is.
fn one_commit(
    all: &BTreeMap<EntryId, Entry>,
    sink: &BTreeMap<EntryId, Entry>,
    state: &dyn StateSnapshot,
    wrong: &mut Vec<String>,
) -> Result<(), QueueError> {
    let mut emitting = BTreeSet::new();
    for entry in sink.values() {
        if !emitting.insert(entry.event.subject.clone().unwrap()) {
            wrong.push(format!("emitted twice: {}", entry.event.id));
        }
    }
    let written: BTreeSet<_> = keys(state, "done/")?.iter().map(|key| key["done/".len()..].to_owned()).collect();
    let done: BTreeSet<_> =
        all.values().filter(|entry| entry.state == State::Done).map(|entry| entry.id.to_string()).collect();
    for (what, found) in [("event", &emitting), ("state", &written)] {
        for id in found.difference(&done) {
            wrong.push(format!("the {what} of {id} is visible, and {id} is not acked"));
        }
        for id in done.difference(found) {
            wrong.push(format!("{id} is acked without its {what}"));
        }
    }
    counted(state, ACKS, done.len(), wrong)
}

fn keys(state: &dyn StateSnapshot, prefix: &str) -> Result<BTreeSet<String>, QueueError> {
    Ok(state.keys(BUCKET, prefix, None, usize::MAX)?.into_iter().collect())
}

/// A key that is incremented with everything that it counts.
fn counted(state: &dyn StateSnapshot, key: &str, expected: usize, wrong: &mut Vec<String>) -> Result<(), QueueError> {
    let value = state.get(BUCKET, key)?.map_or_else(|| "0".to_owned(), |value| String::from_utf8_lossy(&value).into());
    if value != expected.to_string() {
        wrong.push(format!("`{key}` is {value}, and there are {expected}"));
    }
    Ok(())
}

/// The counts are those of the entries.
async fn counts(engine: &Engine, wrong: &mut Vec<String>) -> Result<(), QueueError> {
    for stats in engine.stats().await? {
        let entries = entries(engine, stats.queue.clone(), wrong).await?;
        let count = |state| entries.values().filter(|entry| entry.state == state).count() as u64;
        let counted =
            [stats.scheduled, stats.waiting, stats.ready, stats.leased, stats.done, stats.dead, stats.cancelled];
        let found = State::ALL.map(count);
        if counted != found {
            wrong.push(format!("queue {}: counted {counted:?}, found {found:?}", stats.queue));
        }
        if stats.leased > 0 {
            wrong.push(format!("queue {}: {} leases of a process that is gone", stats.queue, stats.leased));
        }
    }
    Ok(())
}

/// New ids and new delivery numbers are above all that were heard of.
async fn nothing_is_issued_twice(engine: &Engine, ledger: &Ledger, wrong: &mut Vec<String>) -> Result<(), QueueError> {
    let event = Event::new(format!("probe-{:x}-0", rand::random::<u64>()), "/parent", "t");
    let published = engine.publish(vec![Publish::new(event, [queue("probe")])]).await?;
    for accepted in published.results {
        for entry in accepted.unwrap().entries {
            if ledger.published.contains_key(&entry.entry) {
                wrong.push(format!("{} is issued again", entry.entry));
            }
        }
    }
    let claimed = engine.claim(Claim::new(queue("probe"), 1_000)).await?;
    let last = ledger.deliveries.last().copied().unwrap_or(0);
    if claimed.is_empty() {
        wrong.push("what is published now cannot be claimed".to_owned());
    }
    for delivery in &claimed {
        if delivery.lease.delivery <= last {
            wrong.push(format!("delivery {} is issued, and {last} was before", delivery.lease.delivery));
        }
    }
    let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None }));
    engine.settle(acks.collect(), Confirm::Committed).await?;
    Ok(())
}
