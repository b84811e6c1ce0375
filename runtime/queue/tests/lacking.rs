//! The suite is for engines that lack a feature as well: the memory engine passes it with one feature at a time taken
//! away.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::{EntryId, ManualClock, QueueName, Timestamp};
use gristmill_queue::conformance::{Rig, RigOptions};
use gristmill_queue::{
    Capabilities, Claim, Confirm, Counters, DeadHook, DeadLetter, Delivery, Engine, EngineOptions, Entry, Extend,
    ExtendReply, Feature, Holder, KeyOptions, KeyPage, List, ListKeys, Memory, OnDuplicate, Operated, Operation, Page,
    Publish, Published, Queue, QueueError, QueueOptions, QueueStats, Sample, Sampled, Settle, SettleReply,
    StateSnapshot, Transacted, Transaction, Waited,
};
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The longest that a test waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine without one of its features.
struct Lacking {
    engine: Engine,
    feature: Feature,
    others: &'static [Feature],
}

impl Lacking {
    fn new(engine: Engine, feature: Feature) -> Self {
        let others: Vec<_> = Feature::ALL.iter().copied().filter(|other| *other != feature).collect();
        // A few bytes for each rule.
        Self { engine, feature, others: others.leak() }
    }

    /// An error, if something needs the feature that is not there.
    fn needs(&self, feature: Feature, needed: bool) -> Result<(), QueueError> {
        if needed && feature == self.feature {
            return Err(QueueError::Unsupported { engine: self.capabilities().engine, feature });
        }
        Ok(())
    }

    fn check(&self, publish: &Publish) -> Result<(), QueueError> {
        self.needs(Feature::OrderingKeys, publish.key.is_some())?;
        let plain = matches!(publish.on_duplicate, OnDuplicate::Allow | OnDuplicate::ReturnExisting);
        self.needs(Feature::Idempotency, !plain || publish.dedupe_key.is_some())
    }
}

#[async_trait]
impl Queue for Lacking {
    fn capabilities(&self) -> Capabilities {
        Capabilities { features: self.others, ..self.engine.capabilities() }
    }

    fn counters(&self) -> Counters {
        self.engine.counters()
    }

    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError> {
        self.needs(Feature::Rates, options.rate.is_some() || options.key.rate.is_some())?;
        self.needs(Feature::OrderingKeys, options.key != KeyOptions::default())?;
        self.engine.configure(queue, options).await
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError> {
        batch.iter().try_for_each(|publish| self.check(publish))?;
        self.engine.publish(batch).await
    }

    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError> {
        self.needs(Feature::FilteredClaims, !request.types.is_empty())?;
        self.needs(Feature::StoredLeases, request.holder == Holder::Outside)?;
        self.engine.claim(request).await
    }

    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError> {
        batch.iter().flat_map(|settle| &settle.emits).try_for_each(|emit| self.check(emit))?;
        self.needs(Feature::State, batch.iter().any(|settle| settle.transaction.is_some()))?;
        self.engine.settle(batch, confirm).await
    }

    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError> {
        self.engine.extend(batch).await
    }

    async fn wait(&self, entry: EntryId, timeout: Duration) -> Result<Waited, QueueError> {
        self.engine.wait(entry, timeout).await
    }

    async fn operate(&self, operation: Operation) -> Result<Operated, QueueError> {
        let is_replay = matches!(&operation, Operation::Replay(_));
        let rate = match &operation {
            Operation::Act(act) => act.rate,
            Operation::Replay(replay) => replay.rate,
            _ => None,
        };
        self.needs(Feature::Log, is_replay)?;
        self.needs(Feature::Rates, rate.is_some())?;
        self.needs(Feature::State, matches!(&operation, Operation::LimitBucket { .. }))?;
        self.needs(Feature::OrderingKeys, matches!(&operation, Operation::FreeKey { .. }))?;
        self.engine.operate(operation).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        self.engine.stats().await
    }

    async fn keys(&self, request: ListKeys) -> Result<KeyPage, QueueError> {
        self.needs(Feature::OrderingKeys, true)?;
        self.engine.keys(request).await
    }

    async fn list(&self, request: List) -> Result<Page, QueueError> {
        self.engine.list(request).await
    }

    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError> {
        self.engine.get(entry).await
    }

    async fn find(&self, source: String, id: String) -> Result<Vec<Entry>, QueueError> {
        self.needs(Feature::Idempotency, true)?;
        self.engine.find(source, id).await
    }

    async fn sample(&self, request: Sample) -> Result<Vec<Sampled>, QueueError> {
        self.engine.sample(request).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn StateSnapshot>, QueueError> {
        self.needs(Feature::State, true)?;
        self.engine.snapshot().await
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, QueueError> {
        self.needs(Feature::State, true)?;
        self.engine.transact(transaction).await
    }

    async fn close(&self) -> Result<(), QueueError> {
        self.engine.close().await
    }
}

struct Fixture {
    memory: Memory,
    clock: ManualClock,
    feature: Feature,
    queue: Option<Lacking>,
    on_dead: DeadHook,
    told: Mutex<UnboundedReceiver<DeadLetter>>,
}

impl Fixture {
    fn new(feature: Feature) -> Self {
        let clock = ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000));
        let (sender, told) = unbounded_channel();
        let on_dead: DeadHook = Arc::new(move |letter| sender.send(letter).unwrap());
        let told = Mutex::new(told);
        let mut fixture = Self { memory: Memory::default(), clock, feature, queue: None, on_dead, told };
        fixture.open(RigOptions::default());
        fixture
    }

    fn open(&mut self, options: RigOptions) {
        let has = |feature| self.feature != feature;
        let idempotency_window = if has(Feature::Idempotency) { options.idempotency_window } else { Duration::ZERO };
        let options = EngineOptions {
            clock: Arc::new(self.clock.clone()),
            max_event_size: options.max_event_size,
            idempotency_window,
            log_retention: options.log_retention.filter(|_| has(Feature::Log)),
            on_dead: Some(self.on_dead.clone()),
            ..EngineOptions::default()
        };
        self.queue = Some(Lacking::new(self.memory.open(options).unwrap(), self.feature));
    }

    fn lacking(&self) -> &Lacking {
        self.queue.as_ref().unwrap()
    }
}

#[async_trait]
impl Rig for Fixture {
    fn queue(&self) -> &dyn Queue {
        self.lacking()
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn tick(&self) {
        self.lacking().engine.tick().await.unwrap();
    }

    async fn told(&self) -> DeadLetter {
        let mut told = self.told.lock().await;
        tokio::time::timeout(PATIENCE, told.recv()).await.expect("nobody is told of a death").unwrap()
    }

    async fn reopen(&mut self, options: RigOptions) {
        drop(self.queue.take());
        self.open(options);
    }
}

gristmill_queue::conformance_tests!(for feature in Feature::ALL => {
    // Shown if the rule fails.
    println!("without {feature:?}");
    Fixture::new(*feature)
});
