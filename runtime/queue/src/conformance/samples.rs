//! Rules of samples: the latest events of a queue, whole.

use gristmill_core::{QueueName, State};

use super::bench::{Bench, HOUR, MINUTE, ack, defer, event, queue_name, reject, retry, three_attempts};
use super::ordering::with_keys;
use super::{Rig, RigOptions};
use crate::contract::{Action, Due, Feature, Payload, Publish, QueueError, QueueOptions, Sample, Sampled};

/// How many records one call examines at most.
const EXAMINED: usize = 4_096;

impl<R: Rig> Bench<R> {
    async fn sample(&self, sample: Sample) -> Vec<Sampled> {
        self.rig.queue().sample(sample).await.unwrap()
    }

    /// Ids of the last events, newest first; all of them are whole, and entries are as they are.
    async fn last(&self, limit: usize) -> Vec<String> {
        let sampled = self.sample(Sample::last(self.name.clone(), limit)).await;
        assert!(sampled.len() <= limit);
        for Sampled { event, published_at, entry } in &sampled {
            assert!(event.data.is_some(), "{event:?}");
            if let Some(entry) = entry {
                assert_eq!(self.entry(&entry.id).await, *entry);
                assert_eq!((&entry.event.id, entry.enqueued_at), (&event.id, *published_at));
            }
        }
        sampled.into_iter().map(|sampled| sampled.event.id.clone()).collect()
    }
}

/// What is in a queue, in any state but cancelled, the last to come in first, whole; a done entry only if its data is
/// kept. Looking changes nothing.
pub async fn a_sample_has_the_last_events_of_a_queue(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let other = bench.add_queue("other").await;
    bench.publish(&["dropped", "retried", "deferred", "dead", "leased"]).await;
    let outcomes = [Some(ack()), Some(retry()), Some(defer(HOUR)), Some(reject()), None];
    for (delivery, outcome) in bench.claim(5).await.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            bench.settle(delivery, outcome).await;
        }
    }
    bench.configure(QueueOptions { payload: Payload::Keep, ..three_attempts() }).await;
    bench.publish(&["kept", "cancelled"]).await;
    bench.settle(&bench.claim(1).await[0], ack()).await;
    bench.act_where(Action::Cancel, crate::contract::Filter { states: vec![State::Ready], ..bench.all() }).await;
    bench.publish_with(Publish { due: Due::After(HOUR), ..bench.one("late") }).await;
    bench.publish_with(Publish { priority: 9, ..bench.one("high") }).await;
    bench.publish_with(Publish::new(event("elsewhere"), [other])).await;
    bench.publish_with(large(&bench.name, "large")).await;
    bench.publish(&["ready"]).await;
    let newest_first = ["ready", "large", "high", "late", "kept", "leased", "dead", "deferred", "retried"];
    for limit in [1, 4, 9, 1_000] {
        assert_eq!(bench.last(limit).await, newest_first[..limit.min(9)]);
    }
    let sampled = bench.sample(Sample::last(bench.name.clone(), 2)).await;
    assert_eq!(sampled[1].event, large(&bench.name, "large").event);
    // Who has come back stands at the end of the line, and came in before the others nevertheless.
    bench.advance(MINUTE).await;
    assert_eq!(bench.last(9).await, newest_first);
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.done, stats.dead), (4, 0, 2, 1), "the lease is over");
    let bench = bench.reopened().await;
    assert_eq!(bench.last(9).await, newest_first);
}

fn large(queue: &QueueName, id: &str) -> Publish {
    let mut event = (*event(id)).clone();
    event.data = Some(vec![b'x'; 10_000].into());
    Publish::new(event, [queue.clone()])
}

/// Entries behind others of their ordering key are among them.
pub async fn a_sample_has_what_waits(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    bench.publish_keyed(&["a1", "a2", "b1", "a3"]).await;
    assert_eq!(bench.last(9).await, ["a3", "b1", "a2", "a1"]);
}

