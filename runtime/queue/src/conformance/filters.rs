//! Rules of claims that want some types of events only.

use gristmill_core::{Disposition, Outcome, State};

use super::Rig;
use super::bench::{Bench, SECOND, ack, ids, reject, retry, three_attempts, types};
use super::ordering::with_keys;
use super::queues::{pause, resume};
use crate::contract::{Claim, Feature, Holder, Publish, QueueOptions, Then};

/// How many entries one call examines at most.
const EXAMINED: usize = 4_096;

/// A bench whose engine has filtered claims; `None`: it has none, and says so.
async fn filtering<R: Rig>(rig: R) -> Option<Bench<R>> {
    let bench = Bench::with(rig, three_attempts()).await;
    if !bench.has(Feature::FilteredClaims) {
        bench.is_refused(Feature::FilteredClaims, bench.rig.queue().claim(only(&bench, &["a"], 1)).await);
        return None;
    }
    Some(bench)
}

fn only<R: Rig>(bench: &Bench<R>, patterns: &[&str], max: usize) -> Claim {
    Claim { types: types(patterns), ..Claim::new(bench.name.clone(), max) }
}

async fn publish_typed<R: Rig>(bench: &Bench<R>, events: &[(&str, &str)]) {
    bench.publish_all(events.iter().map(|(id, ty)| bench.typed(id, ty)).collect()).await;
}

/// Those that match, in their order; the others keep theirs.
pub async fn a_filtered_claim_takes_what_matches(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    publish_typed(&bench, &[("1", "a.x"), ("2", "b.x"), ("3", "a.y"), ("4", "b.y"), ("5", "c")]).await;
    bench.publish_with(Publish { priority: 9, ..bench.typed("6", "a.z") }).await;
    let claimed = bench.claim_with(only(&bench, &["a.*", "c"], 3)).await;
    assert_eq!(ids(&claimed), ["6", "1", "3"]);
    assert_eq!(ids(&bench.claim_with(only(&bench, &["a.*", "c"], 9)).await), ["5"]);
    assert!(bench.claim_with(only(&bench, &["a.*", "c"], 9)).await.is_empty());
    assert!(bench.claim_with(only(&bench, &["nothing"], 9)).await.is_empty());
    assert_eq!(bench.stats().await.leased, 4);
    assert_eq!(bench.listed(State::Ready).await, ["2", "4"]);
    assert_eq!(ids(&bench.claim(9).await), ["2", "4"]);
    bench.ack_all(&claimed).await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.done), (0, 3, 3));
}

/// However deep a match lies, repeated calls come to it; and none of them takes long.
pub async fn a_filtered_claim_gets_past_any_backlog(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let others = (0..2 * EXAMINED + 10).map(|n| bench.typed(&n.to_string(), "other"));
    bench.publish_all(others.collect()).await;
    publish_typed(&bench, &[("wanted", "wanted")]).await;
    for _ in 0..2 {
        assert!(bench.claim_with(only(&bench, &["wanted"], 9)).await.is_empty());
    }
    let claimed = bench.claim_with(only(&bench, &["wanted"], 9)).await;
    assert_eq!(ids(&claimed), ["wanted"]);
    bench.settle(&claimed[0], Outcome::Released).await;
    publish_typed(&bench, &[("later", "wanted")]).await;
    assert_eq!(ids(&bench.claim_with(only(&bench, &["wanted"], 9)).await), ["wanted", "later"], "at once now");
    assert_eq!(ids(&bench.claim(2).await), ["0", "1"]);
}

/// A claim that waits goes on looking by itself: it does not sleep in front of what it wants.
pub async fn a_filtered_claim_that_waits_gets_past_any_backlog(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let others = (0..2 * EXAMINED + 10).map(|n| bench.typed(&n.to_string(), "other"));
    bench.publish_all(others.collect()).await;
    publish_typed(&bench, &[("wanted", "wanted")]).await;
    let mut claim = Box::pin(bench.rig.queue().claim(only(&bench, &["wanted"], 9).wait(60 * SECOND)));
    for _ in 0..20 {
        tokio::select! {
            biased;
            claimed = &mut claim => {
                assert_eq!(ids(&claimed.unwrap()), ["wanted"]);
                return;
            }
            () = bench.rig.tick() => {}
        }
    }
    panic!("it sleeps");
}

