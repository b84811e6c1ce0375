//! Rules of what operators do to all entries that match.

use gristmill_core::{Outcome, OutcomeKind, RetryPolicy, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, ids, queue_name, reject, retry, three_attempts, types};
use super::ordering::with_keys;
use crate::contract::{
    Act, Action, Due, Feature, Filter, Operation, PauseIf, Publish, QueueError, QueueOptions, Rate, ResumeIf,
    Selection, Settle,
};

fn one_attempt() -> QueueOptions {
    QueueOptions { retry: RetryPolicy { max_attempts: Some(1), ..RetryPolicy::default() }, ..QueueOptions::default() }
}

/// Four dead letters, a minute apart; the last one has just died.
async fn bury<R: Rig>(bench: &Bench<R>) {
    let deaths = [
        ("paid-1", "order.paid", Outcome::Trap { reason: "unreachable at lib.rs:7".into() }, "v1"),
        ("sent-1", "order.sent", Outcome::Reject { reason: "no such customer".into() }, "v1"),
        ("paid-2", "order.paid", Outcome::Timeout { reason: "after 5 s".into() }, "v2"),
        ("sent-2", "order.sent", Outcome::Trap { reason: "unreachable at main.rs:1".into() }, "v2"),
    ];
    for (id, ty, outcome, version) in deaths {
        bench.advance(MINUTE).await;
        bench.publish_with(bench.typed(id, ty)).await;
        let delivery = bench.claim_one().await;
        let version = Some(version.to_owned());
        bench.settle_with(Settle { version, ..Settle::new(delivery.lease, outcome) }).await;
    }
    assert_eq!(bench.stats().await.dead, 4);
}

/// Everything that is known of a dead letter may be asked for, alone or together.
pub async fn dead_letters_are_redriven_by_what_killed_them(rig: impl Rig) {
    let bench = Bench::with(rig, one_attempt()).await;
    let all = || bench.all();
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter { types: types(&["order.paid"]), ..all() }, &["paid-1", "paid-2"]),
        (Filter { types: types(&["*.sent", "nothing"]), ..all() }, &["sent-1", "sent-2"]),
        (Filter { outcomes: vec![OutcomeKind::Trap], ..all() }, &["paid-1", "sent-2"]),
        (Filter { outcomes: vec![OutcomeKind::Reject, OutcomeKind::Timeout], ..all() }, &["sent-1", "paid-2"]),
        (Filter { reason: Some("lib.rs".into()), ..all() }, &["paid-1"]),
        (Filter { version: Some("v2".into()), ..all() }, &["paid-2", "sent-2"]),
        (Filter { older_than: Some(2 * MINUTE), ..all() }, &["paid-1", "sent-1"]),
        (Filter { younger_than: Some(MINUTE), ..all() }, &["paid-2", "sent-2"]),
        (Filter { states: vec![State::Dead], limit: Some(3), ..all() }, &["paid-1", "sent-1", "paid-2"]),
        (Filter { outcomes: vec![OutcomeKind::Trap], version: Some("v2".into()), ..all() }, &["sent-2"]),
        (Filter { outcomes: vec![OutcomeKind::Trap], reason: Some("customer".into()), ..all() }, &[]),
        (all(), &["paid-1", "sent-1", "paid-2", "sent-2"]),
    ];
    for (filter, expected) in cases {
        bury(&bench).await;
        assert_eq!(bench.act_where(Action::Redrive, filter.clone()).await, expected.len() as u64, "{filter:?}");
        let claimed = bench.claim(9).await;
        assert_eq!(ids(&claimed), expected, "{filter:?}");
        assert_eq!(bench.stats().await.dead, 4 - expected.len() as u64);
        bench.ack_all(&claimed).await;
        bench.act_where(Action::Purge, all()).await;
    }
}

