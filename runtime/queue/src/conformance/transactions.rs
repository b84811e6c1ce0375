//! Rules of transactions: what was read must still be so, and everything happens or nothing does.

use gristmill_core::{Disposition, Outcome, State};

use super::Rig;
use super::bench::{ack, ids, reject, retry, three_attempts};
use super::state::{blind, informed, read, read_all, set, with_state, write};
use crate::contract::{Change, Delivery, Operation, Settle, SettleReply, StateError, Transacted, Transaction};

fn with(delivery: &Delivery, outcome: Outcome, transaction: Transaction) -> Settle {
    Settle { transaction: Some(transaction), ..Settle::new(delivery.lease, outcome) }
}

const COMPLETE: SettleReply = SettleReply::Settled(Disposition::Complete);

/// Two who read the same and write what follows from it: one of them has to look again.
pub async fn what_was_read_must_not_have_changed(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.put(vec![set("a", "1")]).await;
    let snapshot = bench.snapshot().await;
    let sell =
        |on: &dyn crate::contract::StateSnapshot| informed(on, vec![read("a")], vec![set("a", "0"), set("sold", "1")]);
    assert_eq!(bench.transact(sell(&*snapshot)).await, Transacted::Committed(vec![]));
    assert_eq!(bench.transact(sell(&*snapshot)).await, Transacted::Conflict);
    let fresh = bench.snapshot().await;
    assert_eq!(bench.transact(sell(&*fresh)).await, Transacted::Committed(vec![]));
    for change in [Change::Delete, Change::Increment(1)] {
        let snapshot = bench.snapshot().await;
        bench.put(vec![set("a", "7")]).await;
        bench.put(vec![write("a", change)]).await;
        assert_eq!(bench.transact(sell(&*snapshot)).await, Transacted::Conflict);
    }
}

/// That a key is not there is something to have read, and so is which keys there are.
pub async fn what_appears_or_goes_conflicts_with_who_looked_for_it(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.put(vec![set("order/1", "x"), set("price", "x")]).await;
    let cases = [
        (read("order/2"), true, "a key that was not there"),
        (read_all("order/"), true, "one more with the prefix"),
        (read_all(""), true, "one more of all"),
        (read_all("price"), false, "another prefix"),
        (read("order/1"), false, "another key"),
    ];
    for (what, conflicts, why) in cases {
        let snapshot = bench.snapshot().await;
        let attempt = informed(&*snapshot, vec![what], vec![set("report", "1")]);
        bench.put(vec![set("order/2", "new")]).await;
        assert_eq!(bench.transact(attempt).await == Transacted::Conflict, conflicts, "{why}");
        bench.put(vec![write("order/2", Change::Delete)]).await;
    }
    let snapshot = bench.snapshot().await;
    bench.put(vec![write("order/1", Change::Delete)]).await;
    let gone = informed(&*snapshot, vec![read_all("order/")], vec![set("report", "1")]);
    assert_eq!(bench.transact(gone).await, Transacted::Conflict, "one less with the prefix");
    let elsewhere = bench.snapshot().await;
    bench.put(vec![set("order/3", "x")]).await;
    let other = crate::contract::StateRead::Prefix { bucket: "other".into(), prefix: "order/".into() };
    let other = informed(&*elsewhere, vec![other], vec![set("report", "1")]);
    assert_eq!(bench.transact(other).await, Transacted::Committed(vec![]), "another bucket");
}

/// Whoever has read nothing relies on nothing.
pub async fn blind_writes_do_not_conflict(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let snapshot = bench.snapshot().await;
    bench.put(vec![set("a", "1")]).await;
    let writes = vec![set("a", "2"), write("n", Change::Increment(3))];
    assert_eq!(bench.transact(informed(&*snapshot, vec![], writes)).await, Transacted::Committed(vec![3]));
    let only_reads = informed(&*snapshot, vec![read("a")], vec![]);
    assert_eq!(bench.transact(only_reads).await, Transacted::Conflict, "who only reads relies on it");
}

/// What a snapshot from before a reopen has shown may be long ago.
pub async fn a_snapshot_of_an_earlier_process_conflicts(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.put(vec![set("a", "1")]).await;
    let old = bench.snapshot().await.revision();
    let bench = bench.reopened().await;
    let stale = Transaction { revision: Some(old), reads: vec![read("a")], writes: vec![set("b", "1")] };
    assert_eq!(bench.transact(stale).await, Transacted::Conflict);
    let fresh = bench.snapshot().await;
    let fresh = informed(&*fresh, vec![read("a")], vec![set("b", "1")]);
    assert_eq!(bench.transact(fresh).await, Transacted::Committed(vec![]));
}

