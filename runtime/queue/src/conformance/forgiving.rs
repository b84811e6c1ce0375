//! Rules of failures that do not count.

use std::time::Duration;

use gristmill_core::{Disposition, Outcome, OutcomeKind, Postmortem, RetryPolicy, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, defer, ids, reject, retry, three_attempts};
use super::ordering::with_keys;
use crate::contract::{Action, Confirm, Delivery, Entry, LeaseToken, QueueError, QueueOptions, Settle, SettleReply};

fn trap() -> Outcome {
    Outcome::Trap { reason: "unreachable".into() }
}

/// A failure of a version on trial, forgiven.
fn forgiven(lease: LeaseToken, outcome: Outcome, after: Duration) -> Settle {
    Settle { forgive: Some(after), version: Some("trial".into()), ..Settle::new(lease, outcome) }
}

impl<R: Rig> Bench<R> {
    async fn forgive(&self, delivery: &Delivery, outcome: Outcome, after: Duration) -> Disposition {
        match self.settle_with(forgiven(delivery.lease, outcome, after)).await {
            SettleReply::Settled(disposition) => disposition,
            other => panic!("not settled: {other:?}"),
        }
    }
}

/// Number, outcome, and whether it was forgiven.
fn attempts(entry: &Entry) -> Vec<(u32, OutcomeKind, bool)> {
    entry.history.attempts().iter().map(|attempt| (attempt.attempt, attempt.outcome, attempt.forgiven)).collect()
}

/// A failure that is forgiven spends no attempt: the entry goes to the front, and the next delivery has the same number
/// and says so. The history tells, whatever becomes of the entry, also after a reopen.
pub async fn a_forgiven_failure_spends_no_attempt_and_is_remembered(rig: impl Rig) {
    use OutcomeKind::{Ack, Reject, Retry, Trap};
    let bench = Bench::with(rig, three_attempts()).await;
    let [dead, done] = <[_; 2]>::try_from(bench.publish(&["dead", "done"]).await).unwrap();
    let first = bench.claim_one().await;
    assert_eq!((first.attempt, first.forgiven), (1, 0));
    bench.advance(SECOND).await;
    let postmortem = Some(Box::new(Postmortem { host_calls: 7, ..Postmortem::default() }));
    let settle = Settle { postmortem, ..forgiven(first.lease, trap(), Duration::ZERO) };
    assert_eq!(bench.settle_with(settle).await, SettleReply::Settled(Disposition::Release));
    let bench = bench.reopened().await;
    let entry = bench.entry(&dead).await;
    assert_eq!((entry.state, entry.attempts, &entry.postmortem), (State::Ready, 0, &None));
    let attempt = entry.last_attempt().unwrap();
    assert_eq!((attempt.attempt, attempt.outcome, attempt.forgiven), (1, Trap, true));
    assert_eq!((attempt.reason.as_deref(), attempt.version.as_deref()), (Some("unreachable"), Some("trial")));
    assert_eq!(attempt.duration, SECOND);

    let claimed = bench.claim(9).await;
    assert_eq!(ids(&claimed), ["dead", "done"], "to the front");
    assert_eq!((claimed[0].attempt, claimed[0].forgiven), (1, 1));
    assert_eq!((claimed[1].attempt, claimed[1].forgiven), (1, 0));
    bench.settle(&claimed[0], retry()).await;
    assert_eq!(bench.forgive(&claimed[1], reject(), Duration::ZERO).await, Disposition::Release);
    bench.settle(&bench.claim_one().await, ack()).await;
    for attempt in [2, 3] {
        bench.advance(MINUTE).await;
        let delivery = bench.claim_one().await;
        assert_eq!((delivery.attempt, delivery.forgiven), (attempt, 1));
        bench.settle(&delivery, retry()).await;
    }
    let bench = bench.reopened().await;
    let entry = bench.entry(&dead).await;
    assert_eq!((entry.state, entry.attempts), (State::Dead, 3));
    assert_eq!(attempts(&entry), [(1, Trap, true), (1, Retry, false), (2, Retry, false), (3, Retry, false)]);
    assert_eq!(bench.list(State::Dead).await, [entry]);
    let entry = bench.entry(&done).await;
    assert_eq!((entry.state, entry.attempts), (State::Done, 1));
    assert_eq!(attempts(&entry), [(1, Reject, true), (1, Ack, false)]);
    assert_eq!(bench.list(State::Done).await, [entry]);
    let totals = bench.stats().await.totals;
    assert_eq!((totals.retried, totals.deferred, totals.acked, totals.dead_lettered), (2, 0, 1, 1));
}