/// The version that is asked for is that of the last attempt, and no other: not of one before it, nor of one that is
/// named alike. A note of the queue's at the end is no attempt; an attempt that the queue ended has no version.
pub async fn dead_letters_are_chosen_by_the_version_that_failed_last(rig: impl Rig) {
    let retry_twice = RetryPolicy { max_attempts: Some(2), ..three_attempts().retry };
    let bench =
        Bench::with(rig, QueueOptions { retry: retry_twice, max_age: Some(HOUR), ..QueueOptions::default() }).await;
    bench.publish(&["v2", "v1", "expired", "aged", "forgiven"]).await;
    let fail = async |delivery: &crate::contract::Delivery, version: &str, forgive| {
        let version = Some(version.to_owned());
        bench.settle_with(Settle { version, forgive, ..Settle::new(delivery.lease, retry()) }).await;
    };
    for (delivery, forgive) in bench.claim(9).await.iter().zip([None, None, None, None, Some(10 * SECOND)]) {
        fail(delivery, if delivery.event.id == "v1" { "sha256:2" } else { "sha256:1" }, forgive).await;
    }
    bench.advance(10 * SECOND).await;
    for delivery in bench.claim(9).await {
        match delivery.event.id.as_str() {
            "v2" => fail(&delivery, "sha256:2", None).await,
            "v1" => fail(&delivery, "sha256:1", None).await,
            // Its next attempt would come too late.
            "aged" => fail(&delivery, "sha256:1", Some(2 * HOUR)).await,
            "forgiven" => {
                bench
                    .settle_with(Settle { version: Some("sha256:1".into()), ..Settle::new(delivery.lease, reject()) })
                    .await;
            }
            _ => {}
        }
    }
    bench.advance(MINUTE).await;
    assert_eq!(bench.stats().await.dead, 5);
    let of = |version: &str| Filter { version: Some(version.to_owned()), ..bench.all() };
    for nobody in ["sha256:", "sha256:11", "sha256:3", ""] {
        assert_eq!(bench.act_where(Action::Redrive, of(nobody)).await, 0, "{nobody:?}");
    }
    assert_eq!(bench.act_where(Action::Redrive, of("sha256:2")).await, 1);
    assert_eq!(bench.listed(State::Ready).await, ["v2"]);
    assert_eq!(bench.act_where(Action::Redrive, of("sha256:1")).await, 3);
    assert_eq!(bench.listed(State::Dead).await, ["expired"]);
}

/// A filter without states means all that the action applies to; with states, those.
pub async fn a_filter_chooses_by_state(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["retried", "done", "leased"]).await;
    let claimed = bench.claim(9).await;
    bench.settle(&claimed[0], retry()).await;
    bench.settle(&claimed[1], ack()).await;
    bench.publish(&["ready"]).await;
    let states = vec![State::Scheduled];
    assert_eq!(bench.act_where(Action::Cancel, Filter { states, ..bench.all() }).await, 1);
    assert_eq!(bench.listed(State::Cancelled).await, ["retried"]);
    assert_eq!(bench.act_where(Action::Cancel, bench.all()).await, 1, "what is ready");
    let states = vec![State::Done, State::Cancelled];
    assert_eq!(bench.act_where(Action::Purge, Filter { states, ..bench.all() }).await, 3);
    assert_eq!(bench.act_where(Action::Purge, bench.all()).await, 0, "what is leased stays");
    assert_eq!(bench.stats().await.leased, 1);
}

/// Entries of one key are chosen among those of others, wherever they are.
pub async fn a_filter_chooses_by_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    bench.publish_keyed(&["a1", "a2", "a3", "b1", "b2"]).await;
    bench.settle(&bench.claim_one().await, retry()).await;
    let of_a = Filter { key: Some("a".into()), ..bench.all() };
    assert_eq!(bench.act_where(Action::Cancel, of_a.clone()).await, 3, "the head and those behind it");
    assert_eq!(bench.act_where(Action::Cancel, of_a).await, 0);
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["b1"]);
    assert_eq!(bench.listed(State::Waiting).await, ["b2"]);
}

/// What is in a queue when an action on all of it begins is acted upon, also what moves up because of it.
pub async fn an_action_on_everything_leaves_nothing(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    let other = bench.add_queue("other").await;
    for action in [Action::Cancel, Action::Move(other.clone()), Action::Purge] {
        bench.act_where(Action::Purge, bench.all()).await;
        bench.publish_keyed(&["a1", "a2", "a3", "b1", "b2", "c1"]).await;
        bench.publish_with(Publish { due: Due::After(HOUR), ..bench.keyed("late", "a") }).await;
        bench.settle(&bench.claim_one().await, retry()).await;
        assert_eq!(bench.act_where(action.clone(), bench.all()).await, 7, "{action:?}");
        let stats = bench.stats().await;
        assert_eq!((stats.scheduled, stats.waiting, stats.ready, stats.bytes), (0, 0, 0, 0), "{action:?}");
        bench.advance(HOUR).await;
        assert!(bench.claim(9).await.is_empty(), "{action:?}");
    }
    let there = bench.stats_of(&other).await.unwrap();
    assert_eq!(there.ready + there.waiting, 7);
}

