//! The power is cut, again and again, and the store is opened on what a disk may hold then: every byte that was synced,
//! and of the others whatever the cut likes.
//!
//! The child (this test binary, run again) publishes and works under a shim (`power/shim.c`) that notes what has been
//! synced, and writes a line for every promise it was given. It is stopped at a random moment. Of its directory a copy is
//! made in which what was not synced is dropped, torn or garbled, and all that was promised must be in it.
//!
//! `GRISTMILL_SOAK=1` cuts many more times; `GRISTMILL_SEED=…` repeats what the cuts chose (not when they came).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

#[path = "power/checks.rs"]
mod checks;
#[path = "power/child.rs"]
mod child;
#[path = "power/disk.rs"]
mod disk;
#[path = "power/shim.rs"]
mod shim;

use std::path::Path;
use std::time::Duration;

use checks::{Ledger, problems};
use child::Child;
use disk::{Record, Torn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shim::Shim;

/// How often the power is cut, and how many disks are tried after each cut.
const CUTS: usize = 7;
const DISKS: usize = 2;

fn soaking() -> bool {
    std::env::var_os("GRISTMILL_SOAK").is_some()
}

fn random() -> StdRng {
    let seed = std::env::var("GRISTMILL_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("GRISTMILL_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// The child. Runs until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the tests below"]
async fn child_process() {
    child::run().await;
}

/// Runs a child on `directory`, cuts its power, and writes what the disk may hold then to each of `disks`.
fn cut(
    shim: &Shim,
    ledger: &mut Ledger,
    directory: &Path,
    disks: &[&Path],
    (write_buffer, lies): (u64, bool),
    random: &mut StdRng,
) -> Torn {
    let record = tempfile::tempdir().unwrap();
    let record = record.path().join("record");
    let mut child = Child::start(shim, directory, &record, write_buffer, lies);
    // Files come and go at their own pace: some cuts come late.
    let promises =
        if random.random_bool(0.3) { random.random_range(1_000..6_000) } else { random.random_range(1..800) };
    child.hear(promises, ledger);
    child.stop();
    let positions = child.positions();
    let synced = Record::read(&record);
    let mut torn = Torn::default();
    for disk in disks {
        torn += disk::after_the_cut(directory, disk, (&synced, &positions), random);
    }
    // It was stopped before: all that it has said, it had said before the cut.
    child.kill(ledger);
    torn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_outlive_power_cuts() {
    let mut random = random();
    let shim = Shim::compile();
    let cuts = if soaking() { CUTS * 40 } else { CUTS };
    let mut ledger = Ledger::default();
    let mut torn = Torn::default();
    let mut directory = tempfile::tempdir().unwrap();
    for round in 0..cuts {
        if round % 7 == 3 {
            // A store that is new: its first files are being made.
            ledger = Ledger::default();
            directory = tempfile::tempdir().unwrap();
        }
        // Every second store begins a new log many times in a life.
        let write_buffer = if round % 2 == 0 { 256 << 10 } else { [1, 4, 16][random.random_range(0..3)] << 20 };
        let disks: Vec<_> = (0..DISKS).map(|_| tempfile::tempdir().unwrap()).collect();
        let paths: Vec<_> = disks.iter().map(tempfile::TempDir::path).collect();
        torn += cut(&shim, &mut ledger, directory.path(), &paths, (write_buffer, false), &mut random);
        for disk in disks {
            let found = problems(disk.path(), &ledger).await;
            if !found.is_empty() {
                let kept = disk.keep();
                panic!("round {round}, {}: {}", kept.display(), found.join("\n"));
            }
            directory = disk;
        }
    }
    println!("{cuts} cuts, {DISKS} disks each: {torn}; at last {ledger}");
    assert!(torn.is_something(), "{torn}");
    assert!(ledger.has_everything(), "there was work of every kind: {ledger}");
}

/// The check can fail: where the log is never synced, it finds what is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_lies_is_found_out() {
    let mut random = random();
    let shim = Shim::compile();
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let (directory, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut ledger = Ledger::default();
        cut(&shim, &mut ledger, directory.path(), &[disk.path()], (64 << 20, true), &mut random);
        let found = problems(disk.path(), &ledger).await;
        let has = |what: &str| found.iter().any(|problem| problem.contains(what));
        // Now and then the cut takes nothing that was promised, or the note beside the store as well.
        if has("was acknowledged and is gone") && has("writes that were on stable storage") {
            return;
        }
        assert!(std::time::Instant::now() < until, "nothing synced, and nothing lost: {}", found.join("\n"));
    }
}
