//! The query of `POST /v1/events`, on a clock that the test moves.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic too")]

use std::sync::Arc;
use std::time::Duration;

use gristmill::http::{Api, Readiness, routes};
use gristmill::routing::Router;
use gristmill_core::json::{BATCH, STRUCTURED};
use gristmill_core::{ManualClock, Pattern, QueueName, State, Subscription, Timestamp};
use gristmill_queue::{Claim, Engine, Entry, List, Memory, Queue, QueueOptions};
use gristmill_queue::{EngineOptions, MAX_KEY_LEN};
use reqwest::Client;
use serde_json::{Value, json};

const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

struct Server {
    url: String,
    engine: Arc<Engine>,
    clock: ManualClock,
}

fn queue() -> QueueName {
    QueueName::new("orders").unwrap()
}

/// One queue, which takes everything.
async fn serve() -> Server {
    let clock = ManualClock::at(START);
    let options = EngineOptions { clock: Arc::new(clock.clone()), ..EngineOptions::default() };
    let engine = Arc::new(Memory::default().open(options).unwrap());
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    let all = Subscription { ty: Some(Pattern::new("*")), ..Subscription::default() };
    let api = Api {
        queue: engine.clone(),
        router: Arc::new(Router::new([(queue(), vec![all])])),
        deployment: None,
        metrics: Arc::default(),
        readiness: Readiness::default(),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes(api)).await });
    Server { url, engine, clock }
}

fn event(id: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": "order.paid"})
}

impl Server {
    async fn post(&self, query: &str, content_type: &str, headers: &[(&str, &str)], body: String) -> (u16, Value) {
        gristmill::tls::use_ring();
        let client = Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let mut request = client.post(format!("{}?{query}", self.url)).header("content-type", content_type).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    async fn publish(&self, id: &str, query: &str) -> Value {
        let (status, reply) = self.post(query, STRUCTURED, &[], event(id).to_string()).await;
        assert_eq!(status, 202, "{reply}");
        reply["results"][0].clone()
    }

    async fn list(&self, state: State) -> Vec<Entry> {
        self.engine.list(List { queue: queue(), state, limit: 100, cursor: None }).await.unwrap().entries
    }

    async fn ids(&self, state: State) -> Vec<String> {
        self.list(state).await.iter().map(|entry| entry.event.id.clone()).collect()
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.engine.tick().await.unwrap();
    }
}

#[tokio::test]
async fn options_hold_in_every_mode() {
    let server = serve().await;
    let query = "key=A%207&priority=9&delay=10s";
    let attributes = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", "t")];
    assert_eq!(server.post(query, "text/plain", &attributes, "data".into()).await.0, 202);
    assert_eq!(server.post(query, STRUCTURED, &[], event("2").to_string()).await.0, 202);
    let batch = json!([event("3"), event("4")]).to_string();
    assert_eq!(server.post(query, BATCH, &[], batch).await.0, 202);
    let scheduled = server.list(State::Scheduled).await;
    assert_eq!(scheduled.len(), 4);
    for entry in scheduled {
        assert_eq!((entry.key.as_deref(), entry.priority), (Some("A 7"), 9));
        assert_eq!(entry.at, START.after(10 * SECOND));
    }
}

#[tokio::test]
async fn due_times_and_times_to_live_are_kept() {
    let server = serve().await;
    server.publish("at", "not_before=2027-01-15T08:00:10Z").await;
    server.publish("past", "not_before=1969-01-15T08:00:10Z").await;
    server.publish("after", "delay=1.5s").await;
    server.publish("mortal", "delay=1h&ttl=5s").await;
    assert_eq!(server.ids(State::Ready).await, ["past"]);
    server.advance(SECOND).await;
    assert_eq!(server.ids(State::Ready).await, ["past"]);
    server.advance(SECOND).await;
    assert_eq!(server.ids(State::Ready).await, ["past", "after"]);
    server.advance(3 * SECOND).await;
    assert_eq!(server.ids(State::Dead).await, ["mortal"]);
    server.advance(5 * SECOND).await;
    assert_eq!(server.ids(State::Ready).await, ["past", "after", "at"]);
}

#[tokio::test]
async fn priority_and_key_are_the_queues_business() {
    let server = serve().await;
    server.publish("low", "").await;
    server.publish("high", "priority=200&key=a").await;
    server.publish("behind", "priority=255&key=a").await;
    let claimed = server.engine.claim(Claim::new(queue(), 10)).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|delivery| delivery.event.id.as_str()).collect();
    assert_eq!(ids, ["high", "low"]);
}

#[tokio::test]
async fn repetitions_are_answered_as_asked() {
    let server = serve().await;
    let first = server.publish("1", "dedupe_key=k").await;
    let again = server.publish("2", "dedupe_key=k").await;
    assert_eq!((&again["status"], &again["entries"]), (&json!("duplicate"), &first["entries"]));
    let query = "dedupe_key=k&on_duplicate=refuse";
    let (status, problem) = server.post(query, STRUCTURED, &[], event("3").to_string()).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:gristmill:problem:duplicate")));
    let batch = json!([event("3"), event("4")]).to_string();
    let (status, reply) = server.post(query, BATCH, &[], batch).await;
    assert_eq!((status, &reply["results"][1]["error"]["status"]), (202, &json!(409)), "{reply}");
    assert_eq!(server.publish("5", "dedupe_key=k&on_duplicate=allow").await["status"], "accepted");
    assert_eq!(server.ids(State::Ready).await, ["1", "5"]);
}

#[tokio::test]
async fn a_wrong_query_publishes_nothing() {
    let server = serve().await;
    let long = format!("key={}", "x".repeat(MAX_KEY_LEN + 1));
    let cases = [
        ("priority=256", "the parameter `priority` is `256`: expected a number from 0 to 255"),
        ("prio=1", "there is no parameter `prio`; there are: key, dedupe_key, priority, delay, not_before, ttl,"),
        ("key=", "the parameter `key` is ``: expected 1 to 1024 bytes"),
        (&long, "expected 1 to 1024 bytes, not 1025"),
        ("delay=5", "the parameter `delay` is `5`: a unit is missing: write \"5s\" (one of ms, s, m, h, d)"),
        ("not_before=now", "the parameter `not_before` is `now`: expected an RFC 3339 time"),
        ("delay=5s&not_before=2027-01-15T08:00:10Z", "`delay` and `not_before` exclude each other"),
        ("ttl=0s", "the parameter `ttl` is `0s`: expected more than zero"),
        ("on_duplicate=skip", "expected one of return_existing, allow_after_failure, refuse, allow"),
        ("ttl=1h&ttl=2h", "the parameter `ttl` stands more than once"),
    ];
    for (query, words) in cases {
        for content_type in [STRUCTURED, BATCH] {
            let (status, problem) = server.post(query, content_type, &[], event("1").to_string()).await;
            assert_eq!((status, &problem["type"]), (400, &json!("urn:gristmill:problem:invalid-request")), "{query}");
            assert!(problem["detail"].as_str().unwrap().contains(words), "{query}: {problem}");
        }
    }
    assert!(server.ids(State::Ready).await.is_empty());
}
