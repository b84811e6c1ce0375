//! Rules of how long an entry is good for.

use std::time::Duration;

use gristmill_core::{Disposition, EntryId, Outcome, OutcomeKind, RetryPolicy, State};

use super::Rig;
use super::bench::{Bench, DAY, HOUR, MINUTE, SECOND, ack, defer, ids, retry, three_attempts};
use super::ordering::with_keys;
use crate::contract::{ActReply, Action, Due, Publish, QueueOptions};

fn good_for(time_to_live: Duration) -> QueueOptions {
    QueueOptions { time_to_live: Some(time_to_live), ..QueueOptions::default() }
}

async fn died_of<R: Rig>(bench: &Bench<R>, entry: &EntryId) -> Option<OutcomeKind> {
    let entry = bench.entry(entry).await;
    if entry.state == State::Dead { entry.last_attempt().map(|last| last.outcome) } else { None }
}

/// Nobody wants yesterday's news; it is kept all the same, and says why it is dead.
pub async fn what_nobody_claims_in_its_time_is_dead(rig: impl Rig) {
    let bench = Bench::with(rig, good_for(MINUTE)).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let own = Publish { time_to_live: Some(HOUR), ..bench.one("2") };
    let longer = bench.publish_with(own).await;
    bench.advance(59 * SECOND).await;
    assert_eq!(bench.state(&entry).await, Some(State::Ready));
    let bench = bench.reopened().await;
    bench.advance(SECOND).await;
    assert_eq!(died_of(&bench, &entry).await, Some(OutcomeKind::TimeToLive));
    assert_eq!(bench.entry(&entry).await.attempts, 0, "nobody tried");
    assert_eq!(bench.state(&longer).await, Some(State::Ready), "the publisher knows better");
    let stats = bench.stats().await;
    assert_eq!((stats.ready, stats.dead, stats.totals.dead_lettered), (1, 1, 1));
    bench.advance(HOUR).await;
    assert_eq!(died_of(&bench, &longer).await, Some(OutcomeKind::TimeToLive));
    assert!(bench.claim(9).await.is_empty());
}

/// Neither a delay nor a busy key makes an entry live longer.
pub async fn time_to_live_passes_for_those_who_wait(rig: impl Rig) {
    let Some(bench) = with_keys(rig, good_for(MINUTE)).await else { return };
    let keyed = bench.publish_keyed(&["a1", "a2", "a3"]).await;
    let late = bench.publish_with(Publish { due: Due::After(HOUR), ..bench.one("late") }).await;
    let running = bench.claim_one().await;
    bench.advance(20 * SECOND).await;
    bench.extend(running.lease, HOUR).await;
    bench.publish_with(Publish { time_to_live: Some(DAY), ..bench.keyed("a4", "a") }).await;
    bench.advance(40 * SECOND).await;
    for entry in [&keyed[1], &keyed[2], &late] {
        assert_eq!(died_of(&bench, entry).await, Some(OutcomeKind::TimeToLive));
    }
    assert_eq!(bench.state(&keyed[0]).await, Some(State::Leased));
    let stats = bench.stats().await;
    assert_eq!((stats.waiting, stats.scheduled, stats.dead), (1, 0, 3));
    bench.settle(&running, ack()).await;
    assert_eq!(ids(&bench.claim(9).await), ["a4"], "the key goes on");
}

/// An entry that was claimed has been in time, whatever comes of it.
pub async fn time_to_live_ends_with_the_first_claim(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { time_to_live: Some(MINUTE), ..three_attempts() }).await;
    bench.publish(&["leased", "retried", "deferred"]).await;
    let claimed = bench.claim(9).await;
    bench.extend(claimed[0].lease, HOUR).await;
    bench.settle(&claimed[1], Outcome::Retry { reason: String::new(), after: Some(2 * MINUTE) }).await;
    bench.settle(&claimed[2], defer(2 * MINUTE)).await;
    bench.advance(2 * MINUTE).await;
    assert_eq!(bench.settle(&claimed[0], ack()).await, Disposition::Complete);
    assert_eq!(ids(&bench.claim(9).await), ["retried", "deferred"]);
    assert_eq!(bench.stats().await.dead, 0);
}

