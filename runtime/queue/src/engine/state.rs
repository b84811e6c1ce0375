//! What the writer knows without looking: queues, counts, lanes, leases. Rebuilt from the store at every open.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use gristmill_core::{Clock, EntryId, Monotonic, QueueName, Timestamp};

use super::ids::{EntryKey, SALT_MASK};
use super::keys::{Family, LaneKey, Meta, QueueId, after_prefix, decode_number_key};
use super::records::{Counts, LaneRecord, LeaseRecord, NumberRecord, QueueRecord, Record, StoreRecord};
use super::store::{Store, Tx, View};
use crate::contract::{LeaseToken, QueueError, QueueOptions, Totals};

/// Numbers are reserved, and synced, in blocks of this size before any of them is issued.
const RESERVATION: u64 = 1 << 20;

/// The writer's view of everything but the entries.
pub(crate) struct State {
    pub(crate) salt: u32,
    pub(crate) incarnation: u64,
    next_number: u64,
    reserved: u64,
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    by_name: HashMap<QueueName, QueueId>,
    pub(crate) leases: HashMap<u64, Lease>,
    pub(crate) deadlines: BTreeSet<(Monotonic, u64)>,
    /// The one delivery of an entry from a lost lane that may be in flight.
    pub(crate) lost_in_flight: Option<u64>,
    pub(crate) due_cursor: Vec<u8>,
    /// Nothing is due before this; `None`: nothing is scheduled.
    pub(crate) next_due: Option<Timestamp>,
    /// Queues whose waiting claims are to be looked at.
    pub(crate) woken: BTreeSet<QueueId>,
    dirty_queues: BTreeSet<QueueId>,
    dirty_lanes: BTreeSet<LaneKey>,
}

/// One queue.
pub(crate) struct QueueState {
    pub(crate) name: QueueName,
    pub(crate) options: QueueOptions,
    pub(crate) counts: Counts,
    pub(crate) totals: Totals,
    pub(crate) done_from: u64,
    pub(crate) lanes: BTreeMap<LaneKey, LaneRecord>,
}

/// One delivery in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    pub(crate) record: LeaseRecord,
    pub(crate) queue: QueueId,
    pub(crate) deadline: Monotonic,
}

impl State {
    /// Reads the store, makes it this opening's own, and syncs that.
    pub(crate) fn open(store: &dyn Store, clock: &dyn Clock) -> Result<Self, QueueError> {
        let view = store.current();
        let read = |meta: Meta| view.get(Family::Meta, &meta.encode());
        let identity = match read(Meta::Store)? {
            Some(bytes) => {
                let old = StoreRecord::decode(&bytes)?;
                StoreRecord { incarnation: old.incarnation + 1, ..old }
            }
            None => StoreRecord { salt: rand::random::<u32>() & SALT_MASK, incarnation: 1 },
        };
        let next_number = read(Meta::Reserved)?.map_or(Ok(1), |bytes| NumberRecord::decode(&bytes).map(|n| n.0))?;
        let mut state = Self {
            salt: identity.salt,
            incarnation: identity.incarnation,
            next_number,
            reserved: next_number.saturating_add(RESERVATION),
            queues: BTreeMap::new(),
            by_name: HashMap::new(),
            leases: HashMap::new(),
            deadlines: BTreeSet::new(),
            lost_in_flight: None,
            due_cursor: read(Meta::DueCursor)?.map(|bytes| bytes.to_vec()).unwrap_or_default(),
            next_due: Some(Timestamp::EPOCH),
            woken: BTreeSet::new(),
            dirty_queues: BTreeSet::new(),
            dirty_lanes: BTreeSet::new(),
        };
        state.read_queues(view)?;
        state.read_leases(view, clock.monotonic())?;
        let mut tx = Tx::new(view);
        tx.put(Family::Meta, Meta::Store.encode(), identity.encode());
        tx.put(Family::Meta, Meta::Reserved.encode(), NumberRecord(state.reserved).encode());
        store.commit(tx.into_writes())?;
        store.persist()?;
        Ok(state)
    }

    fn read_queues(&mut self, view: &dyn View) -> Result<(), QueueError> {
        for_each(view, Family::Meta, &Meta::Queue(0).encode()[..1], |key, value| {
            let Meta::Queue(id) = Meta::decode(key)? else { return Ok(()) };
            let record = QueueRecord::decode(value)?;
            let name = QueueName::new(&record.name).map_err(|error| QueueError::Corrupt(error.to_string()))?;
            self.by_name.insert(name.clone(), id);
            self.queues.insert(
                id,
                QueueState {
                    name,
                    options: record.options(),
                    counts: record.counts,
                    totals: record.totals(),
                    done_from: record.done_from,
                    lanes: BTreeMap::new(),
                },
            );
            Ok(())
        })?;
        let any_lane = LaneKey { queue: 0, priority: 0, lane: super::keys::Lane::Front };
        for_each(view, Family::Meta, &Meta::Lane(any_lane).encode()[..1], |key, value| {
            let Meta::Lane(lane) = Meta::decode(key)? else { return Ok(()) };
            let record = LaneRecord::decode(value)?;
            self.queue_mut(lane.queue)?.lanes.insert(lane, record);
            Ok(())
        })
    }

