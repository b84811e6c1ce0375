//! Both engines pass the suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::{Event, ManualClock, Outcome, QueueName, State, Timestamp};
use gristmill_queue::conformance::{Rig, RigOptions};
use gristmill_queue::{
    Claim, Confirm, DeadHook, DeadLetter, Engine, EngineOptions, Memory, Publish, Queue, QueueError, QueueOptions,
    RocksDb, Settle,
};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Nothing that must happen takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

struct Fixture<S> {
    store: S,
    clock: ManualClock,
    engine: Option<Engine>,
    on_dead: DeadHook,
    told: Mutex<UnboundedReceiver<DeadLetter>>,
}

trait Reopen: Send + Sync {
    fn open(&self, options: EngineOptions) -> Result<Engine, QueueError>;
}

impl Reopen for Memory {
    fn open(&self, options: EngineOptions) -> Result<Engine, QueueError> {
        Memory::open(self, options)
    }
}

impl Reopen for tempfile::TempDir {
    fn open(&self, options: EngineOptions) -> Result<Engine, QueueError> {
        RocksDb::open(self.path(), options)
    }
}

impl<S: Reopen> Fixture<S> {
    fn new(store: S) -> Self {
        let (sender, told) = unbounded_channel();
        let on_dead: DeadHook = Arc::new(move |letter| sender.send(letter).unwrap());
        let clock = ManualClock::at(START);
        let mut fixture = Self { store, clock, engine: None, on_dead, told: Mutex::new(told) };
        fixture.open(RigOptions::default());
        fixture
    }

    fn open(&mut self, options: RigOptions) {
        let options = EngineOptions {
            clock: Arc::new(self.clock.clone()),
            max_event_size: options.max_event_size,
            idempotency_window: options.idempotency_window,
            log_retention: options.log_retention,
            on_dead: Some(self.on_dead.clone()),
            ..EngineOptions::default()
        };
        self.engine = Some(self.store.open(options).unwrap());
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().unwrap()
    }
}

#[async_trait]
impl<S: Reopen> Rig for Fixture<S> {
    fn queue(&self) -> &dyn Queue {
        self.engine()
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn tick(&self) {
        self.engine().tick().await.unwrap();
    }

    async fn told(&self) -> DeadLetter {
        let mut told = self.told.lock().await;
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("nobody is told of a death").unwrap()
    }

    async fn reopen(&mut self, options: RigOptions) {
        drop(self.engine.take());
        self.open(options);
    }
}

mod memory {
    gristmill_queue::conformance_tests!(super::Fixture::new(gristmill_queue::Memory::default()));
}

mod rocksdb {
    gristmill_queue::conformance_tests!(super::Fixture::new(tempfile::tempdir().unwrap()));
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let _first = RocksDb::open(directory.path(), EngineOptions::default()).unwrap();
    let second = RocksDb::open(directory.path(), EngineOptions::default()).unwrap_err().to_string();
    assert!(second.contains("is in use by this process"), "{second}");
}

/// Whoever is told of a death can rely on it: a power cut at that very moment does not undo it.
#[tokio::test]
async fn a_death_is_durable_when_it_is_told() {
    let memory = Memory::default();
    memory.remember_commits();
    let (sender, mut told) = unbounded_channel();
    let on_dead: DeadHook = Arc::new({
        let memory = memory.clone();
        move |letter| sender.send((letter, memory.after_power_cut(0.0))).unwrap()
    });
    let clock = ManualClock::at(START);
    let options = EngineOptions { clock: Arc::new(clock.clone()), ..EngineOptions::default() };
    let engine = memory.open(EngineOptions { on_dead: Some(on_dead), ..options.clone() }).unwrap();
    let queue = QueueName::new("work").unwrap();
    engine.configure(queue.clone(), QueueOptions::default()).await.unwrap();
    let mut dead = BTreeSet::new();
    for n in 0..100 {
        let mut publish = Publish::new(Event::new(n.to_string(), "/test", "t"), [queue.clone()]);
        // Some die while nobody works, and the writer syncs by itself; others with their settlement.
        let is_late = n < 10 || n % 2 == 0;
        publish.time_to_live = is_late.then_some(Duration::from_secs(1));
        let published = engine.publish(vec![publish]).await.unwrap().results.remove(0).unwrap();
        dead.insert(published.entries.into_iter().next().unwrap().entry);
        if is_late {
            clock.advance(Duration::from_secs(1));
            engine.tick().await.unwrap();
        } else {
            let delivery = engine.claim(Claim::new(queue.clone(), 1)).await.unwrap().remove(0);
            let reject = Settle::new(delivery.lease, Outcome::Reject { reason: "never".to_owned() });
            engine.settle(vec![reject], Confirm::Committed).await.unwrap();
        }
    }
    for _ in 0..dead.len() {
        let (letter, left) = tokio::time::timeout(PATIENCE, told.recv()).await.unwrap().unwrap();
        assert!(dead.remove(&letter.entry) && letter.queue == queue, "{letter:?} is told twice, or not dead");
        let engine = left.open(options.clone()).unwrap();
        assert_eq!(engine.get(letter.entry).await.unwrap().map(|entry| entry.state), Some(State::Dead));
    }
}
