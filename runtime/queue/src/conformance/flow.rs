//! Rules of limits: how many at once, how fast, and how much a queue holds.

use std::time::Duration;

use gristmill_core::{Disposition, State, Timestamp};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, MINUTE, SECOND, ack, event, ids, reject, retry, three_attempts};
use super::ordering::with_keys;
use crate::contract::{
    ActReply, Action, Claim, Due, Feature, KeyOptions, Limit, Publish, PublishError, QueueError, QueueOptions, Rate,
    Settle, SettleReply, WhichKeys,
};

fn rate(per_second: f64, burst: u32) -> Option<Rate> {
    Some(Rate { per_second, burst })
}

/// A bench whose engine has rates; `None`: it has none, and says so.
async fn throttled<R: Rig>(rig: R, per_second: f64, burst: u32) -> Option<Bench<R>> {
    let bench = Bench::new(rig).await;
    let options = QueueOptions { rate: rate(per_second, burst), ..QueueOptions::default() };
    if !bench.has(Feature::Rates) {
        bench.is_refused(Feature::Rates, bench.rig.queue().configure(bench.name.clone(), options).await);
        return None;
    }
    bench.configure(options).await;
    Some(bench)
}

/// A bench whose engine has rates of keys; `None`: it has none, and says so.
async fn throttled_keys<R: Rig>(rig: R, options: QueueOptions) -> Option<Bench<R>> {
    let bench = with_keys(rig, QueueOptions::default()).await?;
    if !bench.has(Feature::Rates) {
        bench.is_refused(Feature::Rates, bench.rig.queue().configure(bench.name.clone(), options).await);
        return None;
    }
    bench.configure(options).await;
    Some(bench)
}

/// No more deliveries than that are out at any time; one that comes back makes room, and that is news.
pub async fn deliveries_in_flight_are_limited(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_in_flight: 2, ..QueueOptions::default() }).await;
    bench.publish(&["1", "2", "3", "4", "5"]).await;
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["1", "2"]);
    assert!(bench.claim(9).await.is_empty());
    let settled = async {
        bench.settle(&claimed[0], ack()).await;
    };
    assert_eq!(ids(&bench.claim_during(Claim::new(bench.name.clone(), 9), settled).await), ["3"]);
    let expired = bench.advance(claimed[1].lease_for);
    assert_eq!(ids(&bench.claim_during(Claim::new(bench.name.clone(), 9), expired).await), ["4", "5"]);
}

/// A burst, and then one after the other.
pub async fn claims_keep_to_the_rate(rig: impl Rig) {
    let Some(bench) = throttled(rig, 2.0, 3).await else { return };
    bench.publish(&(0..20).map(|_| "x").collect::<Vec<_>>()).await;
    assert_eq!(bench.claim(9).await.len(), 3, "the burst");
    assert!(bench.claim(9).await.is_empty());
    for _ in 0..4 {
        bench.advance(Duration::from_millis(499)).await;
        assert!(bench.claim(9).await.is_empty());
        bench.advance(Duration::from_millis(1)).await;
        assert_eq!(bench.claim(9).await.len(), 1);
    }
    bench.advance(MINUTE).await;
    assert_eq!(bench.claim(9).await.len(), 3, "a pause allows no more than a burst");
}

