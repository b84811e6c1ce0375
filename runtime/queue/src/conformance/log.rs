//! Rules of the event log: what was published may come in again.

use gristmill_core::{Event, Pattern, QueueName, Subscription, Timestamp};

use super::bench::{Bench, HOUR, MINUTE, ack, event, ids, queue_name};
use super::{Rig, RigOptions};
use crate::contract::{
    Due, Feature, KeyOptions, OnDuplicate, Operation, Publish, QueueError, QueueOptions, Rate, Replay, ReplayFrom,
    ReplayWhat, Settle,
};

fn replay(into: &QueueName) -> Replay {
    Replay::new(into.clone())
}

/// A bench whose engine keeps a log for an hour; `None`: it has none, and says so.
async fn logging<R: Rig>(rig: R) -> Option<Bench<R>> {
    let bench = Bench::opened(rig, RigOptions { log_retention: Some(HOUR), ..RigOptions::default() }).await;
    if !bench.has(Feature::Log) {
        bench.is_refused(Feature::Log, bench.rig.queue().operate(Operation::Replay(replay(&bench.name))).await);
        return None;
    }
    Some(bench)
}

impl<R: Rig> Bench<R> {
    async fn replay(&self, replay: Replay) -> u64 {
        self.operate(Operation::Replay(replay)).await.changed
    }
}

/// A new subscription begins with what was published before it; acked, dead or waiting does not matter.
pub async fn a_new_queue_is_filled_from_the_log(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    bench.publish(&["1", "2"]).await;
    bench.ack_all(&bench.claim(1).await).await;
    bench.publish_with(Publish { priority: 7, due: Due::After(HOUR / 2), ..bench.one("3") }).await;
    let bench = bench.reopened().await;
    let late = bench.add_queue("late").await;
    bench.publish_with(Publish::new(event("4"), [bench.name.clone(), late.clone()])).await;
    assert_eq!(bench.replay(replay(&late)).await, 3, "`4` was published into it");
    let claimed = bench.claim_from(&late, 9).await;
    assert_eq!(ids(&claimed), ["3", "4", "1", "2"], "by priority, and what is there comes first");
    assert_eq!(claimed[2].event, event("1"), "with its data");
    assert!(claimed.iter().all(|delivery| delivery.attempt == 1));
    assert_eq!(bench.stats_of(&late).await.unwrap().totals.published, 4);
    assert_eq!(bench.stats().await.ready, 2, "nothing happens in the other queue");
}

/// After a mistake everything is handled again, that of this queue too.
pub async fn everything_may_be_handled_again(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    bench.publish(&["1", "2"]).await;
    bench.ack_all(&bench.claim(9).await).await;
    assert_eq!(bench.replay(replay(&bench.name)).await, 0, "nothing is missing");
    let all = Replay { what: ReplayWhat::All, ..replay(&bench.name) };
    assert_eq!(bench.replay(all.clone()).await, 2);
    let again = bench.claim(9).await;
    assert_eq!(ids(&again), ["1", "2"]);
    bench.ack_all(&again).await;
    assert_eq!(bench.replay(all).await, 2, "what came from the log is not in it once more");
    assert_eq!(bench.stats().await.done, 4);
}

/// Two moments say which events come in again.
pub async fn a_replay_begins_and_ends_where_it_is_told(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    let mut times: Vec<Timestamp> = Vec::new();
    for id in ["1", "2", "3", "4"] {
        times.push(bench.now());
        bench.publish(&[id]).await;
        bench.advance(10 * MINUTE).await;
    }
    let late = bench.add_queue("late").await;
    let from = ReplayFrom::Time(times[1]);
    assert_eq!(bench.replay(Replay { from, until: Some(times[2]), ..replay(&late) }).await, 2);
    assert_eq!(ids(&bench.claim_from(&late, 9).await), ["2", "3"]);
    assert_eq!(bench.replay(Replay { from: ReplayFrom::Time(times[3]), ..replay(&late) }).await, 1);
    assert_eq!(ids(&bench.claim_from(&late, 9).await), ["4"]);
    let future = ReplayFrom::Time(bench.now().after(MINUTE));
    assert_eq!(bench.replay(Replay { from: future, ..replay(&late) }).await, 0);
}

/// A subscription chooses among the past as it does among the present.
pub async fn a_replay_brings_what_a_subscription_wants(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    for (id, source, ty) in
        [("1", "/a", "order.paid"), ("2", "/b", "order.paid"), ("3", "/a", "other"), ("4", "/b", "x")]
    {
        bench.publish_with(Publish::new(Event::new(id, source, ty), [bench.name.clone()])).await;
    }
    let late = bench.add_queue("late").await;
    let matching = vec![
        Subscription { ty: Some(Pattern::new("order.*")), source: Some(Pattern::new("/b")), ..Subscription::default() },
        Subscription { ty: Some(Pattern::new("other")), ..Subscription::default() },
    ];
    assert_eq!(bench.replay(Replay { matching, ..replay(&late) }).await, 2);
    assert_eq!(ids(&bench.claim_from(&late, 9).await), ["2", "3"]);
}

