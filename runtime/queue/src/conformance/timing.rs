//! Rules of backoff, deferral, leases, delays and retention.

use std::time::Duration;

use gristmill_core::{Disposition, Outcome, State, Timestamp};

use super::Rig;
use super::bench::{Bench, HOUR, ack, event, ids, retry, three_attempts};
use crate::contract::{Claim, Due, Extend, ExtendReply, Publish, QueueOptions, Retention, Settle, SettleReply};

/// 10 s, 20 s, dead.
pub async fn retries_back_off_and_end_in_the_dead_letters(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    for (attempt, delay) in [(1, 10), (2, 20)] {
        let delivery = bench.claim_one().await;
        assert_eq!((delivery.attempt, delivery.max_attempts), (attempt, Some(3)));
        let delay = Duration::from_secs(delay);
        assert_eq!(bench.settle(&delivery, retry()).await, Disposition::Retry(delay));
        assert_eq!(bench.state(&entry).await, Some(State::Scheduled));
        bench.advance(delay - Duration::from_millis(1)).await;
        assert!(bench.claim(1).await.is_empty(), "not due yet");
        bench.advance(Duration::from_millis(1)).await;
    }
    let last = bench.claim_one().await;
    assert_eq!(bench.settle(&last, retry()).await, Disposition::DeadLetter);
    assert_eq!(bench.state(&entry).await, Some(State::Dead));
    let totals = bench.stats().await.totals;
    assert_eq!((totals.published, totals.retried, totals.dead_lettered), (1, 2, 1));
}

/// No attempt is left after a reject, however many there were.
pub async fn a_reject_is_dead_at_once(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_one().await;
    bench.settle(&delivery, Outcome::Reject { reason: "never".into() }).await;
    assert_eq!(bench.state(&entry).await, Some(State::Dead));
    assert!(bench.claim(1).await.is_empty());
}

/// However often an entry is deferred, it stays at the same attempt.
pub async fn a_deferral_spends_no_attempt(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["1"]).await;
    for _ in 0..10 {
        let delivery = bench.claim_one().await;
        assert_eq!(delivery.attempt, 1);
        let defer = Outcome::Defer { reason: None, after: Duration::from_secs(60) };
        assert_eq!(bench.settle(&delivery, defer).await, Disposition::Defer(Duration::from_secs(60)));
        assert!(bench.claim(1).await.is_empty());
        bench.advance(Duration::from_secs(60)).await;
    }
}

/// A worker that says nothing has failed.
pub async fn an_expired_lease_counts_and_comes_back(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_one().await;
    bench.advance(delivery.lease_for).await;
    assert_eq!(bench.settle_with(Settle::new(delivery.lease, ack())).await, SettleReply::StaleLease);
    bench.advance(Duration::from_secs(10)).await;
    assert_eq!(bench.claim_one().await.attempt, 2);
    let history = bench.rig.queue().get(entry).await.unwrap().unwrap().history;
    assert_eq!(history.last().unwrap().outcome.as_str(), "expired");
}

/// An extension moves the deadline.
pub async fn an_extended_lease_does_not_expire(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let extend = Extend { lease: delivery.lease, by: HOUR };
    assert_eq!(bench.rig.queue().extend(vec![extend]).await.unwrap(), [ExtendReply::Extended]);
    bench.advance(HOUR - Duration::from_secs(1)).await;
    assert_eq!(bench.settle(&delivery, ack()).await, Disposition::Complete);
    assert_eq!(bench.rig.queue().extend(vec![extend]).await.unwrap(), [ExtendReply::StaleLease]);
}

/// A delay is a due time; it survives a reopen and wakes a waiting claim.
pub async fn a_delayed_event_waits_for_its_time(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let delayed = Publish { due: Due::After(HOUR), ..Publish::new(event("later"), [bench.name.clone()]) };
    let entry = bench.publish_with(delayed).await;
    bench.publish(&["now"]).await;
    let now = bench.claim(9).await;
    assert_eq!(ids(&now), ["now"]);
    bench.ack_all(&now).await;
    assert_eq!(bench.state(&entry).await, Some(State::Scheduled));
    assert!(bench.stats().await.next_due.is_some());
    let bench = bench.reopened().await;
    let claimed = bench.claim_during(Claim::new(bench.name.clone(), 5), bench.advance(HOUR)).await;
    assert_eq!(ids(&claimed), ["later"]);
    assert_eq!(bench.state(&entry).await, Some(State::Leased));
}

/// Due times go by the wall clock; when it is set back, what is due earlier than anything seen so far still comes.
pub async fn a_clock_that_is_set_back_only_delays(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let delayed = |id| Publish { due: Due::After(HOUR), ..Publish::new(event(id), [bench.name.clone()]) };
    bench.publish_with(delayed("first")).await;
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["first"]);
    bench.rig.clock().jump_to(Timestamp::from_micros(1_000_000));
    bench.publish_with(delayed("second")).await;
    assert!(bench.claim(9).await.is_empty());
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["second"]);
}

/// A retry that is due goes by its turn, whatever arrives meanwhile.
pub async fn new_traffic_does_not_starve_a_retry(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["old"]).await;
    let delivery = bench.claim_one().await;
    bench.settle(&delivery, retry()).await;
    bench.publish(&["a", "b"]).await;
    bench.advance(Duration::from_secs(10)).await;
    bench.publish(&["c", "d"]).await;
    assert_eq!(ids(&bench.claim(3).await), ["a", "b", "old"]);
}

/// Done entries are kept for a while, and not without end.
pub async fn done_entries_are_reaped_by_count_and_by_age(rig: impl Rig) {
    let options = QueueOptions { done: Retention { count: Some(3), age: Some(HOUR) }, ..QueueOptions::default() };
    let bench = Bench::with(rig, options).await;
    let entries = bench.publish(&["1", "2", "3", "4", "5"]).await;
    for delivery in bench.claim(5).await {
        bench.settle(&delivery, ack()).await;
    }
    bench.rig.tick().await;
    assert_eq!(bench.stats().await.done, 3);
    assert_eq!(bench.state(&entries[1]).await, None, "the oldest go first");
    assert_eq!(bench.state(&entries[2]).await, Some(State::Done));
    bench.advance(HOUR).await;
    assert_eq!(bench.stats().await.done, 0);
    assert_eq!(bench.stats().await.totals.acked, 5, "totals remember");
}

/// The latest result is the last to go, however old its entry is.
pub async fn done_entries_are_reaped_in_the_order_of_their_completion(rig: impl Rig) {
    let options = QueueOptions { done: Retention { count: Some(2), age: None }, ..QueueOptions::default() };
    let bench = Bench::with(rig, options).await;
    let entries = bench.publish(&["late", "1", "2", "3"]).await;
    let claimed = bench.claim(4).await;
    for delivery in [&claimed[1], &claimed[2], &claimed[3], &claimed[0]] {
        bench.settle(delivery, ack()).await;
    }
    bench.rig.tick().await;
    let kept: Vec<_> = {
        let mut kept = Vec::new();
        for entry in &entries {
            kept.push(bench.state(entry).await.is_some());
        }
        kept
    };
    assert_eq!(kept, [true, false, false, true]);
}
