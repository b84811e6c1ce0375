//! The HTTP surface and its command-line client, against a server on a port of its own and the memory engine.

#![allow(clippy::unwrap_used, reason = "a test's helpers may panic too")]

use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser as _;
use gristmill::cli;
use gristmill::cli::args::{Args, Command};
use gristmill::http::{Api, Problem, Readiness, routes};
use gristmill::routing::Router;
use gristmill_core::json::{BATCH, STRUCTURED};
use gristmill_core::state::{Change, StateWrite};
use gristmill_core::{EntryId, Outcome, Pattern, QueueName, Subscription};
use gristmill_queue::{
    Act, Action, Claim, Confirm, EngineOptions, KeyOptions, Memory, Operation, PauseIf, Queue, QueueOptions, Selection,
    Settle, Transaction,
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const MAX_EVENT_SIZE: u64 = 16 << 10;

struct Server {
    url: String,
    queue: Arc<dyn Queue>,
    readiness: Readiness,
    http: Client,
}

/// Queue `orders` takes `order.*`, queue `all` takes `order.*` and `other`; `unhandled` has no handler any more.
async fn serve() -> Server {
    let options = EngineOptions { max_event_size: MAX_EVENT_SIZE, ..EngineOptions::default() };
    let queue: Arc<dyn Queue> = Arc::new(Memory::default().open(options).unwrap());
    for name in ["orders", "all", "unhandled"] {
        queue.configure(name.parse().unwrap(), QueueOptions::default()).await.unwrap();
    }
    let on = |ty: &str| Subscription { ty: Some(Pattern::new(ty)), ..Subscription::default() };
    let name = |name: &str| QueueName::new(name).unwrap();
    let readiness = Readiness::default();
    let api = Api {
        queue: Arc::clone(&queue),
        router: Arc::new(Router::new([
            (name("orders"), vec![on("order.*")]),
            (name("all"), vec![on("order.*"), on("other")]),
        ])),
        deployment: None,
        metrics: Arc::default(),
        readiness: readiness.clone(),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes(api)).await });
    Server { url, queue, readiness, http: client() }
}

