//! The space of deleted bodies comes back, and what lives is not copied without need.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test's helpers: whatever fails, fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use gristmill_core::{EntryId, Event, QueueName};
use gristmill_queue::{
    Act, ActReply, Action, Engine, EngineOptions, Operation, Publish, Queue, QueueOptions, RocksDb, Selection,
};

const BODIES: usize = 64;
/// The size of a body, in bytes.
const BODY: u64 = 1 << 20;

fn open(directory: &Path) -> Engine {
    let options = EngineOptions { disk_reserve: 0, max_event_size: BODY + 1_024, ..EngineOptions::default() };
    RocksDb::open(directory, options).unwrap()
}

/// No two bodies are alike.
fn data(n: usize) -> Bytes {
    let start = n * 7_919;
    (start..start + BODY as usize).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn publish(engine: &Engine) -> Vec<EntryId> {
    let queue: QueueName = "work".parse().unwrap();
    engine.configure(queue.clone(), QueueOptions::default()).await.unwrap();
    let mut entries = Vec::new();
    for n in 0..BODIES {
        let event = Event { data: Some(data(n)), ..Event::new(n.to_string(), "/space", "t") };
        let published = engine.publish(vec![Publish::new(event, [queue.clone()])]).await.unwrap();
        entries.extend(published.results.into_iter().map(|accepted| accepted.unwrap().entries.remove(0).entry));
    }
    entries
}

async fn purge(engine: &Engine, entries: Vec<EntryId>) {
    let wanted = entries.len();
    let act = Act { action: Action::Purge, on: Selection::Entries(entries), rate: None };
    assert_eq!(engine.operate(Operation::Act(act)).await.unwrap().replies, vec![ActReply::Done; wanted]);
}

/// The files with this ending, or all of them, and their sizes: of a log without the room that was taken ahead.
fn files(directory: &Path, ending: Option<&str>) -> BTreeMap<String, u64> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let size = match name.ends_with(".log") {
            true => support::end_of_log(&std::fs::read(entry.path()).unwrap()),
            false => entry.metadata().unwrap().len() as usize,
        };
        (name, size as u64)
    });
    files.filter(|(name, _)| ending.is_none_or(|ending| name.ends_with(ending))).collect()
}

fn bodies(directory: &Path) -> BTreeMap<String, u64> {
    files(directory, Some(".blob"))
}

/// What was written since, in bytes: files are written once.
fn written(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, size)| size).sum()
}

async fn all_are_whole(engine: &Engine, entries: &[EntryId], left: &BTreeSet<usize>) {
    for (n, entry) in entries.iter().enumerate() {
        let found = engine.get(entry.clone()).await.unwrap();
        assert_eq!(found.is_some(), left.contains(&n), "{n}");
        assert!(found.is_none_or(|found| found.event.data == Some(data(n))), "{n}");
    }
}

#[tokio::test]
async fn what_lives_is_copied_only_when_that_pays() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let engine = open(directory);
    let entries = publish(&engine).await;
    let mut left: BTreeSet<usize> = (0..BODIES).collect();
    let take = async |gone: Vec<usize>, left: &mut BTreeSet<usize>| {
        left.retain(|n| !gone.contains(n));
        purge(&engine, gone.iter().map(|n| entries[*n].clone()).collect()).await;
        engine.reclaim().await.unwrap();
        all_are_whole(&engine, &entries, left).await;
        bodies(directory)
    };
    engine.reclaim().await.unwrap();
    let all = bodies(directory);
    assert!((BODIES as u64 * BODY..BODIES as u64 * BODY * 11 / 10).contains(&all.values().sum()), "{all:?}");

    // A few here and there: the files stay as they are, however often.
    assert_eq!(take(vec![31], &mut left).await, all, "one of 64");
    assert_eq!(take(vec![0, 63], &mut left).await, all, "three of 64");
    assert_eq!(take((1..20).collect(), &mut left).await, all, "22 of 64");

    // More garbage than bodies: those that are left are copied, once, and all the rest is given back.
    let few = take((20..63).filter(|n| n % 20 != 0 && *n != 31).collect(), &mut left).await;
    assert_eq!(left.len(), 3);
    let size: u64 = few.values().sum();
    assert!((3 * BODY..4 * BODY).contains(&size) && written(&all, &few) == size, "{few:?}");
    assert!(files(directory, None).values().sum::<u64>() < 5 * BODY, "{:?}", files(directory, None));
    assert_eq!(take(Vec::new(), &mut left).await, few, "nothing was deleted since");

    // Nothing is left.
    let none = take(vec![20, 40, 60], &mut left).await;
    assert!(none.is_empty(), "{none:?}");
    engine.close().await.unwrap();
}

/// What was deleted before the store was opened is found without having been noted.
#[tokio::test]
async fn space_comes_back_after_a_reopen() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path();
    let engine = open(directory);
    let entries = publish(&engine).await;
    engine.reclaim().await.unwrap();
    let all = bodies(directory);
    purge(&engine, entries[..60].to_vec()).await;
    engine.close().await.unwrap();
    drop(engine);
    assert!(bodies(directory).values().sum::<u64>() >= 60 * BODY, "nobody gave it back yet");
    let engine = open(directory);
    engine.reclaim().await.unwrap();
    let few = bodies(directory);
    let size: u64 = few.values().sum();
    assert!((4 * BODY..5 * BODY).contains(&size) && written(&all, &few) == size, "{few:?}");
    all_are_whole(&engine, &entries, &(60..BODIES).collect()).await;
    engine.close().await.unwrap();
}
