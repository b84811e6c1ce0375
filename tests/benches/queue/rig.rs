//! Queues and events to measure with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, QueueName};
use gristmill_queue::{Durability, Engine, EngineOptions, Publish, Queue, QueueOptions, RocksDb};

use crate::{BATCH, PAYLOAD};

/// With what the queue runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Without idempotency and without a log.
    Bare,
    /// With everything that is on by default.
    Defaults,
}

impl Setting {
    pub(crate) fn options(self) -> EngineOptions {
        let idempotency_window = match self {
            Self::Bare => Duration::ZERO,
            Self::Defaults => EngineOptions::default().idempotency_window,
        };
        EngineOptions { idempotency_window, ..EngineOptions::default() }
    }
}

pub(crate) fn name() -> QueueName {
    QueueName::new("bench").unwrap()
}

pub(crate) fn event(n: usize) -> Arc<Event> {
    let data = Some(Bytes::from(vec![b'x'; PAYLOAD]));
    Arc::new(Event { data, ..Event::new(n.to_string(), "/bench", "bench.event") })
}

pub(crate) fn publish(event: Arc<Event>) -> Publish {
    Publish::new(event, [name()])
}

/// Events `first..first + count`, made before the clock starts.
pub(crate) fn events(first: usize, count: usize) -> Vec<Publish> {
    (first..first + count).map(|n| publish(event(n))).collect()
}

pub(crate) async fn open(directory: &Path, options: EngineOptions) -> Engine {
    let engine = RocksDb::open(&directory.join("queue"), options).unwrap();
    engine.configure(name(), QueueOptions::default()).await.unwrap();
    engine
}

pub(crate) async fn open_without_sync(directory: &Path, setting: Setting) -> Engine {
    open(directory, EngineOptions { durability: Durability::Os, ..setting.options() }).await
}

/// Publishes so many events, in batches.
pub(crate) async fn fill(queue: &dyn Queue, count: usize) {
    for first in (0..count).step_by(BATCH) {
        let batch = events(first, BATCH.min(count - first));
        assert!(queue.publish(batch).await.unwrap().results.iter().all(Result::is_ok));
    }
}

/// Events a second.
pub(crate) fn rate(events: usize, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64()
}

pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// The value that this share of all values does not exceed.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

pub(crate) use crate::report::median;
