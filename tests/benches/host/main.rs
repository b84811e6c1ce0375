//! Part of `make bench`: handlers and their dispatch beside floors that do only the unavoidable work, and beside
//! themselves.
//!
//! Every case runs interleaved with its floor, [`RUNS`] times unless its line says otherwise, on the same machine and in
//! the same process; medians of the runs' ratios are reported. Only ratios mean something on a shared machine. Arguments
//! choose cases by a part of their name.
//!
//! Two cases need a component with an interpreter in it, which `scripts/bench-guests` builds; without it they are left
//! out, and a line says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark: whatever fails ends it")]
#![allow(missing_docs, reason = "a program")]

mod bare;
mod calls;
mod dispatch;
mod loading;
mod neighbours;
#[path = "../report.rs"]
mod report;

use std::path::PathBuf;

use report::{Case, Report, Target};

/// A call makes and drops some hundred small things, on whichever thread it is at the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs of each case that count; one more warms up.
const RUNS: usize = 5;
/// Bytes of data in each event.
const PAYLOAD: usize = 256;
/// Calls of a run.
const CALLS: usize = 8 * 1_024;
/// Events of a run.
const EVENTS: usize = 32 * 1_024;
/// How many calls are going on at once, where there are several.
const CONCURRENCY: usize = 4;

fn main() {
    if loading::run_child() {
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().event_interval(1).enable_all().build().unwrap();
    let heading = format!(
        "payload {PAYLOAD} B, {CALLS} calls or {EVENTS} events a run, concurrency {CONCURRENCY}; medians of {RUNS} interleaved runs, unless \
         a line says otherwise"
    );
    let mut report = Report::new(("host: ", ""), heading, RUNS);
    for case in cases().iter().filter(|case| wants(case.name)) {
        report.measure(&runtime, case);
    }
    if wants("idle handler") {
        report.extend(vec![loading::memory_per_handler()]);
    }
    match interpreter() {
        Some(path) => {
            let component = std::fs::read(path).unwrap();
            let (reused, started) = interpreted(component);
            if wants(reused.name) {
                report.measure(&runtime, &reused);
            }
            if wants(started.name) {
                report.measure_once(&runtime, &started);
            }
        }
        None => println!("reuse and start-up are left out: scripts/bench-guests builds the component that they need"),
    }
    report.finish();
}

/// A JavaScript handler, and the engine that runs it.
fn interpreter() -> Option<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Some(PathBuf::from(target).join("bench-guests/javascript.wasm")).filter(|path| path.is_file())
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "fresh instance",
            unit: "µs",
            ours: Box::new(|runtime| runtime.block_on(calls::micros_per_call(&calls::noop()))),
            floor: Box::new(|runtime| runtime.block_on(bare::micros_per_call())),
            floor_is: "Wasmtime alone, one task",
            target: Target::AtMost(1.3),
        },
        Case {
            name: "events, memory engine",
            unit: "events/s",
            ours: Box::new(|runtime| runtime.block_on(dispatch::events_per_second(dispatch::Store::Memory))),
            floor: Box::new(|runtime| runtime.block_on(bare::calls_per_second())),
            floor_is: "Wasmtime alone, as many tasks on the same threads",
            target: Target::AtLeast(0.7),
        },
        Case {
            name: "events, RocksDB with fsync",
            unit: "events/s",
            ours: Box::new(|runtime| runtime.block_on(dispatch::events_per_second(dispatch::Store::RocksDb))),
            floor: Box::new(|runtime| runtime.block_on(bare::calls_per_second())),
            floor_is: "Wasmtime alone, as many tasks on the same threads",
            target: Target::AtLeast(0.5),
        },
        Case {
            name: "beside spinning handlers, p99",
            unit: "ms",
            ours: Box::new(|runtime| runtime.block_on(neighbours::p99(true))),
            floor: Box::new(|runtime| runtime.block_on(neighbours::p99(false))),
            floor_is: "alone; from publish to ack, RocksDB with fsync",
            target: Target::AtMost(3.0),
        },
        Case {
            name: "beside spinning handlers, call p99",
            unit: "ms",
            ours: Box::new(|runtime| runtime.block_on(neighbours::call_p99(true))),
            floor: Box::new(|runtime| runtime.block_on(neighbours::call_p99(false))),
            floor_is: "alone; the call only, without a queue",
            target: Target::None,
        },
    ]
}

/// Reuse, and start-up.
fn interpreted(component: Vec<u8>) -> (Case, Case) {
    let component = bytes::Bytes::from(component);
    let (fresh, reused, cached, compiled) =
        (component.clone(), component.clone(), component.clone(), component.clone());
    (
        Case {
            name: "reused instance, JavaScript",
            unit: "µs",
            ours: Box::new(move |runtime| runtime.block_on(calls::micros_per_call(&calls::reused(reused.clone())))),
            floor: Box::new(move |runtime| runtime.block_on(calls::micros_per_call(&calls::fresh(fresh.clone())))),
            floor_is: "fresh instances of the same",
            target: Target::None,
        },
        Case {
            name: "start-up from the cache",
            unit: "a second",
            ours: Box::new(move |runtime| 1.0 / runtime.block_on(loading::seconds(cached.clone(), true))),
            floor: Box::new(move |runtime| 1.0 / runtime.block_on(loading::seconds(compiled.clone(), false))),
            floor_is: "compiling it; a component of 12 MB, once",
            target: Target::AtLeast(20.0),
        },
    )
}