/// What one rate allows is not held up by another that was there before, and what was claimed under it counts.
pub async fn another_rate_holds_at_once(rig: impl Rig) {
    let Some(bench) = throttled(rig, 1.0 / 3_600.0, 3).await else { return };
    let change = |to| bench.configure(QueueOptions { rate: to, ..QueueOptions::default() });
    bench.publish(&(0..20).map(|_| "x").collect::<Vec<_>>()).await;
    assert_eq!(bench.claim(9).await.len(), 3, "the burst");
    change(rate(1.0, 3)).await;
    assert!(bench.claim(9).await.is_empty(), "it is spent");
    bench.advance(SECOND).await;
    assert_eq!(bench.claim(9).await.len(), 1, "one a second, and not one an hour");
    bench.advance(MINUTE).await;
    assert_eq!(bench.claim(1).await.len(), 1);
    change(rate(1.0 / 60.0, 2)).await;
    assert_eq!(bench.claim(9).await.len(), 1, "one is spent");
    bench.advance(59 * SECOND).await;
    assert!(bench.claim(9).await.is_empty(), "one a minute by now");
    change(None).await;
    assert_eq!(bench.claim(3).await.len(), 3);
    change(rate(1.0 / 60.0, 2)).await;
    assert_eq!(bench.claim(9).await.len(), 2, "what no rate has counted is not spent");
}

/// A rate that allows more is news.
pub async fn a_waiting_claim_is_woken_by_the_rate(rig: impl Rig) {
    let Some(bench) = throttled(rig, 1.0, 1).await else { return };
    bench.publish(&["1", "2"]).await;
    assert_eq!(ids(&bench.claim(9).await), ["1"]);
    let passes = bench.advance(SECOND);
    assert_eq!(ids(&bench.claim_during(Claim::new(bench.name.clone(), 9), passes).await), ["2"]);
}

/// Rates go by a clock that nobody sets.
pub async fn a_clock_that_jumps_does_not_change_the_rate(rig: impl Rig) {
    let Some(bench) = throttled(rig, 1.0, 1).await else { return };
    bench.publish(&["1", "2", "3"]).await;
    assert_eq!(ids(&bench.claim(9).await), ["1"]);
    bench.jump_to(bench.now().after(DAY)).await;
    assert!(bench.claim(9).await.is_empty(), "ahead");
    bench.jump_to(Timestamp::from_micros(1_000_000)).await;
    assert!(bench.claim(9).await.is_empty(), "back");
    bench.advance(SECOND).await;
    assert_eq!(ids(&bench.claim(9).await), ["2"]);
}

/// A busy customer has a rate of its own, and so have the others. Its key is forgotten once that is over.
pub async fn every_key_has_a_rate_of_its_own(rig: impl Rig) {
    let key = KeyOptions { rate: rate(0.1, 2), concurrency: 5, ..KeyOptions::default() };
    let Some(bench) = throttled_keys(rig, QueueOptions { key, ..QueueOptions::default() }).await else { return };
    bench.publish_keyed(&["a1", "a2", "a3", "a4", "b1"]).await;
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["a1", "a2", "b1"], "the burst");
    bench.ack_all(&claimed).await;
    bench.advance(9 * SECOND).await;
    assert!(bench.claim(9).await.is_empty());
    let passes = bench.advance(2 * SECOND);
    let woken = bench.claim_during(Claim::new(bench.name.clone(), 9), passes).await;
    assert_eq!(ids(&woken), ["a3"]);
    bench.ack_all(&woken).await;
    bench.publish_keyed(&["a5"]).await;
    assert!(bench.claim(9).await.is_empty(), "acked, and slow all the same");
    for expected in ["a4", "a5"] {
        bench.advance(10 * SECOND).await;
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [expected]);
        bench.ack_all(&claimed).await;
    }
    bench.advance(MINUTE).await;
    assert_eq!(bench.keys(WhichKeys::Active).await, []);
}

/// However long an event takes by the rate of its key.
pub async fn a_slow_rate_of_a_key_holds_for_days(rig: impl Rig) {
    let key = KeyOptions { rate: rate(1.0 / (2.0 * 86_400.0), 1), concurrency: 5, ..KeyOptions::default() };
    let Some(bench) = throttled_keys(rig, QueueOptions { key, ..QueueOptions::default() }).await else { return };
    bench.publish_keyed(&["a1", "a2"]).await;
    let first = bench.claim(9).await;
    assert_eq!(ids(&first), ["a1"]);
    bench.ack_all(&first).await;
    bench.advance(30 * HOUR).await;
    assert!(bench.claim(9).await.is_empty(), "one in two days");
    bench.advance(19 * HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["a2"]);
}

