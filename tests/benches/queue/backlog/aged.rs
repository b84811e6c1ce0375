//! How long a claim takes after many entries have passed through, beside the first ones of a new store.

use std::path::Path;

use gristmill_queue::Engine;
use tokio::runtime::Runtime;

use super::store::{FEW, Source, options, publish, turn};
use super::words;
use crate::report::{Line, Target};
use crate::rig::{self, median, micros, percentile};
use crate::{BATCH, RUNS};

/// Events of one window.
const WINDOW: usize = 100_000;
/// Progress is noted each time that so many have passed.
const NOTED: usize = 2_500_000;
/// Windows of each store that count. Many: a 99th percentile varies.
const WINDOWS: usize = 2 * RUNS;

/// Percentiles of a window's claims, in microseconds.
struct Window {
    p50: f64,
    p99: f64,
}

pub(super) fn measure(runtime: &Runtime, parent: &Path, many: usize) -> Vec<Line> {
    let source = Source::new();
    let windows = runtime.block_on(async {
        let directory = tempfile::tempdir_in(parent).unwrap();
        let aged = open(directory.path(), &source).await;
        for passed in (0..many).step_by(2 * BATCH) {
            if passed % NOTED < 2 * BATCH {
                eprintln!("backlog: {passed} have passed through");
            }
            // Two at a time: one batch is prepared while the other is written.
            tokio::join!(turn(&aged, &source), turn(&aged, &source));
        }
        let mut windows = Vec::new();
        for _ in 0..=WINDOWS {
            let directory = tempfile::tempdir_in(parent).unwrap();
            let new = open(directory.path(), &source).await;
            windows.push((window(&aged, &source).await, window(&new, &source).await));
        }
        windows
    });
    // The first run warms up.
    let counted = &windows[1..];
    let line = |name: &str, of: fn(&Window) -> f64, target| Line {
        name: format!("claim after {}, {name}", words(many)),
        unit: "µs",
        value: median(counted.iter().map(|(aged, _)| of(aged)).collect()),
        floor: median(counted.iter().map(|(_, new)| of(new)).collect()),
        floor_is: format!("the first {} events of a store; without fsync, {WINDOWS} pairs", words(WINDOW)),
        ratio: median(counted.iter().map(|(aged, new)| of(aged) / of(new)).collect()),
        target,
    };
    vec![line("p50", |window| window.p50, Target::AtMost(1.5)), line("p99", |window| window.p99, Target::AtMost(3.0))]
}

async fn open(directory: &Path, source: &Source) -> Engine {
    let queue = rig::open(directory, options()).await;
    publish(&queue, source.batch(FEW)).await;
    queue
}

async fn window(queue: &Engine, source: &Source) -> Window {
    let mut claims = Vec::with_capacity(WINDOW / BATCH);
    for _ in 0..WINDOW / BATCH {
        claims.push(micros(turn(queue, source).await.claim));
    }
    Window { p50: percentile(&mut claims, 0.5), p99: percentile(&mut claims, 0.99) }
}