/// Nor does it look in vain, over and over, while it may not have anything.
pub async fn a_filtered_claim_that_waits_rests_while_the_queue_is_paused(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let others = (0..2 * EXAMINED + 10).map(|n| bench.typed(&n.to_string(), "other"));
    bench.publish_all(others.collect()).await;
    let claims = bench.rig.queue().claim(only(&bench, &["wanted"], 9).wait(60 * SECOND));
    let pauses = async {
        bench.operate(pause(&bench, "")).await;
        publish_typed(&bench, &[("wanted", "wanted")]).await;
        for _ in 0..20 {
            bench.rig.tick().await;
        }
        assert_eq!(bench.stats().await.leased, 0);
        bench.operate(resume(&bench)).await;
    };
    let (claimed, ()) = tokio::join!(claims, pauses);
    assert_eq!(ids(&claimed.unwrap()), ["wanted"]);
}

/// Woken by what it wants, and by nothing else; those who want the rest are served meanwhile.
pub async fn a_filtered_claim_that_waits_is_woken_by_what_matches(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let published = async {
        publish_typed(&bench, &[("1", "other")]).await;
        bench.rig.tick().await;
        assert_eq!(ids(&bench.claim(9).await), ["1"]);
        publish_typed(&bench, &[("2", "other"), ("3", "wanted"), ("4", "other")]).await;
    };
    let woken = bench.claim_during(only(&bench, &["wanted"], 9), published).await;
    assert_eq!(ids(&woken), ["3"]);
    bench.settle(&woken[0], retry()).await;
    let due = bench.advance(10 * SECOND);
    let woken = bench.claim_during(only(&bench, &["wanted"], 9), due).await;
    assert_eq!((ids(&woken), woken[0].attempt), (vec!["3"], 2));
    assert_eq!(ids(&bench.claim(9).await), ["2", "4"]);
}

/// Two who wait for different things do not stand in each other's way.
pub async fn claims_that_wait_for_different_types_are_all_served(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let wait = |patterns: &[&str]| bench.rig.queue().claim(only(&bench, patterns, 9).wait(60 * SECOND));
    let publish = async {
        bench.rig.tick().await;
        publish_typed(&bench, &[("1", "b"), ("2", "a")]).await;
    };
    let (first, second, ()) = tokio::join!(wait(&["a"]), wait(&["b"]), publish);
    assert_eq!((ids(&first.unwrap()), ids(&second.unwrap())), (vec!["2"], vec!["1"]));
}

/// Whatever becomes of such a delivery, its entry is where it would be after any other claim.
pub async fn what_a_filtered_claim_took_is_settled_like_anything_else(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    let names = ["skipped", "released", "retried", "dead", "lost", "given"];
    let entries =
        bench.publish_all(names.map(|id| bench.typed(id, if id == "skipped" { "b" } else { "a" })).to_vec()).await;
    let claimed = bench.claim_with(only(&bench, &["a"], 9)).await;
    assert_eq!(ids(&claimed), names[1..]);
    bench.settle(&claimed[0], Outcome::Released).await;
    bench.settle(&claimed[1], retry()).await;
    bench.settle(&claimed[2], reject()).await;
    assert_eq!(bench.state(&entries[4]).await, Some(State::Leased));
    assert_eq!(bench.listed(State::Leased).await, ["lost", "given"]);
    bench.settle(&claimed[4], Outcome::Released).await;
    assert_eq!(bench.listed(State::Ready).await, ["released", "given", "skipped"]);
    let bench = bench.reopened().await;
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.leased, stats.scheduled, stats.dead), (4, 0, 1, 1));
    let again = bench.claim_with(only(&bench, &["a"], 9)).await;
    let attempts: Vec<_> = again.iter().map(|delivery| (delivery.event.id.as_str(), delivery.attempt)).collect();
    assert_eq!(attempts, [("released", 1), ("given", 1), ("lost", 2)]);
    bench.ack_all(&again).await;
    assert_eq!(ids(&bench.claim(9).await), ["skipped"]);
    bench.advance(10 * SECOND).await;
    assert_eq!(bench.claim_with(only(&bench, &["a"], 9)).await[0].attempt, 2);
}

