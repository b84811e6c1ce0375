//! Filled stores, and what is done to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::{Event, Outcome};
use gristmill_queue::{Claim, Confirm, Durability, Engine, EngineOptions, Publish, Queue, Settle};
use tokio::runtime::Runtime;

use crate::rig::{self, Setting, name};
use crate::{BATCH, PAYLOAD};

/// What the small store holds.
pub(super) const FEW: usize = 1_000;
/// Events in a batch while a store is filled, and how many publish at the same time.
const FILL_BATCH: usize = 4_096;
const FILLERS: usize = 4;

/// Events whose data does not compress: all of it must be written and read.
pub(super) struct Source {
    noise: Bytes,
    next: AtomicUsize,
}

impl Source {
    /// Much more than what is compressed together.
    const NOISE: usize = 1 << 20;

    pub(super) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        Self { noise: noise.take(Self::NOISE + PAYLOAD).collect(), next: AtomicUsize::new(0) }
    }

    pub(super) fn batch(&self, count: usize) -> Vec<Publish> {
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        (first..first + count).map(|n| rig::publish(self.event(n))).collect()
    }

    fn event(&self, n: usize) -> Arc<Event> {
        let start = n * PAYLOAD * 7 % Self::NOISE;
        let data = Some(self.noise.slice(start..start + PAYLOAD));
        Arc::new(Event { data, ..Event::new(n.to_string(), "/bench", "bench.event") })
    }
}

/// Without syncs.
pub(super) fn options() -> EngineOptions {
    EngineOptions { durability: Durability::Os, ..Setting::Bare.options() }
}

/// A closed store in which entries wait.
pub(super) struct Filled {
    directory: PathBuf,
    /// How long publishing took.
    pub(super) took: Duration,
}

impl Filled {
    pub(super) fn new(runtime: &Runtime, directory: &Path, count: usize) -> Self {
        let started = Instant::now();
        runtime.block_on(async {
            let queue = Arc::new(rig::open(directory, options()).await);
            let source = Arc::new(Source::new());
            let left = Arc::new(AtomicUsize::new(count));
            let fillers: Vec<_> =
                (0..FILLERS).map(|_| tokio::spawn(publish_all(queue.clone(), source.clone(), left.clone()))).collect();
            for filler in fillers {
                filler.await.unwrap();
            }
            queue.close().await.unwrap();
        });
        Self { directory: directory.to_owned(), took: started.elapsed() }
    }

    /// A copy of it, gone when it is dropped.
    pub(super) fn copy(&self) -> tempfile::TempDir {
        let parent = self.directory.parent().unwrap();
        let copy = tempfile::tempdir_in(parent).unwrap();
        let to = copy.path().join("queue");
        std::fs::create_dir(&to).unwrap();
        for file in std::fs::read_dir(self.directory.join("queue")).unwrap() {
            let file = file.unwrap().path();
            let to = to.join(file.file_name().unwrap());
            // Sorted files never change; logs are written over.
            if file.extension().is_some_and(|extension| extension == "sst" || extension == "blob") {
                std::fs::hard_link(file, to).unwrap();
            } else {
                std::fs::copy(file, to).unwrap();
            }
        }
        copy
    }
}

async fn publish_all(queue: Arc<Engine>, source: Arc<Source>, left: Arc<AtomicUsize>) {
    let take = |left| Some(usize::saturating_sub(left, FILL_BATCH));
    loop {
        let left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap();
        if left == 0 {
            return;
        }
        publish(&queue, source.batch(FILL_BATCH.min(left))).await;
    }
}

pub(super) async fn publish(queue: &Engine, batch: Vec<Publish>) {
    assert!(queue.publish(batch).await.unwrap().results.iter().all(Result::is_ok));
}

/// How long a batch took.
pub(super) struct Turn {
    pub(super) claim: Duration,
    pub(super) settle: Duration,
}

/// Publishes a batch, and claims and settles one: as many wait as before.
pub(super) async fn turn(queue: &Engine, source: &Source) -> Turn {
    publish(queue, source.batch(BATCH)).await;
    let started = Instant::now();
    let claimed = queue.claim(Claim::new(name(), BATCH)).await.unwrap();
    let claim = started.elapsed();
    assert_eq!(claimed.len(), BATCH);
    let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None })).collect();
    let started = Instant::now();
    queue.settle(acks, Confirm::Committed).await.unwrap();
    Turn { claim, settle: started.elapsed() }
}
