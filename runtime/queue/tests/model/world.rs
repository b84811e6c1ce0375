//! What the contract says about queues and entries, as plainly as it can be written: every question is answered by
//! looking at all entries.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{
    Attempt, Disposition, EntryId, Event, History, Monotonic, Outcome, OutcomeKind, QueueName, State, Timestamp,
};
use gristmill_queue::{Claim, Entry, Holder, LeaseToken, OnDead, Payload, QueueOptions, Totals};

use super::buckets::Buckets;
use super::pace::Pace;

/// Everything there is.
pub(crate) struct World {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Monotonic,
    pub(crate) queues: BTreeMap<QueueName, Line>,
    pub(crate) items: BTreeMap<EntryId, Item>,
    pub(crate) origins: HashMap<(OriginName, String, String), Origin>,
    pub(crate) buckets: Buckets,
    /// Settlements and extensions with a stale or unknown token, since the last opening by a process.
    pub(crate) stale: u64,
    /// What the engine counts for an event, by the kind of its data, beyond the bytes of its attributes and data.
    pub(crate) overhead: HashMap<Shape, u64>,
    order: u64,
}

/// How an event's data is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    None,
    Small,
    Large,
}

impl Shape {
    pub(crate) fn of(event: &Event) -> Self {
        match &event.data {
            None => Self::None,
            Some(data) if data.len() <= 4_096 => Self::Small,
            Some(_) => Self::Large,
        }
    }
}

/// What a publish is remembered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OriginName {
    Id,
    DedupeKey,
}

/// A publish that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) expires_at: Timestamp,
    /// With the birth of their queues: another queue of the same name does not count.
    pub(crate) entries: Vec<(QueueName, u64, EntryId)>,
    /// It has expired. If the clock is set back, an engine may have forgotten it, or not yet.
    pub(crate) lapsed: bool,
}

/// A queue.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Tells queues of one name apart that were made one after the other.
    pub(crate) born: u64,
    pub(crate) options: QueueOptions,
    pub(crate) paused: Option<String>,
    pub(crate) totals: Totals,
    pub(crate) pace: Pace,
}

/// An entry.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) id: EntryId,
    pub(crate) queue: QueueName,
    pub(crate) state: State,
    pub(crate) priority: u8,
    pub(crate) key: Option<String>,
    /// Those that have ended and count.
    pub(crate) attempts: u32,
    /// Those that were forgiven.
    pub(crate) forgiven: u32,
    pub(crate) enqueued_at: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) event: Arc<Event>,
    pub(crate) history: History,
    pub(crate) result: Option<Bytes>,
    pub(crate) redriven_at: Option<Timestamp>,
    /// It has its ordering key: ready, leased, between two attempts, or dead and in the way.
    pub(crate) holds: bool,
    /// Orders those who entered the same state.
    pub(crate) order: u64,
    pub(crate) rank: Rank,
    pub(crate) dies_at: Option<(Timestamp, u64)>,
    pub(crate) lease: Option<Lease>,
}

/// Who goes first among ready entries of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Released,
    /// Its process died: one at a time.
    Lost,
    Normal,
}

/// A delivery in flight.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) token: LeaseToken,
    pub(crate) holder: Holder,
    pub(crate) attempt: u32,
    pub(crate) claimed_at: Timestamp,
    pub(crate) deadline: Monotonic,
    pub(crate) wall_deadline: Timestamp,
    pub(crate) conflicts: u32,
    /// No other lost entry is handed out meanwhile.
    pub(crate) alone: bool,
}

impl World {
    pub(crate) fn new(wall: Timestamp) -> Self {
        Self {
            wall,
            monotonic: Monotonic::default(),
            queues: BTreeMap::new(),
            items: BTreeMap::new(),
            origins: HashMap::new(),
            buckets: Buckets::default(),
            stale: 0,
            overhead: HashMap::new(),
            order: 0,
        }
    }

    pub(crate) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(crate) fn configure(&mut self, name: &QueueName, options: QueueOptions) {
        let (born, now) = (self.next_order(), self.monotonic);
        let line = self.queues.entry(name.clone()).or_insert_with(|| Line {
            born,
            options: options.clone(),
            paused: None,
            totals: Totals::default(),
            pace: Pace::default(),
        });
        line.pace.change(line.options.rate, options.rate, now);
        line.options = options;
    }

    pub(crate) fn line(&mut self, queue: &QueueName) -> &mut Line {
        self.queues.get_mut(queue).unwrap()
    }

    pub(crate) fn item(&mut self, id: &EntryId) -> &mut Item {
        self.items.get_mut(id).unwrap()
    }

    /// Those in one state, in the order in which they came into it.
    pub(crate) fn in_state(&self, queue: &QueueName, state: State) -> Vec<&Item> {
        let mut found: Vec<_> = self.items.values().filter(|i| i.queue == *queue && i.state == state).collect();
        found.sort_by_key(|item| match state {
            State::Scheduled => (item.at, item.order),
            _ => (Timestamp::EPOCH, item.order),
        });
        found
    }

