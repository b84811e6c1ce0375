//! Opening a store: damaged, in use, copied, gone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

#[path = "open/loss.rs"]
mod loss;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{EntryId, Event, Outcome, QueueName, State};
use gristmill_queue::{
    Change, Claim, Confirm, Engine, EngineOptions, OnLoss, Publish, Queue, QueueError, QueueOptions, RocksDb, Settle,
    StateWrite, Transacted, Transaction,
};
use support::copy;

const DIRECTORY: &str = "GRISTMILL_OPEN_DIRECTORY";
/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

fn queue() -> QueueName {
    QueueName::new("work").unwrap()
}

fn options(on_loss: OnLoss) -> EngineOptions {
    EngineOptions { on_loss, disk_reserve: 0, ..EngineOptions::default() }
}

fn open(directory: &Path) -> Result<Engine, QueueError> {
    RocksDb::open(directory, options(OnLoss::Refuse))
}

/// Why it cannot be opened.
fn refusal(directory: &Path) -> String {
    open(directory).expect_err("it is opened").to_string()
}

async fn publish(engine: &Engine, ids: std::ops::Range<usize>) -> Vec<EntryId> {
    let event = |n| {
        let mut event = Event::new(format!("{n}"), "/open", "t");
        event.data = Some(data(n));
        Publish::new(event, [queue()])
    };
    let published = engine.publish(ids.map(event).collect()).await.unwrap();
    published.results.into_iter().map(|accepted| accepted.unwrap().entries.remove(0).entry).collect()
}

/// Every fifth is large, and lives apart.
fn data(n: usize) -> Bytes {
    Bytes::from(vec![n as u8; if n.is_multiple_of(5) { 10_000 } else { 100 }])
}

/// Every entry: its state and its event's id. What is not done yet has its data.
async fn entries(engine: &Engine) -> BTreeMap<EntryId, (State, String)> {
    let mut entries = BTreeMap::new();
    for entry in support::all_entries(engine, &queue()).await {
        if entry.state != State::Done {
            assert_eq!(entry.event.data, Some(data(entry.event.id.parse().unwrap())), "{}", entry.event.id);
        }
        entries.insert(entry.id, (entry.state, entry.event.id.clone()));
    }
    entries
}

/// The logs of a store, the newest last.
fn logs(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs
}

#[tokio::test]
async fn a_log_that_was_damaged_is_noticed() {
    let scratch = tempfile::tempdir().unwrap();
    let (original, damaged) = (scratch.path().join("original"), scratch.path().join("damaged"));
    let engine = open(&original).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    let mut published = Vec::new();
    for n in 0..40 {
        published.extend(publish(&engine, n..n + 1).await);
    }
    // As a kill would leave it; every publish was synced.
    copy(&original, &damaged);
    engine.close().await.unwrap();
    drop(engine);
    let log = logs(&damaged).pop().unwrap();
    let mut bytes = std::fs::read(&log).unwrap();
    // A sector in the middle of what was written, whatever of the file is only reserved.
    let middle = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    bytes[middle..middle + 512].iter_mut().for_each(|byte| *byte ^= 0xa5);
    std::fs::write(&log, bytes).unwrap();

    for _ in 0..2 {
        let error = refusal(&damaged);
        assert!(error.contains("--accept-loss") && error.contains(damaged.to_str().unwrap()), "{error}");
        let missing = error.split_once("has lost ").and_then(|(_, rest)| rest.split_once(" writes"));
        let missing: u64 = missing.unwrap_or_else(|| panic!("{error}")).0.parse().unwrap();
        assert!(missing > 10, "{error}");
    }
    let engine = RocksDb::open(&damaged, options(OnLoss::Accept)).unwrap();
    let left = entries(&engine).await;
    // The first ones, without a gap.
    let kept = published.iter().take_while(|entry| left.contains_key(entry)).count();
    assert!((5..40).contains(&kept), "{kept} are left");
    assert_eq!(left.len(), kept, "what follows the damage is not there");
    let new = publish(&engine, 100..110).await;
    assert!(new.iter().all(|entry| !published.contains(entry)), "an id is issued again");
    engine.close().await.unwrap();
    drop(engine);
    // Accepted once is enough.
    let engine = open(&damaged).unwrap();
    assert_eq!(entries(&engine).await.len(), kept + 10);
}