/// An ack and its writes are one: both are there, after a crash too.
pub async fn state_commits_with_the_ack(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let snapshot = bench.snapshot().await;
    let writes = vec![set("seen/1", "yes"), write("count", Change::Increment(1))];
    let settled =
        bench.settle_with(with(&delivery, ack(), informed(&*snapshot, vec![read_all("seen/")], writes))).await;
    assert_eq!(settled, COMPLETE);
    drop(snapshot);
    let bench = bench.reopened().await;
    assert_eq!(bench.value("seen/1").await.as_deref(), Some("yes"));
    assert_eq!(bench.value("count").await.as_deref(), Some("1"));
}

/// A handler that did not ack has written nothing, whatever it wrote before it failed; nor has one that came too late.
pub async fn what_a_failed_delivery_writes_never_appears(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let trap = Outcome::Trap { reason: "oh".into() };
    for outcome in [retry(), trap, reject(), Outcome::Released, super::bench::defer(super::bench::SECOND)] {
        bench.publish(&["1"]).await;
        let delivery = bench.claim_one().await;
        let settled = bench.settle_with(with(&delivery, outcome.clone(), blind(vec![set("a", "1")]))).await;
        assert!(matches!(settled, SettleReply::Settled(_)), "{outcome:?}");
        assert_eq!(bench.value("a").await, None, "{outcome:?}");
        let late = bench.settle_with(with(&delivery, ack(), blind(vec![set("a", "1")]))).await;
        assert_eq!((late, bench.value("a").await), (SettleReply::StaleLease, None));
        bench.act_where(crate::contract::Action::Purge, bench.all()).await;
    }
}

/// A conflict changes nothing: not the state, not the queues, not the lease; and it is no attempt.
pub async fn a_conflict_changes_nothing_and_spends_no_attempt(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.configure(three_attempts()).await;
    let receipts = bench.add_queue("receipts").await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let snapshot = bench.snapshot().await;
    bench.put(vec![set("a", "1")]).await;
    let emits = vec![crate::contract::Publish::new(super::bench::event("r1"), [receipts.clone()])];
    let attempt = with(&delivery, ack(), informed(&*snapshot, vec![read("a")], vec![set("b", "1")]));
    assert_eq!(bench.settle_with(Settle { emits, ..attempt }).await, SettleReply::Conflict);
    assert_eq!(bench.value("b").await, None);
    assert_eq!(bench.stats_of(&receipts).await.unwrap().ready, 0);
    assert_eq!(bench.state(&delivery.entry).await, Some(State::Leased));
    assert_eq!(bench.settle(&delivery, Outcome::Released).await, Disposition::Release);
    let again = bench.claim_one().await;
    assert_eq!(again.attempt, 1);
    let snapshot = bench.snapshot().await;
    let attempt = with(&again, ack(), informed(&*snapshot, vec![read("a")], vec![set("b", "1")]));
    assert_eq!(bench.settle_with(attempt).await, COMPLETE);
    assert_eq!(bench.entry(&again.entry).await.history.attempts().len(), 1);
}

/// Who has lost three times has the buckets to itself, so that it comes to an end.
pub async fn who_conflicts_three_times_has_its_buckets_to_itself(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.publish(&["loser", "other"]).await;
    let claimed = bench.claim(2).await;
    let attempt = |snapshot: &dyn crate::contract::StateSnapshot| {
        with(&claimed[0], ack(), informed(snapshot, vec![read("a")], vec![set("a", "loser")]))
    };
    for n in 1..=3 {
        let snapshot = bench.snapshot().await;
        bench.put(vec![set("a", &n.to_string())]).await;
        assert_eq!(bench.settle_with(attempt(&*snapshot)).await, SettleReply::Conflict);
    }
    let snapshot = bench.snapshot().await;
    assert_eq!(bench.transact(blind(vec![set("a", "4")])).await, Transacted::Conflict, "it is not theirs now");
    let elbow = with(&claimed[1], ack(), blind(vec![set("z", "5")]));
    assert_eq!(bench.settle_with(elbow).await, SettleReply::Conflict, "nor is any key of the bucket");
    let elsewhere = crate::contract::StateWrite {
        bucket: "other".into(),
        key: "a".into(),
        change: Change::Set(bytes::Bytes::new()),
    };
    assert_eq!(bench.transact(blind(vec![elsewhere])).await, Transacted::Committed(vec![]), "others are free");
    assert_eq!(bench.settle_with(attempt(&*snapshot)).await, COMPLETE);
    assert_eq!(bench.value("a").await.as_deref(), Some("loser"));
    bench.put(vec![set("a", "6")]).await;
    bench.settle(&claimed[1], ack()).await;
}

