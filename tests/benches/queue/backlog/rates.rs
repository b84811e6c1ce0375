//! How fast entries are claimed with many waiting, and with few.

use std::time::Duration;

use gristmill_queue::Engine;
use tokio::runtime::Runtime;

use super::store::{FEW, Filled, Source, options, turn};
use super::words;
use crate::report::{Line, Target};
use crate::rig::{self, median, rate};
use crate::{BATCH, RUNS};

/// Batches of one run: few, and many runs, so that both stores see the same of what else happens on the machine.
const TURNS: usize = 64;
const PAIRS: usize = 4 * RUNS;

pub(super) fn measure(runtime: &Runtime, large: &Filled, small: &Filled, many: usize) -> Line {
    let directories = [large.copy(), small.copy()];
    let source = Source::new();
    let runs = runtime.block_on(async {
        let large = rig::open(directories[0].path(), options()).await;
        let small = rig::open(directories[1].path(), options()).await;
        let mut runs = Vec::new();
        for _ in 0..=PAIRS {
            runs.push((run(&large, &source).await, run(&small, &source).await));
        }
        runs
    });
    // The first run warms up.
    let counted = &runs[1..];
    Line {
        name: format!("claims, {} waiting", words(many)),
        unit: "events/s",
        value: median(counted.iter().map(|(large, _)| *large).collect()),
        floor: median(counted.iter().map(|(_, small)| *small).collect()),
        floor_is: format!("with {} waiting; without fsync, {PAIRS} pairs", words(FEW)),
        ratio: median(counted.iter().map(|(large, small)| large / small).collect()),
        target: Target::AtLeast(0.9),
    }
}

/// Entries claimed and settled in a second. What is claimed is published again, outside the measured time.
async fn run(queue: &Engine, source: &Source) -> f64 {
    let mut elapsed = Duration::ZERO;
    for _ in 0..TURNS {
        let turn = turn(queue, source).await;
        elapsed += turn.claim + turn.settle;
    }
    rate(TURNS * BATCH, elapsed)
}

const _: () = assert!(FEW > BATCH, "a batch is never short");
