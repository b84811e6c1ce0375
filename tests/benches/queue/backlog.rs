//! With ten million entries waiting, and after ten million have passed through.
//!
//! One store is filled once, and never changed again: each measurement opens a copy of it. Without fsync, so that
//! what is measured is the queue and not the disk's syncs. What concerns a whole process is measured in a child.

mod aged;
mod child;
mod rates;
mod store;

use std::time::Instant;

use tokio::runtime::Runtime;

use crate::report::Line;
use store::{FEW, Filled};

pub(crate) use child::run as run_child;

/// How many entries wait, and how many pass through.
const MANY: usize = 10_000_000;
/// Another number instead, for trying out.
const MANY_VARIABLE: &str = "GRISTMILL_BENCH_BACKLOG";

pub(crate) fn measure(runtime: &Runtime) -> Vec<Line> {
    let many = std::env::var(MANY_VARIABLE).ok().map_or(MANY, |text| text.parse().expect(MANY_VARIABLE));
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let started = Instant::now();
    let note = |what: &str| eprintln!("backlog: {:>4} s: {what}", started.elapsed().as_secs());
    note(&format!("publishing {many} events"));
    let large = Filled::new(runtime, &directory.path().join("large"), many);
    note(&format!("that took {:.1} s; opening", large.took.as_secs_f64()));
    let small = Filled::new(runtime, &directory.path().join("small"), FEW);
    let mut lines = vec![child::opening(&large, many)];
    note("memory");
    lines.push(child::memory(&large, &small, many));
    note("claiming");
    lines.push(rates::measure(runtime, &large, &small, many));
    drop(large);
    note(&format!("letting {many} events pass through"));
    lines.extend(aged::measure(runtime, directory.path(), many));
    note("done");
    lines
}

/// A number of events, in words.
fn words(count: usize) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}
