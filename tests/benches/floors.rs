//! `make bench`: what the parts do, beside a floor that does only the unavoidable work.
//!
//! Every case runs interleaved with its floor, [`RUNS`] times, on the same machine and in the same process; medians are
//! reported. Only ratios mean something on a shared machine.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark: whatever fails ends it")]
#![allow(missing_docs, reason = "a program")]

mod bare;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill::cli::screen::Screen;
use gristmill::cli::table::{Column, Table};
use gristmill::config;
use gristmill::dispatch::{Dispatcher, Phase};
use gristmill::latency::Latencies;
use gristmill::registry;
use gristmill_core::{Event, Outcome, QueueName, SystemClock};
use gristmill_host::Invocation;
use gristmill_queue::{Engine, EngineOptions, Publish, Queue, QueueOptions, RocksDb};
use serde_json::json;
use tokio::sync::watch;

const RUNS: usize = 5;
const PAYLOAD: usize = 256;
const BATCH: usize = 256;
const HANDLED: usize = 8 * BATCH;
const CONCURRENCY: usize = 4;

fn name() -> QueueName {
    QueueName::new("bench").unwrap()
}

fn event(n: usize) -> Event {
    Event { data: Some(Bytes::from(vec![b'x'; PAYLOAD])), ..Event::new(n.to_string(), "/bench", "bench.event") }
}

async fn open(directory: &tempfile::TempDir) -> Engine {
    let engine = RocksDb::open(&directory.path().join("queue"), EngineOptions::default()).unwrap();
    engine.configure(name(), QueueOptions::default()).await.unwrap();
    engine
}

async fn fill(queue: &dyn Queue, events: usize) {
    for first in (0..events).step_by(BATCH) {
        let batch = (first..first + BATCH).map(|n| Publish::new(event(n), [name()])).collect();
        assert!(queue.publish(batch).await.unwrap().results.iter().all(Result::is_ok));
    }
}

/// Events a second.
fn rate(events: usize, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(events).unwrap()) / elapsed.as_secs_f64()
}

fn deployment(directory: &tempfile::TempDir) -> config::Config {
    let component = gristmill_test_guests::path(gristmill_test_guests::ACKER);
    let text = format!(
        "[[handler]]\nname = \"bench\"\ncomponent = {component:?}\nsubscribe = [{{ type = \"*\" }}]\nconcurrency = {CONCURRENCY}\n"
    );
    config::parse(&text, &directory.path().join("runtime.toml")).unwrap()
}

async fn handler(config: &config::Config) -> Arc<registry::Handler> {
    registry::load(&registry::host(config).unwrap(), config).await.remove(0).unwrap()
}

/// Published with a sync, dispatched to a component, acked.
async fn end_to_end() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let config = deployment(&directory);
    let queue: Arc<dyn Queue> = Arc::new(open(&directory).await);
    let (phase, phases) = watch::channel(Phase::Running);
    let observed = (Arc::new(Latencies::default()), phases);
    let router = Arc::new(registry::router(&config));
    let dispatcher =
        Dispatcher::new(handler(&config).await, queue.clone(), router, Arc::new(SystemClock::new()), observed);
    let running = tokio::spawn(dispatcher.run());
    let started = Instant::now();
    fill(&*queue, HANDLED).await;
    while queue.stats().await.unwrap()[0].totals.acked < HANDLED as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let elapsed = started.elapsed();
    phase.send_replace(Phase::Draining);
    running.await.unwrap();
    rate(HANDLED, elapsed)
}

/// Our host alone: the same component, as often, as concurrently, without a queue.
async fn handle() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let handler = handler(&deployment(&directory)).await;
    let started = Instant::now();
    let calls = (0..CONCURRENCY).map(|_| {
        let handler = handler.clone();
        tokio::spawn(async move {
            for n in 0..HANDLED / CONCURRENCY {
                let invocation = Invocation {
                    delivery_id: n.to_string(),
                    queue: "bench".to_owned(),
                    attempt: 1,
                    max_attempts: None,
                    enqueued_at: gristmill_core::Timestamp::EPOCH,
                    event: Arc::new(event(n)),
                    state: None,
                    configuration: handler.configuration.get(),
                    limits: handler.config.limits.clone(),
                };
                let report = handler.component.handle(invocation).await;
                assert!(matches!(report.outcome, Outcome::Ack { .. }), "{:?}", report.outcome);
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    rate(HANDLED, started.elapsed())
}

/// Wasmtime alone.
async fn bare_calls() -> f64 {
    let component = gristmill_test_guests::bytes(gristmill_test_guests::ACKER);
    bare::calls_per_second(&component, CONCURRENCY, HANDLED / CONCURRENCY, PAYLOAD).await
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut results: Vec<(&str, Vec<f64>, Vec<f64>)> =
        ["handle", "end to end"].map(|case| (case, Vec::new(), Vec::new())).into();
    for run in 0..=RUNS {
        let measured = [
            (runtime.block_on(handle()), runtime.block_on(bare_calls())),
            (runtime.block_on(end_to_end()), runtime.block_on(bare_calls())),
        ];
        // The first run warms up.
        if run > 0 {
            for ((_, values, floors), (value, floor)) in results.iter_mut().zip(measured) {
                values.push(value);
                floors.push(floor);
            }
        }
    }
    let mut table =
        Table::new([Column::Key("CASE"), Column::Number("EVENTS/S"), Column::Number("FLOOR"), Column::Number("RATIO")]);
    let mut list = Vec::new();
    for (case, values, floors) in results {
        let ratio = median(values.iter().zip(&floors).map(|(value, floor)| value / floor).collect());
        let (value, floor) = (median(values), median(floors));
        table.row([case.to_owned(), format!("{value:.0}"), format!("{floor:.0}"), format!("{ratio:.2}")]);
        list.push(json!({ "case": case, "value": value, "unit": "events/s", "floor": floor, "ratio": ratio,
            "target": null, "met": null }));
    }
    println!(
        "engine rocksdb, durability fsync, payload {PAYLOAD} B, batch {BATCH}, concurrency {CONCURRENCY}, {HANDLED} events; \
         medians of {RUNS} runs, interleaved with the floors"
    );
    print!("{}", table.render(Screen::Plain));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let path = std::path::Path::new(&target).join("bench.json");
    std::fs::write(&path, serde_json::to_string_pretty(&list).unwrap()).unwrap();
    println!("written to {}", path.display());
}
