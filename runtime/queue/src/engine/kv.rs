//! State: buckets of keys and values, their snapshots, and what a transaction must find unchanged.
//!
//! Values carry no versions. What was written since the oldest snapshot that somebody holds is remembered here, in
//! memory: snapshots do not outlive the process, and nor does what they are checked against. A snapshot from before the
//! floor of that memory conflicts with everything.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use super::keys::{Family, Meta, after_prefix, decode_named_key, named_key};
use super::records::{BadRecord, BucketRecord, Record, VERSION, bad, versioned};
use super::store::{Snapshot, Tx, View, for_each, try_scan};
use crate::contract::{
    Change, MAX_STATE_KEY_LEN, QueueError, Revision, StateError, StateRead, StateSnapshot, StateWrite, Transaction,
};

/// How many written keys are remembered at most.
const MAX_REMEMBERED: usize = 100_000;
/// Conflicts after which a delivery has its buckets to itself.
pub(crate) const MAX_CONFLICTS: u32 = 3;

/// What the writer knows of state.
pub(crate) struct Buckets {
    shared: Arc<Shared>,
    records: BTreeMap<u32, BucketRecord>,
    /// When keys were written last, back to the floor.
    written: BTreeMap<(u32, String), u64>,
    floor: u64,
    /// The revision that the commit in the making will have; `None`: it writes no state.
    next: Option<u64>,
    prune_at: usize,
    /// Buckets that one delivery has to itself.
    reserved: HashMap<u32, u64>,
}

/// What snapshots need to know, outside the writer.
#[derive(Default)]
pub(crate) struct Shared {
    current: AtomicU64,
    /// How many snapshots there are of each revision.
    active: Mutex<BTreeMap<u64, usize>>,
    ids: RwLock<HashMap<String, u32>>,
}

impl Shared {
    fn id(&self, bucket: &str) -> Option<u32> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(bucket).copied()
    }

    fn lock_active(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, usize>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a transaction comes to.
#[derive(Debug)]
pub(crate) enum Checked {
    /// It may be applied.
    Planned(Plan),
    Conflict,
    Refused(StateError),
}

/// What a transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    values: BTreeMap<(String, String), Option<Bytes>>,
    /// New values of the incremented keys.
    pub(crate) increments: Vec<i64>,
}

