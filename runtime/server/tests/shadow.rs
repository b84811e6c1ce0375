//! Shadow replay: real builds of one guest, side by side, over the memory engine.
#![allow(clippy::unwrap_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::path::Path;
use std::sync::Arc;

use futures_util::{TryStreamExt as _, stream};
use gristmill::shadow::comparison::{Bar, Comparison, Difference, Kinds, Obstacles, What};
use gristmill::shadow::selection::Selection;
use gristmill::shadow::{Plan, Sample, Version, compare};
use gristmill::state::RunState;
use gristmill::{config, engine};
use gristmill_core::state::{Change, StateWrite};
use gristmill_core::{EntryId, Event, HandlerName, Outcome, Pattern, QueueName, State, Timestamp};
use gristmill_host::{Component, Configuration, Grants, Host, HostOptions, Instances, Limits, LoadRequest};
use gristmill_queue::{
    Claim, Confirm, Entry, List, OnLoss, Payload, Publish, Queue, QueueOptions, Settle, Transacted, Transaction,
};
use gristmill_test_guests::{ACKER, BATCHER, CALLER, CLERK, CLERK_CHANGED, VISITOR_COMPONENT, bytes};
use serde_json::{Value, json};

/// A queue of orders that nobody has handled yet, and a host.
struct Rig {
    queue: Arc<dyn Queue>,
    host: Host,
}