/// Nobody failed it, and it was claimed in its time: what was released waits for as long as it takes.
pub async fn a_released_entry_outlives_its_time_to_live(rig: impl Rig) {
    let bench = Bench::with(rig, good_for(MINUTE)).await;
    let entries = bench.publish(&["released", "never claimed"]).await;
    bench.settle(&bench.claim_one().await, Outcome::Released).await;
    let bench = bench.reopened().await;
    bench.advance(HOUR).await;
    assert_eq!(died_of(&bench, &entries[1]).await, Some(OutcomeKind::TimeToLive));
    let again = bench.claim_one().await;
    assert_eq!((&again.entry, again.attempt), (&entries[0], 1));
}

/// A move is no reprieve, and no second life either.
pub async fn a_moved_entry_keeps_what_is_left_of_its_time_to_live(rig: impl Rig) {
    let bench = Bench::with(rig, good_for(MINUTE)).await;
    let other = bench.add_queue("other").await;
    bench.publish(&["short"]).await;
    bench.publish_with(Publish { time_to_live: Some(HOUR), ..bench.one("long") }).await;
    bench.publish_with(Publish { due: Due::After(HOUR), ..bench.one("late") }).await;
    bench.advance(30 * SECOND).await;
    assert_eq!(bench.act_where(Action::Move(other.clone()), bench.all()).await, 3);
    let bench = bench.reopened().await.of(other);
    bench.advance(29 * SECOND).await;
    assert_eq!((bench.stats().await.ready, bench.stats().await.scheduled), (2, 1));
    bench.advance(SECOND).await;
    assert_eq!(bench.listed(State::Dead).await, ["short", "late"]);
    bench.advance(HOUR).await;
    assert_eq!(bench.listed(State::Dead).await, ["short", "late", "long"]);
}

/// Whoever redrives an entry wants it, however old it is.
pub async fn a_redrive_outlives_the_time_to_live(rig: impl Rig) {
    let bench = Bench::with(rig, good_for(MINUTE)).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    bench.advance(MINUTE).await;
    assert_eq!(bench.act_on(Action::Redrive, &entry).await, ActReply::Done);
    bench.advance(HOUR).await;
    assert_eq!(ids(&bench.claim(9).await), ["1"]);
}

/// Endless deferral has an end.
pub async fn deferrals_end_at_the_maximum_age(rig: impl Rig) {
    let bench = Bench::with(rig, QueueOptions { max_age: Some(HOUR), ..three_attempts() }).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let mut deferrals = 0;
    loop {
        let delivery = bench.claim_one().await;
        assert_eq!(delivery.attempt, 1);
        match bench.settle(&delivery, defer(10 * MINUTE)).await {
            Disposition::Defer(_) => deferrals += 1,
            Disposition::DeadLetter => break,
            other => panic!("{other:?}"),
        }
        assert!(deferrals < 10);
        bench.advance(10 * MINUTE).await;
    }
    assert_eq!(deferrals, 6, "the seventh attempt begins at 60 minutes, the eighth would begin at 70");
    assert_eq!(died_of(&bench, &entry).await, Some(OutcomeKind::MaxAge));
    let outcomes: Vec<_> = bench.entry(&entry).await.history.attempts().iter().map(|a| a.outcome).collect();
    assert_eq!(outcomes.len(), 8, "what happened, and why it is over");
    assert_eq!(outcomes[6], OutcomeKind::Defer);
}

/// And so have endless retries; a redrive starts a new life.
pub async fn retries_end_at_the_maximum_age(rig: impl Rig) {
    let endless = RetryPolicy { max_attempts: None, ..three_attempts().retry };
    let options = QueueOptions { retry: endless, max_age: Some(MINUTE), ..QueueOptions::default() };
    let bench = Bench::with(rig, options).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    for _ in 0..2 {
        for delay in [10, 20] {
            let delay = Duration::from_secs(delay);
            assert_eq!(bench.settle(&bench.claim_one().await, retry()).await, Disposition::Retry(delay));
            bench.advance(delay).await;
        }
        assert_eq!(bench.settle(&bench.claim_one().await, retry()).await, Disposition::DeadLetter);
        assert_eq!(died_of(&bench, &entry).await, Some(OutcomeKind::MaxAge));
        bench.advance(HOUR).await;
        assert_eq!(bench.act_on(Action::Redrive, &entry).await, ActReply::Done);
    }
    let last = bench.claim_one().await;
    assert_eq!(last.attempt, 1);
    assert_eq!(bench.settle(&last, ack()).await, Disposition::Complete, "an ack is never too late");
}