impl Buckets {
    pub(crate) fn read(view: &dyn View, incarnation: u64) -> Result<Self, QueueError> {
        let mut records = BTreeMap::new();
        for_each(view, Family::Meta, &Meta::Bucket(0).kind(), |key, value| {
            if let Meta::Bucket(id) = Meta::decode(key)? {
                records.insert(id, BucketRecord::decode(value)?);
            }
            Ok(())
        })?;
        // Revisions of an earlier opening are below the floor of this one.
        let floor = incarnation << 40;
        let ids = records.iter().map(|(id, record)| (record.name.clone(), *id)).collect();
        let shared = Shared { current: AtomicU64::new(floor), ids: RwLock::new(ids), ..Shared::default() };
        Ok(Self {
            shared: Arc::new(shared),
            records,
            written: BTreeMap::new(),
            floor,
            next: None,
            prune_at: 1_024,
            reserved: HashMap::new(),
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Whether what the transaction read is still so, and what it would write.
    pub(crate) fn check(
        &self,
        view: &dyn View,
        transaction: &Transaction,
        delivery: Option<u64>,
    ) -> Result<Checked, QueueError> {
        if self.touched(transaction).into_iter().any(|id| self.is_reserved(id, delivery))
            || self.has_changed(transaction)
        {
            return Ok(Checked::Conflict);
        }
        self.plan(view, &transaction.writes)
    }

    fn is_reserved(&self, bucket: u32, delivery: Option<u64>) -> bool {
        self.reserved.get(&bucket).is_some_and(|holder| Some(*holder) != delivery)
    }

    fn has_changed(&self, transaction: &Transaction) -> bool {
        let Some(revision) = transaction.revision.map(Revision::get) else { return !transaction.reads.is_empty() };
        let changed = |read: &StateRead| match read {
            StateRead::Key { bucket, key } => self
                .shared
                .id(bucket)
                .is_some_and(|id| self.written.get(&(id, key.clone())).is_some_and(|written| *written > revision)),
            StateRead::Prefix { bucket, prefix } => self.shared.id(bucket).is_some_and(|id| {
                let from = (id, prefix.clone());
                let same = self.written.range(from..).take_while(|((b, key), _)| *b == id && key.starts_with(prefix));
                same.into_iter().any(|(_, written)| *written > revision)
            }),
        };
        !transaction.reads.is_empty() && (revision < self.floor || transaction.reads.iter().any(changed))
    }

    fn plan(&self, view: &dyn View, writes: &[StateWrite]) -> Result<Checked, QueueError> {
        let mut plan = Plan::default();
        let mut grown: BTreeMap<&str, i128> = BTreeMap::new();
        for write in writes {
            for (what, name) in [("bucket name", &write.bucket), ("key", &write.key)] {
                if name.is_empty() || name.len() > MAX_STATE_KEY_LEN {
                    return Ok(Checked::Refused(StateError::InvalidName { what, len: name.len() }));
                }
            }
            let at = (write.bucket.clone(), write.key.clone());
            let old = match plan.values.get(&at) {
                Some(planned) => planned.clone(),
                None => self.value(view, &write.bucket, &write.key)?,
            };
            let new = match &write.change {
                Change::Set(value) => Some(value.clone()),
                Change::Delete => None,
                Change::Increment(by) => match incremented(old.as_deref(), *by) {
                    Ok(number) => {
                        plan.increments.push(number);
                        Some(Bytes::from(number.to_string()))
                    }
                    Err(problem) => {
                        let (bucket, key) = at;
                        return Ok(Checked::Refused(StateError::NotANumber { bucket, key, problem }));
                    }
                },
            };
            let size =
                |value: &Option<Bytes>| value.as_ref().map_or(0, |value| (value.len() + write.key.len()) as i128);
            *grown.entry(&write.bucket).or_default() += size(&new) - size(&old);
            plan.values.insert(at, new);
        }
        for (bucket, by) in grown {
            let record = self.shared.id(bucket).and_then(|id| self.records.get(&id));
            let Some(max_bytes) = record.and_then(|record| record.max_bytes) else { continue };
            // What is over its limit already may shrink.
            if by > 0 && i128::from(record.map_or(0, |record| record.bytes)) + by > i128::from(max_bytes) {
                return Ok(Checked::Refused(StateError::Full { bucket: bucket.to_owned(), max_bytes }));
            }
        }
        Ok(Checked::Planned(plan))
    }

    fn value(&self, view: &dyn View, bucket: &str, key: &str) -> Result<Option<Bytes>, QueueError> {
        match self.shared.id(bucket) {
            Some(id) => read_value(view, id, key),
            None => Ok(None),
        }
    }

    /// Writes what was planned.
    pub(crate) fn apply(&mut self, tx: &mut Tx<'_>, plan: Plan) -> Result<(), QueueError> {
        if plan.values.is_empty() {
            return Ok(());
        }
        let revision = self.shared.current.load(Ordering::Acquire) + 1;
        self.next = Some(revision);
        for ((bucket, key), new) in plan.values {
            let id = self.id_or_new(&bucket);
            let state_key = named_key(id, &key);
            let old = read_value(tx, id, &key)?;
            let size = |value: &Option<Bytes>| value.as_ref().map_or(0, |value| (value.len() + key.len()) as u64);
            if let Some(record) = self.records.get_mut(&id) {
                record.bytes = record.bytes.saturating_sub(size(&old)).saturating_add(size(&new));
                tx.put(Family::Meta, Meta::Bucket(id).encode(), record.encode());
            }
            match new {
                Some(value) => tx.put(Family::State, state_key, encode_value(&value)),
                None => tx.delete(Family::State, state_key),
            }
            self.written.insert((id, key), revision);
        }
        Ok(())
    }

    pub(crate) fn limit(&mut self, tx: &mut Tx<'_>, bucket: &str, max_bytes: Option<u64>) {
        let id = self.id_or_new(bucket);
        if let Some(record) = self.records.get_mut(&id) {
            record.max_bytes = max_bytes;
            tx.put(Family::Meta, Meta::Bucket(id).encode(), record.encode());
        }
    }

    fn id_or_new(&mut self, bucket: &str) -> u32 {
        if let Some(id) = self.shared.id(bucket) {
            return id;
        }
        // Buckets are never removed: their numbers are never used again.
        let id = self.records.keys().next_back().map_or(1, |last| last + 1);
        self.records.insert(id, BucketRecord { name: bucket.to_owned(), bytes: 0, max_bytes: None });
        self.shared.ids.write().unwrap_or_else(PoisonError::into_inner).insert(bucket.to_owned(), id);
        id
    }

    /// From now on until its lease ends, the buckets that the transaction touched are the delivery's own; or none are,
    /// where another has one of them. Two that each had a part of what the other needs would keep each other out for ever.
    pub(crate) fn reserve(&mut self, transaction: &Transaction, delivery: u64) {
        let ids = self.touched(transaction);
        self.free(delivery);
        if ids.iter().all(|id| !self.reserved.contains_key(id)) {
            self.reserved.extend(ids.into_iter().map(|id| (id, delivery)));
        }
    }

    /// The delivery has no buckets to itself any more.
    pub(crate) fn free(&mut self, delivery: u64) {
        if !self.reserved.is_empty() {
            self.reserved.retain(|_, holder| *holder != delivery);
        }
    }

    fn touched(&self, transaction: &Transaction) -> Vec<u32> {
        let read = transaction.reads.iter().map(|read| match read {
            StateRead::Key { bucket, .. } | StateRead::Prefix { bucket, .. } => bucket,
        });
        let written = transaction.writes.iter().map(|write| &write.bucket);
        let mut ids: Vec<_> = read.chain(written).filter_map(|bucket| self.shared.id(bucket)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// The commit has happened: snapshots from now on are of its revision.
    pub(crate) fn committed(&mut self) {
        let Some(revision) = self.next.take() else { return };
        let active = self.shared.lock_active();
        self.shared.current.store(revision, Ordering::Release);
        if self.written.len() < self.prune_at {
            return;
        }
        let oldest = active.keys().next().copied().unwrap_or(revision);
        drop(active);
        // A snapshot that is held for too long must not make the memory grow: it conflicts.
        self.floor = if self.written.len() > MAX_REMEMBERED { revision } else { oldest };
        let floor = self.floor;
        self.written.retain(|_, written| *written > floor);
        self.prune_at = (self.written.len() * 2).clamp(1_024, MAX_REMEMBERED + 1);
    }
}

fn incremented(old: Option<&[u8]>, by: i64) -> Result<i64, &'static str> {
    let old = match old {
        None => 0,
        Some(bytes) => std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .ok_or("its value is no decimal number of 64 bits")?,
    };
    old.checked_add(by).ok_or("the sum does not fit into 64 bits")
}

pub(crate) fn encode_value(value: &[u8]) -> Vec<u8> {
    [&[VERSION], value].concat()
}

/// A stored value without its version.
pub(crate) fn decode_value(bytes: &Bytes) -> Result<Bytes, BadRecord> {
    versioned("state", bytes).map(|value| bytes.slice_ref(value)).map_err(|error| bad("state", error.problem))
}

fn read_value(view: &dyn View, bucket: u32, key: &str) -> Result<Option<Bytes>, QueueError> {
    let value = view.get(Family::State, &named_key(bucket, key))?;
    Ok(value.map(|bytes| decode_value(&bytes)).transpose()?)
}

/// State on a snapshot of the store.
pub(crate) struct StateView {
    shared: Arc<Shared>,
    revision: u64,
    snapshot: Option<Snapshot>,
}

impl StateView {
    /// A snapshot that `take` takes. What it sees is at least as new as its revision: at worst a transaction finds a
    /// conflict where there is none.
    pub(crate) fn new(
        shared: Arc<Shared>,
        take: impl FnOnce() -> Result<Snapshot, QueueError>,
    ) -> Result<Self, QueueError> {
        let revision = {
            let mut active = shared.lock_active();
            let revision = shared.current.load(Ordering::Acquire);
            *active.entry(revision).or_default() += 1;
            revision
        };
        let mut view = Self { shared, revision, snapshot: None };
        view.snapshot = Some(take()?);
        Ok(view)
    }

    fn view(&self) -> Result<&dyn View, QueueError> {
        let snapshot = self.snapshot.as_deref().ok_or(QueueError::Closed)?;
        Ok(snapshot)
    }
}

impl Drop for StateView {
    fn drop(&mut self) {
        let mut active = self.shared.lock_active();
        if let Some(count) = active.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.revision);
            }
        }
    }
}

impl StateSnapshot for StateView {
    fn revision(&self) -> Revision {
        Revision::new(self.revision)
    }

    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, QueueError> {
        match self.shared.id(bucket) {
            Some(id) => read_value(self.view()?, id, key),
            None => Ok(None),
        }
    }

    fn keys(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, QueueError> {
        let Some(id) = self.shared.id(bucket) else { return Ok(Vec::new()) };
        let first = named_key(id, prefix);
        let to = after_prefix(&first);
        let from = match after {
            Some(after) => first.max(named_key(id, &format!("{after}\0"))),
            None => first,
        };
        let mut keys = Vec::new();
        try_scan(self.view()?, Family::State, &from, &to, |key, _| {
            if keys.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            keys.push(decode_named_key(key)?.1.to_owned());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(keys)
    }

    fn buckets(&self) -> Result<Vec<String>, QueueError> {
        let mut names = Vec::new();
        for_each(self.view()?, Family::Meta, &Meta::Bucket(0).kind(), |_, value| {
            let record = BucketRecord::decode(value)?;
            if record.bytes > 0 {
                names.push(record.name);
            }
            Ok(())
        })?;
        names.sort();
        Ok(names)
    }
}