impl Rig {
    async fn new() -> Self {
        let text = "[queue]\nengine = \"memory\"\n[[handler]]\nname = \"clerk\"\ncomponent = \"clerk.wasm\"\n\
                    subscribe = [{ type = \"*\" }]\n";
        let config = config::parse(text, Path::new("runtime.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let queue = engine::open(&config, OnLoss::Refuse).await.unwrap();
        let write = StateWrite { bucket: "orders".into(), key: "total".into(), change: Change::Set("1000".into()) };
        let put = Transaction { writes: vec![write], ..Transaction::default() };
        assert_eq!(queue.transact(put).await, Ok(Transacted::Committed(vec![])));
        Self { queue, host: Host::new(HostOptions { instances: 16, ..HostOptions::default() }).unwrap() }
    }

    async fn load(&self, guest: &str, http: &[&str]) -> Component {
        let grants = Grants {
            emit: vec![Pattern::new("*")],
            state: ["orders", "counts"].map(|bucket| bucket.parse().unwrap()).into(),
            files: vec!["/proc/sys/kernel/random:/chance:read".parse().unwrap()],
            http: http.iter().map(|grant| grant.parse().unwrap()).collect(),
            ..Grants::default()
        };
        self.load_with(guest, grants).await
    }

    async fn load_with(&self, guest: &str, grants: Grants) -> Component {
        let request = LoadRequest {
            name: HandlerName::new("clerk").unwrap(),
            bytes: bytes(guest).into(),
            digest: None,
            interface: None,
            grants,
            instances: Instances::Fresh,
        };
        self.host.load(request).await.unwrap_or_else(|error| panic!("{error}"))
    }

    async fn publish(&self, events: &[(&str, Value)]) {
        for (number, (ty, data)) in events.iter().enumerate() {
            let mut event = Event::new((number + 1).to_string(), "/test", *ty);
            event.subject = Some("/out/a.txt".to_owned());
            event.datacontenttype = Some("application/json".to_owned());
            event.data = Some(data.to_string().into());
            let published = self.queue.publish(vec![Publish::new(event, [name()])]).await.unwrap();
            assert!(published.results[0].is_ok(), "{published:?}");
        }
    }

    async fn entries(&self) -> Vec<Entry> {
        self.queue.list(List::new(name(), State::Ready)).await.unwrap().entries
    }

    /// What it writes to files is refused, and it is said so.
    async fn load_writer(&self, guest: &str, directory: &Path) -> Component {
        let grant = format!("{}:/out:write", directory.display());
        self.load_with(guest, Grants { files: vec![grant.parse().unwrap()], ..Grants::default() }).await
    }

    /// Everything that is in the queue, through two guests.
    async fn compare(&self, old: &str, new: &str) -> Comparison {
        let (old, new) = (self.load(old, &[]).await, self.load(new, &[]).await);
        self.compare_components(old, new).await
    }

    async fn compare_components(&self, old: Component, new: Component) -> Comparison {
        let version =
            |component| Version { component, configuration: Configuration::default(), limits: Limits::default() };
        let plan = Plan {
            old: version(old),
            new: version(new),
            state: Some(Arc::new(RunState::new(self.queue.clone()))),
            max_attempts: Some(5),
            now: Timestamp::from_micros(1_700_000_000_000_000),
            seed: 1,
            concurrency: 4,
        };
        let samples = self.entries().await.into_iter().map(|entry| Ok::<_, String>(Sample::from(entry)));
        compare(plan, stream::iter(samples)).await.unwrap()
    }
}

fn name() -> QueueName {
    QueueName::new("clerk").unwrap()
}

fn order(n: u64) -> Value {
    json!({ "n": n })
}

/// Of each type, for each number.
fn orders(types: &[&'static str], numbers: impl IntoIterator<Item = u64>) -> Vec<(&'static str, Value)> {
    numbers.into_iter().flat_map(|n| types.iter().map(move |ty| (*ty, order(n)))).collect()
}

const DETERMINISTIC: [&str; 5] = ["order.judge", "order.emit", "order.count", "order.trap", "order.look"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identical_builds_do_the_same() {
    let rig = Rig::new().await;
    rig.publish(&orders(&DETERMINISTIC, 95..105)).await;
    let before = rig.entries().await;
    let comparison = rig.compare(CLERK, CLERK).await;
    assert_eq!(comparison, Comparison { events: 50, same: 50, ..Comparison::default() });
    assert!(comparison.check(Bar::Same).is_ok());
    // Nothing has come of it.
    assert_eq!(rig.entries().await, before);
    let snapshot = rig.queue.snapshot().await.unwrap();
    assert_eq!(snapshot.get("orders", "total").unwrap().as_deref(), Some(&b"1000"[..]));
    assert_eq!(snapshot.get("orders", "last").unwrap(), None);
}

/// The one event that differs, by its number in the queue, and in what.
#[track_caller]
fn only(comparison: &Comparison, event: &str) -> Vec<Difference> {
    assert_eq!((comparison.different, comparison.same), (1, comparison.events - 1), "{comparison:?}");
    let [one] = &comparison.differing[..] else { panic!("one event: {comparison:?}") };
    assert_eq!((one.event.as_str(), one.more), (event, 0));
    one.differences.clone()
}

fn difference(what: What, part: &str, old: &str, new: &str) -> Difference {
    let [part, old, new] = [part, old, new].map(str::to_owned);
    Difference { what, part, old, new }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_verdict_is_found_in_one_event_of_many() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.judge"], 81..121)).await;
    let comparison = rig.compare(CLERK, CLERK_CHANGED).await;
    let expected = difference(What::Verdict, "verdict", "ack", "reject: 100 are too many");
    assert_eq!(only(&comparison, "20"), [expected]);
    assert_eq!(comparison.by_kind, Kinds { verdict: 1, ..Kinds::default() });
    assert!(comparison.check(Bar::Same).is_err());
    assert!(comparison.check(Bar::Percent(2.5)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_field_of_an_emitted_event_is_found() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.emit"], 1..11)).await;
    let comparison = rig.compare(CLERK, CLERK_CHANGED).await;
    let expected = difference(What::Emits, "event 2: data", r#"{"n":7}"#, r#"{"n":8}"#);
    assert_eq!(only(&comparison, "7"), [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planted_value_in_the_state_is_found() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.count"], 1..11)).await;
    let comparison = rig.compare(CLERK, CLERK_CHANGED).await;
    // The sum that is the result begins from the same snapshot in every run.
    assert_eq!(only(&comparison, "7"), [difference(What::State, "orders/last", "7", "8")]);

    let comparison = rig.compare(CLERK, ACKER).await;
    assert_eq!((comparison.different, comparison.by_kind.verdict, comparison.by_kind.state), (10, 10, 10));
    let expected = [
        difference(What::Verdict, "result", r#"{"total":1010}"#, "nothing"),
        difference(What::State, "orders/last", "10", "not written"),
        difference(What::State, "orders/total", "1010", "not written"),
    ];
    assert_eq!(comparison.differing[9].differences, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_panic_in_another_place_is_the_same() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.trap"], [7])).await;
    let comparison = rig.compare(CLERK, CLERK_CHANGED).await;
    assert_eq!(comparison, Comparison { events: 1, same: 1, ..Comparison::default() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_differs_from_itself_is_no_difference() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.chance", "order.judge"], [100])).await;
    for new in [CLERK, CLERK_CHANGED] {
        let comparison = rig.compare(CLERK, new).await;
        assert_eq!((comparison.not_deterministic, comparison.events), (1, 2), "{comparison:?}");
        assert_eq!(comparison.different, u64::from(new == CLERK_CHANGED), "{comparison:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_need_http_are_counted_apart() {
    let rig = Rig::new().await;
    let call = |path| ("test.call", json!({ "url": format!("http://127.0.0.1:9/{path}") }));
    rig.publish(&[call("a"), call("b/1"), call("b/2")]).await;
    let (all, some) =
        (rig.load(CALLER, &["http://127.0.0.1:9"]).await, rig.load(CALLER, &["http://127.0.0.1:9/b"]).await);
    let comparison = rig.compare_components(all.clone(), all.clone()).await;
    let not_comparable = Obstacles { http: 3, ..Obstacles::default() };
    assert_eq!(comparison, Comparison { events: 3, not_comparable, ..Comparison::default() });
    assert!(comparison.check(Bar::Percent(100.0)).is_err(), "nothing speaks for the new version");

    // With the fewer grants, one request is denied in any case: that can be seen.
    let comparison = rig.compare_components(all, some).await;
    assert_eq!((comparison.not_comparable.http, comparison.by_kind.network), (2, 1));
    assert_eq!(comparison.differing[0].event, "1");
    assert_eq!(comparison.differing[0].differences, [difference(What::Network, "http", "1 request", "0 requests")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_to_files_are_refused_to_both_and_that_is_said() {
    let rig = Rig::new().await;
    let directory = tempfile::tempdir().unwrap();
    rig.publish(&[("test.write", json!({}))]).await;
    let visitor = rig.load_writer(VISITOR_COMPONENT, directory.path()).await;
    let clerk = rig.load(CLERK, &[]).await;
    let comparison = rig.compare_components(visitor.clone(), visitor.clone()).await;
    assert_eq!(comparison, Comparison { events: 1, same: 1, files_were_read_only: true, ..Comparison::default() });
    assert!(rig.compare_components(clerk.clone(), visitor).await.files_were_read_only);
    assert!(!rig.compare_components(clerk.clone(), clerk).await.files_were_read_only);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_of_batches_gets_batches_of_one() {
    let rig = Rig::new().await;
    rig.publish(&[("batch.ack", json!({})), ("batch.emit", json!({})), ("batch.count", json!({}))]).await;
    let comparison = rig.compare(BATCHER, BATCHER).await;
    assert_eq!(comparison, Comparison { events: 3, same: 3, ..Comparison::default() });
    // Another handler answers something else: what a batch of one says of itself.
    let comparison = rig.compare(BATCHER, CLERK).await;
    let results: Vec<_> = comparison.differing.iter().map(|one| one.differences[0].old.as_str()).collect();
    assert!(results.iter().all(|result| result.contains(r#"{"of":1,"at":0}"#)), "{comparison:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn differences_are_listed_in_the_order_of_the_events() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.judge"], [100; 30])).await;
    let comparison = rig.compare(CLERK, CLERK_CHANGED).await;
    let listed: Vec<EntryId> = comparison.differing.into_iter().map(|one| one.entry).collect();
    let entries: Vec<EntryId> = rig.entries().await.into_iter().map(|entry| entry.id).collect();
    assert_eq!(listed, entries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samples_that_cannot_be_read_end_the_comparison() {
    let rig = Rig::new().await;
    rig.publish(&orders(&["order.judge"], [1, 2])).await;
    let clerk = rig.load(CLERK, &[]).await;
    let version = Version { component: clerk, configuration: Configuration::default(), limits: Limits::default() };
    let plan = Plan {
        old: version.clone(),
        new: version,
        state: None,
        max_attempts: None,
        now: Timestamp::EPOCH,
        seed: 1,
        concurrency: 1,
    };
    let samples = rig.entries().await.into_iter().map(|entry| Ok(Sample::from(entry)));
    let samples = stream::iter(samples.chain([Err("the store is gone")]).collect::<Vec<_>>()).map_err(str::to_owned);
    assert_eq!(compare(plan, samples).await, Err("the store is gone".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_events_and_the_dead_letters_are_found() {
    let rig = Rig::new().await;
    rig.queue.configure(name(), QueueOptions { payload: Payload::Keep, ..QueueOptions::default() }).await.unwrap();
    rig.publish(&orders(&["order.judge"], 1..7)).await;
    // The second is dead, and the first is done last.
    for number in [2, 3, 4, 5, 6, 1] {
        let mut deliveries = rig.queue.claim(Claim::new(name(), 6)).await.unwrap();
        let at = deliveries.iter().position(|delivery| delivery.event.id == number.to_string()).unwrap();
        let delivery = deliveries.remove(at);
        let outcome = match number {
            2 => Outcome::Reject { reason: "no".to_owned() },
            _ => Outcome::Ack { result: None },
        };
        let released = deliveries.into_iter().map(|other| Settle::new(other.lease, Outcome::Released));
        let settled = [Settle::new(delivery.lease, outcome)].into_iter().chain(released).collect();
        rig.queue.settle(settled, Confirm::Committed).await.unwrap();
    }
    let selected = async |selection: Selection| {
        let samples = selection.samples(rig.queue.clone(), name()).await.unwrap();
        let samples: Vec<Sample> = samples.try_collect().await.unwrap();
        assert!(samples.iter().all(|sample| sample.event.data.is_some()), "{samples:?}");
        samples.into_iter().map(|sample| sample.event.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(selected(Selection::Last(3)).await, ["4", "5", "6"], "in the order in which they came");
    assert_eq!(selected(Selection::Last(100)).await, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(selected(Selection::Dead).await, ["2"]);
}
