//! A disk that fills up: publishes are refused in time, settling goes on; and one that is full is survived.
//!
//! The disk is a small `tmpfs`, mounted as root or in a user namespace. Where neither is allowed these tests say so and
//! pass; the one with the shim (`power/shim.c`), which plays a disk that takes no more bytes, runs everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

#[path = "power/shim.rs"]
mod shim;
mod support;

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{EntryId, Event, Outcome, QueueName, State};
use gristmill_queue::{
    Claim, Confirm, Engine, EngineOptions, Publish, PublishError, Queue, QueueError, QueueOptions, RocksDb, Settle,
    SettleReply,
};
use shim::Shim;

const MIB: u64 = 1 << 20;
/// The size of the disk, and what of it is kept back for settling.
const DISK: u64 = 96 * MIB;
const RESERVE: u64 = 24 * MIB;
/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Set where the disk may be mounted, or not at all.
const INSIDE: &str = "GRISTMILL_FULL_DISK_INSIDE";
/// Set in the process that has a shim for a disk.
const SHIMMED: &str = "GRISTMILL_FULL_DISK_SHIMMED";

fn queue(name: &str) -> QueueName {
    QueueName::new(name).unwrap()
}

fn open(directory: &Path, disk_reserve: u64) -> Result<Engine, QueueError> {
    let options = EngineOptions { disk_reserve, write_buffer: 4 * MIB, cache: 4 * MIB, ..EngineOptions::default() };
    RocksDb::open(directory, options)
}

async fn new(directory: &Path, disk_reserve: u64) -> Engine {
    let engine = open(directory, disk_reserve).unwrap();
    for name in ["work", "sink"] {
        engine.configure(queue(name), QueueOptions::default()).await.unwrap();
    }
    engine
}

/// Whatever happens, an answer comes.
async fn answered<T>(question: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, question).await.expect("no answer")
}

fn event(id: impl Into<String>, length: usize) -> Event {
    Event { data: Some(Bytes::from(vec![b'x'; length])), ..Event::new(id, "/disk", "t") }
}

/// What was promised.
#[derive(Default)]
struct Promised {
    published: BTreeSet<EntryId>,
    acked: BTreeSet<EntryId>,
    /// How large the events are that acks emit, in bytes.
    emits: usize,
}

impl Promised {
    async fn publish(&mut self, engine: &Engine, id: String, length: usize) -> Result<(), Refused> {
        let published = answered(engine.publish(vec![Publish::new(event(id, length), [queue("work")])])).await;
        let mut results = published.map_err(Refused::Store)?.results;
        let accepted = results.pop().unwrap().map_err(Refused::Event)?;
        self.published.extend(accepted.entries.into_iter().map(|entry| entry.entry));
        Ok(())
    }

    /// Claims one, and acks it with an event of its own.
    async fn work(&mut self, engine: &Engine) -> Result<(), QueueError> {
        for delivery in answered(engine.claim(Claim::new(queue("work"), 1))).await? {
            let mut emitted = event(format!("{}-emitted", delivery.lease.delivery), self.emits);
            emitted.subject = Some(delivery.entry.to_string());
            let ack = Settle {
                emits: vec![Publish::new(emitted, [queue("sink")])],
                ..Settle::new(delivery.lease, Outcome::Ack { result: None })
            };
            let replies = answered(engine.settle(vec![ack], Confirm::Durable)).await?;
            assert!(matches!(replies[0], SettleReply::Settled(_)), "{replies:?}");
            self.acked.insert(delivery.entry);
        }
        Ok(())
    }

    /// Whether it is so.
    async fn check(&self, engine: &Engine) {
        let mut done = BTreeSet::new();
        let mut work = BTreeSet::new();
        for (id, state, _) in entries(engine, "work").await {
            if state == State::Done {
                done.insert(id.clone());
            }
            assert!(work.insert(id.clone()), "{id} is in two states");
        }
        assert!(self.published.is_subset(&work), "lost: {:?}", self.published.difference(&work));
        assert!(self.acked.is_subset(&done), "not acked: {:?}", self.acked.difference(&done));
        let emitting: Vec<_> = entries(engine, "sink").await.into_iter().map(|(_, _, subject)| subject).collect();
        let distinct: BTreeSet<_> =
            emitting.iter().map(|subject| EntryId::new(subject.as_deref().unwrap()).unwrap()).collect();
        assert_eq!(distinct.len(), emitting.len(), "emitted twice");
        assert_eq!(distinct, done, "an ack and what it emits are one");
    }
}

