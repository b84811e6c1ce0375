//! What the writer knows without looking: queues, counts, lines, leases. Rebuilt from the store at every open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gristmill_core::{Clock, EntryId, Monotonic, QueueName, Timestamp};

use super::Now;
use super::dirty::Dirty;
use super::entry::EntryRecord;
use super::flight::{Flight, Lease};
use super::ids::{EntryKey, SALT_MASK};
use super::keys::{Family, Key, LaneKey, Meta, QueueId, ReadyKey, decode_number_key};
use super::kv::Buckets;
use super::line::Line;
use super::log::Log;
use super::rate::Pace;
use super::read;
use super::records::{
    ClaimRecord, Counts, LaneRecord, LeaseRecord, ListCursors, NumberRecord, QueueRecord, Record, StoreRecord,
    decode_options, encode_options,
};
use super::store::{Store, Tx, View, for_each};
use crate::contract::{Holder, LeaseToken, QueueError, QueueOptions, Totals};

/// Numbers are reserved, and synced, in blocks of this size before any of them is issued.
const RESERVATION: u64 = 1 << 20;

/// The writer's view of everything but the entries.
pub(crate) struct State {
    pub(crate) salt: u32,
    pub(crate) incarnation: u64,
    next_number: u64,
    reserved: u64,
    last_queue: QueueId,
    pub(crate) settings: Settings,
    pub(crate) queues: BTreeMap<QueueId, QueueState>,
    by_name: BTreeMap<QueueName, QueueId>,
    pub(crate) flight: Flight,
    /// The one delivery of an entry from a lost lane that may be in flight.
    pub(crate) lost_in_flight: Option<u64>,
    pub(crate) due_cursor: Key,
    /// Nothing is due before this; `None`: nothing is scheduled.
    pub(crate) next_due: Option<Timestamp>,
    pub(crate) buckets: Buckets,
    pub(crate) log: Log,
    /// A time that runs evenly while the process lives, whatever becomes of the wall clock.
    steady: (Timestamp, Monotonic),
    /// Queues whose waiting claims are to be looked at.
    pub(crate) woken: BTreeSet<QueueId>,
    /// What the commit in the making has done, for those who wait for it.
    pub(crate) effects: Effects,
    dirty_queues: Dirty<QueueId>,
    dirty_lanes: Dirty<LaneKey>,
}

/// What holds for all queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Zero: duplicates are not looked for.
    pub(crate) idempotency_window: Duration,
    /// `None`: there is no log.
    pub(crate) log_retention: Option<Duration>,
}

/// What a commit brings about beside its writes.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Entries that have ended or gone.
    pub(crate) ended: Vec<EntryKey>,
    /// Those of them that died.
    pub(crate) died: Vec<EntryKey>,
    /// Acked entries, by queue.
    pub(crate) done: BTreeMap<QueueId, Vec<u64>>,
    /// Bodies were deleted.
    pub(crate) freed: bool,
}

/// One queue.
pub(crate) struct QueueState {
    pub(crate) name: QueueName,
    pub(crate) options: QueueOptions,
    pub(crate) paused: Option<String>,
    pub(crate) deleting: bool,
    pub(crate) counts: Counts,
    pub(crate) totals: Totals,
    pub(crate) from: ListCursors,
    pub(crate) lanes: BTreeMap<LaneKey, Line>,
    pace: Pace,
}

impl QueueState {
    fn new(name: QueueName, options: QueueOptions) -> Self {
        Self {
            name,
            options,
            paused: None,
            deleting: false,
            counts: Counts::default(),
            totals: Totals::default(),
            from: ListCursors::default(),
            lanes: BTreeMap::new(),
            pace: Pace::default(),
        }
    }

    /// Whether a pause keeps this claim out.
    pub(crate) fn keeps_out(&self, through: Option<&str>) -> bool {
        self.paused.as_deref().is_some_and(|reason| through != Some(reason))
    }