/// The child: has the store open until it is killed.
#[tokio::test]
#[ignore = "the child of the test below"]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let engine = open(Path::new(&directory)).unwrap();
    println!("@open");
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
    drop(engine);
}

#[test]
fn a_store_in_use_says_by_whom() {
    struct Killed(std::process::Child);
    impl Drop for Killed {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map(Killed)
        .unwrap();
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.ends_with("@open")), "the child has opened it");
    let pid = child.0.id();
    let by_another = format!("is in use by process {pid} (");
    for _ in 0..2 {
        let error = refusal(directory.path());
        assert!(error.contains(&by_another) && error.contains(directory.path().to_str().unwrap()), "{error}");
    }
    // Killed, it leaves its note behind; the lock is gone.
    drop(child);
    let engine = open(directory.path()).unwrap();
    let error = refusal(directory.path());
    assert!(error.contains("is in use by this process"), "{error}");
    let error = refusal(directory.path());
    assert!(error.contains("is in use by this process"), "a refusal leaves the note as it is: {error}");
    drop(engine);
    open(directory.path()).unwrap();
}

fn count(n: i64) -> Transaction {
    let key = || "counter".to_owned();
    Transaction {
        revision: None,
        reads: Vec::new(),
        writes: vec![StateWrite { bucket: key(), key: key(), change: Change::Increment(n) }],
    }
}

/// Entries that can be made one by one, and the tokens of their deliveries.
async fn issue(engine: &Engine, ids: std::ops::Range<usize>) -> (BTreeSet<EntryId>, BTreeSet<u64>) {
    let entries = publish(engine, ids).await.into_iter().collect();
    let claimed = engine.claim(Claim::new(queue(), 1_000)).await.unwrap();
    (entries, claimed.iter().map(|delivery| delivery.lease.delivery).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_store_is_restored_as_another() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let engine = open(&at("original")).unwrap();
    let configured = QueueOptions { max_events: Some(5_000), ..QueueOptions::default() };
    engine.configure(queue(), configured).await.unwrap();
    publish(&engine, 0..100).await;
    for delivery in engine.claim(Claim::new(queue(), 30)).await.unwrap() {
        let ack = Settle::new(delivery.lease, Outcome::Ack { result: None });
        engine.settle(vec![ack], Confirm::Committed).await.unwrap();
    }
    let leased = engine.claim(Claim::new(queue(), 5)).await.unwrap();
    assert_eq!(engine.transact(count(7)).await, Ok(Transacted::Committed(vec![7])));
    let before = entries(&engine).await;
    // Work goes on meanwhile: what is in the backup of it is in it as a whole.
    let (backed_up, _) = tokio::join!(
        async {
            let made = at("backups/1");
            engine.backup(&made).await
        },
        async {
            for n in 0..20 {
                publish(&engine, 1_000 + n..1_001 + n).await;
            }
        },
    );
    backed_up.unwrap();
    let backup = at("backups/1");
    let error = engine.backup(&backup).await.unwrap_err().to_string();
    assert!(error.contains("exists"), "{error}");

    RocksDb::restore(&backup, &at("restored")).unwrap();
    RocksDb::restore(&backup, &at("again")).unwrap();
    let restored = open(&at("restored")).unwrap();
    let again = open(&at("again")).unwrap();
    for copy in [&restored, &again] {
        let found = entries(copy).await;
        for (id, (state, event)) in &before {
            // Leases ended with the store that gave them.
            let expected = if leased.iter().any(|delivery| delivery.entry == *id) { None } else { Some(*state) };
            assert!(found.contains_key(id), "{event} is not in the backup");
            assert!(expected.is_none_or(|expected| found[id].0 == expected), "{event} is {}", found[id].0);
        }
        assert!(!found.values().any(|(state, _)| *state == State::Leased));
        assert_eq!(copy.transact(count(1)).await, Ok(Transacted::Committed(vec![8])));
        assert_eq!(copy.stats().await.unwrap().len(), 1, "queues are there");
    }
    // What all three issue from now on differs, tokens as well.
    let issued =
        [issue(&engine, 2_000..2_100).await, issue(&restored, 3_000..3_100).await, issue(&again, 4_000..4_100).await];
    let entries: BTreeSet<_> = issued.iter().flat_map(|(entries, _)| entries).collect();
    assert_eq!(entries.len(), 300, "an id was issued twice");
    let tokens: usize = issued.iter().map(|(_, tokens)| tokens.len()).sum();
    let distinct: BTreeSet<_> = issued.iter().flat_map(|(_, tokens)| tokens).collect();
    assert!(tokens >= 300 && distinct.len() == tokens, "{tokens} deliveries, {} numbers", distinct.len());

    let error = RocksDb::restore(&backup, &at("restored")).unwrap_err().to_string();
    assert!(error.contains("is not empty"), "{error}");
    std::fs::create_dir(at("nothing")).unwrap();
    for no_backup in ["nothing", "nowhere"] {
        let error = RocksDb::restore(&at(no_backup), &at("new")).unwrap_err().to_string();
        assert!(error.contains("is not a backup"), "{error}");
        assert!(error.contains(at(no_backup).to_str().unwrap()), "{error}");
        assert!(!at("new").exists(), "a refusal leaves nothing behind");
    }
    assert_eq!(std::fs::read_dir(at("nothing")).unwrap().count(), 0, "asking changes nothing");
    // The store that was backed up and those that were restored can be opened again.
    for (engine, name) in [(engine, "original"), (restored, "restored"), (again, "again")] {
        engine.close().await.unwrap();
        drop(engine);
        open(&at(name)).unwrap();
    }
}

#[test]
fn a_place_where_no_store_can_be_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    for place in [file.clone(), file.join("below"), "/proc/gristmill".into()] {
        let error = refusal(&place);
        assert!(error.contains(place.to_str().unwrap()), "{error}");
    }
    // Root may write where nobody may; the others are told.
    let locked = scratch.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(&locked, mode(0o500)).unwrap();
    match open(&locked) {
        Ok(_) => assert!(std::fs::File::create(locked.join("file")).is_ok(), "the directory is written after all"),
        Err(error) => assert!(error.to_string().contains(locked.to_str().unwrap()), "{error}"),
    }
    std::fs::set_permissions(&locked, mode(0o700)).unwrap();
}

