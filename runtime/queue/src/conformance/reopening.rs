//! Rules of what survives the process.

use std::collections::BTreeSet;
use std::time::Duration;

use gristmill_core::{Disposition, Outcome, RetryPolicy, State};

use super::Rig;
use super::bench::{Bench, ack, ids, retry};
use crate::contract::{QueueOptions, Settle, SettleReply};

/// Leases end with the process; attempts are remembered.
pub async fn everything_unsettled_is_ready_after_a_reopen(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entries = bench.publish(&["leased", "retried", "ready"]).await;
    let claimed = bench.claim(2).await;
    bench.settle(&claimed[1], retry()).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.state(&entries[0]).await, Some(State::Ready));
    assert_eq!(bench.state(&entries[1]).await, Some(State::Scheduled));
    assert_eq!(bench.state(&entries[2]).await, Some(State::Ready));
    bench.advance(Duration::from_secs(2)).await;
    let attempts: Vec<_> = bench.claim(9).await.into_iter().map(|d| (d.event.id.clone(), d.attempt)).collect();
    assert_eq!(attempts, [("leased".into(), 2), ("ready".into(), 1), ("retried".into(), 2)]);
    let history = bench.rig.queue().get(entries[0].clone()).await.unwrap().unwrap().history;
    assert_eq!(history.last().unwrap().outcome.as_str(), "lost");
}

/// After a crash only one suspect is in flight, so that only the killer runs out of attempts.
pub async fn lost_entries_are_delivered_one_at_a_time(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["a", "b", "c"]).await;
    assert_eq!(bench.claim(3).await.len(), 3);
    let bench = bench.reopened().await;
    bench.publish(&["new"]).await;
    let first = bench.claim(9).await;
    assert_eq!(ids(&first), ["a", "new"]);
    bench.settle(&first[1], ack()).await;
    assert!(bench.claim(9).await.is_empty(), "`b` waits until `a` is settled");
    assert_eq!(bench.settle(&first[0], Outcome::Released).await, Disposition::Release);
    let second = bench.claim(9).await;
    assert_eq!(ids(&second), ["b"], "a released suspect stays one");
    bench.settle(&second[0], ack()).await;
    for expected in ["c", "a"] {
        let one = bench.claim(9).await;
        assert_eq!(ids(&one), [expected]);
        bench.settle(&one[0], ack()).await;
    }
}

/// Fencing: a token does not outlive its process.
pub async fn a_lease_of_an_earlier_process_is_stale(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1"]).await;
    let old = bench.claim_one().await;
    let bench = bench.reopened().await;
    assert_eq!(bench.settle_with(Settle::new(old.lease, ack())).await, SettleReply::StaleLease);
    let new = bench.claim_one().await;
    assert_eq!(bench.settle_with(Settle::new(old.lease, ack())).await, SettleReply::StaleLease);
    assert_eq!(bench.settle(&new, ack()).await, Disposition::Complete);
}

/// A crash counts, so that a crash loop ends; the neighbour lives.
pub async fn an_entry_that_kills_its_process_ends_in_the_dead_letters(rig: impl Rig) {
    let retry = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
    let mut bench = Bench::with(rig, QueueOptions { retry, ..QueueOptions::default() }).await;
    let entries = bench.publish(&["killer", "neighbour"]).await;
    for _ in 0..3 {
        let mut claimed = bench.claim(9).await;
        while claimed.iter().all(|delivery| delivery.event.id != "killer") {
            assert_eq!((ids(&claimed), claimed[0].attempt), (vec!["neighbour"], 2), "alone this time");
            bench.settle(&claimed[0], ack()).await;
            claimed = bench.claim(9).await;
        }
        bench = bench.reopened().await;
    }
    assert_eq!(bench.state(&entries[0]).await, Some(State::Dead));
    assert_eq!(bench.state(&entries[1]).await, Some(State::Done));
}

/// Entry ids and delivery numbers are unique across openings.
pub async fn numbers_are_never_issued_twice(rig: impl Rig) {
    let mut bench = Bench::new(rig).await;
    let (mut entries, mut deliveries) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..4 {
        for entry in bench.publish(&["1", "2", "3"]).await {
            assert!(entries.insert(entry.clone()), "{entry} twice");
        }
        for delivery in bench.claim(2).await {
            assert!(deliveries.insert(delivery.lease.delivery), "{:?} twice", delivery.lease);
        }
        bench = bench.reopened().await;
    }
}

/// Counts are committed with what they count.
pub async fn counts_are_right_after_a_reopen(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["done", "dead", "retried", "lost", "ready"]).await;
    let claimed = bench.claim(4).await;
    bench.settle(&claimed[0], ack()).await;
    bench.settle(&claimed[1], Outcome::Reject { reason: String::new() }).await;
    bench.settle(&claimed[2], retry()).await;
    let before = bench.stats().await;
    assert_eq!((before.leased, before.ready), (1, 1));
    let after = bench.reopened().await.stats().await;
    assert_eq!((after.leased, after.ready), (0, 2));
    assert_eq!((after.done, after.dead, after.scheduled), (1, 1, 1));
    assert_eq!(after.totals.retried, 2, "the lost one as well");
    assert_eq!((after.totals.published, after.totals.acked), (5, 1));
}