    /// How many entries may be claimed now, by those whom no pause keeps out.
    pub(crate) fn allowance(&self, now: Monotonic) -> usize {
        let free = u64::from(self.options.max_in_flight).saturating_sub(self.counts.leased);
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        self.options.rate.map_or(free, |rate| free.min(self.pace.allowance(rate, now)))
    }

    /// So many were claimed.
    pub(crate) fn spend(&mut self, count: usize, now: Monotonic) {
        if let Some(rate) = self.options.rate {
            self.pace.spend(rate, count, now);
        }
    }

    /// When the rate allows the next claim, if it does not now.
    pub(crate) fn throttled_until(&self, now: Monotonic) -> Option<Monotonic> {
        let rate = self.options.rate.filter(|rate| self.pace.allowance(*rate, now) == 0)?;
        Some(self.pace.next(rate))
    }

    pub(crate) const fn is_at_its_limit(&self) -> bool {
        self.counts.leased >= self.options.max_in_flight as u64
    }
}

impl State {
    /// Reads the store, makes it this opening's own, and syncs that.
    pub(crate) fn open(store: &dyn Store, clock: &dyn Clock, settings: Settings) -> Result<Self, QueueError> {
        let view = store.current();
        let read = |meta: Meta| view.get(Family::Meta, &meta.encode());
        let number = |meta: Meta| read(meta)?.map(|bytes| Ok(NumberRecord::decode(&bytes)?.0)).transpose();
        let identity = match read(Meta::Store)? {
            Some(bytes) => {
                let old = StoreRecord::decode(&bytes)?;
                StoreRecord { incarnation: old.incarnation + 1, ..old }
            }
            None => StoreRecord { salt: rand::random::<u32>() & SALT_MASK, incarnation: 1 },
        };
        let number: &dyn Fn(Meta) -> Result<Option<u64>, QueueError> = &number;
        let next_number = number(Meta::Reserved)?.unwrap_or(1);
        let now = Now { wall: clock.now(), monotonic: clock.monotonic() };
        let mut state = Self {
            salt: identity.salt,
            incarnation: identity.incarnation,
            next_number,
            reserved: next_number.saturating_add(RESERVATION),
            last_queue: number(Meta::LastQueue)?.and_then(|last| u32::try_from(last).ok()).unwrap_or(0),
            settings,
            queues: BTreeMap::new(),
            by_name: BTreeMap::new(),
            flight: Flight::default(),
            lost_in_flight: None,
            due_cursor: read(Meta::DueCursor)?.map(|bytes| Key::from_slice(&bytes)).unwrap_or_default(),
            next_due: Some(Timestamp::EPOCH),
            buckets: Buckets::read(view, identity.incarnation)?,
            log: Log::read(view)?,
            steady: (now.wall, now.monotonic),
            woken: BTreeSet::new(),
            effects: Effects::default(),
            dirty_queues: Dirty::new(),
            dirty_lanes: Dirty::new(),
        };
        state.read_queues(view)?;
        state.read_claims(view, now)?;
        state.read_leases(view, now)?;
        let mut tx = Tx::new(view);
        tx.put(Family::Meta, Meta::Store.encode(), identity.encode());
        tx.put(Family::Meta, Meta::Reserved.encode(), NumberRecord(state.reserved).encode());
        store.commit(tx.into_writes())?;
        store.persist()?;
        Ok(state)
    }

