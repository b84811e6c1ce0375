//! A store that was lived in is sound; damaged on purpose, it shows just that damage.
#![allow(clippy::indexing_slicing, reason = "assertions")]

mod links;
pub(in crate::engine) mod lived_in;
mod opening;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{ManualClock, State as EntryState, Timestamp};

use super::*;
use crate::contract::{self, Queue};
use crate::engine::entry::EntryRecord;
use crate::engine::ids::EntryKey;
use crate::engine::keys::{Key, Lane, named_key, number_key};
use crate::engine::read::is_first_spot;
use crate::engine::records::*;
use crate::engine::store::{Tx, for_each};
use crate::engine::{Engine, EngineOptions, Memory, RocksDb, due::DueValue};

fn options() -> EngineOptions {
    EngineOptions {
        clock: Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000))),
        log_retention: Some(Duration::from_secs(3_600)),
        disk_reserve: 0,
        ..EngineOptions::default()
    }
}

async fn sound(engine: &Engine) -> contract::VerifyReport {
    let report = engine.verify().await.unwrap();
    assert!(report.is_sound(), "{report}");
    report
}

async fn live(open: impl Fn() -> Engine) -> Engine {
    let engine = open();
    sound(&engine).await;
    lived_in::first(&engine).await;
    sound(&engine).await;
    drop(engine);
    let engine = open();
    sound(&engine).await;
    lived_in::second(&engine).await;
    engine
}

/// A store in memory, with everything in it.
async fn lived_in() -> (Memory, Engine) {
    let memory = Memory::default();
    let engine = live(|| memory.open(options()).unwrap()).await;
    (memory, engine)
}

#[tokio::test]
async fn a_store_in_memory_that_was_lived_in_is_sound() {
    let (_, engine) = lived_in().await;
    let report = sound(&engine).await;
    for (family, records) in &report.records {
        assert!(*records > 0, "no `{family}` was checked: {report:?}");
    }
    assert_eq!(report.records.len(), Family::COUNT);
    let stats = engine.stats().await.unwrap();
    let total = |count: fn(&contract::QueueStats) -> u64| stats.iter().map(count).sum::<u64>();
    for (state, count) in [
        (EntryState::Scheduled, total(|s| s.scheduled)),
        (EntryState::Waiting, total(|s| s.waiting)),
        (EntryState::Ready, total(|s| s.ready)),
        (EntryState::Leased, total(|s| s.leased)),
        (EntryState::Done, total(|s| s.done)),
        (EntryState::Dead, total(|s| s.dead)),
        (EntryState::Cancelled, total(|s| s.cancelled)),
    ] {
        assert!(count > 0, "nothing is {state}");
    }
}

#[tokio::test]
async fn a_store_on_disk_that_was_lived_in_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let engine = live(|| RocksDb::open(directory.path(), options()).unwrap()).await;
    sound(&engine).await;
    engine.reclaim().await.unwrap();
    let report = sound(&engine).await;
    assert!(report.records.values().all(|records| *records > 0), "{report:?}");
    engine.close().await.unwrap();
}