#[derive(Debug)]
enum Refused {
    Store(QueueError),
    Event(PublishError),
}

async fn entries(engine: &Engine, name: &str) -> Vec<(EntryId, State, Option<String>)> {
    let entries = answered(support::all_entries(engine, &queue(name))).await;
    entries.into_iter().map(|entry| (entry.id, entry.state, entry.event.subject.clone())).collect()
}

/// Publishes until the reserve is reached.
async fn fill_up(engine: &Engine, promised: &mut Promised) -> PublishError {
    // Twice as much as there is room for.
    for n in 0..2 * DISK / 50_000 {
        match promised.publish(engine, format!("fill-{n}"), 50_000).await {
            Ok(()) => {}
            Err(Refused::Event(error)) => return error,
            Err(Refused::Store(error)) => panic!("after {n}: {error}"),
        }
    }
    panic!("nothing is refused")
}

/// Publishes that go through again, before long.
async fn publishes_go_through(engine: &Engine, promised: &mut Promised, mut each: impl AsyncFnMut(&Engine)) {
    let until = Instant::now() + PATIENCE;
    for n in 0.. {
        match promised.publish(engine, format!("again-{n}"), 5_000).await {
            Ok(()) => return,
            Err(error) => assert!(Instant::now() < until, "still refused: {error:?}"),
        }
        each(engine).await;
    }
}

async fn refused_in_time(directory: &Path) {
    let engine = new(directory, RESERVE).await;
    let mut promised = Promised { emits: 500, ..Promised::default() };
    let error = fill_up(&engine, &mut promised).await;
    let PublishError::DiskFull { available, reserve } = &error else { panic!("{error}") };
    assert_eq!(*reserve, RESERVE, "{error}");
    // A few MiB below it at most, and never none.
    assert!((RESERVE / 2..RESERVE).contains(available), "{error}");
    assert!(promised.published.len() as u64 * 50_000 > DISK / 8, "{} are few", promised.published.len());
    // Every one of a batch is told so.
    let batch = (0..3).map(|n| Publish::new(event(format!("batch-{n}"), 10), [queue("work")])).collect();
    let refused = answered(engine.publish(batch)).await.unwrap().results;
    assert!(refused.iter().all(|result| matches!(result, Err(PublishError::DiskFull { .. }))), "{refused:?}");
    // Settling goes on, and what is emitted is admitted.
    let backlog = promised.published.len();
    for n in 0..backlog {
        promised.work(&engine).await.unwrap_or_else(|error| panic!("after {n} of {backlog}: {error}"));
    }
    assert_eq!(promised.acked, promised.published);
    assert_eq!(engine.counters().reopened, 0, "the store has not failed");
    promised.check(&engine).await;
    // Their data is gone, and so is the shortage.
    publishes_go_through(&engine, &mut promised, async |engine| engine.reclaim().await.unwrap()).await;
    engine.close().await.unwrap();
    drop(engine);
    promised.check(&open(directory, RESERVE).unwrap()).await;
}