/// Whatever the outcome is, the entry comes back, also from its last attempt; what is emitted with it never appears.
pub async fn every_failure_can_be_forgiven(rig: impl Rig) {
    let one_attempt = RetryPolicy { max_attempts: Some(1), ..RetryPolicy::default() };
    let bench = Bench::with(rig, QueueOptions { retry: one_attempt, ..QueueOptions::default() }).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let reason = || String::from("because");
    let outcomes = [
        retry(),
        Outcome::Retry { reason: reason(), after: Some(HOUR) },
        defer(HOUR),
        reject(),
        trap(),
        Outcome::Timeout { reason: reason() },
        Outcome::OutOfMemory { reason: reason() },
        Outcome::HostError { reason: reason() },
        Outcome::Loop { reason: reason() },
        Outcome::InvalidOutput { reason: reason() },
        Outcome::OverLimit { reason: reason() },
        Outcome::Killed { reason: reason() },
    ];
    for (n, outcome) in (0u32..).zip(&outcomes) {
        let delivery = bench.claim_one().await;
        assert_eq!((delivery.attempt, delivery.forgiven), (1, n), "{outcome:?}");
        let emits = vec![bench.one("emitted")];
        let settle = Settle { emits, ..forgiven(delivery.lease, outcome.clone(), Duration::ZERO) };
        assert_eq!(bench.settle_with(settle).await, SettleReply::Settled(Disposition::Release), "{outcome:?}");
    }
    let kinds: Vec<_> = attempts(&bench.entry(&entry).await);
    assert_eq!(kinds, outcomes.iter().map(|outcome| (1, outcome.kind(), true)).collect::<Vec<_>>());
    assert_eq!(bench.stats().await.ready, 1);
    assert_eq!(bench.settle(&bench.claim_one().await, trap()).await, Disposition::DeadLetter);
}

/// A forgiven failure may come back later, when the time is over; maximum age ends that, and nothing else.
pub async fn a_forgiven_failure_may_come_back_later(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_age: Some(HOUR), ..three_attempts() }).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    for _ in 0..4 {
        let delivery = bench.claim_one().await;
        assert_eq!(delivery.attempt, 1);
        assert_eq!(bench.forgive(&delivery, trap(), 10 * MINUTE).await, Disposition::Defer(10 * MINUTE));
        let scheduled = bench.entry(&entry).await;
        assert_eq!((scheduled.state, scheduled.at), (State::Scheduled, bench.now().after(10 * MINUTE)));
        bench.advance(10 * MINUTE - SECOND).await;
        assert!(bench.claim(1).await.is_empty());
        bench.advance(SECOND).await;
    }
    assert_eq!(bench.stats().await.totals.deferred, 4);
    bench.advance(HOUR).await;
    let delivery = bench.claim_one().await;
    assert_eq!(delivery.forgiven, 4);
    let release = bench.forgive(&delivery, trap(), Duration::ZERO).await;
    assert_eq!(release, Disposition::Release, "at once is as if it had not been");
    let delivery = bench.claim_one().await;
    assert_eq!(bench.forgive(&delivery, trap(), SECOND).await, Disposition::DeadLetter);
    let dead = bench.entry(&entry).await;
    assert_eq!((dead.state, dead.attempts), (State::Dead, 0));
    assert_eq!(dead.history.attempts().iter().filter(|attempt| attempt.forgiven).count(), 6);
    assert_eq!(dead.last_attempt().map(|last| (last.outcome, last.forgiven)), Some((OutcomeKind::MaxAge, false)));
}

