//! Random events, options, outcomes and transactions.

use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Backoff, Event, Outcome, QueueName, RetryPolicy};
use gristmill_queue::{
    Change, Due, KeyOptions, OnDead, OnDuplicate, Payload, Publish, QueueOptions, Rate, Retention, StateRead,
    StateWrite, Transaction,
};
use rand::RngExt;
use rand::rngs::StdRng;

use super::buckets::Moment;
use super::run::{Run, name_of};

/// Entries are moved to the last one, and from nowhere else.
pub(crate) const QUEUES: [&str; 4] = ["alpha", "beta", "gamma", "archive"];
/// Why queues are paused.
pub(crate) const REASONS: [&str; 2] = ["a test", "another"];
pub(crate) const BUCKETS: [&str; 3] = ["b0", "b1", "b2"];
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn one<T: Clone>(random: &mut StdRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())].clone()
}

fn maybe<T: Clone>(random: &mut StdRng, from: &[T]) -> Option<T> {
    random.random_bool(0.5).then(|| one(random, from))
}

pub(crate) fn event(id: &str, source: &str, ty: &str, subject: &str, data: Option<Bytes>) -> Event {
    Event { subject: Some(subject.to_owned()), data, ..Event::new(id, source, ty) }
}

/// Options of a new queue. Where its keys come from stays.
pub(crate) fn options(random: &mut StdRng, queue: &QueueName) -> QueueOptions {
    let key =
        KeyOptions { attribute: (queue.as_str() == "beta").then(|| "subject".to_owned()), ..KeyOptions::default() };
    changed(random, QueueOptions { key, ..QueueOptions::default() })
}

/// Other options of a queue.
pub(crate) fn changed(random: &mut StdRng, options: QueueOptions) -> QueueOptions {
    let base = one(random, &[Duration::ZERO, SECOND, 2 * SECOND]);
    let backoff = Backoff { base, factor: one(random, &[1.0, 2.0]), max: 4 * SECOND, jitter: 0.0 };
    let kept = |random: &mut StdRng| Retention {
        age: maybe(random, &[5 * SECOND, 60 * SECOND]),
        count: maybe(random, &[0, 3, 20]),
    };
    let key = KeyOptions {
        concurrency: one(random, &[1, 1, 1, 2, 3]),
        on_dead: one(random, &[OnDead::Continue, OnDead::Hold]),
        ..options.key
    };
    QueueOptions {
        key,
        retry: RetryPolicy { max_attempts: one(random, &[None, Some(1), Some(2), Some(3)]), backoff },
        lease: one(random, &[SECOND, 5 * SECOND, 30 * SECOND]),
        time_to_live: if random.random_bool(0.8) { None } else { Some(10 * SECOND) },
        max_age: if random.random_bool(0.7) { None } else { Some(one(random, &[8 * SECOND, 30 * SECOND])) },
        max_events: maybe(random, &[5, 30]),
        max_bytes: if random.random_bool(0.8) { None } else { Some(9_000) },
        max_in_flight: one(random, &[2, 6, 10_000]),
        rate: if random.random_bool(0.7) { None } else { Some(rate(random)) },
        done: kept(random),
        payload: one(random, &[Payload::Drop, Payload::Keep]),
        dead: if random.random_bool(0.7) { Retention::default() } else { kept(random) },
        cancelled: kept(random),
    }
}

/// One whose events are whole nanoseconds apart.
fn rate(random: &mut StdRng) -> Rate {
    Rate { per_second: one(random, &[0.0625, 0.5, 2.0, 4.0]), burst: one(random, &[1, 2, 5]) }
}

/// An event that was never published before.
pub(crate) fn fresh(run: &mut Run, queues: impl IntoIterator<Item = QueueName>) -> Publish {
    let number = run.events.len();
    let random = &mut run.random;
    let data = match random.random_range(0..20) {
        0..6 => None,
        6..19 => Some(Bytes::from(format!("data {number:06}"))),
        _ => Some(Bytes::from(vec![b'x'; 5_000 + number])),
    };
    let (source, ty) = (one(random, &["/a", "/b"]), one(random, &["t.a", "t.b", "u.a"]));
    let event = event(&format!("e{number:05}"), source, ty, one(random, &["k0", "k1", "k2"]), data);
    run.events.push(name_of(&event));
    Publish::new(event, queues)
}

/// A publish in one line.
pub(crate) fn brief(publish: &Publish) -> String {
    let Publish { event, queues, due, priority, key, time_to_live, dedupe_key, on_duplicate } = publish;
    let queues: Vec<_> = queues.iter().map(QueueName::as_str).collect();
    let (source, id, ty, size) = (&event.source, &event.id, &event.ty, event.size());
    format!(
        "{source} {id} {ty} {size} B to {queues:?}, {due:?}, priority {priority}, key {key:?} {:?}, ttl {time_to_live:?}, \
         dedupe {dedupe_key:?} {on_duplicate:?}",
        event.subject
    )
}