/// `fill` leaves no room, `relieve` gives it back.
async fn survives(directory: &Path, disk_reserve: u64, fill: impl FnOnce(), relieve: impl FnOnce()) {
    let engine = new(directory, disk_reserve).await;
    // Enough work to fill what RocksDB has set aside for its log.
    let mut promised = Promised { emits: 40_000, ..Promised::default() };
    for n in 0..400 {
        promised.publish(&engine, format!("before-{n}"), if n % 4 == 0 { 5_000 } else { 300 }).await.unwrap();
    }
    for _ in 0..20 {
        promised.work(&engine).await.unwrap();
    }
    fill();
    // Until the store has failed, and some time after: an answer comes to everything.
    let until = Instant::now() + PATIENCE;
    let (mut refused, mut unavailable) = (0, 0);
    for n in 0.. {
        assert!(Instant::now() < until, "the disk is full, and the store works: {refused} publishes were refused");
        match promised.publish(&engine, format!("full-{n}"), 5_000).await {
            Ok(()) => {}
            Err(Refused::Event(PublishError::DiskFull { .. })) => refused += 1,
            Err(Refused::Store(QueueError::Unavailable(_))) => unavailable += 1,
            Err(other) => panic!("{other:?}"),
        }
        match promised.work(&engine).await {
            Ok(()) => {}
            Err(QueueError::Unavailable(_)) => unavailable += 1,
            Err(other) => panic!("{other}"),
        }
        if unavailable >= 200 {
            break;
        }
    }
    assert!(disk_reserve == 0 || refused > 0, "publishes are refused before anything fails");
    relieve();
    publishes_go_through(&engine, &mut promised, async |_| {}).await;
    assert!(engine.counters().reopened > 0, "it has recovered by itself");
    promised.work(&engine).await.unwrap();
    promised.check(&engine).await;
    engine.close().await.unwrap();
    drop(engine);
    let engine = open(directory, disk_reserve).unwrap();
    promised.check(&engine).await;
    engine.close().await.unwrap();
}

/// A small disk, mounted where this process may mount one.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount() -> Result<Self, String> {
        let at = tempfile::tempdir().unwrap();
        let size = format!("size={DISK}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("mount: {error}")),
        }
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [1 << 20, 4_096, 1] {
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn relieve(&self) {
        std::fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A disk; `None` when the test `name` has been run where one can be mounted, or cannot be run at all.
fn disk(name: &str) -> Option<Disk> {
    let problem = match Disk::mount() {
        Ok(disk) => return Some(disk),
        Err(problem) => problem,
    };
    if std::env::var_os(INSIDE).is_some() {
        // Told to the process outside, which may mount nothing either.
        println!("@cannot mount: {problem}");
        return None;
    }
    let inside = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output();
    match inside {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let not_there = !said.contains("running 1 test") || said.contains("@cannot mount");
            if not_there {
                println!(
                    "SKIPPED {name}: no disk can be mounted here ({problem}; in a user namespace: {} {said})",
                    output.status
                );
            } else {
                assert!(output.status.success(), "{said}");
            }
        }
        Err(error) => println!("SKIPPED {name}: no disk can be mounted here ({problem}; unshare: {error})"),
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_are_refused_before_the_disk_is_full() {
    let Some(disk) = disk("publishes_are_refused_before_the_disk_is_full") else { return };
    refused_in_time(&disk.0.path().join("data")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_survived() {
    let Some(disk) = disk("a_full_disk_is_survived") else { return };
    survives(&disk.0.path().join("data"), RESERVE, || disk.fill(), || disk.relieve()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_without_a_reserve_is_survived() {
    let Some(disk) = disk("a_full_disk_without_a_reserve_is_survived") else { return };
    survives(&disk.0.path().join("data"), 0, || disk.fill(), || disk.relieve()).await;
}

/// The child: has a shim for a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn shimmed() {
    let Some(directory) = std::env::var_os(SHIMMED) else { return };
    let relief = std::env::var_os("POWER_RELIEF").unwrap();
    survives(Path::new(&directory), 0, || {}, || drop(std::fs::File::create(relief).unwrap())).await;
    println!("@survived");
}

/// The disk ends in the middle of a write, wherever that is.
#[test]
fn writes_that_fail_are_survived() {
    let shim = Shim::compile();
    for _ in 0..3 {
        let scratch = tempfile::tempdir().unwrap();
        let budget = 3 * MIB + rand::random::<u64>() % (3 * MIB);
        println!("POWER_BUDGET={budget}");
        // Ended, should it hang.
        let output = Command::new("timeout")
            .args(["--signal=KILL", "180"])
            .arg(std::env::current_exe().unwrap())
            .args(["shimmed", "--exact", "--ignored", "--nocapture"])
            .env(SHIMMED, scratch.path().join("data"))
            .env("LD_PRELOAD", shim.path())
            .env("POWER_BUDGET", budget.to_string())
            .env("POWER_RELIEF", scratch.path().join("relief"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("@survived"), "{}: {said}\n{complaint}", output.status);
    }
}
