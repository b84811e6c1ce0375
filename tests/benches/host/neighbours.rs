//! A fast handler beside others that compute until they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gristmill::threads::Threads;
use gristmill_core::{EntryId, Outcome, QueueName};
use gristmill_host::{Component, Host, HostOptions, Instances, Limits};
use gristmill_queue::{Publish, QueueOptions};
use gristmill_test_guests as guests;
use tokio::task::JoinHandle;

use crate::calls;
use crate::dispatch::{self, Store};

/// What is measured of each run.
const SAMPLES: usize = 200;
/// How long a spinning handler may.
const TIMEOUT: Duration = Duration::from_millis(50);

/// Handlers that spin, one on every core, one call after the other.
struct Spinners {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Spinners {
    async fn start(host: &Host) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let component = calls::load(host, "spinner", guests::bytes(guests::ACTOR).into(), Instances::Fresh).await;
        let cores = std::thread::available_parallelism().unwrap().get();
        let spin = |component: Component, stop: Arc<AtomicBool>| async move {
            while !stop.load(Ordering::Relaxed) {
                let limits = Limits { timeout: TIMEOUT, ..Limits::default() };
                let report = component.handle(calls::invocation("test.loop", limits)).await;
                assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{:?}", report.outcome);
            }
        };
        let running = (0..cores).map(|_| tokio::spawn(spin(component.clone(), stop.clone()))).collect();
        Self { stop, running }
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.running {
            task.await.unwrap();
        }
    }
}

/// From publish to ack, one event at a time; in milliseconds.
pub(crate) async fn p99(beside_others: bool) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = dispatch::open(Store::RocksDb, &directory);
    let name = QueueName::new("bench").unwrap();
    queue.configure(name.clone(), QueueOptions::default()).await.unwrap();
    let component = guests::path(guests::ACKER);
    let at_work =
        dispatch::work(dispatch::handler(&directory, &format!("component = {component:?}")).await, queue.clone());
    let host = host();
    let spinners = if beside_others { Some(Spinners::start(&host).await) } else { None };
    // Whoever publishes does not do so on the threads of handlers.
    let client = Threads::start("client", 1).unwrap();
    let p99 = client
        .handle()
        .spawn(async move {
            let mut samples = Vec::with_capacity(SAMPLES);
            for n in 0..SAMPLES {
                let started = Instant::now();
                let publish = Publish::new(dispatch::event(n, "bench.event"), [name.clone()]);
                let mut results = queue.publish(vec![publish]).await.unwrap().results;
                let entry: EntryId = results.pop().unwrap().unwrap().entries[0].entry.clone();
                queue.wait(entry, Duration::from_secs(10)).await.unwrap();
                samples.push(started.elapsed());
            }
            percentile(samples)
        })
        .await
        .unwrap();
    if let Some(spinners) = spinners {
        spinners.stop().await;
    }
    at_work.stop().await;
    p99
}

/// The call alone; in milliseconds.
pub(crate) async fn call_p99(beside_others: bool) -> f64 {
    let host = host();
    let component = calls::load(&host, "fast", guests::bytes(guests::ACKER).into(), Instances::Fresh).await;
    let spinners = if beside_others { Some(Spinners::start(&host).await) } else { None };
    let p99 = tokio::spawn(async move {
        let mut samples = Vec::with_capacity(SAMPLES);
        for _ in 0..SAMPLES {
            let started = Instant::now();
            calls::call(&component).await;
            samples.push(started.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        percentile(samples)
    })
    .await
    .unwrap();
    if let Some(spinners) = spinners {
        spinners.stop().await;
    }
    p99
}

fn host() -> Host {
    Host::new(HostOptions::default()).unwrap()
}

fn percentile(mut samples: Vec<Duration>) -> f64 {
    samples.sort();
    samples[samples.len() * 99 / 100].as_secs_f64() * 1e3
}
