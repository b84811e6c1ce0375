//! Publishers, workers and power cuts: whatever the schedule, and wherever a cut falls among the commits that were not
//! synced yet, what was acknowledged is there, and nothing happens twice.
//!
//! A failing run says its seed: `GRISTMILL_SEED=7 cargo test -p gristmill-queue --test simulation` replays it, but for
//! the order in which threads take turns. `GRISTMILL_SOAK=1` runs 10,000 seeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers: whatever fails, fails the test, and says what led to it"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Backoff, EntryId, Event, ManualClock, Outcome, QueueName, RetryPolicy, State, Timestamp};
use gristmill_queue::{
    Change, Claim, Confirm, Delivery, Engine, EngineOptions, Entry, List, Memory, Publish, Queue, QueueOptions,
    Retention, Settle, SettleReply, StateRead, StateWrite, Transaction,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const KEYS: [&str; 4] = ["", "a", "b", "c"];
const MAX_ATTEMPTS: u32 = 4;
const LIVES: u32 = 5;
const ROUNDS: u32 = 25;

/// What everybody has seen, over all lives of the store.
#[derive(Default)]
struct Seen {
    /// Acknowledged publishes.
    published: HashSet<EntryId>,
    /// Entries whose durable ack was answered.
    acked: HashSet<EntryId>,
    /// Delivery numbers and entries, also those that a power cut took back.
    deliveries: HashSet<u64>,
    entries: HashMap<EntryId, String>,
    /// By key: entries in flight, and sequence numbers that have not ended.
    in_flight: HashMap<String, BTreeSet<EntryId>>,
    open: BTreeMap<String, BTreeSet<u64>>,
    held: Vec<Delivery>,
}

impl Seen {
    /// No entry's id is ever another's, not even that of one that was lost with its commit.
    fn knows(&mut self, id: &EntryId, event: &str) {
        let known = self.entries.entry(id.clone()).or_insert_with(|| event.to_owned());
        assert_eq!(known, event, "{id} was issued twice");
    }

    /// From now on another entry of its key may be handed out.
    fn lets_go(&mut self, delivery: &Delivery, ends: bool) {
        let Some(key) = delivery.key.as_deref() else { return };
        if let Some(busy) = self.in_flight.get_mut(key) {
            busy.remove(&delivery.entry);
        }
        if let Some(open) = self.open.get_mut(key).filter(|_| ends) {
            open.remove(&parts(&delivery.event.id).1);
        }
    }
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap()
}

fn work() -> QueueName {
    QueueName::new("work").unwrap()
}

fn out() -> QueueName {
    QueueName::new("out").unwrap()
}

/// `key-sequence`.
fn parts(id: &str) -> (String, u64) {
    let (key, number) = id.split_once('-').unwrap();
    (key.to_owned(), number.parse().unwrap())
}

async fn publish(engine: Arc<Engine>, seen: Shared, key: &'static str, numbers: std::ops::Range<u64>) {
    let batch = numbers.clone().map(|number| {
        let mut publish = Publish::new(Event::new(format!("{key}-{number}"), "/simulation", "t"), [work()]);
        publish.key = (!key.is_empty()).then(|| key.to_owned());
        publish
    });
    let Ok(published) = engine.publish(batch.collect()).await else { return };
    let mut seen = lock(&seen);
    for (number, result) in numbers.zip(published.results) {
        let id = result.unwrap().entries.remove(0).entry;
        seen.knows(&id, &format!("{key}-{number}"));
        seen.published.insert(id);
    }
}

async fn claim(engine: Arc<Engine>, seen: Shared, max: usize) {
    let Ok(claimed) = engine.claim(Claim::new(work(), max)).await else { return };
    let mut seen = lock(&seen);
    for delivery in claimed {
        let id = delivery.entry.clone();
        assert!(seen.deliveries.insert(delivery.lease.delivery), "{:?} was issued twice", delivery.lease);
        seen.knows(&id, &delivery.event.id);
        assert!(!seen.acked.contains(&id), "{id} is handled again after a durable ack");
        assert!((1..=MAX_ATTEMPTS).contains(&delivery.attempt), "{id}: attempt {}", delivery.attempt);
        if let Some(key) = delivery.key.as_deref() {
            let busy = seen.in_flight.entry(key.to_owned()).or_default();
            assert!(busy.insert(id.clone()) && busy.len() == 1, "key {key} has several in flight: {busy:?}");
            let (_, number) = parts(&delivery.event.id);
            let first = seen.open.get(key).and_then(BTreeSet::first).copied();
            assert!(first.is_none_or(|first| number <= first), "{} before number {first:?}", delivery.event.id);
        }
        seen.held.push(delivery);
    }
}

/// Reads the counter, adds one, emits an event, and acks; or fails.
async fn settle(engine: Arc<Engine>, seen: Shared, delivery: Delivery, outcome: Outcome, confirm: Confirm) {
    let mut settle = Settle::new(delivery.lease, outcome.clone());
    settle.emits.push(Publish::new(Event::new(delivery.entry.as_str(), "/emitted", "t"), [out()]));
    let is_ack = matches!(outcome, Outcome::Ack { .. });
    let ends =
        outcome != Outcome::Released && (!matches!(outcome, Outcome::Retry { .. }) || delivery.attempt == MAX_ATTEMPTS);
    lock(&seen).lets_go(&delivery, ends);
    if is_ack {
        let Ok(snapshot) = engine.snapshot().await else { return };
        let count = snapshot.get("totals", "acks").unwrap();
        let count: u64 = count.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
        let (bucket, key) = ("totals".to_owned(), "acks".to_owned());
        let change = Change::Set(Bytes::from((count + 1).to_string()));
        settle.transaction = Some(Transaction {
            revision: Some(snapshot.revision()),
            reads: vec![StateRead::Key { bucket: bucket.clone(), key: key.clone() }],
            writes: vec![StateWrite { bucket, key, change }],
        });
        // Somebody else may commit in between.
        tokio::task::yield_now().await;
    }
    let Ok(replies) = engine.settle(vec![settle], confirm).await else { return };
    let mut seen = lock(&seen);
    match &replies[0] {
        SettleReply::Settled(_) => {
            if is_ack && confirm == Confirm::Durable {
                seen.acked.insert(delivery.entry.clone());
            }
        }
        SettleReply::Conflict => {
            if let Some(key) = delivery.key.as_deref() {
                seen.in_flight.entry(key.to_owned()).or_default().insert(delivery.entry.clone());
            }
            seen.held.push(delivery);
        }
        other => panic!("{other:?}"),
    }
}

struct Simulation {
    random: StdRng,
    clock: ManualClock,
    memory: Memory,
    seen: Shared,
    next: HashMap<&'static str, u64>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let memory = Memory::default();
        memory.remember_commits();
        let clock = ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000));
        Self { random: StdRng::seed_from_u64(seed), clock, memory, seen: Shared::default(), next: HashMap::new() }
    }

    async fn open(&self) -> Arc<Engine> {
        let clock = Arc::new(self.clock.clone());
        let engine = self.memory.open(EngineOptions { clock, ..EngineOptions::default() }).unwrap();
        let backoff = Backoff { base: Duration::from_secs(1), factor: 1.0, jitter: 0.0, ..Backoff::default() };
        let retry = RetryPolicy { max_attempts: Some(MAX_ATTEMPTS), backoff };
        let (lease, done) = (Duration::from_secs(3_600), Retention::default());
        let options = QueueOptions { retry, lease, done, ..QueueOptions::default() };
        engine.configure(work(), options.clone()).await.unwrap();
        engine.configure(out(), options).await.unwrap();
        Arc::new(engine)
    }

    async fn run(mut self) {
        for _ in 0..LIVES {
            let engine = self.open().await;
            self.check(&engine).await;
            for round in 0..ROUNDS {
                let tasks = self.start(&engine);
                if round + 1 == ROUNDS {
                    // The power goes while they are at it.
                    for _ in 0..self.random.random_range(0..12) {
                        tokio::task::yield_now().await;
                    }
                    break;
                }
                for task in tasks {
                    task.await.unwrap();
                }
                self.pass(&engine).await;
            }
            // Nobody is told anything after this.
            let left = self.memory.after_power_cut(self.random.random_range(0.0..=1.0));
            let seen = std::mem::take(&mut *lock(&self.seen));
            self.seen = Arc::new(Mutex::new(Seen { held: Vec::new(), in_flight: HashMap::new(), ..seen }));
            self.memory = left;
        }
        let engine = self.open().await;
        self.check(&engine).await;
    }

    /// Some calls at the same time.
    fn start(&mut self, engine: &Arc<Engine>) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        let mut keys: Vec<&'static str> = KEYS.to_vec();
        for _ in 0..self.random.random_range(1..6) {
            let (engine, seen) = (engine.clone(), self.seen.clone());
            match self.random.random_range(0..10) {
                0..3 if !keys.is_empty() => {
                    // One publisher of each key at a time: or there is no order to speak of.
                    let key = keys.remove(self.random.random_range(0..keys.len()));
                    let next = self.next.entry(key).or_default();
                    let numbers = *next..*next + self.random.random_range(1..4);
                    *next = numbers.end;
                    tasks.push(tokio::spawn(publish(engine, seen, key, numbers)));
                }
                0..5 => tasks.push(tokio::spawn(claim(engine, seen, self.random.random_range(1..6)))),
                _ => {
                    let mut held = lock(&self.seen);
                    if held.held.is_empty() {
                        continue;
                    }
                    let index = self.random.random_range(0..held.held.len());
                    let delivery = held.held.remove(index);
                    drop(held);
                    let reason = || "simulated".to_owned();
                    let outcome = match self.random.random_range(0..10) {
                        0..7 => Outcome::Ack { result: None },
                        7 => Outcome::Retry { reason: reason(), after: None },
                        8 => Outcome::Released,
                        _ => Outcome::Reject { reason: reason() },
                    };
                    let durable = self.random.random_bool(0.5);
                    let confirm = if durable { Confirm::Durable } else { Confirm::Committed };
                    tasks.push(tokio::spawn(settle(engine, seen, delivery, outcome, confirm)));
                }
            }
        }
        tasks
    }

    /// Time passes, and what has ended by now is known.
    async fn pass(&mut self, engine: &Engine) {
        if self.random.random_bool(0.3) {
            self.clock.advance(Duration::from_millis(self.random.random_range(1..2_000)));
        }
        engine.tick().await.unwrap();
        if self.random.random_bool(0.3) {
            self.check(engine).await;
        } else {
            // Not looked at: nothing is known about the order.
            lock(&self.seen).open.clear();
        }
    }

    async fn list(engine: &Engine, queue: QueueName, state: State) -> Vec<Entry> {
        let page = engine.list(List::new(queue, state)).await.unwrap();
        assert_eq!(page.next, None, "more entries than one page shows");
        page.entries
    }

    /// Everything that must hold while nobody does anything.
    async fn check(&self, engine: &Engine) {
        let mut everything: HashMap<EntryId, Entry> = HashMap::new();
        let stats = engine.stats().await.unwrap();
        for (queue, stats) in [out(), work()].into_iter().zip(&stats) {
            assert_eq!(queue, stats.queue);
            let counts =
                [stats.scheduled, stats.waiting, stats.ready, stats.leased, stats.done, stats.dead, stats.cancelled];
            for (state, count) in State::ALL.into_iter().zip(counts) {
                let entries = Self::list(engine, queue.clone(), state).await;
                assert_eq!(entries.len() as u64, count, "{state} entries of {queue}");
                for entry in entries {
                    let id = entry.id.clone();
                    let twice = everything.insert(id.clone(), entry);
                    assert!(twice.is_none(), "{id} is in two states: {twice:?}");
                }
            }
        }
        let count = counted(engine).await;
        let mut seen = lock(&self.seen);
        for id in &seen.published {
            assert!(everything.contains_key(id), "{id} is gone, and its publish was acknowledged");
        }
        for id in &seen.acked {
            assert_eq!(everything[id].state, State::Done, "{id} was acked, durably");
        }
        for (id, entry) in &everything {
            assert!(entry.attempts <= MAX_ATTEMPTS, "{id}: {} attempts", entry.attempts);
            seen.knows(id, &entry.event.id);
        }
        let of = |queue: QueueName| everything.values().filter(move |entry| entry.queue == queue);
        let done: BTreeSet<_> = of(work()).filter(|entry| entry.state == State::Done).map(|e| e.id.as_str()).collect();
        let emitted: Vec<_> = of(out()).map(|entry| entry.event.id.as_str()).collect();
        assert_eq!(emitted.len(), done.len(), "one event for each ack");
        assert_eq!(
            emitted.into_iter().collect::<BTreeSet<_>>(),
            done,
            "emits are there if, and only if, their acks are"
        );
        assert_eq!(count, done.len() as u64, "the counter says how many were acked");
        seen.open.clear();
        for entry in of(work()).filter(|entry| !entry.state.has_ended()) {
            let (key, number) = parts(&entry.event.id);
            seen.open.entry(key).or_default().insert(number);
        }
    }
}

/// What the workers have counted.
async fn counted(engine: &Engine) -> u64 {
    let value = engine.snapshot().await.unwrap().get("totals", "acks").unwrap();
    value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_nothing_happens_twice() {
    let soak = std::env::var_os("GRISTMILL_SOAK").is_some();
    let seeds = match std::env::var("GRISTMILL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..if soak { 10_000 } else { 200 },
    };
    for seed in seeds {
        println!("GRISTMILL_SEED={seed}");
        Simulation::new(seed).run().await;
    }
}