/// A client of plain HTTP.
fn client() -> Client {
    gristmill::tls::use_ring();
    Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

impl Server {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    fn events(&self, content_type: &str, body: impl Into<Bytes>) -> RequestBuilder {
        self.post("/v1/events").header("content-type", content_type).body(body.into())
    }

    /// Publishes one event and gives the entry that it became in `queue`.
    async fn publish(&self, event: &Value, queue: &str) -> String {
        let reply = json_of(self.events(STRUCTURED, event.to_string()), StatusCode::ACCEPTED).await;
        let entries = reply["results"][0]["entries"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["queue"] == queue).unwrap();
        entry["entry"].as_str().unwrap().to_owned()
    }

    async fn configure(&self, queue: &str, options: QueueOptions) {
        self.queue.configure(queue.parse().unwrap(), options).await.unwrap();
    }

    async fn settle(&self, queue: &str, outcome: Outcome) -> EntryId {
        let delivery = self.queue.claim(Claim::new(queue.parse().unwrap(), 1)).await.unwrap().pop().unwrap();
        self.queue.settle(vec![Settle::new(delivery.lease, outcome)], Confirm::Durable).await.unwrap();
        delivery.entry
    }

    /// Runs a command line against this server: whether it succeeded, or its error message.
    async fn gristmill(&self, line: &[&str]) -> Result<bool, String> {
        gristmill(&self.url, line).await
    }
}

async fn gristmill(url: &str, line: &[&str]) -> Result<bool, String> {
    let args =
        Args::try_parse_from([&["gristmill", "--url", url], line].concat()).map_err(|error| error.to_string())?;
    let Command::Client(command) = &args.command else { return Err("not a client's command".to_owned()) };
    let exit = cli::client(command, &args.global).await.map_err(|error| cli::complaint(&error))?;
    Ok(format!("{exit:?}") == format!("{:?}", ExitCode::SUCCESS))
}

async fn json_of(request: RequestBuilder, status: StatusCode) -> Value {
    let response = request.send().await.unwrap();
    let actual = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(actual, status, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Asserts that the answer is a problem of this status and kind, and gives its detail.
async fn problem_of(request: RequestBuilder, status: u16, urn: &str) -> String {
    let response = request.send().await.unwrap();
    let (actual, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.text().await.unwrap();
    assert_eq!((actual, headers["content-type"].as_bytes()), (status, &b"application/problem+json"[..]), "{body}");
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((problem.status, problem.ty.as_ref()), (status, format!("urn:gristmill:problem:{urn}").as_str()));
    assert!(!problem.title.is_empty() && !problem.detail.is_empty());
    problem.detail
}

fn event(id: &str, ty: &str) -> Value {
    json!({"specversion": "1.0", "id": id, "source": "/shop", "type": ty, "data": {"total": 12}})
}

#[tokio::test]
async fn every_mode_publishes() {
    let server = serve().await;
    let binary = server
        .events("text/plain", "hello")
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/shop")
        .header("ce-type", "order.paid")
        .header("ce-subject", "caf%C3%A9");
    let reply = json_of(binary, StatusCode::ACCEPTED).await;
    let result = &reply["results"][0];
    assert_eq!(
        (&result["source"], &result["id"], &result["status"], &result["durability"], &result["error"]),
        (&json!("/shop"), &json!("1"), &json!("accepted"), &json!("memory"), &Value::Null)
    );
    let queues: Vec<_> = result["entries"].as_array().unwrap().iter().map(|entry| &entry["queue"]).collect();
    assert_eq!(queues, ["orders", "all"]);

    let entry = result["entries"][0]["entry"].as_str().unwrap();
    let shown = json_of(server.get(&format!("/v1/entries/{entry}")), StatusCode::OK).await;
    assert_eq!(
        shown["event"],
        json!({"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "subject": "café",
               "datacontenttype": "text/plain", "data": "hello"})
    );

    let structured = format!("{STRUCTURED}; charset=utf-8");
    json_of(server.events(&structured, event("2", "order.paid").to_string()), StatusCode::ACCEPTED).await;
    let batch = json!([event("3", "other"), event("4", "other")]).to_string();
    json_of(server.events(BATCH, batch), StatusCode::ACCEPTED).await;
    let queues = json_of(server.get("/v1/queues"), StatusCode::OK).await;
    let ready: Vec<_> = queues["items"].as_array().unwrap().iter().map(|q| (&q["name"], &q["ready"])).collect();
    assert_eq!(ready, [(&json!("all"), &json!(4)), (&json!("orders"), &json!(2)), (&json!("unhandled"), &json!(0))]);
}

#[tokio::test]
async fn one_bad_event_is_a_problem() {
    let server = serve().await;
    let structured = |event: &Value| server.events(STRUCTURED, event.to_string());
    let detail = problem_of(structured(&json!({"specversion": "1.0"})), 400, "invalid-event").await;
    assert!(detail.contains("`id` is missing"), "{detail}");
    let detail = problem_of(structured(&event("1", "unheard.of")), 422, "no-subscription").await;
    assert!(detail.contains("unheard.of"), "{detail}");
    let mut large = event("1", "other");
    large["data"] = json!("x".repeat(MAX_EVENT_SIZE as usize));
    problem_of(structured(&large), 413, "too-large").await;
    let binary = server.events("text/plain", "").header("ce-id", "1");
    let detail = problem_of(binary, 400, "invalid-event").await;
    assert!(detail.contains("`specversion` is missing"), "{detail}");
}

#[tokio::test]
async fn bodies_are_limited_and_their_modes_known() {
    let server = serve().await;
    let large = "x".repeat(MAX_EVENT_SIZE as usize + 1);
    problem_of(server.events("text/plain", large).header("ce-specversion", "1.0"), 413, "too-large").await;
    for content_type in ["application/json", "application/cloudevents+avro", ""] {
        let detail = problem_of(server.events(content_type, "{}"), 415, "unsupported-mode").await;
        for mode in [STRUCTURED, BATCH, "ce-*"] {
            assert!(detail.contains(mode), "{detail}");
        }
    }
    for body in ["{}", "[", ""] {
        problem_of(server.events(BATCH, body), 400, "invalid-event").await;
    }
}

#[tokio::test]
async fn a_batch_is_answered_event_by_event() {
    let server = serve().await;
    let (good, unwanted, fine) = (event("1", "order.paid"), event("2", "unheard.of"), event("5", "other"));
    let batch = json!([good, unwanted, {"id": "3", "source": "/s"}, 4, fine]);
    let reply = json_of(server.events(BATCH, batch.to_string()), StatusCode::ACCEPTED).await;
    let results = reply["results"].as_array().unwrap();
    let told: Vec<_> = results.iter().map(|r| (r["id"].as_str(), r["status"].as_str().unwrap())).collect();
    let expected = [
        (Some("1"), "accepted"),
        (Some("2"), "refused"),
        (Some("3"), "refused"),
        (None, "refused"),
        (Some("5"), "accepted"),
    ];
    assert_eq!(told, expected);
    assert_eq!(results[1]["error"]["status"], 422);
    assert_eq!(results[2]["error"]["type"], "urn:gristmill:problem:invalid-event");
    assert_eq!(results[1]["durability"], Value::Null);
    assert_eq!(results[4]["entries"].as_array().unwrap().len(), 1);
    assert_eq!(json_of(server.events(BATCH, "[]"), StatusCode::ACCEPTED).await, json!({"results": []}));
}

#[tokio::test]
async fn a_large_batch_keeps_its_order() {
    let server = serve().await;
    let batch: Vec<_> = (0..3_000).map(|id| event(&id.to_string(), if id % 3 == 0 { "no" } else { "other" })).collect();
    let reply = json_of(server.events(BATCH, Value::from(batch).to_string()), StatusCode::ACCEPTED).await;
    for (id, result) in reply["results"].as_array().unwrap().iter().enumerate() {
        assert_eq!(result["id"], id.to_string());
        assert_eq!(result["status"], if id % 3 == 0 { "refused" } else { "accepted" });
    }
}

#[tokio::test]
async fn what_was_published_before_is_a_duplicate() {
    let server = serve().await;
    let first = server.publish(&event("1", "order.paid"), "all").await;
    let again = json_of(server.events(STRUCTURED, event("1", "order.paid").to_string()), StatusCode::ACCEPTED).await;
    let result = &again["results"][0];
    assert_eq!((&result["status"], &result["durability"]), (&json!("duplicate"), &json!("memory")));
    assert_eq!((&result["entries"][1]["entry"], &result["error"]), (&json!(first), &Value::Null));
    let batch = json!([event("2", "other"), event("1", "order.paid"), event("2", "other")]).to_string();
    let reply = json_of(server.events(BATCH, batch), StatusCode::ACCEPTED).await;
    let told: Vec<_> = reply["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(told, ["accepted", "duplicate", "duplicate"]);
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    assert_eq!((&queue["ready"], &queue["totals"]["duplicates"]), (&json!(2), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses() {
    let server = serve().await;
    server.configure("all", QueueOptions { max_events: Some(2), ..QueueOptions::default() }).await;
    let batch = json!([event("1", "other"), event("2", "other"), event("3", "other")]).to_string();
    let reply = json_of(server.events(BATCH, batch), StatusCode::ACCEPTED).await;
    let told: Vec<_> = reply["results"].as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(told, ["accepted", "accepted", "refused"]);
    assert_eq!(reply["results"][2]["error"]["status"], 429);

    let one = || server.events(STRUCTURED, event("4", "other").to_string());
    let detail = problem_of(one(), 429, "queue-full").await;
    assert!(
        detail.contains("queue `all` is full: it may hold 2 events") && detail.contains("runtime.toml"),
        "{detail}"
    );
    assert_eq!(one().send().await.unwrap().headers()["retry-after"], "1");
    // All queues take an event, or none.
    problem_of(server.events(STRUCTURED, event("5", "order.paid").to_string()), 429, "queue-full").await;
    let orders = json_of(server.get("/v1/queues/orders"), StatusCode::OK).await;
    assert_eq!((&orders["ready"], &orders["totals"]["published"]), (&json!(0), &json!(0)));
    assert_eq!(server.gristmill(&["publish", "--type", "other"]).await, Ok(false));
    server.settle("all", Outcome::Ack { result: None }).await;
    assert_eq!(server.gristmill(&["publish", "--type", "other"]).await, Ok(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_and_cancelled_entries_are_shown() {
    let server = serve().await;
    let key = KeyOptions { attribute: Some("subject".into()), ..KeyOptions::default() };
    server.configure("all", QueueOptions { key, ..QueueOptions::default() }).await;
    let publish = async |id: &str| {
        let mut event = event(id, "other");
        event["subject"] = json!("A-7");
        server.publish(&event, "all").await
    };
    let (head, second, third) = (publish("1").await, publish("2").await, publish("3").await);
    let listed = async |state: &str| {
        let page = json_of(server.get(&format!("/v1/queues/all/entries?state={state}")), StatusCode::OK).await;
        let items = page["items"].as_array().unwrap().clone();
        assert!(items.iter().all(|entry| entry["key"] == "A-7" && entry["state"] == state), "{page}");
        items.iter().map(|entry| entry["entry"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("waiting").await, [second.as_str(), &third]);

    let cancel = Act { action: Action::Cancel, on: Selection::Entries(vec![third.parse().unwrap()]), rate: None };
    server.queue.operate(Operation::Act(cancel)).await.unwrap();
    assert_eq!(listed("cancelled").await, [third]);
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    let shown = (&queue["ready"], &queue["waiting"], &queue["cancelled"], &queue["totals"]["cancelled"]);
    assert_eq!(shown, (&json!(1), &json!(1), &json!(1), &json!(1)));
    for state in ["waiting", "cancelled"] {
        for json in [&[][..], &["--json"]] {
            let line = [&["entries", "list", "all", "--state", state], json].concat();
            assert_eq!(server.gristmill(&line).await, Ok(true), "{line:?}");
        }
    }

    // Its key has gone on to the second one, behind which it waits when it is redriven.
    server.settle("all", Outcome::Reject { reason: "no".into() }).await;
    let redriven = json_of(server.post(&format!("/v1/entries/{head}/redrive")), StatusCode::OK).await;
    assert_eq!(redriven, json!({"entry": head, "state": "waiting"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_says_why() {
    let server = serve().await;
    let reason = "the bank is down".into();
    let pause = Operation::Pause { queue: "all".parse().unwrap(), reason, only_if: PauseIf::Any };
    server.queue.operate(pause).await.unwrap();
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    assert_eq!((&queue["paused"], &queue["pause_reason"]), (&json!(true), &json!("the bank is down")));
    assert_eq!(server.gristmill(&["queues"]).await, Ok(true));
}

#[tokio::test]
async fn queues_show_their_numbers() {
    let server = serve().await;
    server.publish(&event("1", "other"), "all").await;
    server.settle("all", Outcome::Reject { reason: "no".into() }).await;
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    let expected = json!({
        "name": "all", "handler": "all", "paused": false, "pause_reason": null, "scheduled": 0, "waiting": 0, "ready": 0, "leased": 0,
        "done": 0, "dead": 1, "cancelled": 0, "bytes": 0, "oldest_ready_ms": null, "next_due": null,
        "totals": {"published": 1, "duplicates": 0, "acked": 0, "retried": 0, "deferred": 0, "dead_lettered": 1,
                   "redriven": 0, "cancelled": 0},
    });
    assert_eq!(queue, expected);
    let unhandled = json_of(server.get("/v1/queues/unhandled"), StatusCode::OK).await;
    assert_eq!(unhandled["handler"], Value::Null);
    let detail = problem_of(server.get("/v1/queues/order"), 404, "unknown-queue").await;
    assert!(detail.contains("all, orders, unhandled"), "{detail}");
    problem_of(server.get("/v1/queues/No%20name"), 404, "unknown-queue").await;
    problem_of(server.get("/v1/queues/order/entries?state=dead"), 404, "unknown-queue").await;
}

#[tokio::test]
async fn entries_come_in_pages() {
    let server = serve().await;
    for id in ["1", "2", "3"] {
        server.publish(&event(id, "other"), "all").await;
    }
    let mut ids = Vec::new();
    let mut path = "/v1/queues/all/entries?state=ready&limit=2".to_owned();
    loop {
        let page = json_of(server.get(&path), StatusCode::OK).await;
        ids.extend(page["items"].as_array().unwrap().iter().map(|e| e["event"]["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/queues/all/entries?state=ready&limit=2&cursor={next}");
    }
    assert_eq!(ids, ["1", "2", "3"]);

    let refused = async |query: &str| {
        problem_of(server.get(&format!("/v1/queues/all/entries{query}")), 400, "invalid-request").await
    };
    assert!(refused("").await.contains("scheduled, waiting, ready, leased, done, dead, cancelled"));
    assert!(refused("?state=gone").await.contains("scheduled, waiting, ready, leased, done, dead or cancelled"));
    for limit in ["0", "1001", "-1", "many"] {
        assert!(refused(&format!("?state=ready&limit={limit}")).await.contains("1 to 1000"));
    }
    assert!(refused("?state=ready&sate=1").await.contains("sate"));
    refused("?state=ready&cursor=nonsense").await;
}

#[tokio::test]
async fn lists_leave_large_data_out() {
    let server = serve().await;
    let small = server.publish(&event("1", "other"), "all").await;
    let data = "x".repeat(8 << 10);
    let mut large = event("2", "other");
    large["data"] = json!(data);
    let large = server.publish(&large, "all").await;
    let page = json_of(server.get("/v1/queues/all/entries?state=ready"), StatusCode::OK).await;
    let [first, second] = &page["items"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&first["entry"], &first["event"]["data"]), (&json!(small), &json!({"total": 12})));
    assert_eq!((&second["entry"], second["event"].get("data")), (&json!(large), None));
    assert_eq!(second["data_bytes"], data.len() + 2);
    let alone = json_of(server.get(&format!("/v1/entries/{large}")), StatusCode::OK).await;
    assert_eq!(alone["event"]["data"], json!(data));
}

#[tokio::test]
async fn an_entry_tells_its_history_and_result() {
    let server = serve().await;
    let entry = server.publish(&event("1", "other"), "all").await;
    server.settle("all", Outcome::Released).await;
    server.settle("all", Outcome::Ack { result: Some(Bytes::from_static(b"{\"n\":1.10}")) }).await;
    let response = server.get(&format!("/v1/entries/{entry}")).send().await.unwrap().text().await.unwrap();
    assert!(response.contains(r#""result":{"n":1.10}"#), "{response}");
    let shown: Value = serde_json::from_str(&response).unwrap();
    assert_eq!((&shown["entry"], &shown["queue"], &shown["state"]), (&json!(entry), &json!("all"), &json!("done")));
    let last = shown["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["outcome"], "ack");
    for time in [&shown["enqueued_at"], &shown["at"], &last["started_at"]] {
        assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
    problem_of(server.get("/v1/entries/unknown"), 404, "unknown-entry").await;
    problem_of(server.get("/v1/entries/%20"), 404, "unknown-entry").await;
}

#[tokio::test]
async fn only_the_dead_are_redriven() {
    let server = serve().await;
    let entry = server.publish(&event("1", "other"), "all").await;
    let redrive = || server.post(&format!("/v1/entries/{entry}/redrive"));
    assert!(problem_of(redrive(), 409, "not-dead").await.contains("is ready"));
    server.settle("all", Outcome::Reject { reason: "no".into() }).await;
    assert_eq!(json_of(redrive(), StatusCode::OK).await, json!({"entry": entry, "state": "ready"}));
    problem_of(server.post("/v1/entries/unknown/redrive"), 404, "unknown-entry").await;
}

#[tokio::test]
async fn probes_paths_and_methods() {
    let server = serve().await;
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    problem_of(server.get("/readyz"), 503, "not-ready").await;
    server.readiness.open();
    assert_eq!(server.get("/readyz").send().await.unwrap().status(), StatusCode::OK);
    server.readiness.close();
    problem_of(server.get("/readyz"), 503, "not-ready").await;

    problem_of(server.get("/v2/queues"), 404, "unknown-path").await;
    problem_of(server.get("/v1/events"), 405, "wrong-method").await;
    let response = server.request(Method::DELETE, "/v1/queues").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET,HEAD");
}

#[tokio::test]
async fn web_pages_of_others_are_refused() {
    let server = serve().await;
    let batch = || server.events(BATCH, "[]");
    problem_of(batch().header("origin", "https://evil.example"), 403, "forbidden").await;
    problem_of(batch().header("origin", "null"), 403, "forbidden").await;
    json_of(batch().header("origin", "http://localhost:5173"), StatusCode::ACCEPTED).await;
    problem_of(server.get("/v1/queues").header("host", "evil.example"), 403, "forbidden").await;
    problem_of(server.get("/nowhere").header("host", "evil.example"), 403, "forbidden").await;
    json_of(server.get("/v1/queues").header("host", "localhost"), StatusCode::OK).await;
}

#[tokio::test]
async fn a_closed_engine_is_unavailable() {
    let server = serve().await;
    server.queue.close().await.unwrap();
    let response = server.get("/v1/queues").send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    problem_of(server.get("/v1/queues"), 503, "unavailable").await;
    problem_of(server.events(STRUCTURED, event("1", "other").to_string()), 503, "unavailable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_publishes_a_file() {
    let server = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.ndjson");
    let lines: Vec<_> = (0..600).map(|id| event(&id.to_string(), "other").to_string()).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let path = path.to_str().unwrap();
    assert_eq!(server.gristmill(&["publish", path]).await, Ok(true));
    std::fs::write(path, format!("{}\nnonsense\n\n{}\n", event("a", "unheard.of"), event("b", "other"))).unwrap();
    assert_eq!(server.gristmill(&["publish", path, "--json"]).await, Ok(false));
    assert_eq!(server.gristmill(&["publish", "--type", "other", "--data", "hello"]).await, Ok(true));
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    assert_eq!(queue["ready"], 602);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_looks_and_redrives() {
    let server = serve().await;
    let mut entries = Vec::new();
    for id in ["1", "2", "3"] {
        entries.push(server.publish(&event(id, "other"), "all").await);
        server.settle("all", Outcome::Reject { reason: "\u{1b}[31mno".into() }).await;
    }
    for line in [
        &["queues"][..],
        &["queues", "--json"],
        &["entries", "list", "all", "--state", "dead", "--limit", "2"],
        &["entries", "show", &entries[0]],
        &["dead", "list"],
        &["dead", "list", "all", "--json"],
        &["dead", "show", &entries[1], "--json"],
        &["dead", "redrive", &entries[0]],
        &["dead", "redrive", "--queue", "all", "--all"],
    ] {
        assert_eq!(server.gristmill(line).await, Ok(true), "{line:?}");
    }
    assert_eq!(server.gristmill(&["dead", "redrive", &entries[0], "unknown"]).await, Ok(false));
    let queue = json_of(server.get("/v1/queues/all"), StatusCode::OK).await;
    assert_eq!((&queue["ready"], &queue["dead"], &queue["totals"]["redriven"]), (&json!(3), &json!(0), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_redrives_what_one_version_failed() {
    let server = serve().await;
    let digest = |digit: &str| format!("sha256:{}", digit.repeat(64));
    let mut entries = Vec::new();
    for (id, version) in [("1", "a"), ("2", "b"), ("3", "a"), ("4", "")] {
        let entry = server.publish(&event(id, "other"), "all").await;
        let delivery = server.queue.claim(Claim::new("all".parse().unwrap(), 1)).await.unwrap().pop().unwrap();
        let version = Some(version).filter(|version| !version.is_empty()).map(digest);
        let settle = Settle { version, ..Settle::new(delivery.lease, Outcome::Reject { reason: "no".into() }) };
        server.queue.settle(vec![settle], Confirm::Durable).await.unwrap();
        entries.push(entry);
    }
    let redrive = async |version: &str| {
        let line = ["dead", "redrive", "--queue", "all", "--version-of-failure", version];
        assert_eq!(server.gristmill(&line).await, Ok(true), "{version}");
        let mut dead = Vec::new();
        for (entry, id) in entries.iter().zip(["1", "2", "3", "4"]) {
            let shown = json_of(server.get(&format!("/v1/entries/{entry}")), StatusCode::OK).await;
            dead.extend((shown["state"] == "dead").then_some(id));
        }
        dead
    };
    assert_eq!(redrive(&digest("c")).await, ["1", "2", "3", "4"]);
    assert_eq!(redrive("sha256:bbbbbbbbbbbb").await, ["1", "3", "4"], "its beginning will do");
    assert_eq!(redrive(&digest("a")).await, ["4"]);
    for wrong in ["sha256:aaa", "aaaaaaaaaaaa", "sha256:AAAAAAAAAAAA", ""] {
        let line = ["dead", "redrive", "--queue", "all", "--version-of-failure", wrong];
        let error = server.gristmill(&line).await.unwrap_err();
        assert!(error.contains("expected `sha256:` and 8 to 64 hexadecimal digits"), "{error}");
    }
    let without_queue = ["dead", "redrive", "--version-of-failure", "sha256:aaaaaaaaaaaa"];
    assert!(server.gristmill(&without_queue).await.unwrap_err().contains("--queue"));
}

#[tokio::test]
async fn the_command_line_says_what_is_wrong() {
    let server = serve().await;
    let error = server.gristmill(&["entries", "list", "order", "--state", "dead"]).await.unwrap_err();
    assert!(error.starts_with("error: there is no queue `order`; there are: "), "{error}");
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = gristmill(&url, &["queues"]).await.unwrap_err();
    let expected = "start one with `gristmill run`, or name another with --url";
    assert_eq!(error, format!("error: no runtime answers at {url}: {expected}\n"));
}

#[tokio::test]
async fn state_is_listed_in_pages_and_read_as_it_is() {
    let server = serve().await;
    let keys = ["..", "a b", "a/1", "a/2", "b"];
    let writes = keys.map(|key| StateWrite {
        bucket: "stock".to_owned(),
        key: key.to_owned(),
        change: Change::Set(Bytes::from_static(b"\xff<html>")),
    });
    server.queue.transact(Transaction { writes: writes.to_vec(), ..Transaction::default() }).await.unwrap();
    assert_eq!(json_of(server.get("/v1/state"), StatusCode::OK).await, json!({ "items": ["stock"], "next": null }));
    let keys = async |query: &str| json_of(server.get(&format!("/v1/state/stock/keys?{query}")), StatusCode::OK).await;
    assert_eq!(keys("prefix=a/").await, json!({ "items": ["a/1", "a/2"], "next": null }));
    assert_eq!(keys("limit=2").await, json!({ "items": ["..", "a b"], "next": "a b" }));
    assert_eq!(keys("limit=3&cursor=a%20b").await, json!({ "items": ["a/1", "a/2", "b"], "next": null }));
    for key in ["..", "a%2F1", "a/2", "a+b"] {
        let response = server.get(&format!("/v1/state/stock/value?key={key}")).send().await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (StatusCode::OK, &"application/octet-stream".parse().unwrap())
        );
        assert_eq!(response.bytes().await.unwrap(), Bytes::from_static(b"\xff<html>"), "{key}");
    }
    let unknown = json_of(server.get("/v1/state/none/value?key=x"), StatusCode::NOT_FOUND).await;
    assert_eq!(unknown["type"], "urn:gristmill:problem:unknown-key");
    let missing = json_of(server.get("/v1/state/stock/value"), StatusCode::BAD_REQUEST).await;
    assert!(missing["detail"].as_str().unwrap().contains("the parameter `key` is missing"), "{missing}");
    json_of(server.get("/v1/state/stock/keys?limit=0"), StatusCode::BAD_REQUEST).await;
}
