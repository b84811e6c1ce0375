//! Rules of deliveries that are acked together: all of them, or none.

use bytes::Bytes;
use gristmill_core::{Disposition, Outcome, QueueName, State};

use super::Rig;
use super::bench::{Bench, ack, event, reject};
use super::state::{blind, informed, read, set, with_state, write};
use crate::contract::{
    Acked, Change, Claim, Confirm, Delivery, LeaseToken, Publish, PublishError, QueueError, Settle, SettleReply,
    StateError,
};

const COMPLETE: SettleReply = SettleReply::Settled(Disposition::Complete);

/// An ack of them all, with an event for `receipts`.
fn together(deliveries: &[Delivery], receipts: &QueueName) -> Settle {
    let result = |delivery: &Delivery| Some(Bytes::from(format!("of {}", delivery.event.id)));
    let (first, others) = deliveries.split_first().unwrap();
    Settle {
        version: Some("v7".to_owned()),
        emits: vec![Publish::new(event("r1"), [receipts.clone()])],
        with: others.iter().map(|other| Acked { lease: other.lease, result: result(other) }).collect(),
        ..Settle::new(first.lease, Outcome::Ack { result: result(first) })
    }
}

async fn is_untouched<R: Rig>(bench: &Bench<R>, deliveries: &[Delivery], receipts: &QueueName) -> bool {
    for delivery in deliveries {
        if bench.state(&delivery.entry).await != Some(State::Leased) {
            return false;
        }
    }
    bench.stats_of(receipts).await.unwrap().ready == 0
}

/// Each with its own result, in one commit with what was emitted.
pub async fn deliveries_are_acked_together(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1", "2", "3"]).await;
    let claimed = bench.claim(3).await;
    assert_eq!(bench.settle_with(together(&claimed, &receipts)).await, COMPLETE);
    let bench = bench.reopened().await;
    for delivery in &claimed {
        let entry = bench.entry(&delivery.entry).await;
        assert_eq!(entry.state, State::Done);
        assert_eq!(entry.result, Some(Bytes::from(format!("of {}", delivery.event.id))));
        let last = entry.last_attempt().unwrap();
        assert_eq!((last.attempt, last.version.as_deref()), (1, Some("v7")));
    }
    let stats = bench.stats().await;
    assert_eq!((stats.done, stats.totals.acked, stats.leased), (3, 3, 0));
    assert_eq!(bench.stats_of(&receipts).await.unwrap().ready, 1);
    assert_eq!(bench.settle_with(together(&claimed, &receipts)).await, SettleReply::StaleLease);
}

/// They may be of different queues, and whoever waits for their keys goes on.
pub async fn keys_of_all_that_are_acked_together_are_free(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    if !bench.has(crate::contract::Feature::OrderingKeys) {
        return;
    }
    let receipts = bench.add_queue("receipts").await;
    let others = bench.add_queue("others").await;
    bench.publish_all(vec![bench.keyed("1", "a"), bench.keyed("2", "a")]).await;
    let elsewhere = |id: &str| Publish { key: Some("b".to_owned()), ..Publish::new(event(id), [others.clone()]) };
    bench.publish_all(vec![elsewhere("3"), elsewhere("4")]).await;
    let mut claimed = bench.claim(9).await;
    claimed.extend(bench.claim_from(&others, 9).await);
    assert_eq!(claimed.len(), 2, "one of each key");
    let wait = Claim::new(others.clone(), 9).wait(super::bench::SECOND);
    let acking = async {
        assert_eq!(bench.settle_with(together(&claimed, &receipts)).await, COMPLETE);
    };
    assert_eq!(bench.claim_during(wait, acking).await.len(), 1);
    assert_eq!(bench.claim(9).await.len(), 1);
}

/// One that is somebody else's by now is enough to refuse all; then the others can still be settled.
pub async fn one_stale_lease_refuses_what_is_acked_together(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1", "2", "3"]).await;
    let mut claimed = bench.claim(3).await;
    for at in [1, 0] {
        let settled = claimed[at].clone();
        bench.settle(&settled, reject()).await;
        assert_eq!(bench.settle_with(together(&claimed, &receipts)).await, SettleReply::StaleLease);
        claimed.remove(at);
        assert!(is_untouched(&bench, &claimed, &receipts).await);
    }
    let nobody = LeaseToken { delivery: u64::MAX, ..claimed[0].lease };
    let with = vec![Acked { lease: nobody, result: None }];
    let unknown = Settle { with, ..together(&claimed, &receipts) };
    assert_eq!(bench.settle_with(unknown).await, SettleReply::Unknown);
    assert!(is_untouched(&bench, &claimed, &receipts).await);
    assert_eq!(bench.settle_with(together(&claimed, &receipts)).await, COMPLETE);
}

/// What cannot be published refuses all of them.
pub async fn a_refused_emit_refuses_what_is_acked_together(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(2).await;
    let nowhere = QueueName::new("nowhere").unwrap();
    let mut settle = together(&claimed, &receipts);
    settle.emits.push(Publish::new(event("r2"), [nowhere.clone()]));
    assert_eq!(bench.settle_with(settle).await, SettleReply::Refused(PublishError::UnknownQueue(nowhere)));
    assert!(is_untouched(&bench, &claimed, &receipts).await);
}

/// The state is written with all of them, and a conflict, or a write that cannot be done, refuses all of them.
pub async fn state_commits_with_all_that_are_acked_together(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(2).await;
    let with = |transaction| Settle { transaction: Some(transaction), ..together(&claimed, &receipts) };
    let snapshot = bench.snapshot().await;
    bench.put(vec![set("a", "1"), set("word", "seven")]).await;
    let late = with(informed(&*snapshot, vec![read("a")], vec![set("b", "1")]));
    assert_eq!(bench.settle_with(late).await, SettleReply::Conflict);
    assert!(is_untouched(&bench, &claimed, &receipts).await);
    let refused = bench.settle_with(with(blind(vec![set("b", "1"), write("word", Change::Increment(1))]))).await;
    assert!(matches!(refused, SettleReply::StateRefused(StateError::NotANumber { .. })), "{refused:?}");
    assert!(is_untouched(&bench, &claimed, &receipts).await);
    assert_eq!(bench.value("b").await, None);
    let snapshot = bench.snapshot().await;
    let fresh = with(informed(&*snapshot, vec![read("a")], vec![set("b", "1")]));
    assert_eq!(bench.settle_with(fresh).await, COMPLETE);
    assert_eq!(bench.value("b").await.as_deref(), Some("1"));
    assert_eq!(bench.stats().await.done, 2);
}

/// Together with what is not acked nothing can be settled, and nothing twice.
pub async fn only_different_acks_go_together(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1", "2"]).await;
    let claimed = bench.claim(2).await;
    let mut wrong = Vec::new();
    for outcome in [reject(), Outcome::Released] {
        wrong.push(Settle { outcome, ..together(&claimed, &receipts) });
    }
    for lease in [claimed[0].lease, claimed[1].lease] {
        let mut settle = together(&claimed, &receipts);
        settle.with.push(Acked { lease, result: None });
        wrong.push(settle);
    }
    for settle in wrong {
        let refused = bench.rig.queue().settle(vec![settle], Confirm::Committed).await;
        assert!(matches!(refused, Err(QueueError::InvalidRequest(_))), "{refused:?}");
        assert!(is_untouched(&bench, &claimed, &receipts).await);
    }
    let settle = Settle { with: Vec::new(), ..Settle::new(claimed[0].lease, ack()) };
    assert_eq!(bench.settle_with(settle).await, COMPLETE);
}