/// Any publish: new or not, now or later.
pub(crate) fn publish(run: &mut Run) -> Publish {
    let count = one(&mut run.random, &[0, 1, 1, 1, 1, 1, 1, 2, 2, 3]);
    let queues: Vec<_> = (0..count).map(|_| run.any_queue()).collect();
    let mut publish = fresh(run, queues);
    let random = &mut run.random;
    publish.on_duplicate = one(
        random,
        &[OnDuplicate::ReturnExisting, OnDuplicate::AllowAfterFailure, OnDuplicate::Refuse, OnDuplicate::Allow],
    );
    if random.random_bool(0.25) {
        // Mostly one that is remembered, now and then one that is not any more.
        let recent = run.events.len().saturating_sub(one(random, &[12, 12, 200]));
        let (source, id) = run.events[random.random_range(recent..run.events.len())].clone();
        let again = Event { source, id, ..(*publish.event).clone() };
        publish.event = again.into();
    }
    publish.dedupe_key = if random.random_bool(0.85) { None } else { Some(one(random, &["d0", "d1", ""]).to_owned()) };
    publish.key = if random.random_bool(0.55) { None } else { Some(one(random, &["k0", "k1", "k2"]).to_owned()) };
    if random.random_bool(0.01) {
        publish.key = Some(String::new());
    }
    publish.priority = one(random, &[0, 0, 0, 0, 7, 255]);
    publish.due = match random.random_range(0..8) {
        0 => Due::After(one(random, &[Duration::ZERO, SECOND, 3 * SECOND, 20 * SECOND])),
        1 => {
            let now = run.world.wall.as_micros();
            Due::At(gristmill_core::Timestamp::from_micros(now + random.random_range(0..20_000_000) - 5_000_000))
        }
        _ => Due::Now,
    };
    publish.time_to_live = if random.random_bool(0.85) { None } else { Some(one(random, &[SECOND, 15 * SECOND])) };
    if run.world.is_doubtful(&publish.event, publish.dedupe_key.as_deref()) {
        publish.on_duplicate = OnDuplicate::Allow;
    }
    publish
}

pub(crate) fn outcome(random: &mut StdRng) -> Outcome {
    let reason = || "because".to_owned();
    match random.random_range(0..20) {
        0..9 => Outcome::Ack { result: random.random_bool(0.4).then(|| Bytes::from_static(b"result")) },
        9..11 => Outcome::Retry { reason: reason(), after: None },
        11 => Outcome::Retry { reason: reason(), after: Some(one(random, &[Duration::ZERO, 5 * SECOND])) },
        12 => Outcome::Defer { reason: None, after: one(random, &[Duration::ZERO, 2 * SECOND]) },
        13 => Outcome::Defer { reason: Some("later".to_owned()), after: SECOND },
        14..16 => Outcome::Reject { reason: reason() },
        16 => Outcome::Trap { reason: "trapped".to_owned() },
        17 => Outcome::Timeout { reason: reason() },
        _ => Outcome::Released,
    }
}

pub(crate) fn set(bucket: &str, key: &str, value: &str) -> Transaction {
    let change = Change::Set(Bytes::from(value.to_owned()));
    let write = StateWrite { bucket: bucket.to_owned(), key: key.to_owned(), change };
    Transaction { revision: None, reads: Vec::new(), writes: vec![write] }
}

/// Reads what one of the snapshots saw, and writes.
pub(crate) fn transaction(run: &mut Run) -> (Transaction, Option<Moment>) {
    let random = &mut run.random;
    let bucket = |random: &mut StdRng| one(random, &BUCKETS).to_owned();
    let key = |random: &mut StdRng| one(random, &["x", "x1", "x2", "y"]).to_owned();
    let (mut revision, mut moment) = (None, None);
    let mut reads = Vec::new();
    if !run.snapshots.is_empty() && random.random_bool(0.7) {
        let (snapshot, at) = &run.snapshots[random.random_range(0..run.snapshots.len())];
        (revision, moment) = (Some(snapshot.revision()), Some(at.clone()));
        for _ in 0..random.random_range(0..3) {
            let (bucket, key) = (bucket(random), key(random));
            reads.push(match random.random_bool(0.8) {
                true => StateRead::Key { bucket, key },
                false => StateRead::Prefix { bucket, prefix: key },
            });
        }
    }
    let mut writes = Vec::new();
    for _ in 0..random.random_range(0..3) {
        let change = match random.random_range(0..8) {
            0..2 => Change::Set(Bytes::from(random.random_range(0..1_000).to_string())),
            2 => Change::Set(Bytes::from_static(b"no number")),
            3 => Change::Delete,
            4 => Change::Increment(i64::MAX),
            _ => Change::Increment(random.random_range(-5..50)),
        };
        writes.push(StateWrite { bucket: bucket(random), key: key(random), change });
    }
    if random.random_bool(0.02) {
        let many = 0..400;
        let number = random.random_range(0..10_000);
        writes.extend(many.map(|i| {
            let change = if i % 2 == 0 { Change::Delete } else { Change::Set(Bytes::from_static(b"1")) };
            StateWrite { bucket: "b2".to_owned(), key: format!("many{}", number + i), change }
        }));
    }
    (Transaction { revision, reads, writes }, moment)
}