/// What a damaged store's report says, without the keys.
async fn damaged(damage: impl FnOnce(&dyn View, &mut Tx<'_>)) -> Vec<String> {
    let (memory, engine) = lived_in().await;
    let store = memory.store();
    let snapshot = store.snapshot().unwrap();
    let mut tx = Tx::new(&*snapshot);
    damage(&*snapshot, &mut tx);
    assert!(!tx.is_empty());
    store.commit(tx.into_writes()).unwrap();
    let report = engine.verify().await.unwrap();
    report.problems.iter().map(|problem| format!("{}: {}", problem.family, problem.what)).collect()
}

fn all(view: &dyn View, family: Family, prefix: &[u8]) -> Vec<(Key, Bytes)> {
    let mut all = Vec::new();
    for_each(view, family, prefix, |key, value| {
        all.push((Key::from_slice(key), Bytes::copy_from_slice(value)));
        Ok(())
    })
    .unwrap();
    assert!(!all.is_empty(), "{family:?}");
    all
}

/// The first record that `choose` makes something of.
fn first<T>(view: &dyn View, family: Family, choose: impl Fn(&[u8], &Bytes) -> Option<T>) -> (Key, T) {
    let all = all(view, family, &[]).into_iter();
    all.filter_map(|(key, value)| choose(&key, &value).map(|chosen| (key, chosen))).next().unwrap()
}

fn queue(view: &dyn View, name: &str) -> (Key, QueueRecord, QueueId) {
    let (key, (record, id)) = first(view, Family::Meta, |key, value| match Meta::decode(key) {
        Ok(Meta::Queue(id)) => QueueRecord::decode(value).ok().filter(|queue| queue.name == name).map(|q| (q, id)),
        _ => None,
    });
    (key, record, id)
}

fn key_record(view: &dyn View, queue_name: &str, key: &str) -> (Key, KeyRecord) {
    let at = named_key(queue(view, queue_name).2, key);
    let record = KeyRecord::decode(&view.get(Family::Key, &at).unwrap().unwrap()).unwrap();
    (at, record)
}

/// Replaces a record, also where that takes two writes.
fn replace(tx: &mut Tx<'_>, family: Family, key: &Key, value: impl Into<Bytes>) {
    tx.delete(family, key.clone());
    tx.put(family, key.clone(), value);
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_found_in_every_family() {
    for family in Family::ALL {
        let problems = damaged(|_, tx| tx.put(family, Key::from_slice(b"?"), "?")).await;
        let expected = format!("{}: a key has the wrong length or an unknown kind", name(family));
        assert_eq!(problems, [expected], "{family:?}");
    }
}

#[tokio::test]
async fn values_that_cannot_be_read_are_found_in_every_family() {
    for family in Family::ALL {
        if matches!(family, Family::Body | Family::LogBody) {
            // Any bytes are data, and a reference has no value.
            continue;
        }
        let problems = damaged(|view, tx| {
            let (key, _) = all(view, family, &[]).pop().unwrap();
            replace(
                tx,
                family,
                &key,
                match family {
                    Family::Due => vec![0, 9],
                    _ => vec![9],
                },
            );
        })
        .await;
        let unknown = |p: &String| p.starts_with(name(family)) && p.contains("version 9 is unknown to this release");
        assert!(problems.iter().any(unknown), "{family:?}: {problems:?}");
    }
}

#[tokio::test]
async fn wrong_counts_are_found_one_by_one() {
    type Field = fn(&mut Counts) -> &mut u64;
    let fields: [(&str, Field); 8] = [
        ("scheduled", |counts| &mut counts.scheduled),
        ("waiting", |counts| &mut counts.waiting),
        ("ready", |counts| &mut counts.ready),
        ("leased", |counts| &mut counts.leased),
        ("done", |counts| &mut counts.done),
        ("dead", |counts| &mut counts.dead),
        ("cancelled", |counts| &mut counts.cancelled),
        ("bytes", |counts| &mut counts.bytes),
    ];
    for (what, field) in fields {
        let problems = damaged(|view, tx| {
            let (key, mut record, _) = queue(view, "work");
            *field(&mut record.counts) += 1;
            tx.put(Family::Meta, key, record.encode());
        })
        .await;
        let [problem] = problems.as_slice() else { panic!("{what}: {problems:?}") };
        assert!(
            problem.starts_with("meta: it counts ") && problem.contains(&format!(" {what}; there are ")),
            "{problem}"
        );
    }
}

fn any_lane(view: &dyn View, queue_name: &str) -> (Key, LaneRecord) {
    let id = queue(view, queue_name).2;
    first(view, Family::Meta, |key, value| match Meta::decode(key) {
        Ok(Meta::Lane(line)) if line.queue == id && line.lane == Lane::Normal => LaneRecord::decode(value).ok(),
        _ => None,
    })
}

#[tokio::test]
async fn a_line_that_counts_wrong_is_found() {
    let problems = damaged(|view, tx| {
        let (key, record) = any_lane(view, "copy");
        tx.put(Family::Meta, key, LaneRecord { ready: record.ready + 1, ..record }.encode());
    })
    .await;
    assert!(problems.len() == 1 && problems[0].starts_with("meta: it counts"), "{problems:?}");
}

#[tokio::test]
async fn a_line_without_a_record_is_found() {
    let problems = damaged(|view, tx| tx.delete(Family::Meta, any_lane(view, "copy").0)).await;
    assert!(problems.len() == 1 && problems[0].starts_with("meta: it is missing, and"), "{problems:?}");
}

#[tokio::test]
async fn a_leased_entry_that_nobody_holds_is_found() {
    let problems = damaged(|view, tx| tx.delete(Family::Lease, all(view, Family::Lease, &[])[0].0.clone())).await;
    assert_eq!(problems, ["ready: it is leased, and nobody holds it"]);
}

#[tokio::test]
async fn holders_of_nothing_are_found() {
    let problems = damaged(|view, tx| {
        let (_, lease) = first(view, Family::Lease, |_, value| LeaseRecord::decode(value).ok());
        let nowhere = ReadyKey { position: 1, ..lease.key().unwrap() };
        tx.put(Family::Lease, number_key(7), LeaseRecord { position: 1, ..lease }.encode());
        tx.put(Family::Claim, number_key(8), ClaimRecord::new(Timestamp::EPOCH, [nowhere]).encode());
    })
    .await;
    assert_eq!(problems, ["claim: none of its entries is there", "lease: its entry is not there"]);
}

#[tokio::test]
async fn two_holders_of_one_entry_are_found() {
    let problems = damaged(|view, tx| {
        let (_, lease) = first(view, Family::Lease, |_, value| LeaseRecord::decode(value).ok());
        tx.put(Family::Lease, number_key(7), lease.encode());
    })
    .await;
    assert!(problems.len() == 1 && problems[0].contains("that another holds as well"), "{problems:?}");
}

/// A ready entry at its first spot that is not leased.
fn plain_ready(view: &dyn View) -> (Key, (ReadyKey, EntryRecord)) {
    let copy = queue(view, "copy").2;
    first(view, Family::Ready, |key, value| {
        let at = ReadyKey::decode(key).ok()?;
        let record = EntryRecord::decode(value.clone()).ok()?;
        (is_first_spot(at, &record) && at.line.queue == copy).then_some((at, record))
    })
}

#[tokio::test]
async fn a_holder_of_a_ready_entry_is_found() {
    let problems = damaged(|view, tx| {
        let (_, (at, _)) = plain_ready(view);
        tx.put(Family::Claim, number_key(7), ClaimRecord::new(Timestamp::EPOCH, [at]).encode());
    })
    .await;
    assert!(problems.len() == 1 && problems[0].contains("ready, not leased"), "{problems:?}");
}

#[tokio::test]
async fn places_that_point_nowhere_or_are_missing_are_found() {
    let nowhere = damaged(|_, tx| {
        let place = PlaceRecord { at: Spot::Dead { queue: 1, position: 3 }, past: Past::default() };
        tx.put(Family::Place, number_key(5), place.encode());
    })
    .await;
    assert!(nowhere.len() == 1 && nowhere[0].ends_with("nothing is there"), "{nowhere:?}");
    for family in [Family::Cancelled, Family::Dead, Family::Waiting, Family::Due] {
        let missing = damaged(|view, tx| {
            let (_, number) = first(view, family, |_, value| match family {
                Family::Waiting => EntryRecord::decode(value.clone()).ok().map(|entry| entry.number),
                Family::Due => DueValue::entry(value).ok()?.map(|entry| entry.number),
                _ => EntryRecord::decode(EndRecord::decode(value).ok()?.entry).ok().map(|entry| entry.number),
            });
            tx.delete(Family::Place, number_key(number));
        })
        .await;
        let expected = format!("{}: the place of entry number ", name(family));
        assert!(missing.len() == 1 && missing[0].starts_with(&expected), "{missing:?}");
    }
    let needless = damaged(|view, tx| {
        let (_, (at, record)) = plain_ready(view);
        let place = PlaceRecord { at: at.into(), past: Past::default() };
        tx.put(Family::Place, number_key(record.number), place.encode());
    })
    .await;
    assert!(needless.len() == 1 && needless[0].contains("needs no place, and has one"), "{needless:?}");
}

#[tokio::test]
async fn an_entry_in_two_states_is_found() {
    let twice = damaged(|view, tx| {
        let (key, value) = first(view, Family::Cancelled, |_, value| {
            let entry = EntryRecord::decode(EndRecord::decode(value).unwrap().entry).unwrap();
            entry.event.body().unwrap().is_none().then(|| value.clone())
        });
        let at = EndKey::decode(&key).unwrap();
        tx.put(Family::Cancelled, EndKey { position: 3, ..at }.encode(), value);
        let (key, mut record, id) = queue(view, "work");
        record.counts.cancelled += 1;
        assert_eq!(at.queue, id);
        tx.put(Family::Meta, key, record.encode());
    })
    .await;
    assert!(twice.len() == 1 && twice[0].contains("is somewhere else as well"), "{twice:?}");
    let done = damaged(|view, tx| {
        let (_, (at, record)) = plain_ready(view);
        let key = EndKey { queue: at.line.queue, position: record.number };
        tx.put(Family::Done, key.encode(), EndRecord::encode(&record, &Past::default(), None));
    })
    .await;
    assert!(done.iter().any(|problem| problem.ends_with("is done as well")), "{done:?}");
}

#[tokio::test]
async fn a_damaged_queue_is_found() {
    let options = damaged(|view, tx| {
        let id = queue(view, "copy").2;
        tx.delete(Family::Meta, Meta::Options(id).encode());
    })
    .await;
    assert_eq!(options, ["meta: its options are missing"]);
    let unknown = damaged(|view, tx| {
        let (_, (_, record)) = plain_ready(view);
        let record = EntryRecord { event: record.event.without_data().unwrap(), ..record };
        let value = EndRecord::encode(&record, &Past::default(), None);
        tx.put(Family::Cancelled, EndKey { queue: 999, position: 3 }.encode(), value);
    })
    .await;
    assert_eq!(unknown, ["cancelled: there is no queue number 999"]);
    let last = damaged(|_, tx| tx.put(Family::Meta, Meta::LastQueue.encode(), NumberRecord(4).encode())).await;
    assert_eq!(last, ["meta: its number was never given to a queue: the last was 4"]);
}

#[tokio::test]
async fn numbers_that_were_never_issued_are_found() {
    let problems = damaged(|view, tx| {
        let entry = EntryKey { queue: 1, priority: 0, number: u64::MAX };
        let value = DueValue::Timer(TimerRecord::TimeToLive(entry)).encode();
        let key = DueKey { time: Timestamp::from_micros(u64::MAX), queue: queue(view, "work").2, position: 7 };
        tx.put(Family::Due, key.encode(), value);
    })
    .await;
    assert!(problems.len() == 1 && problems[0].contains("was never issued"), "{problems:?}");
}

#[tokio::test]
async fn due_entries_before_the_cursor_are_found() {
    let problems = damaged(|view, tx| {
        let second = all(view, Family::Due, &[])[1].0.clone();
        tx.put(Family::Meta, Meta::DueCursor.encode(), Bytes::copy_from_slice(&second));
    })
    .await;
    assert_eq!(problems, ["due: it is before the place from which on due entries are looked for"]);
}

#[tokio::test]
async fn a_report_spells_out_a_thousand_problems() {
    let (memory, engine) = lived_in().await;
    let store = memory.store();
    let mut tx = Tx::new(store.current());
    for n in 0..1_500u16 {
        tx.put(Family::Body, Key::from_slice(&n.to_be_bytes()), "");
    }
    store.commit(tx.into_writes()).unwrap();
    let report = engine.verify().await.unwrap();
    assert_eq!((report.problems.len(), report.more), (MAX_PROBLEMS, 500));
    assert!(!report.is_sound() && report.to_string().ends_with("and 500 more"));
    assert!(report.to_string().contains("body, 0007: a key has the wrong length"), "the key in digits");
}
