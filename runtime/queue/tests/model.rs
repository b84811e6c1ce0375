//! A naive model of the contract and both engines, driven by the same random commands: every answer and everything
//! that can be observed must agree.
//!
//! A failing run says its seed: `GRISTMILL_SEED=7 cargo test -p gristmill-queue --test model` replays it alone.
//! `GRISTMILL_SOAK=1` runs many more seeds, and each for longer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test's helpers: whatever fails, fails the test, and says what led to it"
)]

mod model {
    pub(crate) mod buckets;
    pub(crate) mod choices;
    pub(crate) mod commands;
    pub(crate) mod failing;
    pub(crate) mod observation;
    pub(crate) mod operations;
    pub(crate) mod pace;
    pub(crate) mod passing;
    pub(crate) mod publishing;
    pub(crate) mod run;
    pub(crate) mod world;
}

use std::ops::Range;

use gristmill_queue::Memory;
use model::run::{Place, Run};

/// How much is done. Looking costs more than doing: it goes through everything.
struct Extent {
    seeds: Range<u64>,
    steps: u32,
    /// Steps between two comparisons of everything.
    looks_every: u32,
}

impl Extent {
    /// So many seeds, unless the environment says more, or which one.
    fn new(seeds: u64) -> Self {
        let soak = std::env::var_os("GRISTMILL_SOAK").is_some();
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let seeds = match number("GRISTMILL_SEED") {
            Some(seed) => seed..seed + 1,
            None => 0..if soak { 20 * seeds } else { seeds },
        };
        Self { seeds, steps: if soak { 3_000 } else { 500 }, looks_every: 40 }
    }
}

async fn run(extent: Extent, place: impl Fn() -> Place) {
    for seed in extent.seeds {
        println!("GRISTMILL_SEED={seed}");
        let mut run = Run::new(place(), seed).await;
        for step in 1..=extent.steps {
            run.step().await;
            if step % extent.looks_every == 0 {
                run.compare().await;
            }
        }
        run.compare().await;
    }
}

#[tokio::test]
async fn the_memory_engine_does_what_the_model_does() {
    run(Extent::new(24), || Place::Memory(Memory::default())).await;
}

#[tokio::test]
async fn the_durable_engine_does_what_the_model_does() {
    run(Extent::new(8), || Place::Rocks(tempfile::tempdir().unwrap())).await;
}
