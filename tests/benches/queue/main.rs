//! Part of `make bench`: the embedded queue beside floors that do only the unavoidable work, and beside itself with much
//! behind it.
//!
//! Every case runs interleaved with its floor, [`RUNS`] times unless its line says otherwise, on the same machine;
//! medians of the runs' ratios are reported. Only ratios mean something on a shared machine. Arguments choose cases by a
//! part of their name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark: whatever fails ends it")]
#![allow(missing_docs, reason = "a program")]

mod backlog;
mod cases;
mod floors;
mod peer;
#[path = "../report.rs"]
mod report;
mod rig;

use report::{Case, Report, Target};
use rig::Setting;

/// Runs of each case that count; one more warms up.
const RUNS: usize = 7;
/// Bytes of data in each event.
const PAYLOAD: usize = 256;
/// Events in a batch.
const BATCH: usize = 256;
/// Events of a run in batches.
const EVENTS: usize = 64 * BATCH;
/// Events of a run one at a time.
const SINGLES: usize = 1_000;

fn main() {
    if backlog::run_child() {
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for setting in [Setting::Bare, Setting::Defaults] {
        let (group, with) = match setting {
            Setting::Bare => (("queue: ", " (idempotency and log off)"), "idempotency and log off"),
            Setting::Defaults => (("queue: ", " (all defaults)"), "all defaults"),
        };
        let heading = format!(
            "rocksdb, {with}; payload {PAYLOAD} B, batches of {BATCH}; fsync, and medians of {RUNS} interleaved runs, \
             unless a line says otherwise"
        );
        let mut report = Report::new(group, heading, RUNS);
        for case in paired(setting) {
            if wants(case.name) {
                report.measure(&runtime, &case);
            }
        }
        if setting == Setting::Bare {
            // The peer looks for no duplicates, and has no log.
            for case in peer::paired(setting).iter().filter(|case| wants(case.name)) {
                report.measure(&runtime, case);
            }
            if wants("backlog") {
                report.extend(backlog::measure(&runtime));
            }
        }
        report.finish();
    }
}

/// Cases that run beside a floor.
fn paired(setting: Setting) -> Vec<Case> {
    vec![
        Case {
            name: "publish in batches",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::publish_batches(setting))),
            floor: Box::new(|_| floors::publish_batches()),
            floor_is: "raw RocksDB batches of the same bytes, one fsync each",
            target: Target::AtLeast(0.7),
        },
        Case {
            name: "claim and settle",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::claim_and_settle(setting, 1))),
            floor: Box::new(|_| floors::claim_and_settle()),
            floor_is: "the raw reads and writes it needs",
            target: Target::AtLeast(0.6),
        },
        Case {
            name: "claim and settle, two workers",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::claim_and_settle(setting, 2))),
            floor: Box::new(|_| floors::claim_and_settle()),
            floor_is: "the same, on one thread",
            target: Target::None,
        },
        Case {
            name: "one publisher, p50",
            unit: "µs",
            ours: Box::new(move |runtime| runtime.block_on(cases::one_publisher(setting)).p50),
            floor: Box::new(|_| floors::append_and_sync()),
            floor_is: "append and fdatasync to a preallocated file",
            target: Target::AtMost(1.4),
        },
        Case {
            name: "one publisher, p50, over RocksDB",
            unit: "µs",
            ours: Box::new(move |runtime| runtime.block_on(cases::one_publisher(setting)).p50),
            floor: Box::new(|_| floors::put_and_sync()),
            floor_is: "put and flush_wal(true)",
            target: Target::None,
        },
        Case {
            name: "64 publishers",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::many_publishers(setting)).rate),
            floor: Box::new(move |runtime| runtime.block_on(cases::one_publisher(setting)).rate),
            floor_is: "one publisher, one event at a time",
            target: Target::AtLeast(10.0),
        },
        Case {
            name: "64 publishers, events per sync",
            unit: "events",
            ours: Box::new(move |runtime| runtime.block_on(cases::many_publishers(setting)).per_sync),
            floor: Box::new(|_| 1.0),
            floor_is: "one",
            target: Target::AtLeast(24.0),
        },
        Case {
            name: "wake-up, p99",
            unit: "µs",
            ours: Box::new(move |runtime| runtime.block_on(cases::wake_up(setting))),
            floor: Box::new(|_| 1_000.0),
            floor_is: "1 ms; without fsync",
            target: Target::AtMost(1.0),
        },
    ]
}
