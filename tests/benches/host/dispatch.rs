//! Events that wait in a queue, through a handler, to their acks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill::dispatch::{Dispatcher, Observers, Phase};
use gristmill::threads::Threads;
use gristmill::{config, registry};
use gristmill_core::{Event, QueueName, SystemClock};
use gristmill_queue::{Engine, EngineOptions, Memory, Publish, Queue, QueueOptions, RocksDb};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{CONCURRENCY, EVENTS, PAYLOAD};

/// Events that are published at once.
const BATCH: usize = 256;

/// Which engine.
#[derive(Clone, Copy)]
pub(crate) enum Store {
    Memory,
    RocksDb,
}

/// A handler at work on a queue.
pub(crate) struct AtWork {
    phase: watch::Sender<Phase>,
    dispatcher: JoinHandle<()>,
    _threads: Threads,
}

impl AtWork {
    pub(crate) async fn stop(self) {
        self.phase.send_replace(Phase::Draining);
        self.dispatcher.await.unwrap();
    }
}

/// From the first claim to the last ack; what is published is there before.
pub(crate) async fn events_per_second(store: Store) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = open(store, &directory);
    let name = QueueName::new("bench").unwrap();
    queue.configure(name.clone(), QueueOptions::default()).await.unwrap();
    for first in (0..EVENTS).step_by(BATCH) {
        let batch = (first..first + BATCH).map(|n| Publish::new(event(n, "bench.event"), [name.clone()])).collect();
        assert!(queue.publish(batch).await.unwrap().results.iter().all(Result::is_ok));
    }
    let component = gristmill_test_guests::path(gristmill_test_guests::ACKER);
    let handler = handler(&directory, &format!("component = {component:?}\nconcurrency = {CONCURRENCY}")).await;
    let started = Instant::now();
    let at_work = work(handler, queue.clone());
    while queue.stats().await.unwrap()[0].totals.acked < EVENTS as u64 {
        // A look costs as much as some events.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = started.elapsed();
    at_work.stop().await;
    f64::from(u32::try_from(EVENTS).unwrap()) / elapsed.as_secs_f64()
}

pub(crate) fn open(store: Store, directory: &tempfile::TempDir) -> Arc<dyn Queue> {
    let engine: Engine = match store {
        Store::Memory => Memory::default().open(EngineOptions::default()).unwrap(),
        Store::RocksDb => RocksDb::open(&directory.path().join("queue"), EngineOptions::default()).unwrap(),
    };
    Arc::new(engine)
}

/// The handler `bench`, with these further keys.
pub(crate) async fn handler(directory: &tempfile::TempDir, keys: &str) -> Arc<registry::Handler> {
    let text = format!("[[handler]]\nname = \"bench\"\nsubscribe = [{{ type = \"*\" }}]\n{keys}\n");
    let config = config::parse(&text, &directory.path().join("runtime.toml")).unwrap();
    registry::load(&registry::host(&config, gristmill_host::Compiler::InProcess).unwrap(), &config)
        .await
        .remove(0)
        .unwrap()
}

/// Sets it to work.
pub(crate) fn work(handler: Arc<registry::Handler>, queue: Arc<dyn Queue>) -> AtWork {
    let (phase, phases) = watch::channel(Phase::Running);
    let observed = (Observers::default(), phases);
    let subscribed = std::iter::once((handler.config.name.clone(), handler.config.subscribe.clone()));
    let router = Arc::new(gristmill::routing::Router::new(subscribed));
    let dispatcher = Dispatcher::new(handler, queue, router, Arc::new(SystemClock::new()), observed);
    let threads = Threads::start("dispatch", 1).unwrap();
    AtWork { phase, dispatcher: threads.handle().spawn(dispatcher.run()), _threads: threads }
}

pub(crate) fn event(n: usize, ty: &str) -> Event {
    Event { data: Some(Bytes::from(vec![b'x'; PAYLOAD])), ..Event::new(n.to_string(), "/bench", ty) }
}
