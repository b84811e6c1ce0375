//! Rules of ordering keys: who of a key is handled, and when.

use std::collections::BTreeMap;

use gristmill_core::{Disposition, Outcome, RetryPolicy, State};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, SECOND, ack, defer, ids, reject, retry, three_attempts};
use crate::contract::{Action, Claim, Delivery, Due, Feature, KeyOptions, Publish, QueueOptions, Selection, WhichKeys};

/// A bench whose engine has ordering keys; `None`: it has none, and says so.
pub(super) async fn with_keys<R: Rig>(rig: R, options: QueueOptions) -> Option<Bench<R>> {
    let bench = Bench::new(rig).await;
    if !bench.has(Feature::OrderingKeys) {
        bench.is_refused(Feature::OrderingKeys, bench.rig.queue().publish(vec![bench.keyed("1", "k")]).await);
        return None;
    }
    bench.configure(options).await;
    Some(bench)
}

/// Entries of one key wait for each other, and for nobody else.
pub async fn entries_of_a_key_are_handled_one_at_a_time_in_publish_order(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let entries = bench.publish_keyed(&["a1", "a2", "b1", "a3"]).await;
    bench.publish(&["free"]).await;
    assert_eq!(bench.state(&entries[1]).await, Some(State::Waiting));
    assert_eq!(bench.listed(State::Waiting).await, ["a2", "a3"]);
    let stats = bench.stats().await;
    assert_eq!((stats.waiting, stats.ready), (2, 3));
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["a1", "b1", "free"]);
    assert_eq!(claimed[0].key.as_deref(), Some("a"));
    assert_eq!(bench.entry(&entries[3]).await.key.as_deref(), Some("a"));
    bench.ack_all(&claimed[1..]).await;
    assert!(bench.claim(9).await.is_empty(), "`a1` is not finished");
    bench.settle(&claimed[0], ack()).await;
    for expected in ["a2", "a3"] {
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [expected]);
        bench.settle(&claimed[0], ack()).await;
    }
    assert_eq!(bench.stats().await.waiting, 0);
}

/// Where many of a key may suddenly go, they go, however many they are.
pub async fn all_that_wait_go_when_the_concurrency_grows(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let many: Vec<_> = (0..2_500).map(|number| format!("m{number}")).collect();
    bench.publish_keyed(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let first = bench.claim_one().await;
    let key = KeyOptions { concurrency: 10_000, ..KeyOptions::default() };
    bench.configure(QueueOptions { key, ..QueueOptions::default() }).await;
    bench.settle(&first, ack()).await;
    for _ in 0..3 {
        bench.advance(SECOND).await;
    }
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.waiting, stats.done), (2_499, 0, 1));
}

/// Whoever moves all entries of a queue moves the order of each key as well, however many there are.
pub async fn entries_of_a_key_move_in_their_order(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let other = bench.add_queue("other").await;
    let many: Vec<_> = (1..=1_100).map(|number| format!("m{number}")).collect();
    bench.publish_keyed(&["a1", "a2", "b1"]).await;
    bench.publish_keyed(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    bench.publish_keyed(&["a3", "b2", "b3"]).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.act_where(Action::Move(other.clone()), bench.all()).await, 1_106);
    assert_eq!((bench.stats().await.ready, bench.stats().await.waiting), (0, 0));
    let bench = bench.of(other);
    for expected in [["a1", "m1", "b1"], ["a2", "m2", "b2"], ["a3", "m3", "b3"]] {
        let claimed = bench.claim(9).await;
        let mut claimed_ids = ids(&claimed);
        claimed_ids.sort_by_key(|id| expected.iter().position(|expected| expected == id));
        assert_eq!(claimed_ids, expected);
        bench.ack_all(&claimed).await;
    }
    assert_eq!(bench.listed(State::Waiting).await, many[4..1_004], "`m4` is ready");
}