/// Emits are in the log; refused publishes and repetitions are not. Redrives and moves publish nothing.
pub async fn the_log_has_what_was_published_once(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    bench.configure(QueueOptions { max_events: Some(1), ..QueueOptions::default() }).await;
    assert!(bench.try_publish(bench.one("1")).await.is_ok());
    if bench.has(Feature::Idempotency) {
        assert!(bench.try_publish(bench.one("1")).await.is_ok(), "a repetition");
    }
    assert!(bench.try_publish(bench.one("2")).await.is_err(), "the queue is full");
    let delivery = bench.claim_one().await;
    let emits = vec![Publish::new(event("e1"), [bench.name.clone()])];
    bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    let late = bench.add_queue("late").await;
    assert_eq!(bench.replay(replay(&late)).await, 2);
    assert_eq!(ids(&bench.claim_from(&late, 9).await), ["1", "e1"]);
}

/// What comes from the log is no repetition, is admitted above limits, has its key, and lives as long as the queue says.
pub async fn what_is_replayed_is_treated_as_new(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    if !bench.has(Feature::OrderingKeys) {
        return;
    }
    let mut subject = Event::new("a1", "/test", "t");
    subject.subject = Some("a".into());
    bench.publish_all(vec![bench.keyed("b1", "b"), bench.keyed("b2", "b")]).await;
    bench.publish_with(Publish::new(subject, [bench.name.clone()])).await;
    let key = KeyOptions { attribute: Some("subject".into()), ..KeyOptions::default() };
    let options = QueueOptions { max_events: Some(1), time_to_live: Some(MINUTE), ..QueueOptions::default() };
    let late = bench.add_queue_with("late", QueueOptions { key, ..options }).await;
    bench.advance(2 * MINUTE).await;
    assert_eq!(bench.replay(replay(&late)).await, 3);
    let claimed = bench.claim_from(&late, 1).await;
    assert_eq!((ids(&claimed), claimed[0].key.as_deref()), (vec!["b1"], Some("b")));
    let second = bench.claim_from(&late, 1).await;
    assert_eq!((ids(&second), second[0].key.as_deref()), (vec!["a1"], Some("a")));
    bench.advance(MINUTE).await;
    let stats = bench.stats_of(&late).await.unwrap();
    assert_eq!((stats.dead, stats.waiting, stats.ready), (1, 0, 0), "its time began with the replay");
    if !bench.has(Feature::Idempotency) {
        return;
    }
    let on_duplicate = OnDuplicate::Refuse;
    let repeated = Publish { on_duplicate, ..Publish::new(event("b1"), [bench.name.clone()]) };
    assert!(bench.try_publish(repeated).await.is_err(), "and the publish itself is still remembered");
}

/// The log does not grow without end: what is older than its retention goes, and nothing younger does.
pub async fn the_log_forgets_what_is_old(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    let mut large = (*event("large")).clone();
    large.data = Some(vec![b'x'; 100_000].into());
    bench.publish_with(Publish::new(large.clone(), [bench.name.clone()])).await;
    for n in 1..=9 {
        bench.advance(10 * MINUTE).await;
        bench.publish(&[&n.to_string()]).await;
    }
    for _ in 0..20 {
        bench.rig.tick().await;
    }
    let late = bench.add_queue("late").await;
    assert_eq!(bench.replay(replay(&late)).await, 6, "the last hour");
    assert_eq!(ids(&bench.claim_from(&late, 9).await), ["4", "5", "6", "7", "8", "9"]);
    let claimed = bench.claim(1).await;
    assert_eq!(*claimed[0].event, large, "the queue still has its event, data and all");
}

/// A replay need not be a flood.
pub async fn a_replay_keeps_to_its_rate(rig: impl Rig) {
    let Some(bench) = logging(rig).await else { return };
    bench.publish(&["1", "2", "3"]).await;
    let late = bench.add_queue("late").await;
    let slow = Replay { rate: Some(Rate { per_second: 1.0, burst: 1 }), ..replay(&late) };
    if !bench.has(Feature::Rates) {
        return bench.is_refused(Feature::Rates, bench.rig.queue().operate(Operation::Replay(slow)).await);
    }
    let passes = async {
        for ready in [1, 2, 3] {
            bench.rig.tick().await;
            bench.rig.tick().await;
            assert_eq!(bench.stats_of(&late).await.unwrap().ready, ready);
            bench.advance(super::bench::SECOND + super::bench::SECOND / 100).await;
        }
        bench.rig.tick().await;
    };
    assert_eq!(tokio::join!(bench.replay(slow), passes).0, 3);
}

/// Whoever keeps no log is told so, and there is nowhere to replay into that is not there.
pub async fn a_replay_needs_a_log_and_a_queue(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let answer = bench.rig.queue().operate(Operation::Replay(replay(&bench.name))).await;
    if !bench.has(Feature::Log) {
        return bench.is_refused(Feature::Log, answer);
    }
    assert!(matches!(answer, Err(QueueError::InvalidRequest(_))), "{answer:?}");
    let bench = bench.reopened_with(RigOptions { log_retention: Some(HOUR), ..RigOptions::default() }).await;
    let nowhere = queue_name("nowhere");
    let answer = bench.rig.queue().operate(Operation::Replay(replay(&nowhere))).await;
    assert_eq!(answer, Err(QueueError::UnknownQueue(nowhere)));
    bench.publish(&["1"]).await;
    let late = bench.add_queue("late").await;
    assert_eq!(bench.replay(replay(&late)).await, 1);
}
