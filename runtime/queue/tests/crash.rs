//! A process under load is killed with SIGKILL, again and again, and opened again. A ledger outside it knows what was
//! promised.
//!
//! The child (this test binary, run again) publishes, claims, acks with emitted events, and writes a line to its
//! standard output for every promise it was given. What it wrote before it died is in the pipe. Power cuts are another
//! matter: a kill loses nothing that was written to the operating system.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Clock, EntryId, Event, ManualClock, Outcome, QueueName, RetryPolicy, State, SystemClock};
use gristmill_queue::{
    Claim, Confirm, Engine, EngineOptions, Publish, Queue, QueueOptions, Retention, RocksDb, Settle, SettleReply,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const DIRECTORY: &str = "GRISTMILL_CRASH_DIRECTORY";
const KILLS: usize = 24;

fn work() -> QueueName {
    QueueName::new("work").unwrap()
}

fn sink() -> QueueName {
    QueueName::new("sink").unwrap()
}

async fn open(directory: &Path, clock: Arc<dyn Clock>) -> Engine {
    let engine = RocksDb::open(directory, EngineOptions { clock, ..EngineOptions::default() }).unwrap();
    let retry = RetryPolicy { max_attempts: Some(3), ..RetryPolicy::default() };
    let done = Retention { age: None, count: None };
    let options = QueueOptions { retry, done, ..QueueOptions::default() };
    engine.configure(work(), options.clone()).await.unwrap();
    engine.configure(sink(), options).await.unwrap();
    engine
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    // One write for a line: a kill cuts between lines, or cuts the last one.
    if stdout.write_all(format!("@{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(1);
    }
}

/// The child. Runs until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the child of the test below"]
async fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let queue = open(Path::new(&directory), Arc::new(SystemClock::new())).await;
    // Another child's events must not repeat this one's: they would be answered as duplicates.
    let run = rand::random::<u64>();
    let publisher = async |name: &str| {
        for n in 0u64.. {
            let batch = (0..=n % 8)
                .map(|i| Publish::new(Event::new(format!("{run:x}-{name}-{n}-{i}"), "/child", "t"), [work()]));
            for accepted in queue.publish(batch.collect()).await.unwrap().results {
                say(format_args!("published {}", accepted.unwrap().entries[0].entry));
            }
        }
    };
    let worker = async || {
        loop {
            let claim = Claim::new(work(), 8).wait(Duration::from_secs(1));
            for delivery in queue.claim(claim).await.unwrap() {
                say(format_args!("delivery {}", delivery.lease.delivery));
                let mut emitted = Event::new(format!("{}-1", delivery.entry), "/handlers/work", "emitted");
                emitted.subject = Some(delivery.entry.to_string());
                let (outcome, confirm) = match delivery.lease.delivery % 5 {
                    0 => (Outcome::Retry { reason: "again".into(), after: None }, Confirm::Committed),
                    1 => (Outcome::Ack { result: None }, Confirm::Durable),
                    _ => (Outcome::Ack { result: None }, Confirm::Committed),
                };
                let emits = vec![Publish::new(emitted, [sink()])];
                let settle = Settle { emits, ..Settle::new(delivery.lease, outcome) };
                let reply = queue.settle(vec![settle], confirm).await.unwrap();
                assert!(matches!(reply[0], SettleReply::Settled(_)));
            }
        }
    };
    tokio::join!(publisher("a"), publisher("b"), worker(), worker());
}

#[derive(Default)]
struct Ledger {
    published: BTreeSet<EntryId>,
    deliveries: BTreeSet<u64>,
}

impl Ledger {
    /// Runs a child and kills it after `lines` promises.
    fn run_and_kill(&mut self, directory: &Path, lines: usize) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut promises = 0;
        let mut killed = false;
        for line in BufReader::new(child.stdout.take().unwrap()).split(b'\n') {
            let line = String::from_utf8(line.unwrap()).unwrap();
            // The test harness talks as well; a line that was cut off does not parse.
            let Some((_, promise)) = line.split_once('@') else { continue };
            match promise.split_once(' ') {
                Some(("published", entry)) => {
                    assert!(self.published.insert(EntryId::new(entry).unwrap()), "{entry} issued twice");
                }
                Some(("delivery", number)) => {
                    assert!(self.deliveries.insert(number.parse().unwrap()), "delivery {number} issued twice");
                }
                _ => panic!("not a promise: {line}"),
            }
            promises += 1;
            if promises >= lines && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        assert!(killed, "the child ended by itself: {:?}", child.wait());
        child.wait().unwrap();
    }
}

/// Every entry of a queue, by state.
async fn entries(queue: &Engine, name: QueueName) -> BTreeMap<EntryId, (State, Option<String>)> {
    let mut entries = BTreeMap::new();
    for entry in support::all_entries(queue, &name).await {
        let known = entries.insert(entry.id.clone(), (entry.state, entry.event.subject.clone()));
        assert_eq!(known, None, "{} is in two states", entry.id);
    }
    entries
}

#[tokio::test]
async fn promises_outlive_sigkill() {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::default();
    // Stands still while the parent looks: what is scheduled stays so.
    let still = || ManualClock::at(SystemClock::new().now());
    for round in 0..KILLS {
        ledger.run_and_kill(directory.path(), random.random_range(1..800));
        let queue = open(directory.path(), Arc::new(still())).await;
        let found = entries(&queue, work()).await;
        for entry in &ledger.published {
            assert!(found.contains_key(entry), "round {round}: {entry} was acknowledged and is gone");
        }
        let mut emitting = BTreeSet::new();
        for (id, (_, subject)) in entries(&queue, sink()).await {
            let parent = EntryId::new(&subject.unwrap()).unwrap();
            assert_eq!(found[&parent].0, State::Done, "round {round}: {id} is visible, {parent} is not settled");
            assert!(emitting.insert(parent), "round {round}: emitted twice: {id}");
        }
        for (id, (state, _)) in &found {
            assert_eq!(*state == State::Done, emitting.contains(id), "round {round}: {id} acked without its emit");
        }
        for stats in queue.stats().await.unwrap() {
            let entries = entries(&queue, stats.queue.clone()).await;
            let count = |state| entries.values().filter(|(s, _)| *s == state).count() as u64;
            assert_eq!(stats.leased, 0);
            assert_eq!([stats.scheduled, stats.ready], [State::Scheduled, State::Ready].map(count), "round {round}");
            assert_eq!([stats.done, stats.dead], [State::Done, State::Dead].map(count), "round {round}");
        }
        let report = queue.verify().await.unwrap();
        assert!(report.is_sound(), "round {round}: {report}");
        queue.close().await.unwrap();
    }
    assert!(ledger.deliveries.len() > KILLS, "there was work");
    let clock = still();
    let queue = open(directory.path(), Arc::new(clock.clone())).await;
    everything_ends(&queue, &clock, &ledger).await;
}

/// Settles all that is left: each entry that was ever acknowledged is done or dead.
async fn everything_ends(queue: &Engine, clock: &ManualClock, ledger: &Ledger) {
    clock.advance(Duration::from_secs(3_600));
    queue.tick().await.unwrap();
    while entries(queue, work()).await.values().any(|(state, _)| *state < State::Done) {
        let claimed = queue.claim(Claim::new(work(), 1_000)).await.unwrap();
        assert!(!claimed.is_empty(), "nothing is ready, and not everything has ended");
        let acks = claimed.iter().map(|delivery| Settle::new(delivery.lease, Outcome::Ack { result: None }));
        queue.settle(acks.collect(), Confirm::Committed).await.unwrap();
    }
    let ended = entries(queue, work()).await;
    for entry in &ledger.published {
        assert!(matches!(ended[entry].0, State::Done | State::Dead), "{entry}");
    }
    let report = queue.verify().await.unwrap();
    assert!(report.is_sound(), "{report}");
}
