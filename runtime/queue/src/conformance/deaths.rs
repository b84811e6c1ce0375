//! Rules of who is told that an entry died. By the time the rule looks, it is dead.

use gristmill_core::{Disposition, EntryId, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, defer, reject, retry, three_attempts};
use crate::contract::{ActReply, Action, DeadLetter, Publish, QueueOptions, Settle, SettleReply};

/// The next one that is told of is this one.
async fn told<R: Rig>(bench: &Bench<R>, entry: &EntryId, why: &str) {
    let letter = bench.rig.told().await;
    assert_eq!(letter, DeadLetter { queue: bench.name.clone(), entry: entry.clone() }, "{why}");
    assert_eq!(bench.state(entry).await, Some(State::Dead), "{why}");
}

/// Whatever an entry dies of.
pub async fn every_death_is_told_once(rig: impl Rig) {
    let options = QueueOptions { max_age: Some(HOUR), ..three_attempts() };
    let mut bench = Bench::with(rig, options).await;
    let rejected = bench.kill("rejected", "never").await;
    told(&bench, &rejected, "rejected").await;

    let spent = bench.publish(&["spent"]).await.remove(0);
    for _ in 0..3 {
        bench.settle(&bench.claim_one().await, retry()).await;
        bench.advance(20 * SECOND).await;
    }
    told(&bench, &spent, "its attempts are spent").await;

    let late = bench.publish_with(Publish { time_to_live: Some(MINUTE), ..bench.one("late") }).await;
    bench.advance(MINUTE).await;
    told(&bench, &late, "nobody claimed it in its time").await;

    let old = bench.publish(&["old"]).await.remove(0);
    assert_eq!(bench.settle(&bench.claim_one().await, defer(2 * HOUR)).await, Disposition::DeadLetter);
    told(&bench, &old, "its next attempt would come too late").await;

    let silent = bench.publish(&["silent"]).await.remove(0);
    for _ in 0..3 {
        assert_eq!(bench.claim_one().await.entry, silent);
        bench.advance(MINUTE).await;
        bench.advance(20 * SECOND).await;
    }
    told(&bench, &silent, "its leases expired").await;

    let killer = bench.publish(&["killer"]).await.remove(0);
    for _ in 0..3 {
        assert_eq!(bench.claim_one().await.entry, killer);
        bench = bench.reopened().await;
        bench.advance(20 * SECOND).await;
    }
    told(&bench, &killer, "its processes crashed").await;

    assert_eq!(bench.act_on(Action::Redrive, &rejected).await, ActReply::Done);
    bench.settle(&bench.claim_one().await, reject()).await;
    told(&bench, &rejected, "another death is another matter").await;

    // None of them is told again.
    let bench = bench.reopened().await;
    let last = bench.kill("last", "never").await;
    told(&bench, &last, "nobody else").await;
}

/// As many as die at once.
pub async fn deaths_are_told_in_their_order(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let ids: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let entries = bench.publish(&ids.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut claimed = bench.claim(100).await;
    claimed.reverse();
    let outcome = |n: usize| if n.is_multiple_of(3) { ack() } else { reject() };
    let batch = claimed.iter().enumerate().map(|(n, delivery)| Settle::new(delivery.lease, outcome(n))).collect();
    let settled = bench.rig.queue().settle(batch, crate::contract::Confirm::Committed).await.unwrap();
    assert!(settled.iter().all(|reply| matches!(reply, SettleReply::Settled(_))));
    for (n, entry) in entries.iter().rev().enumerate() {
        if !n.is_multiple_of(3) {
            told(&bench, entry, "rejected").await;
        }
    }
    let last = bench.kill("last", "never").await;
    told(&bench, &last, "nobody else").await;
}

/// To be withdrawn, moved, removed or tried again is not to die.
pub async fn what_does_not_die_is_not_told(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let other = bench.add_queue("other").await;
    let [dead, removed] = ["dead", "removed"];
    let (dead, removed) = (bench.kill(dead, "never").await, bench.kill(removed, "never").await);
    told(&bench, &dead, "rejected").await;
    told(&bench, &removed, "rejected").await;
    assert_eq!(bench.act_on(Action::Purge, &removed).await, ActReply::Done);
    assert!(matches!(bench.act_on(Action::Move(other), &dead).await, ActReply::Moved(_)));
    let cancelled = bench.publish(&["cancelled"]).await.remove(0);
    assert_eq!(bench.act_on(Action::Cancel, &cancelled).await, ActReply::Done);
    bench.publish(&["retried", "deferred", "acked"]).await;
    let claimed = bench.claim(3).await;
    for (delivery, outcome) in claimed.iter().zip([retry(), defer(MINUTE), ack()]) {
        bench.settle(delivery, outcome).await;
    }
    let last = bench.kill("last", "never").await;
    told(&bench, &last, "nobody else").await;
}