/// A dead letter that dies again while the others are redriven is not redriven for ever.
pub async fn a_redrive_of_everything_ends(rig: impl Rig) {
    let bench = Bench::with(rig, one_attempt()).await;
    let many = (0..2_500).map(|n| bench.one(&n.to_string())).collect();
    bench.publish_all(many).await;
    let reject_all = async || {
        let claimed = bench.claim(9_999).await;
        let batch = claimed.iter().map(|delivery| Settle::new(delivery.lease, reject())).collect();
        bench.rig.queue().settle(batch, crate::contract::Confirm::Committed).await.unwrap();
        claimed.len()
    };
    assert_eq!(reject_all().await, 2_500);
    let redrive = bench.act_where(Action::Redrive, bench.all());
    let dies_again = async {
        let mut died = 0;
        while died < 2_500 {
            died += reject_all().await;
        }
        died
    };
    assert_eq!(tokio::join!(redrive, dies_again), (2_500, 2_500));
    let stats = bench.stats().await;
    assert_eq!((stats.dead, stats.ready, stats.totals.redriven), (2_500, 0, 2_500));
}

/// What is large is done in steps, and done as a whole.
pub async fn an_action_on_many_entries_is_complete(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("other").await;
    let many = (0..3_000_u16).map(|n| {
        let due = if n % 3 == 0 { Due::After(HOUR) } else { Due::Now };
        Publish { due, priority: (n % 2) as u8, ..bench.one(&n.to_string()) }
    });
    bench.publish_all(many.collect()).await;
    assert_eq!(bench.act_where(Action::Move(other.clone()), bench.all()).await, 3_000);
    let stats = bench.stats_of(&other).await.unwrap();
    assert_eq!((stats.ready, stats.scheduled, stats.totals.published), (2_000, 1_000, 3_000));
    let limited = Filter { limit: Some(1_500), ..Filter::all(other.clone()) };
    assert_eq!(bench.act_where(Action::Cancel, limited).await, 1_500);
    assert_eq!(bench.act_where(Action::Purge, Filter::all(other.clone())).await, 3_000);
    let stats = bench.stats_of(&other).await.unwrap();
    assert_eq!((stats.ready, stats.scheduled, stats.cancelled, stats.bytes), (0, 0, 0, 0));
}

/// A redrive in bulk need not be another flood.
pub async fn an_action_keeps_to_its_rate(rig: impl Rig) {
    let bench = Bench::with(rig, one_attempt()).await;
    for id in ["1", "2", "3", "4", "5"] {
        bench.kill(id, "bad").await;
    }
    let rate = Some(Rate { per_second: 1.0, burst: 2 });
    let act = Act { action: Action::Redrive, on: Selection::Where(bench.all()), rate };
    if !bench.has(Feature::Rates) {
        bench.is_refused(Feature::Rates, bench.rig.queue().operate(Operation::Act(act)).await);
        return;
    }
    let redrive = bench.operate(Operation::Act(act));
    let passes = async {
        for ready in [2, 3, 4, 5] {
            bench.rig.tick().await;
            bench.rig.tick().await;
            assert_eq!(bench.stats().await.ready, ready);
            bench.advance(SECOND + SECOND / 100).await;
        }
        bench.rig.tick().await;
    };
    let (operated, ()) = tokio::join!(redrive, passes);
    assert_eq!(operated.changed, 5);
}

/// Typed errors, not silence.
pub async fn a_filter_that_makes_no_sense_is_refused(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let queue = bench.rig.queue();
    let act = |action, filter| Operation::Act(Act { action, on: Selection::Where(filter), rate: None });
    let wrong = Filter { states: vec![State::Leased], ..bench.all() };
    for action in [Action::Cancel, Action::Redrive, Action::Purge] {
        let answer = queue.operate(act(action, wrong.clone())).await;
        assert!(matches!(answer, Err(QueueError::InvalidRequest(_))), "{answer:?}");
    }
    let nowhere = queue_name("nowhere");
    let unknown = Err(QueueError::UnknownQueue(nowhere.clone()));
    assert_eq!(queue.operate(act(Action::Purge, Filter::all(nowhere.clone()))).await, unknown);
    for operation in [
        Operation::Pause { queue: nowhere.clone(), reason: String::new(), only_if: PauseIf::NotPaused },
        Operation::Resume { queue: nowhere.clone(), only_if: ResumeIf::Any },
        Operation::Delete { queue: nowhere.clone() },
    ] {
        assert_eq!(queue.operate(operation).await, unknown);
    }
    let still = Act {
        action: Action::Purge,
        on: Selection::Where(bench.all()),
        rate: Some(Rate { per_second: 0.0, burst: 1 }),
    };
    assert!(queue.operate(Operation::Act(still)).await.is_err(), "it would never end");
}
