//! Two lives of a store, between which its process dies: they leave something in every family and entries in every
//! state. `tests/formats.rs` makes its fixture with them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helper: whatever fails, fails the test")]

use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{EntryId, Event, Outcome, Pattern, QueueName, RetryPolicy, State};

use super::contract::{
    Act, Action, Change, Claim, Confirm, Delivery, Due, Holder, KeyOptions, List, OnDead, Operation, Payload, Publish,
    Queue, QueueOptions, Rate, Replay, ReplayWhat, Selection, Settle, SettleReply, StateWrite, Then, Transacted,
    Transaction,
};

const HOUR: Duration = Duration::from_secs(3_600);

pub(crate) fn name(queue: &str) -> QueueName {
    QueueName::new(queue).unwrap()
}

/// The first life: it ends with deliveries in the hands of the process, and of somebody outside.
pub(crate) async fn first(engine: &dyn Queue) {
    configure(engine).await;
    let work = publish_work(engine).await;
    settle_in_every_way(engine).await;
    operate(engine, &work).await;
    ordered(engine).await;
    state(engine).await;
    delete(engine).await;
    let replay = Replay { what: ReplayWhat::All, ..Replay::new(name("copy")) };
    let replayed = engine.operate(Operation::Replay(replay)).await.unwrap();
    assert!(replayed.changed > 20);
    // Left behind: one of three is settled, the others are not; and some that were set aside.
    let mut held = claim(engine, Claim::new(name("work"), 3)).await;
    assert_eq!(held.len(), 3);
    settle(engine, held.remove(1), Outcome::Ack { result: None }).await;
    let odd = Claim { types: vec![Pattern::new("odd")], ..Claim::new(name("work"), 2) };
    assert_eq!(claim(engine, odd).await.len(), 2);
    let outside = Claim { holder: Holder::Outside, lease: Some(HOUR), ..Claim::new(name("work"), 2) };
    assert_eq!(claim(engine, outside).await.len(), 2);
}

/// The second life, after the death of the process in the first.
pub(crate) async fn second(engine: &dyn Queue) {
    // One of those that were lost, alone, and ordinary ones.
    let mut held = claim(engine, Claim::new(name("work"), 3)).await;
    settle(engine, held.remove(0), Outcome::Released).await;
    settle(engine, held.remove(0), Outcome::Ack { result: Some(Bytes::from_static(b"second")) }).await;
    let batch = (0..4).map(|n| Publish::new(event(n, "/second", 10), [name("work"), name("keeps")]));
    publish(engine, batch.collect()).await;
    let delivery = claim(engine, Claim::new(name("keeps"), 1)).await.remove(0);
    settle(engine, delivery, Outcome::Ack { result: None }).await;
    assert_eq!(claim(engine, Claim::new(name("work"), 2)).await.len(), 2);
}

async fn configure(engine: &dyn Queue) {
    let retry = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
    let plain = || QueueOptions { retry, ..QueueOptions::default() };
    let held = KeyOptions { on_dead: OnDead::Hold, ..KeyOptions::default() };
    let rate = Some(Rate { per_second: 0.001, burst: 1 });
    let queues = [
        ("work", plain()),
        ("keeps", QueueOptions { payload: Payload::Keep, ..plain() }),
        ("ordered", QueueOptions { key: held, payload: Payload::Keep, ..plain() }),
        ("paced", QueueOptions { key: KeyOptions { rate, ..KeyOptions::default() }, ..plain() }),
        ("copy", plain()),
        ("gone", plain()),
    ];
    for (queue, options) in queues {
        engine.configure(name(queue), options).await.unwrap();
    }
}

fn event(n: u64, source: &str, data: usize) -> Event {
    let ty = if n % 2 == 1 { "odd" } else { "even" };
    Event { data: Some(Bytes::from(vec![b'x'; data])), ..Event::new(n.to_string(), source, ty) }
}

async fn publish(engine: &dyn Queue, batch: Vec<Publish>) -> Vec<EntryId> {
    let results = engine.publish(batch).await.unwrap().results;
    results.into_iter().map(|result| result.unwrap().entries[0].entry.clone()).collect()
}

async fn claim(engine: &dyn Queue, claim: Claim) -> Vec<Delivery> {
    engine.claim(claim).await.unwrap()
}

async fn settle(engine: &dyn Queue, delivery: Delivery, outcome: Outcome) {
    let settle = Settle::new(delivery.lease, outcome);
    let replies = engine.settle(vec![settle], Confirm::Committed).await.unwrap();
    assert!(matches!(replies[0], SettleReply::Settled(_)), "{replies:?}");
}

/// Small and large, in one queue and in two, at several priorities, now and later; and one of them twice.
async fn publish_work(engine: &dyn Queue) -> Vec<EntryId> {
    let batch = (0..40u8).map(|n| {
        let size = if n % 5 == 0 { 6_000 } else { 100 };
        let queues = if n % 10 == 0 { vec![name("work"), name("keeps")] } else { vec![name("work")] };
        Publish { priority: n % 3, ..Publish::new(event(u64::from(n), "/work", size), queues) }
    });
    let ids = publish(engine, batch.collect()).await;
    let later = |n, size| {
        let event = event(n, "/later", size);
        Publish { due: Due::After(HOUR), time_to_live: Some(2 * HOUR), ..Publish::new(event, [name("work")]) }
    };
    let keyed = Publish { key: Some("late".to_owned()), dedupe_key: Some("d".to_owned()), ..later(3, 10) };
    publish(engine, vec![later(1, 10), later(2, 5_000), keyed]).await;
    let again = publish(engine, vec![Publish::new(event(1, "/work", 100), [name("work")])]).await;
    assert_eq!(again, [ids[1].clone()]);
    ids
}