/// A retry is a claim like any other.
pub async fn the_rate_of_a_key_holds_for_retries_too(rig: impl Rig) {
    let key = KeyOptions { rate: rate(1.0 / 60.0, 1), ..KeyOptions::default() };
    let Some(bench) = throttled_keys(rig, QueueOptions { key, ..three_attempts() }).await else { return };
    bench.publish_keyed(&["a1", "a2"]).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    bench.advance(10 * SECOND).await;
    assert!(bench.claim(9).await.is_empty(), "due, and too soon for the key");
    bench.advance(51 * SECOND).await;
    let again = bench.claim(9).await;
    assert_eq!(ids(&again), ["a1"]);
    bench.settle(&again[0], ack()).await;
    bench.advance(61 * SECOND).await;
    assert_eq!(ids(&bench.claim(9).await), ["a2"]);
}

/// A queue that is full says so, event by event, and takes more once something is handled.
pub async fn a_full_queue_refuses_what_is_too_much(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_events: Some(3), ..QueueOptions::default() }).await;
    let other = bench.add_queue("other").await;
    let full = PublishError::Full { queue: bench.name.clone(), limit: Limit::Events(3) };
    let batch = vec![
        bench.one("1"),
        Publish { due: Due::After(MINUTE), ..bench.one("2") },
        bench.one("3"),
        bench.one("4"),
        Publish::new(event("5"), [other.clone()]),
        Publish::new(event("6"), [other.clone(), bench.name.clone()]),
    ];
    let results = bench.rig.queue().publish(batch).await.unwrap().results;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, true, false, true, false]);
    assert_eq!((results[3].clone().unwrap_err(), results[5].clone().unwrap_err()), (full.clone(), full.clone()));
    assert_eq!(bench.stats_of(&other).await.unwrap().ready, 1, "in all of its queues or in none");
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["1", "3"]);
    assert_eq!(bench.try_publish(bench.one("7")).await, Err(full.clone()), "what is handled counts");
    bench.settle(&claimed[0], ack()).await;
    assert!(bench.try_publish(bench.one("8")).await.is_ok());
    assert_eq!(bench.try_publish(bench.one("9")).await, Err(full.clone()));
    bench.settle(&claimed[1], reject()).await;
    let bench = bench.reopened().await;
    assert!(bench.try_publish(bench.one("10")).await.is_ok(), "dead letters do not count");
    assert_eq!(bench.try_publish(bench.one("11")).await, Err(full));
}

/// Entries behind others count as well.
pub async fn waiting_entries_fill_a_queue(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions { max_events: Some(2), ..QueueOptions::default() }).await else {
        return;
    };
    bench.publish_keyed(&["a1", "a2"]).await;
    let third = bench.try_publish(bench.keyed("a3", "a")).await;
    assert_eq!(third, Err(PublishError::Full { queue: bench.name.clone(), limit: Limit::Events(2) }));
}

/// Bytes of attributes and data count, from the publish to the end.
pub async fn a_queue_may_be_full_by_its_bytes(rig: impl Rig) {
    let sized = |id: &str, bytes: usize| {
        let mut event = gristmill_core::Event::new(id, "/test", "test.happened");
        event.data = Some(vec![b'x'; bytes].into());
        event
    };
    let max = 52_000;
    let bench = Bench::with(rig, QueueOptions { max_bytes: Some(max), ..QueueOptions::default() }).await;
    let publish = |id: &str, bytes| Publish::new(sized(id, bytes), [bench.name.clone()]);
    let batch = vec![publish("1", 50_000), publish("3", 3_000), publish("2", 1_500), publish("4", 1_000)];
    let results = bench.rig.queue().publish(batch).await.unwrap().results;
    let full = Err(PublishError::Full { queue: bench.name.clone(), limit: Limit::Bytes(max) });
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
    assert_eq!((&results[1], &results[3]), (&full, &full));
    let bytes = bench.stats().await.bytes;
    let exact = sized("1", 50_000).size() + sized("2", 1_500).size();
    assert!((exact..exact + 100).contains(&bytes), "{bytes}, not {exact}");
    let first = bench.claim_one().await;
    bench.settle(&first, retry()).await;
    assert_eq!(bench.stats().await.bytes, bytes, "scheduled again");
    bench.advance(MINUTE).await;
    let bench = bench.reopened().await;
    bench.ack_all(&bench.claim(9).await).await;
    assert_eq!(bench.stats().await.bytes, 0);
}

