//! Rules of leases: who holds them, how long they last, and what their tokens prove.

use gristmill_core::{Disposition, Outcome, State, Timestamp};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, MINUTE, SECOND, ack, ids, retry, three_attempts};
use crate::contract::{
    Claim, Extend, ExtendReply, Feature, Holder, LeaseToken, Payload, Publish, QueueOptions, Retention, Settle,
    SettleReply, Then,
};

/// A bench whose engine stores leases; `None`: it does not, and says so.
async fn storing<R: Rig>(rig: R) -> Option<Bench<R>> {
    let bench = Bench::with(rig, three_attempts()).await;
    if !bench.has(Feature::StoredLeases) {
        bench.is_refused(Feature::StoredLeases, bench.rig.queue().claim(outside(&bench, 1)).await);
        return None;
    }
    Some(bench)
}

fn outside<R: Rig>(bench: &Bench<R>, max: usize) -> Claim {
    Claim { holder: Holder::Outside, ..Claim::new(bench.name.clone(), max) }
}

/// A worker outside does not care which process of the queue it talks to.
pub async fn a_lease_of_somebody_outside_survives_a_reopen(rig: impl Rig) {
    let Some(bench) = storing(rig).await else { return };
    let entries = bench.publish(&["outside", "process"]).await;
    let mine = bench.claim_with(outside(&bench, 1)).await.remove(0);
    bench.claim_one().await;
    let bench = bench.reopened().await;
    assert_eq!(bench.state(&entries[0]).await, Some(State::Leased));
    let again = bench.claim(9).await;
    assert_eq!(ids(&again), ["process"], "the other one is still handled");
    let bench = bench.reopened().await;
    assert_eq!(bench.settle(&mine, ack()).await, Disposition::Complete);
    assert_eq!(bench.settle_with(Settle::new(mine.lease, ack())).await, SettleReply::StaleLease);
    let done = bench.entry(&entries[0]).await;
    assert_eq!((done.state, done.attempts), (State::Done, 1));
    let stats = bench.stats().await;
    assert_eq!((stats.leased, stats.done), (0, 1));
}

/// Its lease ends when it was to end, however often the process was started meanwhile.
pub async fn a_lease_of_somebody_outside_expires_after_a_reopen(rig: impl Rig) {
    let Some(bench) = storing(rig).await else { return };
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_with(outside(&bench, 1)).await.remove(0);
    bench.advance(20 * SECOND).await;
    let bench = bench.reopened().await;
    bench.advance(9 * SECOND).await;
    assert_eq!(bench.state(&entry).await, Some(State::Leased));
    bench.advance(SECOND).await;
    assert_eq!(bench.settle_with(Settle::new(delivery.lease, ack())).await, SettleReply::StaleLease);
    bench.advance(10 * SECOND).await;
    let again = bench.claim_one().await;
    assert_eq!(again.attempt, 2);
    let history = bench.entry(&entry).await.history;
    assert_eq!(history.last().map(|last| last.outcome.as_str()), Some("expired"), "and was not lost");
}

/// An extension is stored as well, a shorter one too.
pub async fn a_lease_of_somebody_outside_is_extended_for_good(rig: impl Rig) {
    let Some(bench) = storing(rig).await else { return };
    bench.publish(&["longer", "shorter"]).await;
    let claimed = bench.claim_with(outside(&bench, 9)).await;
    assert_eq!(bench.extend(claimed[0].lease, HOUR).await, ExtendReply::Extended);
    assert_eq!(bench.extend(claimed[1].lease, SECOND).await, ExtendReply::Extended);
    let bench = bench.reopened().await;
    bench.advance(MINUTE).await;
    assert_eq!(bench.extend(claimed[1].lease, HOUR).await, ExtendReply::StaleLease);
    assert_eq!(bench.extend(claimed[0].lease, HOUR).await, ExtendReply::Extended, "by its old token");
    bench.advance(59 * MINUTE).await;
    assert_eq!(bench.settle(&claimed[0], ack()).await, Disposition::Complete);
}