/// After a crash filtered claims get one suspect at a time as well.
pub async fn a_filtered_claim_takes_one_lost_entry_at_a_time(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    publish_typed(&bench, &[("1", "a"), ("2", "a"), ("3", "b")]).await;
    bench.claim(9).await;
    let bench = bench.reopened().await;
    let first = bench.claim_with(only(&bench, &["a", "b"], 9)).await;
    assert_eq!(ids(&first), ["1"]);
    assert!(bench.claim_with(only(&bench, &["b"], 9)).await.is_empty());
    assert!(bench.claim(9).await.is_empty());
    bench.settle(&first[0], ack()).await;
    assert_eq!(ids(&bench.claim_with(only(&bench, &["b"], 9)).await), ["3"]);
}

/// Whoever took a suspect out of the middle of its line has it to itself over a reopen as well, and it stays one.
pub async fn a_lost_entry_that_a_filtered_claim_took_stays_the_only_one(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    if !bench.has(Feature::StoredLeases) {
        return;
    }
    publish_typed(&bench, &[("1", "a"), ("2", "b"), ("3", "a")]).await;
    bench.claim(9).await;
    let bench = bench.reopened().await;
    let held = bench.claim_with(Claim { holder: Holder::Outside, ..only(&bench, &["b"], 9) }).await;
    assert_eq!(ids(&held), ["2"]);
    let bench = bench.reopened().await;
    assert!(bench.claim(9).await.is_empty());
    assert!(bench.claim_with(only(&bench, &["a"], 9)).await.is_empty());
    bench.settle(&held[0], Outcome::Released).await;
    for expected in ["1", "3", "2"] {
        let one = bench.claim(9).await;
        assert_eq!(ids(&one), [expected]);
        bench.settle(&one[0], ack()).await;
    }
}

/// A filter goes with every other way of claiming.
pub async fn a_filtered_claim_may_be_held_outside_or_ack_at_once(rig: impl Rig) {
    let Some(bench) = filtering(rig).await else { return };
    publish_typed(&bench, &[("1", "b"), ("2", "a"), ("3", "a"), ("4", "a")]).await;
    let acked = bench.claim_with(Claim { then: Then::Ack, ..only(&bench, &["a"], 1) }).await;
    assert_eq!(ids(&acked), ["2"]);
    assert_eq!(bench.state(&acked[0].entry).await, Some(State::Done));
    if !bench.has(Feature::StoredLeases) {
        return;
    }
    let held = bench.claim_with(Claim { holder: Holder::Outside, ..only(&bench, &["a"], 1) }).await;
    assert_eq!(ids(&held), ["3"]);
    let bench = bench.reopened().await;
    assert_eq!(ids(&bench.claim(9).await), ["1", "4"]);
    assert_eq!(bench.settle(&held[0], ack()).await, Disposition::Complete);
}

/// A filter looks at the heads of keys; what waits behind one that does not match goes on waiting.
pub async fn a_filtered_claim_does_not_break_the_order_of_a_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, QueueOptions::default()).await else { return };
    if !bench.has(Feature::FilteredClaims) {
        return;
    }
    let keyed = |id, ty| Publish { key: Some("k".to_owned()), ..bench.typed(id, ty) };
    bench.publish_all(vec![keyed("1", "b"), keyed("2", "a")]).await;
    assert!(bench.claim_with(only(&bench, &["a"], 9)).await.is_empty());
    let first = bench.claim_with(only(&bench, &["b"], 9)).await;
    let acked = async {
        bench.settle(&first[0], ack()).await;
    };
    assert_eq!(ids(&bench.claim_during(only(&bench, &["a"], 9), acked).await), ["2"]);
}
