//! Rules of waiting for what becomes of an entry.

use std::time::Duration;

use gristmill_core::{EntryId, Outcome, OutcomeKind, State};

use super::Rig;
use super::bench::{Bench, HOUR, MINUTE, SECOND, ack, reject, retry, three_attempts};
use crate::contract::{Action, Entry, QueueError, Selection, Waited};

async fn look<R: Rig>(bench: &Bench<R>, entry: &EntryId) -> Waited {
    bench.rig.queue().wait(entry.clone(), Duration::ZERO).await.unwrap()
}

fn ended(waited: Result<Waited, QueueError>) -> Entry {
    match waited.unwrap() {
        Waited::Ended(entry) => *entry,
        other => panic!("it should have ended: {other:?}"),
    }
}

/// What the waits of two get to hear, who begin to wait before something happens.
async fn during<R: Rig>(bench: &Bench<R>, entry: &EntryId, happens: impl Future<Output = ()>) -> Waited {
    let queue = bench.rig.queue();
    let meanwhile = async {
        bench.rig.tick().await;
        happens.await;
        bench.rig.tick().await;
    };
    let (first, second, ()) =
        tokio::join!(queue.wait(entry.clone(), HOUR), queue.wait(entry.clone(), MINUTE), meanwhile);
    assert_eq!(first, second);
    first.unwrap()
}

/// Looking once says where it is.
pub async fn a_wait_without_time_says_where_an_entry_is(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    assert_eq!(look(&bench, &entry).await, Waited::Pending(State::Ready));
    let delivery = bench.claim_one().await;
    assert_eq!(look(&bench, &entry).await, Waited::Pending(State::Leased));
    bench.settle(&delivery, retry()).await;
    assert_eq!(look(&bench, &entry).await, Waited::Pending(State::Scheduled));
    bench.advance(10 * SECOND).await;
    bench.settle(&bench.claim_one().await, ack()).await;
    assert!(matches!(look(&bench, &entry).await, Waited::Ended(_)));
    assert_eq!(look(&bench, &EntryId::new("no-such-entry").unwrap()).await, Waited::Unknown);
    bench.act(Action::Purge, Selection::Entries(vec![entry.clone()])).await;
    assert_eq!(look(&bench, &entry).await, Waited::Unknown);
}

/// An ack wakes everybody who waits for it, and brings the result, which stays.
pub async fn a_wait_is_ended_by_an_ack_and_brings_its_result(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let result = Some(bytes::Bytes::from(vec![7; 50_000]));
    let acked = async {
        let outcome = Outcome::Ack { result: result.clone() };
        bench.settle(&bench.claim_one().await, outcome).await;
    };
    let Waited::Ended(done) = during(&bench, &entry, acked).await else { panic!("it has ended") };
    assert_eq!((done.state, &done.result), (State::Done, &result));
    let bench = bench.reopened().await;
    assert_eq!(ended(bench.rig.queue().wait(entry.clone(), HOUR).await), *done);
    assert_eq!(bench.entry(&entry).await.result, result);
}

/// So do a death and a cancellation; a failure that is tried again does not.
pub async fn a_wait_is_ended_by_a_death_and_by_a_cancellation(rig: impl Rig) {
    let bench = Bench::with(rig, three_attempts()).await;
    let entries = bench.publish(&["1", "2", "3"]).await;
    let dies = async {
        bench.settle(&bench.claim_one().await, reject()).await;
    };
    let Waited::Ended(dead) = during(&bench, &entries[0], dies).await else { panic!("it has ended") };
    assert_eq!(dead.state, State::Dead);
    assert_eq!(dead.last_attempt().map(|last| last.outcome), Some(OutcomeKind::Reject), "and says why");
    let cancels = async {
        bench.act(Action::Cancel, Selection::Entries(vec![entries[1].clone()])).await;
    };
    let Waited::Ended(cancelled) = during(&bench, &entries[1], cancels).await else { panic!("it has ended") };
    assert_eq!(cancelled.state, State::Cancelled);
    let spends_all = async {
        for attempt in 1..=3 {
            let delivery = bench.claim_one().await;
            assert_eq!(delivery.attempt, attempt);
            bench.settle(&delivery, retry()).await;
            bench.advance(20 * SECOND).await;
        }
    };
    let Waited::Ended(dead) = during(&bench, &entries[2], spends_all).await else { panic!("it has ended") };
    assert_eq!((dead.state, dead.attempts), (State::Dead, 3));
}

/// What is taken away cannot be waited for.
pub async fn a_wait_ends_when_its_entry_goes(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let other = bench.add_queue("other").await;
    for action in [Action::Purge, Action::Move(other)] {
        let entry = bench.publish(&["1"]).await.remove(0);
        let goes = async {
            bench.act(action, Selection::Entries(vec![entry.clone()])).await;
        };
        assert_eq!(during(&bench, &entry, goes).await, Waited::Unknown);
    }
}

/// A wait is bounded, by the clock.
pub async fn a_wait_is_over_when_its_time_is(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let delivery = bench.claim_one().await;
    bench.extend(delivery.lease, HOUR).await;
    let wait = bench.rig.queue().wait(entry, MINUTE);
    let passes = async {
        bench.rig.tick().await;
        bench.advance(MINUTE).await;
    };
    let (waited, ()) = tokio::join!(wait, passes);
    assert_eq!(waited, Ok(Waited::Pending(State::Leased)));
    assert_eq!(bench.settle(&delivery, ack()).await, gristmill_core::Disposition::Complete);
}

/// Whoever waits while the engine is closed is told.
pub async fn a_wait_ends_with_the_engine(rig: impl Rig) {
    let bench = Bench::new(rig).await;
    let entry = bench.publish(&["1"]).await.remove(0);
    let closes = async {
        bench.rig.tick().await;
        bench.rig.queue().close().await
    };
    let (waited, closed) = tokio::join!(bench.rig.queue().wait(entry, HOUR), closes);
    assert_eq!((waited, closed), (Err(QueueError::Closed), Ok(())));
}
