//! What rules do with a rig again and again.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{
    Backoff, Clock, Disposition, EntryId, Event, Outcome, Pattern, QueueName, RetryPolicy, State, Timestamp,
};

use super::{Rig, RigOptions};
use crate::contract::{
    Accepted, Act, ActReply, Action, Claim, Confirm, Delivery, Entry, Extend, ExtendReply, Feature, Filter, KeyStats,
    LeaseToken, List, ListKeys, OnDuplicate, Operated, Operation, Publish, PublishError, QueueError, QueueOptions,
    QueueStats, Selection, Settle, SettleReply, WhichKeys,
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A rig, and the queue that most rules need only one of.
pub(super) struct Bench<R> {
    pub(super) rig: R,
    pub(super) name: QueueName,
    engine: RigOptions,
}

impl<R: Rig> Bench<R> {
    pub(super) async fn new(rig: R) -> Self {
        Self::with(rig, QueueOptions::default()).await
    }

    pub(super) async fn with(rig: R, options: QueueOptions) -> Self {
        let bench = Self { rig, name: queue_name("orders"), engine: RigOptions::default() };
        bench.configure(options).await;
        bench
    }

    /// On an engine that is opened like this.
    pub(super) async fn opened(mut rig: R, engine: RigOptions) -> Self {
        rig.reopen(engine).await;
        Self { engine, ..Self::new(rig).await }
    }

    /// After the process has ended, and another was started on the same store.
    pub(super) async fn reopened(self) -> Self {
        let engine = self.engine;
        self.reopened_with(engine).await
    }

    pub(super) async fn reopened_with(mut self, engine: RigOptions) -> Self {
        self.rig.reopen(engine).await;
        Self { engine, ..self }
    }

    /// With another queue from now on.
    pub(super) fn of(self, name: QueueName) -> Self {
        Self { name, ..self }
    }

    pub(super) async fn configure(&self, options: QueueOptions) {
        self.rig.queue().configure(self.name.clone(), options).await.unwrap();
    }

    pub(super) async fn add_queue(&self, name: &str) -> QueueName {
        self.add_queue_with(name, QueueOptions::default()).await
    }

    pub(super) async fn add_queue_with(&self, name: &str, options: QueueOptions) -> QueueName {
        let name = queue_name(name);
        self.rig.queue().configure(name.clone(), options).await.unwrap();
        name
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.rig.queue().capabilities().has(feature)
    }

    /// Somebody asked for what the engine does not have.
    pub(super) fn is_refused<T: Debug>(&self, feature: Feature, answer: Result<T, QueueError>) {
        let engine = self.rig.queue().capabilities().engine;
        assert_eq!(answer.unwrap_err(), QueueError::Unsupported { engine, feature });
    }

    /// An event of this id for the queue.
    pub(super) fn one(&self, id: &str) -> Publish {
        Publish::new(event(id), [self.name.clone()])
    }

    /// One with an ordering key.
    pub(super) fn keyed(&self, id: &str, key: &str) -> Publish {
        Publish { key: Some(key.to_owned()), ..self.one(id) }
    }

    /// One of another type.
    pub(super) fn typed(&self, id: &str, ty: &str) -> Publish {
        Publish::new(Event::new(id, "/test", ty), [self.name.clone()])
    }

    /// Publishes events with these ids, duplicates or not.
    pub(super) async fn publish(&self, ids: &[&str]) -> Vec<EntryId> {
        self.publish_all(ids.iter().map(|id| self.one(id)).collect()).await
    }

    /// Publishes events with ids such as `k3`, whose first letter is their ordering key.
    pub(super) async fn publish_keyed(&self, ids: &[&str]) -> Vec<EntryId> {
        self.publish_all(ids.iter().map(|id| self.keyed(id, &id[..1])).collect()).await
    }

    /// Publishes them, duplicates or not.
    pub(super) async fn publish_all(&self, batch: Vec<Publish>) -> Vec<EntryId> {
        let allow = |publish| Publish { on_duplicate: OnDuplicate::Allow, ..publish };
        let published = self.rig.queue().publish(batch.into_iter().map(allow).collect()).await.unwrap();
        published.results.into_iter().map(|result| result.unwrap().entries.remove(0).entry).collect()
    }

    /// Publishes it, duplicate or not.
    pub(super) async fn publish_with(&self, publish: Publish) -> EntryId {
        self.publish_all(vec![publish]).await.remove(0)
    }

    /// Publishes it as it is.
    pub(super) async fn try_publish(&self, publish: Publish) -> Result<Accepted, PublishError> {
        self.rig.queue().publish(vec![publish]).await.unwrap().results.remove(0)
    }

    pub(super) async fn claim(&self, max: usize) -> Vec<Delivery> {
        self.claim_with(Claim::new(self.name.clone(), max)).await
    }

    pub(super) async fn claim_with(&self, claim: Claim) -> Vec<Delivery> {
        self.rig.queue().claim(claim).await.unwrap()
    }

    pub(super) async fn claim_from(&self, queue: &QueueName, max: usize) -> Vec<Delivery> {
        self.claim_with(Claim::new(queue.clone(), max)).await
    }

    pub(super) async fn claim_one(&self) -> Delivery {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1, "one entry should be ready");
        claimed.remove(0)
    }

    /// What a claim is granted that waits while this happens.
    pub(super) async fn claim_during(&self, claim: Claim, meanwhile: impl Future<Output = ()>) -> Vec<Delivery> {
        let mut claim = Box::pin(self.rig.queue().claim(claim.wait(DAY)));
        tokio::select! {
            biased;
            _ = &mut claim => panic!("nothing should be ready yet"),
            () = self.rig.tick() => {}
        }
        meanwhile.await;
        // It is answered soon or never: the clock stands still.
        for _ in 0..100 {
            tokio::select! {
                biased;
                claimed = &mut claim => return claimed.unwrap(),
                () = self.rig.tick() => {}
            }
        }
        panic!("the claim that waits was not woken");
    }

    pub(super) async fn settle(&self, delivery: &Delivery, outcome: Outcome) -> Disposition {
        match self.settle_with(Settle::new(delivery.lease, outcome)).await {
            SettleReply::Settled(disposition) => disposition,
            other => panic!("not settled: {other:?}"),
        }
    }

    pub(super) async fn settle_with(&self, settle: Settle) -> SettleReply {
        self.rig.queue().settle(vec![settle], Confirm::Durable).await.unwrap().remove(0)
    }

    pub(super) async fn ack_all(&self, deliveries: &[Delivery]) {
        let batch = deliveries.iter().map(|delivery| Settle::new(delivery.lease, ack())).collect();
        let replies = self.rig.queue().settle(batch, Confirm::Committed).await.unwrap();
        assert!(replies.iter().all(|reply| *reply == SettleReply::Settled(Disposition::Complete)), "{replies:?}");
    }

    pub(super) async fn extend(&self, lease: LeaseToken, by: Duration) -> ExtendReply {
        self.rig.queue().extend(vec![Extend { lease, by }]).await.unwrap().remove(0)
    }

    /// Publishes it, and has it rejected for this reason.
    pub(super) async fn kill(&self, id: &str, reason: &str) -> EntryId {
        let entry = self.publish(&[id]).await.remove(0);
        let delivery = self.claim_one().await;
        assert_eq!(delivery.entry, entry, "nothing else should be ready");
        self.settle(&delivery, Outcome::Reject { reason: reason.to_owned() }).await;
        entry
    }

    pub(super) async fn operate(&self, operation: Operation) -> Operated {
        self.rig.queue().operate(operation).await.unwrap()
    }

    pub(super) async fn act(&self, action: Action, on: Selection) -> Operated {
        self.operate(Operation::Act(Act { action, on, rate: None })).await
    }

    pub(super) async fn act_on(&self, action: Action, entry: &EntryId) -> ActReply {
        let mut operated = self.act(action, Selection::Entries(vec![entry.clone()])).await;
        assert_eq!(operated.replies.len(), 1);
        operated.replies.remove(0)
    }

    /// How many entries that match were changed.
    pub(super) async fn act_where(&self, action: Action, filter: Filter) -> u64 {
        let operated = self.act(action, Selection::Where(filter)).await;
        assert!(operated.replies.is_empty(), "nobody was named");
        operated.changed
    }

    pub(super) fn all(&self) -> Filter {
        Filter::all(self.name.clone())
    }

    pub(super) async fn advance(&self, by: Duration) {
        self.rig.clock().advance(by);
        self.rig.tick().await;
    }

    /// The wall clock is set to another time; the rest goes on evenly.
    pub(super) async fn jump_to(&self, time: Timestamp) {
        self.rig.clock().jump_to(time);
        self.rig.tick().await;
    }

    pub(super) fn now(&self) -> Timestamp {
        self.rig.clock().now()
    }

    pub(super) async fn stats(&self) -> QueueStats {
        self.stats_of(&self.name).await.unwrap()
    }

    pub(super) async fn stats_of(&self, queue: &QueueName) -> Option<QueueStats> {
        self.rig.queue().stats().await.unwrap().into_iter().find(|stats| stats.queue == *queue)
    }

    pub(super) async fn state(&self, entry: &EntryId) -> Option<State> {
        self.rig.queue().get(entry.clone()).await.unwrap().map(|entry| entry.state)
    }

    pub(super) async fn entry(&self, entry: &EntryId) -> Entry {
        self.rig.queue().get(entry.clone()).await.unwrap().unwrap()
    }

    /// Up to a thousand entries in this state.
    pub(super) async fn list(&self, state: State) -> Vec<Entry> {
        self.rig.queue().list(List::new(self.name.clone(), state)).await.unwrap().entries
    }

    /// The ids of the events in this state.
    pub(super) async fn listed(&self, state: State) -> Vec<String> {
        self.list(state).await.into_iter().map(|entry| entry.event.id.clone()).collect()
    }

    pub(super) async fn keys(&self, which: WhichKeys) -> Vec<KeyStats> {
        let list = ListKeys { which, ..ListKeys::new(self.name.clone()) };
        self.rig.queue().keys(list).await.unwrap().keys
    }
}

pub(super) fn queue_name(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

pub(super) fn event(id: &str) -> Arc<Event> {
    let mut event = Event::new(id, "/test", "test.happened");
    event.data = Some(bytes::Bytes::from(format!("{{\"id\":\"{id}\"}}")));
    Arc::new(event)
}

pub(super) fn ack() -> Outcome {
    Outcome::Ack { result: None }
}

pub(super) fn retry() -> Outcome {
    Outcome::Retry { reason: "not yet".into(), after: None }
}

pub(super) fn defer(after: Duration) -> Outcome {
    Outcome::Defer { reason: None, after }
}

pub(super) fn reject() -> Outcome {
    Outcome::Reject { reason: "never".into() }
}

pub(super) fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.event.id.as_str()).collect()
}

pub(super) fn types(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern::new(pattern)).collect()
}

/// Three attempts, 10 s and 20 s apart.
pub(super) fn three_attempts() -> QueueOptions {
    let backoff = Backoff { base: Duration::from_secs(10), jitter: 0.0, ..Backoff::default() };
    QueueOptions { retry: RetryPolicy { max_attempts: Some(3), backoff }, ..QueueOptions::default() }
}
