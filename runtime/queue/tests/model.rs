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
    pub(crate) mod observation;
    pub(crate) mod operations;
    pub(crate) mod passing;
    pub(crate) mod publishing;
    pub(crate) mod run;
    pub(crate) mod world;
}

use gristmill_queue::Memory;
use model::run::{Place, Run};

/// Steps between two comparisons of everything.
const COMPARED_EVERY: u32 = 7;

fn runs() -> (std::ops::Range<u64>, u32) {
    let soak = std::env::var_os("GRISTMILL_SOAK").is_some();
    let steps = if soak { 5_000 } else { 500 };
    match std::env::var("GRISTMILL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => (seed..seed + 1, steps),
        None => (0..if soak { 400 } else { 40 }, steps),
    }
}

async fn run(place: impl Fn() -> Place) {
    let (seeds, steps) = runs();
    for seed in seeds {
        println!("GRISTMILL_SEED={seed}");
        let mut run = Run::new(place(), seed).await;
        for step in 0..steps {
            run.step().await;
            if step % COMPARED_EVERY == 0 {
                run.compare().await;
            }
        }
        run.compare().await;
    }
}

#[tokio::test]
#[ignore = "not finished: model and engine still disagree about retention at some seeds"]
async fn the_memory_engine_does_what_the_model_does() {
    run(|| Place::Memory(Memory::default())).await;
}

#[tokio::test]
#[ignore = "not finished: model and engine still disagree about retention at some seeds"]
async fn the_durable_engine_does_what_the_model_does() {
    run(|| Place::Rocks(tempfile::tempdir().unwrap())).await;
}