    /// Leases of an earlier process: all over, and to be settled as lost.
    fn read_leases(&mut self, view: &dyn View, now: Monotonic) -> Result<(), QueueError> {
        for_each(view, Family::Lease, &[], |key, value| {
            let delivery = decode_number_key(key)?;
            let record = LeaseRecord::decode(value)?;
            let queue = super::keys::ReadyKey::try_from(record.spot)?.line.queue;
            self.leases.insert(delivery, Lease { record, queue, deadline: now });
            Ok(())
        })
    }

    /// A number that was never issued before.
    pub(crate) fn next_number(&mut self) -> Result<u64, QueueError> {
        if self.next_number >= self.reserved {
            return Err(QueueError::InvalidRequest(
                "too many entries in one request: split it into smaller ones".to_owned(),
            ));
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(number)
    }

    /// How many numbers may be issued before the next reservation.
    pub(crate) const fn numbers_left(&self) -> u64 {
        self.reserved.saturating_sub(self.next_number)
    }

    /// Reserves further numbers when they run low; true: the commit must be synced before more are issued.
    fn reserve(&mut self, tx: &mut Tx<'_>) -> bool {
        let low = self.numbers_left() < RESERVATION / 2;
        if low {
            self.reserved = self.next_number.saturating_add(RESERVATION);
            tx.put(Family::Meta, Meta::Reserved.encode(), NumberRecord(self.reserved).encode());
        }
        low
    }

    pub(crate) fn queue_id(&self, name: &QueueName) -> Result<QueueId, QueueError> {
        self.by_name.get(name).copied().ok_or_else(|| QueueError::UnknownQueue(name.clone()))
    }

    pub(crate) fn queue(&self, id: QueueId) -> Result<&QueueState, QueueError> {
        self.queues.get(&id).ok_or_else(|| QueueError::Corrupt(format!("queue number {id} is missing")))
    }

    /// For changing it; its record is written with the commit.
    pub(crate) fn queue_mut(&mut self, id: QueueId) -> Result<&mut QueueState, QueueError> {
        self.dirty_queues.insert(id);
        self.queues.get_mut(&id).ok_or_else(|| QueueError::Corrupt(format!("queue number {id} is missing")))
    }

    /// For changing it; its record is written with the commit.
    pub(crate) fn lane_mut(&mut self, lane: LaneKey) -> Result<&mut LaneRecord, QueueError> {
        self.dirty_lanes.insert(lane);
        Ok(self.queue_mut(lane.queue)?.lanes.entry(lane).or_default())
    }

    pub(crate) fn configure(&mut self, name: QueueName, options: QueueOptions) -> Result<(), QueueError> {
        if let Some(&id) = self.by_name.get(&name) {
            self.queue_mut(id)?.options = options;
            return Ok(());
        }
        let id = self.queues.keys().next_back().map_or(1, |last| last + 1);
        self.by_name.insert(name.clone(), id);
        self.queues.insert(
            id,
            QueueState {
                name,
                options,
                counts: Counts::default(),
                totals: Totals::default(),
                done_from: 0,
                lanes: BTreeMap::new(),
            },
        );
        self.dirty_queues.insert(id);
        Ok(())
    }

    pub(crate) fn entry_id(&self, key: EntryKey) -> Result<EntryId, QueueError> {
        key.id(self.salt).ok_or_else(|| QueueError::Corrupt("an entry's id is too long".to_owned()))
    }

    /// The lease that `token` proves, if it is still held.
    pub(crate) fn lease(&self, token: LeaseToken) -> Option<Lease> {
        self.leases.get(&token.delivery).copied().filter(|_| token.incarnation == self.incarnation)
    }

    pub(crate) fn add_lease(&mut self, delivery: u64, lease: Lease) {
        self.deadlines.insert((lease.deadline, delivery));
        self.leases.insert(delivery, lease);
    }

    pub(crate) fn remove_lease(&mut self, delivery: u64) {
        if let Some(lease) = self.leases.remove(&delivery) {
            self.deadlines.remove(&(lease.deadline, delivery));
        }
        if self.lost_in_flight == Some(delivery) {
            self.lost_in_flight = None;
            self.woken.extend(self.queues.keys());
        }
    }

    /// Adds the records of everything that changed to the commit. True: it must be synced before more numbers are
    /// issued.
    pub(crate) fn finish(&mut self, tx: &mut Tx<'_>) -> Result<bool, QueueError> {
        for id in std::mem::take(&mut self.dirty_queues) {
            let queue = self.queue(id)?;
            let record =
                QueueRecord::new(queue.name.as_str(), &queue.options, queue.counts, queue.totals, queue.done_from);
            tx.put(Family::Meta, Meta::Queue(id).encode(), record.encode());
        }
        for lane in std::mem::take(&mut self.dirty_lanes) {
            if let Some(record) = self.queue(lane.queue)?.lanes.get(&lane) {
                tx.put(Family::Meta, Meta::Lane(lane).encode(), record.encode());
            }
        }
        Ok(self.reserve(tx))
    }
}

/// Visits every key with `prefix`; stops at the first error.
pub(crate) fn for_each(
    view: &dyn View,
    family: Family,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let mut failed = None;
    view.scan(family, prefix, &after_prefix(prefix), &mut |key, value| match visit(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}
