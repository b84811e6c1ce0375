//! What the queue does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::Outcome;
use gristmill_queue::{Claim, Confirm, Queue, Settle};

use crate::rig::{Setting, events, fill, micros, name, open, open_without_sync, percentile, rate};
use crate::{BATCH, EVENTS, SINGLES};

const PUBLISHERS: usize = 64;
const WAKE_UPS: usize = 2_000;

/// Batches, one after the other, each durable before the next.
pub(crate) async fn publish_batches(setting: Setting) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = open(directory.path(), setting.options()).await;
    let batches: Vec<_> = (0..EVENTS).step_by(BATCH).map(|first| events(first, BATCH)).collect();
    let started = Instant::now();
    for batch in batches {
        let published = queue.publish(batch).await.unwrap();
        assert!(published.results.iter().all(Result::is_ok));
    }
    rate(EVENTS, started.elapsed())
}

/// Each worker claims a batch, settles it, and claims the next.
pub(crate) async fn claim_and_settle(setting: Setting, workers: usize) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = Arc::new(open(directory.path(), setting.options()).await);
    fill(&*queue, EVENTS).await;
    let started = Instant::now();
    let others: Vec<_> = (1..workers).map(|_| tokio::spawn(work(queue.clone()))).collect();
    let mut settled = work(queue).await;
    for other in others {
        settled += other.await.unwrap();
    }
    assert_eq!(settled, EVENTS);
    rate(EVENTS, started.elapsed())
}

async fn work(queue: Arc<impl Queue>) -> usize {
    let mut settled = 0;
    loop {
        let claimed = queue.claim(Claim::new(name(), BATCH)).await.unwrap();
        if claimed.is_empty() {
            return settled;
        }
        settled += claimed.len();
        let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None }));
        queue.settle(acks.collect(), Confirm::Committed).await.unwrap();
    }
}

/// How single publishes went.
pub(crate) struct Singles {
    pub(crate) p50: f64,
    pub(crate) rate: f64,
    pub(crate) per_sync: f64,
}

pub(crate) async fn one_publisher(setting: Setting) -> Singles {
    publishers(setting, 1, SINGLES).await
}

pub(crate) async fn many_publishers(setting: Setting) -> Singles {
    publishers(setting, PUBLISHERS, SINGLES / 4).await
}

async fn publishers(setting: Setting, publishers: usize, each: usize) -> Singles {
    let directory = tempfile::tempdir().unwrap();
    let queue = Arc::new(open(directory.path(), setting.options()).await);
    let work: Vec<_> = (0..publishers).map(|publisher| events(publisher * each, each)).collect();
    let syncs = queue.counters().syncs;
    let started = Instant::now();
    let running: Vec<_> = work
        .into_iter()
        .map(|events| {
            let queue = queue.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::with_capacity(events.len());
                for event in events {
                    let started = Instant::now();
                    assert!(queue.publish(vec![event]).await.unwrap().results[0].is_ok());
                    latencies.push(micros(started.elapsed()));
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Vec::new();
    for publisher in running {
        latencies.extend(publisher.await.unwrap());
    }
    let total = publishers * each;
    let syncs = queue.counters().syncs - syncs;
    Singles {
        rate: rate(total, started.elapsed()),
        per_sync: total as f64 / syncs as f64,
        p50: percentile(&mut latencies, 0.5),
    }
}

/// From a publish to the claim that waits for it, without the sync; the 99th of 100, in microseconds.
pub(crate) async fn wake_up(setting: Setting) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let queue = Arc::new(open_without_sync(directory.path(), setting).await);
    let mut latencies = Vec::with_capacity(WAKE_UPS);
    for event in events(0, WAKE_UPS) {
        let claim = tokio::spawn({
            let queue = queue.clone();
            async move {
                let claimed = queue.claim(Claim::new(name(), 1).wait(Duration::from_secs(60))).await.unwrap();
                (Instant::now(), claimed)
            }
        });
        // The claim waits at the writer when this is answered.
        tokio::task::yield_now().await;
        queue.tick().await.unwrap();
        let published = Instant::now();
        queue.publish(vec![event]).await.unwrap();
        let (woken, claimed) = claim.await.unwrap();
        latencies.push(micros(woken.duration_since(published)));
        let ack = Settle::new(claimed[0].lease, Outcome::Ack { result: None });
        queue.settle(vec![ack], Confirm::Committed).await.unwrap();
    }
    percentile(&mut latencies, 0.99)
}