/// A failure holds up its own key until it is over, and no other.
pub async fn retries_and_deferrals_hold_their_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    for outcome in [Some(retry()), Some(defer(10 * SECOND)), Some(Outcome::Trap { reason: "oh".into() }), None] {
        let entries = bench.publish_keyed(&["a1", "a2", "b1", "b2"]).await;
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), ["a1", "b1"]);
        bench.settle(&claimed[1], ack()).await;
        match &outcome {
            Some(outcome) => {
                bench.settle(&claimed[0], outcome.clone()).await;
            }
            None => bench.advance(claimed[0].lease_for).await,
        }
        assert_eq!(bench.state(&entries[0]).await, Some(State::Scheduled), "{outcome:?}");
        let others = bench.claim(9).await;
        assert_eq!(ids(&others), ["b2"], "{outcome:?}");
        bench.advance(10 * SECOND).await;
        let again = bench.claim(9).await;
        assert_eq!(ids(&again), ["a1"], "{outcome:?}");
        bench.ack_all(&[&others[..], &again[..]].concat()).await;
        bench.ack_all(&bench.claim(9).await).await;
        assert_eq!(bench.state(&entries[1]).await, Some(State::Done));
    }
}

/// Neither a release nor a crash lets the next one of the key pass.
pub async fn a_release_and_a_crash_keep_the_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    bench.publish_keyed(&["a1", "a2"]).await;
    let first = bench.claim_one().await;
    assert_eq!(bench.settle(&first, Outcome::Released).await, Disposition::Release);
    let again = bench.claim(9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["a1"], 1));
    let bench = bench.reopened().await;
    assert_eq!(bench.listed(State::Waiting).await, ["a2"]);
    let again = bench.claim(9).await;
    assert_eq!((ids(&again), again[0].attempt), (vec!["a1"], 2));
    bench.settle(&again[0], ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["a2"]);
}

/// What comes back from the dead letters comes last.
pub async fn a_redriven_entry_joins_its_key_at_the_end(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let entries = bench.publish_keyed(&["a1", "a2", "a3"]).await;
    bench.settle(&bench.claim_one().await, reject()).await;
    let second = bench.claim_one().await;
    assert_eq!(second.entry, entries[1], "a dead letter goes out of the way");
    bench.act(Action::Redrive, Selection::Entries(vec![entries[0].clone()])).await;
    bench.publish_keyed(&["a4"]).await;
    assert_eq!(bench.listed(State::Waiting).await, ["a3", "a1", "a4"]);
    bench.settle(&second, ack()).await;
    for expected in ["a3", "a1", "a4"] {
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [expected]);
        bench.settle(&claimed[0], ack()).await;
    }
}

/// Until it is due, a delayed publish is in nobody's way.
pub async fn a_delayed_publish_joins_its_key_when_it_is_due(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let late = bench.publish_with(Publish { due: Due::After(10 * SECOND), ..bench.keyed("late", "a") }).await;
    bench.publish_keyed(&["a1", "a2"]).await;
    let first = bench.claim_one().await;
    assert_eq!(first.event.id, "a1");
    bench.advance(10 * SECOND).await;
    assert_eq!(bench.state(&late).await, Some(State::Waiting));
    bench.publish_keyed(&["a3"]).await;
    bench.settle(&first, ack()).await;
    for expected in ["a2", "late", "a3"] {
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [expected]);
        bench.settle(&claimed[0], ack()).await;
    }
}

/// Within a key, publish order counts and priority does not.
pub async fn priority_ranks_the_heads_of_keys_only(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    for (id, priority) in [("a1", 0), ("a2", 255), ("b1", 100), ("c1", 50)] {
        bench.publish_with(Publish { priority, ..bench.keyed(id, &id[..1]) }).await;
    }
    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["b1", "c1", "a1"]);
    bench.publish_with(Publish { priority: 200, ..bench.one("free") }).await;
    bench.settle(&claimed[2], ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["a2", "free"], "as a head it is ranked");
}

/// A key with much to do does not keep the others waiting.
pub async fn keys_take_turns(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    bench.publish_keyed(&["a1", "a2", "a3", "a4", "b1", "b2", "c1"]).await;
    let mut order = Vec::new();
    for _ in 0..7 {
        let delivery = bench.claim_one().await;
        bench.settle(&delivery, ack()).await;
        order.push(delivery.event.id.clone());
    }
    assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
}