/// Of two that have lost three times, and each need what the other has, one comes to an end.
pub async fn two_that_need_the_same_buckets_do_not_keep_each_other_out(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let in_bucket = |bucket: &str| crate::contract::StateWrite {
        bucket: bucket.to_owned(),
        key: "k".to_owned(),
        change: Change::Set(bytes::Bytes::new()),
    };
    bench.put(vec![in_bucket("x"), in_bucket("y"), in_bucket("z")]).await;
    bench.publish(&["a", "b", "c"]).await;
    let [a, b, c] = &bench.claim(3).await[..] else { panic!("three deliveries") };
    // Everything that was read is from before the snapshots that are checked: it conflicts as long as it is checked.
    let lose = async |delivery: &Delivery, buckets: &[&str]| {
        let snapshot = bench.snapshot().await;
        let reads = buckets
            .iter()
            .map(|bucket| crate::contract::StateRead::Prefix { bucket: (*bucket).to_owned(), prefix: String::new() });
        let writes = buckets.iter().map(|bucket| in_bucket(bucket)).collect();
        let attempt = informed(&*snapshot, reads.collect(), writes);
        let disturbing = buckets.iter().map(|bucket| in_bucket(bucket)).collect();
        bench.transact(blind(disturbing)).await;
        bench.settle_with(with(delivery, ack(), attempt)).await
    };
    for _ in 0..3 {
        assert_eq!(lose(c, &["y"]).await, SettleReply::Conflict);
    }
    for _ in 0..3 {
        assert_eq!(lose(a, &["x", "y"]).await, SettleReply::Conflict, "c has y");
    }
    bench.settle(c, reject()).await;
    for _ in 0..3 {
        assert_eq!(lose(b, &["x", "y"]).await, SettleReply::Conflict);
    }
    let mut ended = 0;
    for _ in 0..4 {
        for delivery in [a, b] {
            ended += usize::from(lose(delivery, &["x", "y"]).await == COMPLETE);
        }
    }
    assert_eq!(ended, 2, "both of them, one after the other");
}

/// The buckets are free again however that delivery ends.
pub async fn a_bucket_is_free_when_its_delivery_is_over(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    for outcome in [Some(retry()), Some(Outcome::Released), None] {
        bench.publish(&["1"]).await;
        let delivery = bench.claim_one().await;
        for n in 1..=3 {
            let snapshot = bench.snapshot().await;
            bench.put(vec![set("a", &n.to_string())]).await;
            let attempt = informed(&*snapshot, vec![read("a")], vec![set("a", "mine")]);
            assert_eq!(bench.settle_with(with(&delivery, ack(), attempt)).await, SettleReply::Conflict);
        }
        assert_eq!(bench.transact(blind(vec![set("a", "4")])).await, Transacted::Conflict);
        match outcome {
            Some(outcome) => {
                bench.settle(&delivery, outcome).await;
            }
            None => bench.advance(delivery.lease_for).await,
        }
        bench.put(vec![set("a", "5")]).await;
        bench.act_where(crate::contract::Action::Purge, bench.all()).await;
    }
}

/// A write that cannot be done refuses the ack as a whole; the lease goes on.
pub async fn a_write_that_cannot_be_done_refuses_the_settlement(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.put(vec![set("word", "seven")]).await;
    bench.operate(Operation::LimitBucket { bucket: "stock".to_owned(), max_bytes: Some(20) }).await;
    bench.publish(&["1"]).await;
    let delivery = bench.claim_one().await;
    let writes = vec![set("a", "1"), write("word", Change::Increment(1))];
    let refused = bench.settle_with(with(&delivery, ack(), blind(writes))).await;
    assert!(matches!(refused, SettleReply::StateRefused(StateError::NotANumber { .. })), "{refused:?}");
    let refused = bench.settle_with(with(&delivery, ack(), blind(vec![set("b", "a value that is long")]))).await;
    assert!(matches!(refused, SettleReply::StateRefused(StateError::Full { .. })), "{refused:?}");
    assert_eq!((bench.value("a").await, bench.value("b").await), (None, None));
    assert_eq!(bench.settle_with(with(&delivery, ack(), blind(vec![set("a", "1")]))).await, COMPLETE);
}

/// Transactions that run at the same time come out as if they had run one after the other.
pub async fn transactions_are_serializable(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.publish(&(0..40).map(|_| "x").collect::<Vec<_>>()).await;
    let mut held = Vec::new();
    let mut conflicts = 0;
    let mut done = 0;
    while done < 40 {
        while held.len() < 3 {
            let Some(delivery) = bench.claim(1).await.pop() else { break };
            let snapshot = bench.snapshot().await;
            let seen = snapshot.get("stock", "sum").unwrap();
            let sum: u32 = seen.map_or(0, |bytes| std::str::from_utf8(&bytes).unwrap().parse().unwrap());
            held.push((delivery, snapshot, sum));
        }
        let (delivery, snapshot, sum) = held.remove(0);
        let transaction = informed(&*snapshot, vec![read("sum")], vec![set("sum", &(sum + 1).to_string())]);
        match bench.settle_with(with(&delivery, ack(), transaction)).await {
            SettleReply::Conflict => {
                conflicts += 1;
                bench.settle(&delivery, Outcome::Released).await;
            }
            reply => {
                assert_eq!(reply, COMPLETE);
                done += 1;
            }
        }
    }
    assert_eq!(bench.value("sum").await.as_deref(), Some("40"), "no update is lost");
    assert!(conflicts > 0, "they did run at the same time");
    assert_eq!(ids(&bench.claim(9).await), [""; 0]);
}