    fn read_queues(&mut self, view: &dyn View) -> Result<(), QueueError> {
        for_each(view, Family::Meta, &Meta::Queue(0).kind(), |key, value| {
            let Meta::Queue(id) = Meta::decode(key)? else { return Ok(()) };
            let record = QueueRecord::decode(value)?;
            let name = QueueName::new(&record.name).map_err(|error| QueueError::Corrupt(error.to_string()))?;
            let options = match view.get(Family::Meta, &Meta::Options(id).encode())? {
                Some(bytes) => decode_options(&bytes)?,
                None => return Err(QueueError::Corrupt(format!("the options of queue `{name}` are missing"))),
            };
            if !record.deleting {
                self.by_name.insert(name.clone(), id);
            }
            let queue = QueueState {
                paused: record.paused.clone(),
                deleting: record.deleting,
                counts: record.counts,
                totals: record.totals(),
                from: record.from,
                ..QueueState::new(name, options)
            };
            self.queues.insert(id, queue);
            Ok(())
        })?;
        let any_lane = LaneKey { queue: 0, priority: 0, lane: super::keys::Lane::Front };
        for_each(view, Family::Meta, &Meta::Lane(any_lane).kind(), |key, value| {
            let Meta::Lane(lane) = Meta::decode(key)? else { return Ok(()) };
            let record = LaneRecord::decode(value)?;
            if let Some(queue) = self.queues.get_mut(&lane.queue) {
                queue.lanes.insert(lane, Line::new(record));
            }
            Ok(())
        })
    }

    /// Claims of an earlier process: all over, and to be settled as lost.
    fn read_claims(&mut self, view: &dyn View, now: Now) -> Result<(), QueueError> {
        for_each(view, Family::Claim, &[], |key, value| {
            let first = decode_number_key(key)?;
            let record = ClaimRecord::decode(value)?;
            let mut leases = Vec::new();
            for key in record.keys()? {
                leases.push(read_lease(view, first, key, (record.claimed_at, now.monotonic))?);
            }
            // The incarnation of nobody: no token fits.
            self.flight.add(first, 0, Holder::Process, leases);
            Ok(())
        })
    }

    /// Leases of workers outside: they go on.
    fn read_leases(&mut self, view: &dyn View, now: Now) -> Result<(), QueueError> {
        for_each(view, Family::Lease, &[], |key, value| {
            let delivery = decode_number_key(key)?;
            let record = LeaseRecord::decode(value)?;
            let deadline = now.monotonic.after(record.deadline.since(now.wall));
            let key = record.key()?;
            if key.line.lane.is_lost() {
                self.lost_in_flight = Some(delivery);
            }
            let lease = read_lease(view, delivery, key, (record.claimed_at, deadline))?;
            self.flight.add(delivery, record.incarnation, Holder::Outside, vec![lease]);
            Ok(())
        })
    }

    /// The time by which rates of ordering keys go.
    pub(crate) fn steady(&self, now: Now) -> Timestamp {
        self.steady.0.after(now.monotonic.since(self.steady.1))
    }

    /// A number that was never issued before.
    pub(crate) fn next_number(&mut self) -> Result<u64, QueueError> {
        self.next_numbers(1)
    }

    /// The first of so many that were never issued before.
    pub(crate) fn next_numbers(&mut self, count: u64) -> Result<u64, QueueError> {
        if self.numbers_left() < count {
            return Err(QueueError::InvalidRequest(
                "too many entries in one request: split it into smaller ones".to_owned(),
            ));
        }
        let number = self.next_number;
        self.next_number += count;
        Ok(number)
    }

