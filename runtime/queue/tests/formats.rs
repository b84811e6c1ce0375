//! A store that any release has written is opened by this one. See `fixtures/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{ManualClock, Outcome, State, Timestamp};
use gristmill_queue::{self as contract, Claim, Confirm, Engine, EngineOptions, Queue, QueueError, RocksDb, Settle};

#[path = "../src/engine/verify/tests/lived_in.rs"]
mod lived_in;
mod support;

const FORMATS: [&str; 1] = ["format-1"];
/// A fixture stays small.
const MAX_BYTES: u64 = 200_000;

fn fixture(format: &str) -> PathBuf {
    Path::new("tests/fixtures").join(format)
}

fn options() -> EngineOptions {
    EngineOptions {
        // When the fixture was written: nothing has expired.
        clock: Arc::new(ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000))),
        log_retention: Some(Duration::from_secs(3_600)),
        disk_reserve: 0,
        write_buffer: 4 << 20,
        ..EngineOptions::default()
    }
}

fn copy(format: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    support::copy(&fixture(format), directory.path());
    directory
}

async fn sound(engine: &Engine) {
    let report = engine.verify().await.unwrap();
    assert!(report.is_sound(), "{report}");
}

/// Writes the fixture of the current format anew. Only until the format is released.
#[tokio::test]
#[ignore = "writes the fixture: run it when the format of a version that is not released has changed"]
async fn write_the_fixture() {
    let directory = tempfile::tempdir().unwrap();
    let engine = RocksDb::open(directory.path(), options()).unwrap();
    lived_in::first(&engine).await;
    engine.close().await.unwrap();
    drop(engine);
    let engine = RocksDb::open(directory.path(), options()).unwrap();
    lived_in::second(&engine).await;
    // Into sorted files; the last commits stay in the log.
    engine.reclaim().await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let to = fixture(FORMATS[FORMATS.len() - 1]);
    let _ = std::fs::remove_dir_all(&to);
    std::fs::create_dir_all(&to).unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // What RocksDB tells people, and a copy of its options.
        if !["LOG", "LOCK", "OPTIONS", "HOLDER"].iter().any(|useless| name.starts_with(useless)) {
            let mut bytes = std::fs::read(directory.path().join(&name)).unwrap();
            if name.ends_with(".log") {
                bytes.truncate(support::end_of_log(&bytes));
            }
            std::fs::write(to.join(&name), bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_store_of_every_format_is_opened_and_sound() {
    for format in FORMATS {
        let directory = copy(format);
        let engine = RocksDb::open(directory.path(), options()).unwrap();
        sound(&engine).await;
        everything_is_there(&engine).await;
        work_goes_on(&engine).await;
        sound(&engine).await;
        engine.close().await.unwrap();
        drop(engine);
        sound(&RocksDb::open(directory.path(), options()).unwrap()).await;
    }
}

async fn everything_is_there(engine: &Engine) {
    let mut found: BTreeMap<State, usize> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for queue in ["work", "keeps", "ordered", "paced", "copy"].map(lived_in::name) {
        for entry in support::all_entries(engine, &queue).await {
            *found.entry(entry.state).or_default() += 1;
            *sizes.entry(entry.event.data.as_ref().map(Bytes::len)).or_insert(0) += 1;
            assert_eq!(engine.get(entry.id.clone()).await.unwrap(), Some(entry));
        }
    }
    assert!(State::ALL.iter().all(|state| found[state] > 0), "entries in every state: {found:?}");
    for size in [None, Some(10), Some(100), Some(5_000), Some(6_000)] {
        assert!(sizes.contains_key(&size), "data of {size:?} bytes: {sizes:?}");
    }
    let snapshot = engine.snapshot().await.unwrap();
    assert_eq!(snapshot.buckets().unwrap(), ["acks", "numbers", "words"]);
    assert_eq!(snapshot.get("numbers", "n").unwrap().unwrap(), "82");
    assert_eq!(snapshot.get("words", "ä").unwrap().unwrap(), "value");
    assert_eq!(snapshot.get("words", "gone").unwrap(), None);
    let done = engine.find("/second".to_owned(), "0".to_owned()).await.unwrap();
    assert_eq!(done.len(), 2, "publishes are remembered");
}

/// What was there is handled, key by key.
async fn work_goes_on(engine: &Engine) {
    let mut handled = 0;
    for queue in ["work", "keeps", "ordered", "copy"].map(lived_in::name) {
        loop {
            let claimed = engine.claim(Claim::new(queue.clone(), 50)).await.unwrap();
            if claimed.is_empty() {
                break;
            }
            handled += claimed.len();
            let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None }));
            engine.settle(acks.collect(), Confirm::Committed).await.unwrap();
        }
    }
    assert!(handled > 50, "{handled}");
}

#[test]
fn the_fixtures_are_small() {
    for format in FORMATS {
        let files = std::fs::read_dir(fixture(format)).unwrap();
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < MAX_BYTES, "{format} has {bytes} bytes");
    }
}

#[test]
fn a_store_of_a_newer_format_is_refused_by_name() {
    let directory = copy("format-1");
    // The store's own record: kind 0 of the default family.
    let families = rocksdb::DB::list_cf(&rocksdb::Options::default(), directory.path()).unwrap();
    let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), directory.path(), families).unwrap();
    let mut record = db.get([0]).unwrap().unwrap();
    assert_eq!(record[0], 1);
    record[0] = 2;
    db.put([0], &record).unwrap();
    drop(db);
    let error = RocksDb::open(directory.path(), options()).unwrap_err();
    assert_eq!(error, QueueError::Corrupt("store: version 2 is unknown to this release".to_owned()));
}

#[tokio::test]
async fn a_damaged_file_is_found() {
    let names = std::fs::read_dir(fixture("format-1")).unwrap().map(|entry| entry.unwrap().file_name());
    let tables: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".sst")).collect();
    assert!(tables.len() > 10, "a table for each family: {tables:?}");
    for table in tables {
        let directory = copy("format-1");
        let path = directory.path().join(&table);
        let mut bytes = std::fs::read(&path).unwrap();
        // In the first block of records.
        bytes[5] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        match RocksDb::open(directory.path(), options()) {
            Err(error) => assert!(matches!(error, QueueError::Corrupt(_)), "{table:?}: {error}"),
            Ok(engine) => {
                let report = engine.verify().await.unwrap();
                assert!(report.to_string().contains("it cannot be read behind"), "{table:?}: {report}");
            }
        }
    }
}
