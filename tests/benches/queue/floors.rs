//! Only the unavoidable work: the same bytes, the same reads and writes, the same syncs, and nothing else.

use std::fs::File;
use std::io::Write as _;
use std::time::Instant;

use rocksdb::{DB, IteratorMode, Options, WriteBatch};

use crate::rig::{micros, percentile, rate};
use crate::{BATCH, EVENTS, PAYLOAD, SINGLES};

/// An entry's key and value, as the queue stores them.
const KEY: usize = 14;
const ENTRY: usize = 36 + 4 + 34 + 1 + PAYLOAD;
/// What is kept of a done entry: header, result, one attempt.
const DONE: usize = 110;

fn raw(directory: &tempfile::TempDir) -> DB {
    let mut options = Options::default();
    options.create_if_missing(true);
    DB::open(&options, directory.path()).unwrap()
}

fn key(kind: u8, n: usize) -> [u8; KEY] {
    let mut key = [kind; KEY];
    key[KEY - 8..].copy_from_slice(&n.to_be_bytes());
    key
}

/// The same bytes in the same batches, each synced.
pub(crate) fn publish_batches() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let db = raw(&directory);
    let value = vec![b'x'; ENTRY];
    let started = Instant::now();
    for first in (0..EVENTS).step_by(BATCH) {
        let mut batch = WriteBatch::default();
        for n in first..first + BATCH {
            batch.put(key(1, n), &value);
        }
        db.write(batch).unwrap();
        db.flush_wal(true).unwrap();
    }
    rate(EVENTS, started.elapsed())
}

/// Read the entries in order, put one record for the claim; delete the entries, put what is kept of them.
pub(crate) fn claim_and_settle() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let db = raw(&directory);
    let (value, done) = (vec![b'x'; ENTRY], vec![b'x'; DONE]);
    for n in 0..EVENTS {
        db.put(key(1, n), &value).unwrap();
    }
    let started = Instant::now();
    for first in (0..EVENTS).step_by(BATCH) {
        let from = key(1, first);
        let mut read = Vec::with_capacity(BATCH);
        for item in db.iterator(IteratorMode::From(&from, rocksdb::Direction::Forward)).take(BATCH) {
            read.push(item.unwrap());
        }
        assert_eq!(read.len(), BATCH);
        let mut claim = WriteBatch::default();
        claim.put(key(2, first), [0; 24]);
        db.write(claim).unwrap();
        let mut settle = WriteBatch::default();
        settle.single_delete(key(2, first));
        for (key_read, _) in &read {
            settle.single_delete(key_read);
        }
        for n in first..first + BATCH {
            settle.put(key(3, n), &done);
        }
        db.write(settle).unwrap();
    }
    rate(EVENTS, started.elapsed())
}

/// An append to a preallocated file and a sync of its data: the median, in microseconds.
pub(crate) fn append_and_sync() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![0; SINGLES * ENTRY]).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let mut file = File::options().write(true).open(&path).unwrap();
    let record = vec![b'x'; ENTRY];
    let mut latencies = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let started = Instant::now();
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
        latencies.push(micros(started.elapsed()));
    }
    percentile(&mut latencies, 0.5)
}

/// A put and a sync of RocksDB's own log: the median, in microseconds. What bounds a single publish.
pub(crate) fn put_and_sync() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let db = raw(&directory);
    let value = vec![b'x'; ENTRY];
    let mut latencies = Vec::with_capacity(SINGLES);
    for n in 0..SINGLES {
        let started = Instant::now();
        db.put(key(1, n), &value).unwrap();
        db.flush_wal(true).unwrap();
        latencies.push(micros(started.elapsed()));
    }
    percentile(&mut latencies, 0.5)
}