/// Somebody removes the directory under a running engine. It must not hang, and must say what is wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_vanishes_is_an_error() {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().join("data");
    let small = EngineOptions { write_buffer: 1 << 20, ..options(OnLoss::Refuse) };
    let engine = RocksDb::open(&directory, small).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    publish(&engine, 0..10).await;
    std::fs::remove_dir_all(&directory).unwrap();
    let until = Instant::now() + PATIENCE;
    let mut n = 10;
    let error = loop {
        // Open files live on; the next new one cannot be made.
        let mut event = Event::new(format!("{n}"), "/open", "t");
        event.data = Some(Bytes::from(vec![1; 100_000]));
        match tokio::time::timeout(PATIENCE, engine.publish(vec![Publish::new(event, [queue()])])).await.unwrap() {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
        assert!(Instant::now() < until, "{n} publishes were accepted");
    };
    assert!(matches!(error, QueueError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
    // What is opened again is that store, or none: an empty one would have lost everything.
    loop {
        let event = Event::new("again", "/open", "t");
        let again = tokio::time::timeout(PATIENCE, engine.publish(vec![Publish::new(event, [queue()])])).await.unwrap();
        let error = again.expect_err("there is no store");
        if error.to_string().contains("is gone") {
            break;
        }
        assert!(matches!(error, QueueError::Unavailable(_)) && Instant::now() < until, "{error}");
    }
    assert!(!directory.exists(), "nothing is made in its place");
    let closed = tokio::time::timeout(PATIENCE, engine.close()).await.expect("it closes");
    assert!(matches!(closed, Err(QueueError::Unavailable(_))), "{closed:?}");
}

#[tokio::test]
async fn what_an_interrupted_restore_leaves_is_no_store_of_the_same_numbers() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let engine = open(&at("original")).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    engine.backup(&at("backup")).await.unwrap();
    // Stopped before the last file was there; stopped before it was made another store.
    for (name, is_whole) in [("half", false), ("whole", true)] {
        copy(&at("backup"), &at(name));
        std::fs::write(at(name).join("RESTORED"), "").unwrap();
        if !is_whole {
            std::fs::remove_file(at(name).join("CURRENT")).unwrap();
        }
    }
    let error = refusal(&at("half"));
    assert!(error.contains("restore again"), "{error}");
    let whole = open(&at("whole")).unwrap();
    let issued = [issue(&engine, 0..10).await, issue(&whole, 0..10).await];
    let entries: BTreeSet<_> = issued.iter().flat_map(|(entries, _)| entries).collect();
    assert_eq!(entries.len(), 20, "an id was issued twice");
}
