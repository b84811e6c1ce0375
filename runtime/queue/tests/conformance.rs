//! Both engines pass the suite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

use async_trait::async_trait;
use gristmill_core::{ManualClock, Timestamp};
use gristmill_queue::conformance::{Rig, RigOptions};
use gristmill_queue::{Engine, EngineOptions, Memory, Queue, QueueError, RocksDb};

struct Fixture<S> {
    store: S,
    clock: ManualClock,
    engine: Option<Engine>,
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
        let clock = ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000));
        let mut fixture = Self { store, clock, engine: None };
        fixture.open(RigOptions::default());
        fixture
    }

    fn open(&mut self, options: RigOptions) {
        let options = EngineOptions {
            clock: std::sync::Arc::new(self.clock.clone()),
            max_event_size: options.max_event_size,
            idempotency_window: options.idempotency_window,
            log_retention: options.log_retention,
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
