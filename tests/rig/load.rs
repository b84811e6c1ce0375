//! Events that are offered at a rate, whatever becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Events of one request.
const BATCH: u64 = 100;
/// Requests that wait for their answer at once. Whoever answers none for a while is offered less.
const AT_ONCE: usize = 8;
/// Of the entries of a batch, the first of so many is looked at afterwards; its first and its last one are among them.
const SAMPLED: usize = 33;

/// Publishes until it is stopped.
pub(crate) struct Load {
    ends: Arc<AtomicBool>,
    publisher: JoinHandle<Offered>,
}

/// What was published.
#[derive(Debug, Default)]
pub(crate) struct Offered {
    /// How many events.
    pub(crate) events: u64,
    /// In what time.
    pub(crate) took: Duration,
    /// The ids of some of their entries, spread evenly.
    pub(crate) sample: Vec<String>,
}

impl Load {
    /// Begins to publish to the runtime at `url`: so many events a second, by a clock. What is late is made up for. Every
    /// event has an id of its own, which begins with `name`, and exactly one queue.
    pub(crate) fn start(url: &str, name: &str, rate: u64) -> Self {
        let (url, name) = (format!("{url}/v1/events"), name.to_owned());
        let ends = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&ends);
        let publisher = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(offer(url, name, rate, is_over))
        });
        Self { ends, publisher }
    }

    /// Ends it. Everything that it has sent is answered then.
    pub(crate) fn stop(self) -> Offered {
        self.ends.store(true, Ordering::Relaxed);
        self.publisher.join().unwrap()
    }
}

impl Offered {
    /// Events a second.
    pub(crate) fn rate(&self) -> u64 {
        (self.events as f64 / self.took.as_secs_f64()) as u64
    }

    fn note(&mut self, reply: &Value) {
        let results = reply["results"].as_array().unwrap();
        for result in results {
            assert_eq!((&result["status"], result["entries"].as_array().unwrap().len()), (&json!("accepted"), 1));
        }
        self.events += results.len() as u64;
        let entries = results.iter().step_by(SAMPLED).map(|result| result["entries"][0]["entry"].as_str().unwrap());
        self.sample.extend(entries.map(str::to_owned));
    }
}

async fn offer(url: String, name: String, rate: u64, is_over: Arc<AtomicBool>) -> Offered {
    let client = super::client();
    let mut clock = tokio::time::interval(Duration::from_secs_f64(BATCH as f64 / rate as f64));
    let (mut offered, mut sent) = (Offered::default(), JoinSet::new());
    let started = Instant::now();
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        clock.tick().await;
        if sent.len() >= AT_ONCE {
            offered.note(&sent.join_next().await.unwrap().unwrap());
        }
        let events: Vec<_> = (number..number + BATCH)
            .map(|number| super::event(&format!("{name}-{number}"), "test.ack", json!(number)))
            .collect();
        sent.spawn(publish(client.clone(), url.clone(), Value::Array(events).to_string()));
        number += BATCH;
    }
    while let Some(reply) = sent.join_next().await {
        offered.note(&reply.unwrap());
    }
    offered.took = started.elapsed();
    offered
}

async fn publish(client: reqwest::Client, url: String, batch: String) -> Value {
    let request = client.post(url).header("content-type", "application/cloudevents-batch+json").body(batch);
    let response = request.send().await.unwrap();
    assert_eq!(response.status().as_u16(), 202);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// The entries with these ids, over one connection.
pub(crate) fn entries(url: &str, ids: &[String]) -> Vec<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, mut entries) = (super::client(), Vec::with_capacity(ids.len()));
        for id in ids {
            let response = client.get(format!("{url}/v1/entries/{id}")).send().await.unwrap();
            assert_eq!(response.status().as_u16(), 200, "{id}");
            entries.push(serde_json::from_slice(&response.bytes().await.unwrap()).unwrap());
        }
        entries
    })
}