/// Dead letters, the latest death first, with what has happened to them; also when most of them have gone.
pub async fn a_sample_of_dead_letters_has_the_latest_deaths(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["alive"]).await;
    let [first, second] = <[_; 2]>::try_from(bench.publish(&["first", "second"]).await).unwrap();
    let claimed = bench.claim(9).await;
    for at in [2, 1] {
        bench.settle(&claimed[at], reject()).await;
    }
    let dead = |limit| Sample::dead(bench.name.clone(), limit);
    let sampled = bench.sample(dead(9)).await;
    let expected = [bench.entry(&first).await, bench.entry(&second).await];
    assert_eq!(sampled.iter().filter_map(|sampled| sampled.entry.clone()).collect::<Vec<_>>(), expected);
    assert!(sampled.iter().zip(&expected).all(|(sampled, entry)| sampled.event == entry.event));
    assert_eq!(bench.sample(dead(1)).await.len(), 1);
    bench.act_on(Action::Purge, &first).await;
    assert_eq!(bench.sample(dead(9)).await[..], sampled[1..]);
    bench.act_on(Action::Redrive, &second).await;
    assert_eq!(bench.sample(dead(9)).await, []);
}

/// The log has the data of done entries, and events whose entries are gone; each publish is found once.
pub async fn a_sample_takes_from_the_log_what_the_queue_has_no_more(rig: impl Rig) {
    let bench = Bench::opened(rig, RigOptions { log_retention: Some(HOUR), ..RigOptions::default() }).await;
    if !bench.has(Feature::Log) {
        return;
    }
    let other = bench.add_queue("other").await;
    let done = bench.publish_with(large(&bench.name, "done")).await;
    let purged = bench.publish(&["purged"]).await.remove(0);
    bench.ack_all(&bench.claim(9).await).await;
    bench.act_on(Action::Purge, &purged).await;
    bench.publish_with(Publish::new(event("elsewhere"), [other.clone()])).await;
    bench.publish_with(Publish::new(event("both"), [bench.name.clone(), other])).await;
    // The same event once more: both are there, and one of them is done.
    bench.ack_all(&bench.claim(9).await).await;
    bench.advance(MINUTE).await;
    bench.publish(&["both", "ready"]).await;
    for _ in 0..2 {
        assert_eq!(bench.last(9).await, ["ready", "both", "both", "purged", "done"]);
    }
    let bench = bench.reopened().await;
    let sampled = bench.sample(Sample::last(bench.name.clone(), 9)).await;
    let states: Vec<_> = sampled.iter().map(|sampled| sampled.entry.as_ref().map(|entry| entry.state)).collect();
    let (ready, done_) = (Some(State::Ready), Some(State::Done));
    assert_eq!(states, [ready, ready, done_, None, done_]);
    assert_eq!(sampled[4].entry.as_ref().unwrap().id, done);
    assert_eq!(sampled[4].event, large(&bench.name, "done").event, "with its data");
}

/// However much has been published since, a sample looks at so much and no more; what is in the queue is found all the
/// same, and what the log alone has is not.
pub async fn a_sample_looks_at_so_much_and_no_more(rig: impl Rig) {
    let bench = Bench::opened(rig, RigOptions { log_retention: Some(HOUR), ..RigOptions::default() }).await;
    let other = bench.add_queue("other").await;
    bench.publish(&["done", "ready"]).await;
    bench.ack_all(&bench.claim(1).await).await;
    let found: &[&str] = if bench.has(Feature::Log) { &["ready", "done"] } else { &["ready"] };
    assert_eq!(bench.last(9).await, found);
    let many = (0..EXAMINED).map(|n| Publish::new(event(&n.to_string()), [other.clone()]));
    bench.publish_all(many.collect()).await;
    assert_eq!(bench.last(9).await, ["ready"]);
    let bench = bench.of(other);
    assert_eq!(bench.last(2).await, ["4095", "4094"]);
}

/// A request that makes no sense is refused.
pub async fn a_sample_of_nothing_is_refused(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    assert_eq!(bench.last(1).await, [""; 0]);
    for limit in [0, 1_001] {
        let refused = bench.rig.queue().sample(Sample::last(bench.name.clone(), limit)).await;
        assert!(matches!(refused, Err(QueueError::InvalidRequest(_))), "{refused:?}");
    }
    let nowhere = queue_name("nowhere");
    let unknown = Err(QueueError::UnknownQueue(nowhere.clone()));
    assert_eq!(bench.rig.queue().sample(Sample::dead(nowhere, 1)).await, unknown);
}