/// A key that comes free is news for a claim that waits.
pub async fn a_waiting_claim_is_woken_by_a_free_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    for outcome in [ack(), reject()] {
        bench.publish_keyed(&["a1", "a2"]).await;
        let first = bench.claim_one().await;
        let settled = async {
            bench.settle(&first, outcome).await;
        };
        let woken = bench.claim_during(Claim::new(bench.name.clone(), 9), settled).await;
        assert_eq!(ids(&woken), ["a2"]);
        bench.ack_all(&woken).await;
    }
}

/// Whoever is withdrawn, the others of the key keep their order.
pub async fn a_key_goes_on_when_some_of_its_entries_are_cancelled(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    let entries = bench.publish_keyed(&["a1", "a2", "a3", "a4", "a5"]).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    let some = vec![entries[0].clone(), entries[2].clone()];
    assert_eq!(bench.act(Action::Cancel, Selection::Entries(some)).await.changed, 2, "scheduled and waiting");
    assert_eq!(bench.state(&entries[1]).await, Some(State::Ready), "the next one");
    assert_eq!(bench.act(Action::Cancel, Selection::Entries(vec![entries[1].clone()])).await.changed, 1);
    for expected in ["a4", "a5"] {
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), [expected]);
        bench.settle(&claimed[0], ack()).await;
    }
    bench.advance(HOUR).await;
    assert!(bench.claim(9).await.is_empty());
}

/// Whatever becomes of deliveries, no entry of a key is overtaken, and none is handled beside another.
pub async fn no_entry_of_a_key_is_ever_overtaken(rig: impl Rig) {
    let endless = RetryPolicy { max_attempts: None, ..three_attempts().retry };
    let Some(mut bench) = with_keys(rig, QueueOptions { retry: endless, lease: DAY, ..QueueOptions::default() }).await
    else {
        return;
    };
    let mut published = Vec::new();
    for n in 0..60 {
        published.push(format!("{}{n:02}", ["a", "b", "c", "d"][n * 7 % 4]));
    }
    for batch in published.chunks(13) {
        bench.publish_keyed(&batch.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let mut done: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut held: Vec<Delivery> = Vec::new();
    for step in 0..500_usize {
        held.extend(bench.claim(1 + step % 3).await);
        let mut keys: Vec<_> = held.iter().map(|delivery| delivery.key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), held.len(), "two of a key at once: {:?}", ids(&held));
        if !held.is_empty() {
            let delivery = held.remove(step * 5 % held.len());
            let id = delivery.event.id.clone();
            let outcome = match step * 11 % 7 {
                0 => retry(),
                1 => defer(SECOND),
                2 => Outcome::Released,
                _ => ack(),
            };
            if bench.settle(&delivery, outcome).await == Disposition::Complete {
                done.entry(id[..1].to_owned()).or_default().push(id);
            }
        }
        if step % 97 == 96 {
            held.clear();
            bench = bench.reopened().await;
        }
        bench.advance(5 * SECOND).await;
    }
    for key in ["a", "b", "c", "d"] {
        let expected: Vec<_> = published.iter().filter(|id| id.starts_with(key)).cloned().collect();
        assert_eq!(done.get(key), Some(&expected));
    }
}

/// A key that nobody uses any more leaves nothing behind.
pub async fn two_thousand_keys_leave_nothing_behind(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    let publishes = |n: usize| (0..n).map(|n| bench.keyed(&n.to_string(), &format!("customer-{}", n % 2_000)));
    bench.publish_all(publishes(2_500).collect()).await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.waiting), (2_000, 500));
    for expected in [2_000, 500] {
        let claimed = bench.claim(9_999).await;
        assert_eq!(claimed.len(), expected);
        bench.ack_all(&claimed).await;
    }
    assert_eq!(bench.keys(WhichKeys::Active).await, []);
    assert_eq!(bench.stats().await.done, 2_500);
    bench.advance(DAY).await;
    assert_eq!(bench.keys(WhichKeys::Active).await, []);
}