/// A suspect that somebody outside has is one still when the process was started again, and when it is given back.
pub async fn a_lost_entry_that_is_held_outside_stays_the_only_one(rig: impl Rig) {
    let Some(bench) = storing(rig).await else { return };
    bench.publish(&["1", "2", "3"]).await;
    bench.claim(9).await;
    let bench = bench.reopened().await;
    let held = bench.claim_with(outside(&bench, 9)).await;
    assert_eq!(ids(&held), ["1"]);
    let bench = bench.reopened().await;
    assert!(bench.claim(9).await.is_empty(), "`2` waits until `1` is settled, whoever has it");
    bench.settle(&held[0], Outcome::Released).await;
    for expected in ["2", "3", "1"] {
        let one = bench.claim(9).await;
        assert_eq!(ids(&one), [expected]);
        bench.settle(&one[0], ack()).await;
    }
}

/// A process that was down for long finds the leases of that time at their end, and the next one counts.
pub async fn leases_expire_while_the_process_is_down(rig: impl Rig) {
    let Some(bench) = storing(rig).await else { return };
    bench.publish(&["1"]).await;
    let delivery = bench.claim_with(outside(&bench, 1)).await.remove(0);
    bench.rig.clock().advance(DAY);
    let bench = bench.reopened().await;
    bench.rig.tick().await;
    assert_eq!(bench.settle_with(Settle::new(delivery.lease, ack())).await, SettleReply::StaleLease);
    bench.advance(10 * SECOND).await;
    assert_eq!(bench.claim_one().await.attempt, 2);
}

/// At most once, for those who want no more: done when it is claimed, without another word.
pub async fn a_claim_may_ack_what_it_takes(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { payload: Payload::Keep, ..three_attempts() }).await;
    let entries = bench.publish(&["1", "2", "3"]).await;
    let claim = Claim { then: Then::Ack, ..Claim::new(bench.name.clone(), 2) };
    let claimed = bench.claim_with(claim.clone()).await;
    assert_eq!(ids(&claimed), ["1", "2"]);
    assert_eq!((claimed[0].attempt, &claimed[0].event), (1, &super::bench::event("1")));
    let done = bench.entry(&entries[0]).await;
    assert_eq!((done.state, done.attempts), (State::Done, 1));
    assert_eq!(done.last_attempt().map(|last| last.outcome.as_str()), Some("ack"));
    assert_eq!(bench.settle_with(Settle::new(claimed[0].lease, retry())).await, SettleReply::StaleLease);
    assert_eq!(bench.extend(claimed[0].lease, HOUR).await, ExtendReply::StaleLease);
    let bench = bench.reopened().await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.done, stats.totals.acked), (1, 0, 2, 2));
    bench.settle(&bench.claim_one().await, retry()).await;
    let publishes = bench.advance(10 * SECOND);
    let woken = bench.claim_during(claim, publishes).await;
    assert_eq!((ids(&woken), woken[0].attempt), (vec!["3"], 2));
    assert_eq!(bench.entry(&entries[2]).await.history.attempts().len(), 2);
}

/// Also when nothing is kept of what is done, and the data is large.
pub async fn a_claim_that_acks_brings_its_data(rig: impl Rig) {
    let done = Retention { age: None, count: Some(0) };
    let bench = Bench::with(rig, QueueOptions { done, ..QueueOptions::default() }).await;
    let mut event = (*super::bench::event("1")).clone();
    event.data = Some(vec![b'x'; 200_000].into());
    bench.publish_with(Publish::new(event.clone(), [bench.name.clone()])).await;
    let claimed = bench.claim_with(Claim { then: Then::Ack, ..Claim::new(bench.name.clone(), 2) }).await;
    assert_eq!(*claimed[0].event, event);
    assert_eq!(bench.stats().await.done, 0);
}

/// The queue says how long a lease lasts; who claims may know better.
pub async fn a_claim_may_ask_for_another_lease(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { lease: MINUTE, ..three_attempts() }).await;
    bench.publish(&["1", "2", "3"]).await;
    let usual = bench.claim_one().await;
    let claim = |lease| Claim { lease: Some(lease), ..Claim::new(bench.name.clone(), 1) };
    let short = bench.claim_with(claim(SECOND)).await.remove(0);
    let long = bench.claim_with(claim(HOUR)).await.remove(0);
    assert_eq!((usual.lease_for, short.lease_for, long.lease_for), (MINUTE, SECOND, HOUR));
    let expired = |delivery: &crate::contract::Delivery| Settle::new(delivery.lease, ack());
    bench.advance(SECOND).await;
    assert_eq!(bench.settle_with(expired(&short)).await, SettleReply::StaleLease);
    assert_eq!(bench.stats().await.leased, 2);
    bench.advance(MINUTE).await;
    assert_eq!(bench.settle_with(expired(&usual)).await, SettleReply::StaleLease);
    bench.advance(58 * MINUTE).await;
    assert_eq!(bench.settle(&long, ack()).await, Disposition::Complete);
}