    /// Whether this number may have been issued.
    pub(crate) const fn was_issued(&self, token: LeaseToken) -> bool {
        token.incarnation <= self.incarnation && token.delivery < self.next_number
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
    pub(crate) fn line_mut(&mut self, lane: LaneKey) -> Result<&mut Line, QueueError> {
        self.dirty_lanes.insert(lane);
        Ok(self.queue_mut(lane.queue)?.lanes.entry(lane).or_default())
    }

    pub(crate) fn configure(
        &mut self,
        tx: &mut Tx<'_>,
        name: QueueName,
        options: QueueOptions,
        now: Monotonic,
    ) -> Result<(), QueueError> {
        let id = match self.by_name.get(&name) {
            Some(&id) => {
                let queue = self.queue_mut(id)?;
                queue.pace.change(queue.options.rate, options.rate, now);
                queue.options = options.clone();
                self.woken.insert(id);
                id
            }
            None => {
                let id = self.last_queue + 1;
                self.last_queue = id;
                tx.put(Family::Meta, Meta::LastQueue.encode(), NumberRecord(u64::from(id)).encode());
                self.by_name.insert(name.clone(), id);
                self.queues.insert(id, QueueState::new(name, options.clone()));
                self.dirty_queues.insert(id);
                id
            }
        };
        tx.put(Family::Meta, Meta::Options(id).encode(), encode_options(&options));
        Ok(())
    }

    /// Nobody finds the queue by its name any more; its entries are yet to go.
    pub(crate) fn doom(&mut self, id: QueueId) -> Result<(), QueueError> {
        let queue = self.queue_mut(id)?;
        queue.deleting = true;
        let name = queue.name.clone();
        // Who waits for it is told.
        self.woken.insert(id);
        self.by_name.remove(&name);
        Ok(())
    }

    /// The last step of a queue's deletion.
    pub(crate) fn forget_queue(&mut self, tx: &mut Tx<'_>, id: QueueId) {
        let lanes = self.queues.remove(&id).map(|queue| queue.lanes).unwrap_or_default();
        for lane in lanes.into_keys() {
            self.dirty_lanes.remove(&lane);
            tx.delete(Family::Meta, Meta::Lane(lane).encode());
        }
        self.dirty_queues.remove(&id);
        // Whoever waits for its entries waits in vain.
        self.woken.insert(id);
        tx.delete(Family::Meta, Meta::Queue(id).encode());
        tx.delete(Family::Meta, Meta::Options(id).encode());
    }

    pub(crate) fn entry_id(&self, key: EntryKey) -> EntryId {
        key.id(self.salt)
    }

    /// Takes a delivery out of flight.
    pub(crate) fn remove_lease(&mut self, tx: &mut Tx<'_>, delivery: u64) -> Option<Lease> {
        let lease = self.flight.remove(tx, delivery);
        self.buckets.free(delivery);
        if self.lost_in_flight == Some(delivery) {
            self.lost_in_flight = None;
            self.woken.extend(self.queues.keys());
        }
        lease
    }

    /// Adds the records of everything that changed to the commit. True: it must be synced before more numbers are
    /// issued.
    pub(crate) fn finish(&mut self, tx: &mut Tx<'_>, now: Now) -> Result<bool, QueueError> {
        super::settle::note_done(self, tx, now)?;
        for id in self.dirty_queues.take() {
            let Some(queue) = self.queues.get(&id) else { continue };
            let mut record =
                QueueRecord::new(queue.name.as_str(), queue.paused.clone(), queue.counts, queue.totals, queue.from);
            record.deleting = queue.deleting;
            tx.put(Family::Meta, Meta::Queue(id).encode(), record.encode());
        }
        for lane in self.dirty_lanes.take() {
            if let Some(line) = self.queues.get(&lane.queue).and_then(|queue| queue.lanes.get(&lane)) {
                tx.put(Family::Meta, Meta::Lane(lane).encode(), line.record.encode());
            }
        }
        self.log.finish(tx);
        Ok(self.reserve(tx))
    }
}

/// A lease as it is found in the store; `None`: it was settled, or its entry cannot be read. One damaged entry must not
/// keep all others from being opened: it stays where it is, and verification names it.
fn read_lease(
    view: &dyn View,
    claim: u64,
    key: ReadyKey,
    (claimed_at, deadline): (Timestamp, Monotonic),
) -> Result<Option<Lease>, QueueError> {
    let Some(value) = view.get(Family::Ready, &key.encode())? else { return Ok(None) };
    let read = EntryRecord::decode(value).map_err(QueueError::from).and_then(|record| {
        let past = read::past(view, key, &record)?;
        Ok((record, past))
    });
    let (record, past) = match read {
        Ok(read) => read,
        Err(QueueError::Corrupt(problem)) => {
            tracing::error!(claim, ?key, problem, "a leased entry cannot be read; it is left where it is");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let attempt = past.as_ref().map_or(0, |past| past.attempts).saturating_add(1);
    Ok(Some(Lease { key, record, past, attempt, claimed_at, deadline, conflicts: 0 }))
}
