//! State from the grant to the commit: a real component under a real dispatcher, over the memory engine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gristmill::config;
use gristmill::dispatch::{Dispatcher, Observers, Phase};
use gristmill::routing::Router;
use gristmill::{engine, registry};
use gristmill_core::state::{Change, StateWrite};
use gristmill_core::{EntryId, Event, QueueName, State, SystemClock};
use gristmill_queue::{
    Capabilities, Claim, Confirm, Counters, Delivery, Entry, Extend, ExtendReply, KeyPage, List, ListKeys, OnLoss,
    Operated, Operation, Page, Publish, Published, Queue, QueueError, QueueOptions, QueueStats, Sample, Sampled,
    Settle, SettleReply, StateSnapshot, Transacted, Transaction, Waited,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The engine, and somebody who writes to the state between a run and its settlement, so many times.
struct Meddled {
    inner: Arc<dyn Queue>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    /// What is still to be written, one transaction before each settlement.
    writes: Vec<StateWrite>,
    /// What came of it.
    meddled: Vec<Transacted>,
    /// What came of the settlements.
    settled: Vec<SettleReply>,
    /// How many leases were extended.
    extended: usize,
}

#[async_trait]
impl Queue for Meddled {
    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError> {
        let next = self.plan.lock().unwrap().writes.pop();
        if let Some(write) = next {
            let transaction = Transaction { writes: vec![write], ..Transaction::default() };
            let came_of_it = self.inner.transact(transaction).await?;
            self.plan.lock().unwrap().meddled.push(came_of_it);
        }
        let replies = self.inner.settle(batch, confirm).await?;
        self.plan.lock().unwrap().settled.extend(replies.iter().cloned());
        Ok(replies)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn counters(&self) -> Counters {
        self.inner.counters()
    }
    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError> {
        self.inner.configure(queue, options).await
    }
    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError> {
        self.inner.publish(batch).await
    }
    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError> {
        self.inner.claim(request).await
    }
    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError> {
        self.plan.lock().unwrap().extended += batch.len();
        self.inner.extend(batch).await
    }
    async fn wait(&self, entry: EntryId, timeout: Duration) -> Result<Waited, QueueError> {
        self.inner.wait(entry, timeout).await
    }
    async fn operate(&self, operation: Operation) -> Result<Operated, QueueError> {
        self.inner.operate(operation).await
    }
    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        self.inner.stats().await
    }
    async fn keys(&self, request: ListKeys) -> Result<KeyPage, QueueError> {
        self.inner.keys(request).await
    }
    async fn list(&self, request: List) -> Result<Page, QueueError> {
        self.inner.list(request).await
    }
    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError> {
        self.inner.get(entry).await
    }
    async fn find(&self, source: String, id: String) -> Result<Vec<Entry>, QueueError> {
        self.inner.find(source, id).await
    }
    async fn sample(&self, request: Sample) -> Result<Vec<Sampled>, QueueError> {
        self.inner.sample(request).await
    }
    async fn snapshot(&self) -> Result<Arc<dyn StateSnapshot>, QueueError> {
        self.inner.snapshot().await
    }
    async fn transact(&self, transaction: Transaction) -> Result<Transacted, QueueError> {
        self.inner.transact(transaction).await
    }
    async fn close(&self) -> Result<(), QueueError> {
        self.inner.close().await
    }
}

/// A runtime of one handler, at work.
struct Rig {
    queue: Arc<Meddled>,
    phase: watch::Sender<Phase>,
    running: tokio::task::JoinHandle<()>,
    published: u32,
}

impl Rig {
    /// `extra` is more TOML of the handler, and after it.
    async fn new(extra: &str) -> Self {
        let component = gristmill_test_guests::path(gristmill_test_guests::KEEPER);
        let text = format!(
            "[queue]\nengine = \"memory\"\n[[handler]]\nname = \"keeper\"\ncomponent = {component:?}\n\
             subscribe = [{{ type = \"*\" }}]\nmax-attempts = 1\ngrant = {{ state = [\"orders\", \"prices:read\"] }}\n{extra}"
        );
        let config = config::parse(&text, Path::new("runtime.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let inner = engine::open(&config, OnLoss::Refuse).await.unwrap();
        let queue = Arc::new(Meddled { inner, plan: Mutex::default() });
        let host = registry::host(&config, gristmill_host::Compiler::InProcess).unwrap();
        let handler = registry::load(&host, &config).await.remove(0).unwrap();
        let (phase, phases) = watch::channel(Phase::Running);
        let dispatcher = Dispatcher::new(
            handler,
            queue.clone(),
            Arc::new(Router::new(registry::routes(&config))),
            Arc::new(SystemClock::new()),
            (Observers::default(), phases),
        );
        let running = tokio::spawn(dispatcher.run());
        Self { queue, phase, running, published: 0 }
    }

    fn meddle(&self, key: &str, times: usize) {
        self.queue.plan.lock().unwrap().writes = vec![set("orders", key, "100"); times];
    }

    async fn put(&self, write: StateWrite) {
        let transaction = Transaction { writes: vec![write], ..Transaction::default() };
        assert_eq!(self.queue.transact(transaction).await, Ok(Transacted::Committed(vec![])));
    }

    async fn value(&self, key: &str) -> Option<String> {
        let value = self.queue.snapshot().await.unwrap().get("orders", key).unwrap();
        value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn publish(&mut self, then: &str, operations: Value) -> EntryId {
        self.published += 1;
        let mut event = Event::new(self.published.to_string(), "/test", "test.state");
        event.data = Some(json!({ "draft": 2, "do": operations, "then": then }).to_string().into());
        let publish = Publish::new(event, [QueueName::new("keeper").unwrap()]);
        let published = self.queue.publish(vec![publish]).await.unwrap();
        published.results[0].as_ref().unwrap().entries[0].entry.clone()
    }

    /// The entry when it has ended.
    async fn ended(&self, entry: EntryId) -> Entry {
        self.queue.wait(entry.clone(), PATIENCE).await.unwrap();
        self.queue.get(entry).await.unwrap().unwrap()
    }

    async fn run(&mut self, then: &str, operations: Value) -> Entry {
        let entry = self.publish(then, operations).await;
        self.ended(entry).await
    }

    /// Stops, and tells what came of the meddling and of the settlements.
    async fn stop(self) -> (Vec<Transacted>, Vec<SettleReply>) {
        self.phase.send_replace(Phase::Draining);
        self.running.await.unwrap();
        let plan = std::mem::take(&mut *self.queue.plan.lock().unwrap());
        (plan.meddled, plan.settled)
    }
}

fn set(bucket: &str, key: &str, value: &str) -> StateWrite {
    StateWrite { bucket: bucket.into(), key: key.into(), change: Change::Set(Bytes::from(value.to_owned())) }
}

fn result(entry: &Entry) -> Value {
    assert_eq!(entry.state, State::Done, "{entry:?}");
    serde_json::from_slice(entry.result.as_deref().unwrap()).unwrap()
}

fn reason(entry: &Entry) -> String {
    entry.history.attempts().last().unwrap().reason.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_there_with_the_ack_and_only_then() {
    let mut rig = Rig::new("").await;
    let writes = || json!([["set", "orders", "a", "1"], ["increment", "orders", "n", 5]]);
    for then in ["reject", "trap", "retry"] {
        let entry = rig.run(then, writes()).await;
        assert_eq!((entry.state, rig.value("a").await), (State::Dead, None), "{then}");
    }
    assert_eq!(result(&rig.run("ack", writes()).await), json!([true, 5]));
    assert_eq!((rig.value("a").await.as_deref(), rig.value("n").await.as_deref()), (Some("1"), Some("5")));
    let deleted = rig.run("ack", json!([["get", "orders", "a"], ["delete", "orders", "a"]])).await;
    assert_eq!((result(&deleted), rig.value("a").await), (json!(["1", true]), None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_run_again_on_what_is_there_now_and_spends_no_attempt() {
    let mut rig = Rig::new("").await;
    rig.meddle("n", 2);
    let entry = rig.run("ack", json!([["increment", "orders", "n", 1]])).await;
    assert_eq!(result(&entry), json!([101]), "max-attempts is 1");
    assert_eq!((entry.attempts, entry.history.attempts().len()), (1, 1));
    assert_eq!(rig.value("n").await.as_deref(), Some("101"));
    let (_, settled) = rig.stop().await;
    assert_eq!(settled[..2], [SettleReply::Conflict, SettleReply::Conflict]);
    assert_eq!(settled.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_three_conflicts_nobody_else_gets_in() {
    let mut rig = Rig::new("").await;
    rig.put(set("orders", "n", "7")).await;
    rig.meddle("n", 10);
    let entry = rig.run("ack", json!([["increment", "orders", "n", 1]])).await;
    assert_eq!(result(&entry), json!([101]));
    let (meddled, settled) = rig.stop().await;
    let done = Transacted::Committed(vec![]);
    assert_eq!(meddled, [done.clone(), done.clone(), done, Transacted::Conflict], "the fourth comes too late");
    assert_eq!(settled.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_too_short_for_another_run_is_extended() {
    // A run may take 5 s and settling 1 s: whatever the first run took, the lease does not last for another.
    let mut rig = Rig::new("lease = \"6s\"\ntimeout = \"5s\"\n").await;
    rig.meddle("n", 3);
    let entry = rig.run("ack", json!([["increment", "orders", "n", 1]])).await;
    assert_eq!((result(&entry), entry.attempts), (json!([101]), 1));
    assert_eq!(rig.queue.plan.lock().unwrap().extended, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_appears_in_a_list_that_was_read_is_a_conflict() {
    let mut rig = Rig::new("").await;
    rig.put(set("orders", "a", "")).await;
    rig.meddle("phantom", 1);
    let entry = rig.run("ack", json!([["list", "orders"], ["set", "orders", "seen", "1"]])).await;
    assert_eq!(result(&entry), json!([["a", "phantom"], true]));
    // Whoever did not look at the list does not care.
    rig.meddle("another", 1);
    rig.run("ack", json!([["get", "orders", "a"], ["set", "orders", "seen", "2"]])).await;
    let (_, settled) = rig.stop().await;
    assert_eq!(settled.iter().filter(|reply| **reply == SettleReply::Conflict).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_number_lose_no_update() {
    let mut rig = Rig::new("concurrency = 8\n").await;
    let mut entries = Vec::new();
    for _ in 0..60 {
        entries.push(rig.publish("ack", json!([["increment", "orders", "n", 1], ["list", "orders"]])).await);
    }
    for entry in entries {
        assert_eq!(rig.ended(entry).await.state, State::Done);
    }
    assert_eq!(rig.value("n").await.as_deref(), Some("60"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_bucket_is_a_failure_that_says_so() {
    let mut rig = Rig::new("[[bucket]]\nname = \"orders\"\nmax-bytes = \"1KiB\"\n").await;
    let full = rig.run("ack", json!([["set", "orders", "small", "1"], ["large", "orders", "k", 1_024]])).await;
    assert_eq!(full.state, State::Dead);
    assert_eq!(
        reason(&full),
        "a write to the state cannot be done: bucket `orders` is full: it may hold 1024 bytes of keys and values"
    );
    assert_eq!(rig.value("small").await, None, "all or nothing");
    result(&rig.run("ack", json!([["large", "orders", "k", 1_000]])).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_rights_are_those_of_the_file() {
    let mut rig = Rig::new("max-state-writes = 2\nmax-state-bytes = \"2KiB\"\n").await;
    let operations = json!([
        ["set", "prices", "a", "1"],
        ["get", "secrets", "a"],
        ["fill", "orders", "k", 3],
        ["large", "orders", "k", 2_048],
    ]);
    let denied = json!({ "error": "access-denied" });
    let writes = json!({ "error": "one invocation may write at most 2 keys" });
    let bytes = json!({ "error": "one invocation may write at most 2KiB of keys and values" });
    assert_eq!(result(&rig.run("ack", operations).await), json!([denied, denied, writes, bytes]));
}