/// An extension counts from now: it may end sooner than before, and nobody else's lease changes.
pub async fn an_extension_may_be_shorter_than_the_lease(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["1", "2", "3"]).await;
    let claimed = bench.claim(9).await;
    bench.advance(20 * SECOND).await;
    assert_eq!(bench.extend(claimed[1].lease, SECOND).await, ExtendReply::Extended);
    assert_eq!(bench.extend(claimed[2].lease, 20 * SECOND).await, ExtendReply::Extended);
    bench.advance(SECOND).await;
    assert_eq!(bench.state(&claimed[1].entry).await, Some(State::Scheduled));
    assert_eq!(bench.stats().await.leased, 2);
    bench.advance(9 * SECOND).await;
    assert_eq!(bench.state(&claimed[0].entry).await, Some(State::Scheduled), "when it was to end");
    assert_eq!(bench.settle(&claimed[2], ack()).await, Disposition::Complete, "later than it was to end");
}

/// A batch of extensions is judged one by one.
pub async fn extensions_are_judged_one_by_one(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(9).await;
    bench.settle(&claimed[0], ack()).await;
    let never = LeaseToken { delivery: u64::MAX, ..claimed[0].lease };
    let batch = [claimed[0].lease, claimed[1].lease, never].map(|lease| Extend { lease, by: HOUR });
    let replies = bench.rig.queue().extend(batch.to_vec()).await.unwrap();
    assert_eq!(replies, [ExtendReply::StaleLease, ExtendReply::Extended, ExtendReply::Unknown]);
    let batch = [claimed[0].lease, claimed[1].lease, never].map(|lease| Settle::new(lease, ack()));
    let replies = bench.rig.queue().settle(batch.to_vec(), crate::contract::Confirm::Committed).await.unwrap();
    assert_eq!(replies, [SettleReply::StaleLease, SettleReply::Settled(Disposition::Complete), SettleReply::Unknown]);
}

/// Whoever comes too late is counted, with any kind of token that does not fit, and nobody else.
pub async fn stale_tokens_are_counted(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let before = bench.rig.queue().counters().stale;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    bench.extend(delivery.lease, HOUR).await;
    bench.settle(&delivery, ack()).await;
    assert_eq!(bench.rig.queue().counters().stale, before);
    bench.settle_with(Settle::new(delivery.lease, ack())).await;
    bench.extend(delivery.lease, HOUR).await;
    let never = LeaseToken { delivery: u64::MAX, ..delivery.lease };
    assert_eq!(bench.settle_with(Settle::new(never, ack())).await, SettleReply::Unknown);
    assert_eq!(bench.rig.queue().counters().stale, before + 3);
}

/// A token names one delivery: not the one before it of the same entry, and not the one behind it.
pub async fn a_token_fits_one_delivery_only(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["1"]).await;
    let first = bench.claim_one().await;
    bench.advance(first.lease_for).await;
    bench.advance(10 * SECOND).await;
    let second = bench.claim_one().await;
    assert_ne!(first.lease, second.lease);
    assert_eq!(bench.settle_with(Settle::new(first.lease, ack())).await, SettleReply::StaleLease);
    assert_eq!(bench.extend(first.lease, HOUR).await, ExtendReply::StaleLease);
    assert_eq!(bench.state(&second.entry).await, Some(State::Leased));
    assert_eq!(bench.settle(&second, ack()).await, Disposition::Complete);
}

/// Leases of the process go by a clock that nobody sets.
pub async fn a_clock_that_jumps_does_not_end_leases(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(9).await;
    bench.jump_to(bench.now().after(DAY)).await;
    assert_eq!(bench.settle(&claimed[0], ack()).await, Disposition::Complete, "ahead");
    bench.jump_to(Timestamp::from_micros(1_000_000)).await;
    bench.advance(29 * SECOND).await;
    assert_eq!(bench.stats().await.leased, 1);
    bench.advance(SECOND).await;
    assert_eq!(bench.stats().await.leased, 0, "back: it ends when it was to end");
}