async fn settle_in_every_way(engine: &dyn Queue) {
    let reason = || "a reason".to_owned();
    let outcomes = [
        Outcome::Ack { result: Some(Bytes::from_static(b"result")) },
        Outcome::Retry { reason: reason(), after: Some(HOUR) },
        Outcome::Defer { reason: None, after: HOUR },
        Outcome::Reject { reason: reason() },
        Outcome::Reject { reason: reason() },
        Outcome::Released,
    ];
    for outcome in outcomes {
        let delivery = claim(engine, Claim::new(name("work"), 1)).await.remove(0);
        settle(engine, delivery, outcome).await;
    }
    let kept = claim(engine, Claim { then: Then::Ack, ..Claim::new(name("keeps"), 2) }).await;
    assert_eq!(kept.len(), 2);
    // With what goes with an ack.
    let delivery = claim(engine, Claim::new(name("work"), 1)).await.remove(0);
    let emits = vec![Publish::new(event(1, "/emitted", 5_000), [name("work")])];
    let writes = vec![set("acks", "last", Some("1"))];
    let transaction = Some(Transaction { writes, ..Transaction::default() });
    let settle = Settle { emits, transaction, ..Settle::new(delivery.lease, Outcome::Ack { result: None }) };
    let replies = engine.settle(vec![settle], Confirm::Durable).await.unwrap();
    assert!(matches!(replies[0], SettleReply::Settled(_)), "{replies:?}");
}

async fn operate(engine: &dyn Queue, work: &[EntryId]) {
    let act = async |action, entries: &[EntryId]| {
        let act = Act { action, on: Selection::Entries(entries.to_vec()), rate: None };
        let operated = engine.operate(Operation::Act(act)).await.unwrap();
        assert_eq!(operated.changed, entries.len() as u64, "{operated:?}");
    };
    // Of the lowest priority: nobody has claimed them yet.
    act(Action::Cancel, &[work[30].clone(), work[33].clone()]).await;
    act(Action::Move(name("keeps")), &[work[15].clone()]).await;
    act(Action::Purge, &[work[36].clone()]).await;
    let list = async |state| {
        let list = List { limit: 10, ..List::new(name("work"), state) };
        engine.list(list).await.unwrap().entries.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    act(Action::Redrive, &list(State::Dead).await[..1]).await;
    act(Action::Purge, &list(State::Done).await[..1]).await;
}

/// One key is held by a dead letter, one waits for another attempt, one goes on; and one is slow.
async fn ordered(engine: &dyn Queue) {
    let keyed = |n: u64, queue, key: &str| {
        let event = event(n, &format!("/{queue}"), if n.is_multiple_of(2) { 5_000 } else { 50 });
        Publish { key: Some(key.to_owned()), ..Publish::new(event, [name(queue)]) }
    };
    let keys = ["held", "retried", "free"];
    let batch = (0..12u8).map(|n| keyed(u64::from(n), "ordered", keys[usize::from(n % 3)]));
    publish(engine, batch.collect()).await;
    publish(engine, (0..3).map(|n| keyed(n, "paced", "slow")).collect()).await;
    let mut heads = claim(engine, Claim::new(name("ordered"), 10)).await;
    assert_eq!(heads.len(), 3, "one of each key");
    settle(engine, heads.remove(0), Outcome::Reject { reason: "held".to_owned() }).await;
    settle(engine, heads.remove(0), Outcome::Retry { reason: "later".to_owned(), after: Some(HOUR) }).await;
    settle(engine, heads.remove(0), Outcome::Ack { result: None }).await;
    let delivery = claim(engine, Claim::new(name("paced"), 1)).await.remove(0);
    settle(engine, delivery, Outcome::Ack { result: None }).await;
}

fn set(bucket: &str, key: &str, value: Option<&str>) -> StateWrite {
    let change = value.map_or(Change::Delete, |value| Change::Set(Bytes::copy_from_slice(value.as_bytes())));
    StateWrite { bucket: bucket.to_owned(), key: key.to_owned(), change }
}

async fn state(engine: &dyn Queue) {
    let increment = StateWrite { change: Change::Increment(41), ..set("numbers", "n", None) };
    let writes = vec![
        set("words", "ä", Some("value")),
        set("words", "gone", Some("value")),
        set("words", "gone", None),
        increment.clone(),
        increment,
    ];
    let transaction = Transaction { writes, ..Transaction::default() };
    assert_eq!(engine.transact(transaction).await.unwrap(), Transacted::Committed(vec![41, 82]));
    let limit = Operation::LimitBucket { bucket: "words".to_owned(), max_bytes: Some(1_000) };
    engine.operate(limit).await.unwrap();
}

/// A queue with entries in several states goes.
async fn delete(engine: &dyn Queue) {
    let keyed = |n| Publish { key: Some("k".to_owned()), ..Publish::new(event(n, "/gone", 5_000), [name("gone")]) };
    publish(engine, (0..4).map(keyed).collect()).await;
    let plain = |n| Publish::new(event(n, "/gone", 10), [name("gone")]);
    publish(engine, (10..14).map(plain).collect()).await;
    let mut held = claim(engine, Claim::new(name("gone"), 4)).await;
    settle(engine, held.remove(0), Outcome::Reject { reason: "r".to_owned() }).await;
    settle(engine, held.remove(0), Outcome::Ack { result: None }).await;
    settle(engine, held.remove(0), Outcome::Retry { reason: "r".to_owned(), after: None }).await;
    engine.operate(Operation::Delete { queue: name("gone") }).await.unwrap();
}
