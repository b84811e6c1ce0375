//! A peer, `arch-event-queues`, doing the same work. It is a program of its own (`tests/benches/peer`); where it has not
//! been built, these cases are left out.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use gristmill_core::Outcome;
use gristmill_queue::{Claim, Confirm, Queue, Settle};
use serde_json::Value;

use crate::report::{Case, Target};
use crate::rig::{Setting, fill, name, open, rate};
use crate::{BATCH, cases};

/// Batches that are claimed and settled.
const BATCHES: usize = 8;

pub(crate) fn paired(setting: Setting) -> Vec<Case> {
    let Some(program) = program() else { return Vec::new() };
    let peer = |case: &'static str| {
        let program = program.clone();
        move || measure(&program, case)
    };
    let (many, one, claims) = (peer("64 publishers"), peer("one publisher"), peer("claim and ack"));
    vec![
        Case {
            name: "peer: 64 publishers",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::many_publishers(setting)).rate),
            floor: Box::new(move |_| many()),
            floor_is: "arch-event-queues, 64 threads that push",
            target: Target::AtLeast(5.0),
        },
        Case {
            name: "peer: one publisher",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(cases::one_publisher(setting)).rate),
            floor: Box::new(move |_| one()),
            floor_is: "arch-event-queues, one thread that pushes",
            target: Target::AtLeast(0.8),
        },
        Case {
            name: "peer: claim and settle",
            unit: "events/s",
            ours: Box::new(move |runtime| runtime.block_on(claim_and_settle(setting))),
            floor: Box::new(move |_| claims()),
            floor_is: "arch-event-queues, pop and ack_many: in memory, without leases",
            target: Target::None,
        },
    ]
}

fn program() -> Option<PathBuf> {
    let built = || {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".cache/gristmill-peer-target/release/gristmill-bench-peer"))
    };
    std::env::var_os("GRISTMILL_PEER").map(PathBuf::from).or_else(built).filter(|program| program.is_file())
}

/// Events a second, by its own account.
fn measure(program: &PathBuf, case: &str) -> f64 {
    let output = Command::new(program).arg(case).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{}: {}", program.display(), output.status);
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    measured["events_per_second"].as_f64().unwrap()
}

/// Settlements are durable before the next claim, as the peer's acks are.
async fn claim_and_settle(setting: Setting) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = open(directory.path(), setting.options()).await;
    fill(&queue, BATCHES * BATCH).await;
    let started = Instant::now();
    for _ in 0..BATCHES {
        let claimed = queue.claim(Claim::new(name(), BATCH)).await.unwrap();
        assert_eq!(claimed.len(), BATCH);
        let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None }));
        queue.settle(acks.collect(), Confirm::Durable).await.unwrap();
    }
    rate(BATCHES * BATCH, started.elapsed())
}