/// A handler cannot lock itself out, and what was accepted once is not refused later.
pub async fn emits_retries_redrives_and_moves_are_admitted_above_the_limit(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_events: Some(1), ..three_attempts() }).await;
    let dead = bench.kill("dead", "bad").await;
    let other = bench.add_queue("other").await;
    let elsewhere = bench.publish_with(Publish::new(event("moved"), [other])).await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let emits = vec![bench.one("e1"), bench.one("e2")];
    let settled = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    assert_eq!(settled, SettleReply::Settled(Disposition::Complete));
    assert_eq!(bench.act_on(Action::Redrive, &dead).await, ActReply::Done);
    assert!(matches!(bench.act_on(Action::Move(bench.name.clone()), &elsewhere).await, ActReply::Moved(_)));
    assert_eq!(bench.stats().await.ready, 4);
    let claimed = bench.claim(9).await;
    for delivery in &claimed {
        assert!(matches!(bench.settle(delivery, retry()).await, Disposition::Retry(_)));
    }
    assert_eq!(bench.stats().await.scheduled, 4);
    assert!(bench.try_publish(bench.one("2")).await.is_err());
}

/// New limits hold for what is there already.
pub async fn limits_may_be_changed(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_in_flight: 1, ..QueueOptions::default() }).await;
    bench.publish(&["1", "2", "3"]).await;
    assert_eq!(bench.claim(9).await.len(), 1);
    let more = bench.configure(QueueOptions { max_in_flight: 2, ..QueueOptions::default() });
    let woken = bench.claim_during(Claim::new(bench.name.clone(), 9), more).await;
    assert_eq!(ids(&woken), ["2"], "a higher limit is news");
    bench.configure(three_attempts()).await;
    assert_eq!(bench.claim_one().await.max_attempts, Some(3));
    bench.configure(QueueOptions { max_events: Some(3), ..QueueOptions::default() }).await;
    assert!(bench.try_publish(bench.one("4")).await.is_err());
    let bench = bench.reopened().await;
    assert!(bench.try_publish(bench.one("4")).await.is_err(), "options are stored");
    assert_eq!(bench.state(&woken[0].entry).await, Some(State::Ready));
}

/// Options that would stop a queue for ever are refused.
pub async fn limits_that_make_no_sense_are_refused(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let default = QueueOptions::default;
    let mut senseless = vec![QueueOptions { max_in_flight: 0, ..default() }];
    if bench.has(Feature::Rates) {
        let rates = [(0.0, 1), (-1.0, 1), (f64::NAN, 1), (f64::INFINITY, 1), (1.0, 0)];
        senseless.extend(rates.map(|(per_second, burst)| QueueOptions { rate: rate(per_second, burst), ..default() }));
    }
    if bench.has(Feature::OrderingKeys) {
        senseless.push(QueueOptions { key: KeyOptions { concurrency: 0, ..KeyOptions::default() }, ..default() });
    }
    for options in senseless {
        let answer = bench.rig.queue().configure(bench.name.clone(), options.clone()).await;
        assert!(matches!(answer, Err(QueueError::InvalidRequest(_))), "{options:?}");
    }
    bench.publish(&["1"]).await;
    assert_eq!(ids(&bench.claim(9).await), ["1"], "nothing was changed");
}
