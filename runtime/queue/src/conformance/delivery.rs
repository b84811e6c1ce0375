//! Rules of publishing, claiming and settling.

use std::time::Duration;

use gristmill_core::{Disposition, EventError, Outcome, QueueName, State};

use super::Rig;
use super::bench::{Bench, ack, event, ids, retry};
use crate::contract::{Claim, Confirm, Publish, PublishError, Settle, SettleReply};

/// Published, claimed, acked: ready, leased, done, and never twice.
pub async fn a_published_event_is_claimed_once_and_done_after_its_ack(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entries = bench.publish(&["1"]).await;
    assert_eq!(bench.state(&entries[0]).await, Some(State::Ready));
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.attempt, &delivery.entry), (1, &entries[0]));
    assert_eq!(delivery.event, event("1"));
    assert_eq!(bench.state(&entries[0]).await, Some(State::Leased));
    assert!(bench.claim(1).await.is_empty(), "claimed already");
    let result = Outcome::Ack { result: Some("7".into()) };
    assert_eq!(bench.settle(&delivery, result).await, Disposition::Complete);
    let entry = bench.rig.queue().get(entries[0].clone()).await.unwrap().unwrap();
    assert_eq!((entry.state, entry.result.as_deref()), (State::Done, Some(&b"7"[..])));
    assert_eq!((entry.event.id.as_str(), &entry.event.data), ("1", &None), "header without payload");
    assert!(bench.claim(1).await.is_empty());
}

/// One event's refusal does not touch the others.
pub async fn a_batch_is_judged_event_by_event(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let mut invalid = (*event("2")).clone();
    invalid.ty.clear();
    let mut huge = (*event("3")).clone();
    huge.data = Some(vec![b'x'; 1 << 21].into());
    let nowhere = QueueName::new("nowhere").unwrap();
    let batch = vec![
        Publish::new(event("1"), [bench.name.clone()]),
        Publish::new(invalid, [bench.name.clone()]),
        Publish::new(huge, [bench.name.clone()]),
        Publish::new(event("4"), [nowhere.clone()]),
        Publish::new(event("5"), []),
        Publish::new(event("6"), [bench.name.clone()]),
    ];
    let results = bench.rig.queue().publish(batch).await.unwrap().results;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, false, false, true]);
    assert!(matches!(&results[1], Err(PublishError::Invalid(EventError::Invalid { name, .. })) if name == "type"));
    assert!(matches!(results[2], Err(PublishError::Invalid(EventError::TooLarge { .. }))));
    assert_eq!(results[3], Err(PublishError::UnknownQueue(nowhere)));
    assert!(matches!(results[4], Err(PublishError::Unroutable { .. })));
    assert_eq!(ids(&bench.claim(10).await), ["1", "6"]);
}

/// All its queues accept an event, or it is refused.
pub async fn an_event_for_several_queues_is_in_all_of_them_or_in_none(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("audit").await;
    let both = Publish::new(event("1"), [bench.name.clone(), other.clone(), bench.name.clone()]);
    let broken = Publish::new(event("2"), [bench.name.clone(), QueueName::new("nowhere").unwrap()]);
    let results = bench.rig.queue().publish(vec![both, broken]).await.unwrap().results;
    assert_eq!(results[0].as_ref().unwrap().entries.len(), 2, "once in each queue");
    assert!(results[1].is_err());
    assert_eq!(ids(&bench.claim(10).await), ["1"]);
    assert_eq!(ids(&bench.rig.queue().claim(Claim::new(other, 10)).await.unwrap()), ["1"]);
}

/// Publishing wakes a claim that waits.
pub async fn a_waiting_claim_is_woken_by_a_publish(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let claim = bench.rig.queue().claim(Claim::new(bench.name.clone(), 5).wait(Duration::from_secs(3_600)));
    let publish = async {
        bench.rig.tick().await;
        bench.publish(&["1", "2"]).await;
    };
    let (claimed, ()) = tokio::join!(claim, publish);
    assert_eq!(ids(&claimed.unwrap()), ["1", "2"]);
}

/// A wait is bounded.
pub async fn a_waiting_claim_ends_empty_when_its_time_is_over(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let claim = bench.rig.queue().claim(Claim::new(bench.name.clone(), 5).wait(Duration::from_secs(10)));
    let pass_time = async {
        bench.rig.tick().await;
        bench.advance(Duration::from_secs(10)).await;
    };
    let (claimed, ()) = tokio::join!(claim, pass_time);
    assert!(claimed.unwrap().is_empty());
}

/// Giving up on a claim spends no attempt.
pub async fn a_claim_whose_future_was_dropped_takes_nothing(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    {
        let claim = bench.rig.queue().claim(Claim::new(bench.name.clone(), 5).wait(Duration::from_secs(3_600)));
        tokio::select! {
            biased;
            _ = claim => panic!("nothing is ready"),
            () = bench.rig.tick() => {}
        }
    }
    bench.publish(&["1"]).await;
    bench.rig.tick().await;
    assert_eq!(bench.claim_one().await.attempt, 1);
}

