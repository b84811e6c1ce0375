//! Measures `arch-event-queues`, a durable queue on RocksDB: every push and every ack is synced by itself. Prints a line
//! of JSON for each case. Arguments choose cases by their names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arch_event_queues::DurableEventQueue;
use borsh::{BorshDeserialize, BorshSerialize};

/// As in the benchmark that this is compared with.
const PAYLOAD: usize = 256;
const BATCH: usize = 256;
const PUBLISHERS: usize = 64;
/// Events that one publisher, and each of many, publishes.
const ALONE: usize = 1_000;
const EACH: usize = 32;
/// Batches that are claimed and acked.
const BATCHES: usize = 8;

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Event {
    id: String,
    source: String,
    ty: String,
    data: Vec<u8>,
}

type Queue = DurableEventQueue<Event>;

fn event(n: usize) -> Event {
    Event { id: n.to_string(), source: "/bench".into(), ty: "bench.event".into(), data: vec![b'x'; PAYLOAD] }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let cases: [(&str, fn(&Arc<Queue>) -> f64); 3] = [
        ("64 publishers", |queue| publish(queue, PUBLISHERS, EACH)),
        ("one publisher", |queue| publish(queue, 1, ALONE)),
        ("claim and ack", claim_and_ack),
    ];
    for (name, measure) in cases {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            let directory = tempfile::tempdir().unwrap();
            let queue = Arc::new(Queue::open(directory.path()).unwrap());
            println!("{{\"case\":\"{name}\",\"events_per_second\":{}}}", measure(&queue));
        }
    }
}

fn publish(queue: &Arc<Queue>, publishers: usize, each: usize) -> f64 {
    let work: Vec<Vec<_>> = (0..publishers).map(|p| (p * each..(p + 1) * each).map(event).collect()).collect();
    let started = Instant::now();
    let running: Vec<_> = work
        .into_iter()
        .map(|events| {
            let queue = queue.clone();
            std::thread::spawn(move || events.into_iter().for_each(|event| drop(queue.push(event).unwrap())))
        })
        .collect();
    running.into_iter().for_each(|publisher| publisher.join().unwrap());
    rate(publishers * each, started.elapsed())
}

fn claim_and_ack(queue: &Arc<Queue>) -> f64 {
    (0..BATCHES * BATCH).for_each(|n| drop(queue.push(event(n)).unwrap()));
    let started = Instant::now();
    for _ in 0..BATCHES {
        let claimed: Vec<_> = (0..BATCH).map(|_| queue.pop().unwrap().unwrap()).collect();
        queue.ack_many(claimed.iter().map(|event| event.id)).unwrap();
    }
    rate(BATCHES * BATCH, started.elapsed())
}

fn rate(events: usize, elapsed: Duration) -> f64 {
    events as f64 / elapsed.as_secs_f64()
}