    pub(crate) fn leased(&self) -> impl Iterator<Item = (&Item, &Lease)> {
        self.items.values().filter_map(|item| item.lease.as_ref().map(|lease| (item, lease)))
    }

    pub(crate) fn holder_of(&self, token: LeaseToken) -> Option<EntryId> {
        self.leased().find(|(_, lease)| lease.token == token).map(|(item, _)| item.id.clone())
    }

    fn of_key<'a>(&'a self, queue: &'a QueueName, key: &'a str) -> impl Iterator<Item = &'a Item> {
        self.items.values().filter(move |item| item.queue == *queue && item.key.as_deref() == Some(key))
    }

    /// Ready, leased or between two attempts.
    pub(crate) fn busy(&self, queue: &QueueName, key: &str) -> usize {
        self.of_key(queue, key).filter(|item| item.holds && !item.state.has_ended()).count()
    }

    pub(crate) fn waiting(&self, queue: &QueueName, key: &str) -> Vec<EntryId> {
        let mut waiting: Vec<_> = self.of_key(queue, key).filter(|item| item.state == State::Waiting).collect();
        waiting.sort_by_key(|item| item.order);
        waiting.into_iter().map(|item| item.id.clone()).collect()
    }

    pub(crate) fn held_by(&self, queue: &QueueName, key: &str) -> Vec<EntryId> {
        let held = self.of_key(queue, key).filter(|item| item.holds && item.state == State::Dead);
        held.map(|item| item.id.clone()).collect()
    }

    fn may_go(&self, queue: &QueueName, key: &str) -> bool {
        let concurrency = self.queues[queue].options.key.concurrency as usize;
        self.held_by(queue, key).is_empty() && self.busy(queue, key) < concurrency
    }

    /// Guarantee 6: at once, or behind the others of its key.
    pub(crate) fn admit(&mut self, id: &EntryId) {
        let (queue, key) = (self.items[id].queue.clone(), self.items[id].key.clone());
        let goes = key.is_none_or(|key| self.waiting(&queue, &key).is_empty() && self.may_go(&queue, &key));
        if goes {
            self.make_ready(id, Rank::Normal);
        } else {
            let (order, wall) = (self.next_order(), self.wall);
            let item = self.item(id);
            (item.state, item.at, item.order, item.holds) = (State::Waiting, wall, order, false);
        }
    }

    pub(crate) fn make_ready(&mut self, id: &EntryId, rank: Rank) {
        let (order, wall) = (self.next_order(), self.wall);
        let item = self.item(id);
        (item.state, item.at, item.order, item.rank) = (State::Ready, wall, order, rank);
        item.holds = item.key.is_some();
        item.lease = None;
    }

    pub(crate) fn schedule(&mut self, id: &EntryId, at: Timestamp) {
        let order = self.next_order();
        let item = self.item(id);
        (item.state, item.at, item.order) = (State::Scheduled, at, order);
        item.lease = None;
    }

    /// An entry is out of its key's way; those behind it go, as many as may by now.
    pub(crate) fn let_go(&mut self, queue: &QueueName, key: Option<&str>) {
        let Some(key) = key else { return };
        while self.may_go(queue, key) {
            let Some(next) = self.waiting(queue, key).into_iter().next() else { break };
            self.make_ready(&next, Rank::Normal);
        }
    }

    /// Done, dead or cancelled.
    pub(crate) fn end(&mut self, id: &EntryId, state: State) {
        let (order, wall) = (self.next_order(), self.wall);
        let (queue, key) = (self.items[id].queue.clone(), self.items[id].key.clone());
        let options = self.queues[&queue].options.clone();
        let item = self.item(id);
        let held = item.holds;
        (item.state, item.at, item.order) = (state, wall, order);
        item.lease = None;
        item.holds &= state == State::Dead && options.key.on_dead == OnDead::Hold;
        if state == State::Done && options.payload == Payload::Drop {
            item.event = Arc::new(Event { data: None, ..(*item.event).clone() });
        }
        if state == State::Done && options.done.count == Some(0) {
            self.items.remove(id);
        }
        let totals = &mut self.line(&queue).totals;
        match state {
            State::Done => totals.acked += 1,
            State::Dead => totals.dead_lettered += 1,
            _ => totals.cancelled += 1,
        }
        self.let_go(&queue, key.as_deref().filter(|_| held));
    }

    /// Gone, without a trace.
    pub(crate) fn forget(&mut self, id: &EntryId) -> Item {
        let item = self.items.remove(id).unwrap();
        self.let_go(&item.queue, item.key.as_deref().filter(|_| item.holds));
        item
    }

    /// What a claim takes, in this order.
    pub(crate) fn claimable(&self, claim: &Claim) -> Vec<EntryId> {
        let Claim { queue, max, types, through, .. } = claim;
        let (line, max) = (&self.queues[queue], *max);
        if line.paused.is_some() && line.paused != *through {
            return Vec::new();
        }
        let in_flight = self.in_state(queue, State::Leased).len();
        let max = max.min((line.options.max_in_flight as usize).saturating_sub(in_flight));
        let max = max.min(line.pace.allowance(line.options.rate, self.monotonic));
        let mut ready = self.in_state(queue, State::Ready);
        ready.sort_by_key(|item| (std::cmp::Reverse(item.priority), item.rank, item.order));
        let mut lost_in_flight = self.leased().any(|(_, lease)| lease.alone);
        let mut taken = Vec::new();
        for item in ready {
            let wanted = types.is_empty() || types.iter().any(|pattern| pattern.matches(&item.event.ty));
            if !wanted || (item.rank == Rank::Lost && lost_in_flight) || taken.len() >= max {
                continue;
            }
            lost_in_flight |= item.rank == Rank::Lost;
            taken.push(item.id.clone());
        }
        taken
    }

    /// Ends a delivery: guarantees 5 to 7.
    pub(crate) fn conclude(&mut self, id: &EntryId, outcome: &Outcome, version: Option<String>) -> Disposition {
        self.settle(id, outcome, version, None)
    }

    /// Ends a delivery, which may be forgiven.
    pub(crate) fn settle(
        &mut self,
        id: &EntryId,
        outcome: &Outcome,
        version: Option<String>,
        forgive: Option<Duration>,
    ) -> Disposition {
        let (wall, item) = (self.wall, self.item(id));
        let lease = item.lease.take().unwrap();
        let (queue, born) = (item.queue.clone(), item.redriven_at.unwrap_or(item.enqueued_at));
        self.buckets.free(lease.token);
        let options = self.queues[&queue].options.clone();
        let disposition = match forgive {
            None => options.retry.decide(lease.attempt, outcome, 0.5),
            Some(Duration::ZERO) => Disposition::Release,
            Some(after) => Disposition::Defer(after),
        };
        let item = self.item(id);
        item.forgiven += u32::from(forgive.is_some());
        if *outcome != Outcome::Released {
            item.history.push(Attempt {
                attempt: lease.attempt,
                outcome: outcome.kind(),
                reason: outcome.reason().map(str::to_owned),
                version,
                started_at: lease.claimed_at,
                duration: wall.since(lease.claimed_at),
                forgiven: forgive.is_some(),
            });
        }
        if disposition == Disposition::Release {
            // It was claimed in time.
            item.dies_at = None;
            self.make_ready(id, if lease.alone { Rank::Lost } else { Rank::Released });
            return disposition;
        }
        if !matches!(disposition, Disposition::Defer(_)) {
            item.attempts = lease.attempt;
        }
        match disposition {
            Disposition::Complete => {
                if let Outcome::Ack { result } = outcome {
                    item.result.clone_from(result);
                }
                self.end(id, State::Done);
            }
            Disposition::Retry(delay) | Disposition::Defer(delay) => {
                if options.max_age.is_some_and(|max| wall.after(delay).since(born) > max) {
                    self.note(id, OutcomeKind::MaxAge);
                    self.end(id, State::Dead);
                    return Disposition::DeadLetter;
                }
                let totals = &mut self.line(&queue).totals;
                match disposition {
                    Disposition::Retry(_) => totals.retried += 1,
                    _ => totals.deferred += 1,
                }
                if *outcome == Outcome::Lost {
                    self.make_ready(id, Rank::Lost);
                } else {
                    self.schedule(id, wall.after(delay));
                }
            }
            _ => self.end(id, State::Dead),
        }
        disposition
    }

    /// A line in the history that says why an entry is dead although no attempt failed.
    pub(crate) fn note(&mut self, id: &EntryId, outcome: OutcomeKind) {
        let (started_at, item) = (self.wall, self.item(id));
        let attempt = item.attempts;
        let duration = Duration::ZERO;
        let (reason, version) = (None, None);
        item.history.push(Attempt { attempt, outcome, reason, version, started_at, duration, forgiven: false });
    }

    /// What the engine counts for an event.
    pub(crate) fn size(&self, event: &Event) -> u64 {
        event.size() + self.overhead.get(&Shape::of(event)).copied().unwrap_or(0)
    }
}

impl Item {
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            id: self.id.clone(),
            queue: self.queue.clone(),
            state: self.state,
            priority: self.priority,
            key: self.key.as_deref().map(Arc::from),
            attempts: self.attempts + u32::from(self.lease.is_some()),
            enqueued_at: self.enqueued_at,
            at: self.lease.as_ref().map_or(self.at, |lease| lease.claimed_at),
            event: self.event.clone(),
            history: self.history.clone(),
            // The model settles without.
            postmortem: None,
            result: self.result.clone(),
        }
    }
}