/// Forgiven, an entry keeps its ordering key: nobody overtakes it, whether it comes back at once or later.
pub async fn a_forgiven_failure_keeps_its_ordering_key(rig: impl Rig) {
    let Some(bench) = with_keys(rig, three_attempts()).await else { return };
    bench.publish_keyed(&["a1", "a2"]).await;
    bench.forgive(&bench.claim_one().await, trap(), Duration::ZERO).await;
    let again = bench.claim(9).await;
    assert_eq!(ids(&again), ["a1"]);
    bench.forgive(&again[0], trap(), MINUTE).await;
    let bench = bench.reopened().await;
    assert!(bench.claim(9).await.is_empty());
    bench.advance(MINUTE).await;
    let again = bench.claim(9).await;
    assert_eq!((ids(&again), again[0].forgiven), (vec!["a1"], 2));
    bench.settle(&again[0], ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["a2"]);
}

/// A redrive counts the forgiven anew, like attempts; a move takes them along. The history has them all, as far as it
/// goes.
pub async fn what_was_forgiven_is_counted_until_a_redrive(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let other = bench.add_queue("other").await;
    let entry = bench.publish(&["1"]).await.remove(0);
    for n in 0..25 {
        let delivery = bench.claim_one().await;
        assert_eq!((delivery.attempt, delivery.forgiven), (1, n));
        bench.forgive(&delivery, trap(), Duration::ZERO).await;
    }
    let bench = bench.reopened().await;
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.attempt, delivery.forgiven), (1, 25));
    bench.settle(&delivery, reject()).await;
    let dead = bench.entry(&entry).await;
    assert_eq!((dead.history.attempts().len(), dead.history.omitted()), (20, 6));
    assert!(attempts(&dead)[..19].iter().all(|attempt| *attempt == (1, OutcomeKind::Trap, true)));
    bench.act_on(Action::Redrive, &entry).await;
    let delivery = bench.claim_one().await;
    assert_eq!((delivery.attempt, delivery.forgiven), (1, 0), "counted anew");
    bench.forgive(&delivery, trap(), Duration::ZERO).await;
    let entry = bench.entry(&entry).await;
    assert_eq!((entry.history.attempts().len(), entry.history.omitted()), (20, 7));
    assert_eq!(attempts(&entry)[18..], [(1, OutcomeKind::Reject, false), (1, OutcomeKind::Trap, true)]);
    bench.act_on(Action::Move(other.clone()), &entry.id).await;
    let moved = bench.claim_from(&other, 1).await;
    assert_eq!((moved[0].attempt, moved[0].forgiven), (1, 1), "it moves along");
}

/// An entry that was lost in a crash stays alone when it is given back, forgiven or not.
pub async fn a_forgiven_entry_that_was_lost_stays_alone(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    bench.publish(&["1", "2"]).await;
    assert_eq!(bench.claim(9).await.len(), 2);
    let bench = bench.reopened().await;
    let alone = bench.claim(9).await;
    assert_eq!((alone.len(), alone[0].attempt), (1, 2));
    bench.forgive(&alone[0], trap(), Duration::ZERO).await;
    for _ in 0..2 {
        let alone = bench.claim(9).await;
        assert_eq!((alone.len(), alone[0].attempt), (1, 2), "one at a time");
        bench.settle(&alone[0], ack()).await;
    }
    assert_eq!(bench.stats().await.done, 2);
}

/// A release is no failure: it leaves no trace, and neither it nor an ack can be forgiven.
pub async fn only_failures_are_forgiven(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_one().await;
    let wrong = |outcome| forgiven(delivery.lease, outcome, Duration::ZERO);
    for outcome in [ack(), Outcome::Released] {
        let refused = bench.rig.queue().settle(vec![wrong(outcome)], Confirm::Committed).await;
        assert!(matches!(refused, Err(QueueError::InvalidRequest(_))), "{refused:?}");
    }
    assert_eq!(bench.state(&entry).await, Some(State::Leased), "nothing was changed");
    let version = Some("v1".to_owned());
    bench.settle_with(Settle { version, ..Settle::new(delivery.lease, Outcome::Released) }).await;
    assert_eq!(attempts(&bench.entry(&entry).await), []);
    let again = bench.claim_one().await;
    assert_eq!((again.attempt, again.forgiven), (1, 0));
    assert_eq!(bench.settle_with(wrong(trap())).await, SettleReply::StaleLease, "a token is spent once");
}
