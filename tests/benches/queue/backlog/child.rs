//! What is measured in a process of its own: memory, and how long opening takes.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use gristmill_queue::{Claim, EngineOptions, Queue, RocksDb};

use super::store::{FEW, Filled, Source, options, turn};
use super::words;
use crate::BATCH;
use crate::report::{Line, Target};
use crate::rig::{self, median, name};

/// What the child measures, and on which store.
const TASK: &str = "GRISTMILL_BENCH_TASK";
const STORE: &str = "GRISTMILL_BENCH_STORE";
/// Children of each kind.
const CHILDREN: usize = 7;
/// Batches before memory is looked at: several times what all buffers hold.
const WARM_UP: usize = 1_000;
const MIB: f64 = 1_048_576.0;

/// In a child process, measures what it was started for; false: this is no child.
pub(crate) fn run() -> bool {
    let (Some(task), Some(store)) = (std::env::var_os(TASK), std::env::var_os(STORE)) else { return false };
    let store = PathBuf::from(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let measured = match task.to_str() {
        Some("memory") => runtime.block_on(resident_after_warm_up(&store)),
        Some("opening") => runtime.block_on(open_and_claim(&store)),
        task => unreachable!("{TASK} is {task:?}"),
    };
    println!("{measured}");
    true
}

fn in_child(task: &str, store: &Path) -> f64 {
    // Not by its path: it may have been compiled anew since it was started.
    let mut command = Command::new("/proc/self/exe");
    let child = command.env(TASK, task).env(STORE, store).stderr(Stdio::inherit()).output().unwrap();
    assert!(child.status.success(), "{task}: {}", child.status);
    String::from_utf8(child.stdout).unwrap().trim().parse().unwrap()
}

/// Resident memory with many waiting, over that with few, in MiB.
pub(super) fn memory(large: &Filled, small: &Filled, many: usize) -> Line {
    const LIMIT: f64 = 64.0;
    let mut more = Vec::new();
    for _ in 0..CHILDREN {
        let large = in_child("memory", large.copy().path());
        let small = in_child("memory", small.copy().path());
        eprintln!("backlog: {large:.1} MiB resident, {small:.1} MiB with few waiting");
        more.push(large - small);
    }
    let more = median(more);
    Line {
        name: format!("memory, {} waiting", words(many)),
        unit: "MiB",
        value: more,
        floor: LIMIT,
        floor_is: format!("{LIMIT} MiB over that with {} waiting; {CHILDREN} pairs of processes", words(FEW)),
        ratio: more / LIMIT,
        target: Target::AtMost(1.0),
    }
}

async fn resident_after_warm_up(store: &Path) -> f64 {
    let queue = rig::open(store, EngineOptions { write_buffer: 16 << 20, cache: 32 << 20, ..options() }).await;
    let source = Source::new();
    for _ in 0..WARM_UP {
        turn(&queue, &source).await;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024.0 / MIB
}

/// From nothing to the first claimed batch, with many waiting, in milliseconds.
pub(super) fn opening(large: &Filled, many: usize) -> Line {
    const LIMIT: f64 = 2_000.0;
    let mut took = Vec::new();
    for _ in 0..CHILDREN {
        let millis = in_child("opening", large.copy().path());
        eprintln!("backlog: opened in {millis:.0} ms");
        took.push(millis);
    }
    let took = median(took);
    Line {
        name: format!("opening, {} waiting", words(many)),
        unit: "ms",
        value: took,
        floor: LIMIT,
        floor_is: format!("{LIMIT} ms, first stats and first claim included; {CHILDREN} processes"),
        ratio: took / LIMIT,
        target: Target::AtMost(1.0),
    }
}

async fn open_and_claim(store: &Path) -> f64 {
    let started = Instant::now();
    let queue = RocksDb::open(&store.join("queue"), options()).unwrap();
    let stats = queue.stats().await.unwrap();
    let claimed = queue.claim(Claim::new(name(), BATCH)).await.unwrap();
    let took = started.elapsed();
    assert_eq!(claimed.len(), BATCH);
    assert!(stats[0].ready >= BATCH as u64, "{stats:?}");
    took.as_secs_f64() * 1e3
}