/// Nor does giving up between the grant and the moment of hearing of it.
pub async fn a_claim_dropped_after_its_grant_gives_everything_back(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    {
        let mut claim =
            Box::pin(bench.rig.queue().claim(Claim::new(bench.name.clone(), 5).wait(Duration::from_secs(3_600))));
        tokio::select! {
            biased;
            _ = &mut claim => panic!("nothing is ready"),
            () = bench.rig.tick() => {}
        }
        bench.publish(&["1"]).await;
        bench.rig.tick().await;
        assert_eq!(bench.stats().await.leased, 1, "granted, and not heard of");
    }
    bench.rig.tick().await;
    assert_eq!(bench.claim_one().await.attempt, 1);
}

/// Higher priority first, then the order of becoming ready.
pub async fn order_is_priority_then_readiness(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    for (id, priority) in [("low-1", 0), ("high-1", 200), ("low-2", 0), ("top", 255), ("high-2", 200)] {
        bench.publish_with(Publish { priority, ..Publish::new(event(id), [bench.name.clone()]) }).await;
    }
    assert_eq!(ids(&bench.claim(2).await), ["top", "high-1"]);
    assert_eq!(ids(&bench.claim(9).await), ["high-2", "low-1", "low-2"]);
}

/// Settled, unknown and foreign tokens are answered, and nothing happens.
pub async fn a_stale_token_changes_nothing(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let mut foreign = delivery.lease;
    foreign.incarnation += 1;
    assert_eq!(bench.settle_with(Settle::new(foreign, ack())).await, SettleReply::Unknown, "never issued");
    assert_eq!(bench.settle(&delivery, ack()).await, Disposition::Complete);
    let before = bench.stats().await;
    let again = Settle::new(delivery.lease, Outcome::Reject { reason: "late".into() });
    assert_eq!(bench.settle_with(again).await, SettleReply::StaleLease);
    assert_eq!(bench.stats().await, before);
}

/// What an ack emits appears with it.
pub async fn an_ack_and_what_it_emits_commit_together(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let emits = vec![
        Publish::new(event("r1"), [receipts.clone()]),
        Publish::new(event("nobody-wants-it"), []),
        Publish::new(event("r2"), [receipts.clone()]),
    ];
    let settled = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    assert_eq!(settled, SettleReply::Settled(Disposition::Complete));
    assert_eq!(ids(&bench.rig.queue().claim(Claim::new(receipts, 9)).await.unwrap()), ["r1", "r2"]);
}

/// Nothing of a handler that did not ack is visible.
pub async fn what_a_failed_delivery_emits_never_appears(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    for outcome in [retry(), Outcome::Reject { reason: "no".into() }, Outcome::Released] {
        bench.publish(&["1"]).await;
        let delivery = bench.claim_one().await;
        let emits = vec![Publish::new(event("r1"), [receipts.clone()])];
        bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, outcome) }).await;
        assert!(bench.rig.queue().claim(Claim::new(receipts.clone(), 9)).await.unwrap().is_empty());
    }
}

/// A settlement that cannot be carried out as a whole is not carried out at all.
pub async fn an_emit_for_an_unknown_queue_refuses_the_settlement(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let nowhere = QueueName::new("nowhere").unwrap();
    let emits = vec![Publish::new(event("r1"), [receipts.clone()]), Publish::new(event("r2"), [nowhere.clone()])];
    let refused = bench.settle_with(Settle { emits, ..Settle::new(delivery.lease, ack()) }).await;
    assert_eq!(refused, SettleReply::Refused(PublishError::UnknownQueue(nowhere)));
    assert!(bench.rig.queue().claim(Claim::new(receipts, 9)).await.unwrap().is_empty());
    assert_eq!(bench.settle(&delivery, ack()).await, Disposition::Complete, "the lease goes on");
}

/// Release: first in line, and the attempt is not spent.
pub async fn a_released_entry_comes_first_and_spends_no_attempt(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    bench.publish(&["1", "2"]).await;
    let first = bench.claim_one().await;
    assert_eq!(bench.settle(&first, Outcome::Released).await, Disposition::Release);
    let again = bench.claim(2).await;
    assert_eq!(ids(&again), ["1", "2"]);
    assert_eq!(again[0].attempt, 1);
    let batch = again.iter().map(|delivery| Settle::new(delivery.lease, ack())).collect();
    let replies = bench.rig.queue().settle(batch, Confirm::Committed).await.unwrap();
    assert_eq!(replies, vec![SettleReply::Settled(Disposition::Complete); 2]);
}

/// After a close every call is answered, and with that.
pub async fn a_closed_queue_says_so(rig: impl Rig) {
    use crate::contract::QueueError;
    let bench = Bench::new(rig).await;
    let queue = bench.rig.queue();
    queue.close().await.unwrap();
    assert_eq!(queue.claim(Claim::new(bench.name.clone(), 1)).await, Err(QueueError::Closed));
    assert_eq!(queue.stats().await, Err(QueueError::Closed));
    assert_eq!(queue.close().await, Ok(()), "closing twice is fine");
}
