//! Components of WASI 0.3, whose functions may be async.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::http::{HttpGrant, HttpReach};
use gristmill_core::{Event, Outcome, Pattern, Timestamp};
use gristmill_host::{
    Component, GrantKind, Grants, ImportStatus, Interface, Invocation, LoadRequest, Replay, Replayed, Report,
};
use gristmill_test_guests::{ENVOY, bytes};
use serde_json::{Value, json};
use support::server::{Answer, PATIENCE, Server, response};
use support::{host, invocation, request, with_timeout};

/// A program that waits for so many nanoseconds, and returns ok (0) or an error (1).
fn waiting(nanos: u64, result: u32) -> Bytes {
    let text = format!(
        r#"(component
            (import "wasi:clocks/monotonic-clock@0.3.0" (instance $clock
                (export "now" (func (result u64)))
                (export "wait-for" (func async (param "how-long" u64)))))
            (core func $now (canon lower (func $clock "now")))
            (core func $wait (canon lower (func $clock "wait-for")))
            (core module $m
                (import "wasi" "now" (func $now (result i64)))
                (import "wasi" "wait" (func $wait (param i64)))
                (func (export "run") (result i32)
                    (local $start i64)
                    (local.set $start (call $now))
                    (call $wait (i64.const {nanos}))
                    (if (i64.lt_u (i64.sub (call $now) (local.get $start)) (i64.const {nanos})) (then (unreachable)))
                    (i32.const {result})))
            (core instance $i (instantiate $m
                (with "wasi" (instance (export "now" (func $now)) (export "wait" (func $wait))))))
            (func $run async (result (result)) (canon lift (core func $i "run")))
            (instance $program (export "run" (func $run)))
            (export "wasi:cli/run@0.3.0" (instance $program)))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}")).into()
}

async fn run(bytes: Bytes, timeout: Duration) -> Report {
    let component = host(1).load(request(bytes)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((component.interface(), component.form()), (Interface::Run, "wasi:cli/run@0.3"));
    component.handle(with_timeout(timeout)).await
}

#[tokio::test]
async fn a_program_may_wait() {
    let long = Duration::from_secs(10);
    let report = run(waiting(5_000_000, 0), long).await;
    assert_eq!(report.outcome, Outcome::Ack { result: None });
    assert!(report.ledger.wall >= Duration::from_millis(5));
    let report = run(waiting(1, 1), long).await;
    assert_eq!(report.outcome, Outcome::Retry { reason: "exit status 1".to_owned(), after: None });
}

#[tokio::test]
async fn a_program_that_waits_too_long_is_stopped() {
    let Outcome::Timeout { reason } = run(waiting(3_600_000_000_000, 0), Duration::from_millis(20)).await.outcome
    else {
        panic!("a time-out")
    };
    assert_eq!(reason, "the handler ran longer than its time-out of 20ms; it was waiting in a host call");
}

/// Looks up `localhost`: ok if there is an answer.
fn looking_up() -> Bytes {
    let text = r#"(component
        (import "wasi:sockets/types@0.3.0" (instance $types
            (type $v4 (tuple u8 u8 u8 u8))
            (type $v6 (tuple u16 u16 u16 u16 u16 u16 u16 u16))
            (type $address' (variant (case "ipv4" $v4) (case "ipv6" $v6)))
            (export "ip-address" (type $address (eq $address')))))
        (alias export $types "ip-address" (type $address))
        (import "wasi:sockets/ip-name-lookup@0.3.0" (instance $lookup
            (export "ip-address" (type $a (eq $address)))
            (type $error' (variant
                (case "access-denied") (case "invalid-argument") (case "name-unresolvable")
                (case "temporary-resolver-failure") (case "permanent-resolver-failure") (case "other" (option string))))
            (export "error-code" (type $error (eq $error')))
            (export "resolve-addresses" (func async (param "name" string) (result (result (list $a) (error $error)))))))
        (core module $memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))
        (core instance $memory (instantiate $memory))
        (core func $resolve (canon lower (func $lookup "resolve-addresses")
            (memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))))
        (core module $m
            (import "memory" "memory" (memory 1))
            (import "wasi" "resolve" (func $resolve (param i32 i32 i32)))
            (data (i32.const 16) "localhost")
            (func (export "run") (result i32)
                (call $resolve (i32.const 16) (i32.const 9) (i32.const 1024))
                (i32.load8_u (i32.const 1024))))
        (core instance $i (instantiate $m
            (with "memory" (instance $memory)) (with "wasi" (instance (export "resolve" (func $resolve))))))
        (func $run async (result (result)) (canon lift (core func $i "run")))
        (instance $program (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0" (instance $program)))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")).into()
}

#[tokio::test]
async fn only_granted_names_are_looked_up() {
    for (granted, is_found) in [("tcp://localhost:80", true), ("tcp://10.0.0.0/8:*", false)] {
        let mut request = request(looking_up());
        request.grants.sockets = vec![granted.parse().unwrap()];
        let component = host(1).load(request).await.unwrap_or_else(|error| panic!("{error}"));
        let report = component.handle(with_timeout(Duration::from_secs(10))).await;
        assert_eq!(matches!(report.outcome, Outcome::Ack { .. }), is_found, "{granted}: {:?}", report.outcome);
        let scene = Replay { now: Timestamp::EPOCH, seed: 1 };
        let Replayed { report, refused } = component.replay(with_timeout(Duration::from_secs(10)), scene).await;
        assert!(matches!(report.outcome, Outcome::Retry { .. }), "{granted}: {:?}", report.outcome);
        assert_eq!(refused.sockets, u32::from(is_found), "{granted}");
    }
}

/// Makes streams without end, and keeps them.
fn hoarding() -> Bytes {
    let text = r#"(component
        (type $stream (stream u8))
        (core func $new (canon stream.new $stream))
        (core module $m
            (import "wasi" "new" (func $new (result i64)))
            (func (export "run") (result i32)
                (loop $again (drop (call $new)) (br $again))
                (unreachable)))
        (core instance $i (instantiate $m (with "wasi" (instance (export "new" (func $new))))))
        (func $run async (result (result)) (canon lift (core func $i "run")))
        (instance $program (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0" (instance $program)))"#;
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}")).into()
}

#[tokio::test]
async fn streams_are_handles_like_others() {
    let Outcome::OverLimit { reason } = run(hoarding(), PATIENCE).await.outcome else { panic!("over a limit") };
    assert!(reason.starts_with("it holds more handles than `max-handles` allows"), "{reason}");
}

async fn envoy(http: Vec<HttpGrant>) -> Component {
    let grants = Grants { emit: vec![Pattern::new("test.*")], http, ..Grants::default() };
    let loaded = host(2).load(LoadRequest { grants, ..request(bytes(ENVOY)) }).await;
    loaded.unwrap_or_else(|error| panic!("{error}"))
}

fn granted(url: &str) -> Vec<HttpGrant> {
    vec![url.parse().unwrap()]
}

fn event(ty: &str, subject: Option<&str>) -> Invocation {
    let mut event = Event::new("1", "/test", ty);
    event.subject = subject.map(str::to_owned);
    event.data = Some(json!({ "n": 1 }).to_string().into());
    let mut invocation = Invocation { event: Arc::new(event), ..invocation() };
    invocation.limits.timeout = PATIENCE;
    invocation
}

/// The data of the one event that was emitted.
fn made(report: &Report) -> Value {
    assert_eq!(report.outcome, Outcome::Ack { result: None });
    let [emit] = &report.emits[..] else { panic!("{:?}", report.emits) };
    assert_eq!((emit.event.ty.as_str(), emit.event.source.as_str()), ("test.made", "/handlers/guest"));
    serde_json::from_slice(emit.event.data.as_deref().unwrap()).unwrap()
}

#[tokio::test]
async fn the_event_is_on_stdin_and_what_is_emitted_on_stdout() {
    let envoy = envoy(Vec::new()).await;
    let told = made(&envoy.handle(event("test.echo", Some("a"))).await);
    let expected = json!({ "specversion": "1.0", "id": "1", "source": "/test", "type": "test.echo", "subject": "a", "data": { "n": 1 } });
    assert_eq!(told, expected);

    let report = envoy.handle(event("test.fail", None)).await;
    assert_eq!(report.outcome, Outcome::Retry { reason: "exit status 1".to_owned(), after: None });
    assert!(report.emits.is_empty(), "{:?}", report.emits);
}

#[tokio::test]
async fn a_long_event_goes_in_and_comes_out() {
    const MANY: usize = 200_000;
    let mut invocation = event("test.echo", None);
    Arc::get_mut(&mut invocation.event).unwrap().data = Some(json!("x".repeat(MANY)).to_string().into());
    let told = made(&envoy(Vec::new()).await.handle(invocation).await);
    assert_eq!(told["data"].as_str().map(str::len), Some(MANY));
}

#[tokio::test]
async fn a_granted_request_goes_out_and_its_response_comes_back() {
    let mut server = Server::start(response("201 Created", "", "made")).await;
    let envoy = envoy(granted(&format!("POST {}/v1", server.url("")))).await;
    let report = envoy.handle(event("test.call", Some(&server.url("/v1/orders?n=1")))).await;
    assert_eq!(made(&report), json!({ "status": 201, "body": "made" }));
    let asked = server.asked().await;
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", server.address);
    assert_eq!(lines, ["POST /v1/orders?n=1 HTTP/1.1", &host, "transfer-encoding: chunked"]);
    assert_eq!(body, "7\r\n{\"n\":1}\r\n0\r\n\r\n");
    server.gone().await;
    assert_eq!((report.ledger.http_sent, report.ledger.http_received), server.traffic());
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    const MANY: usize = 1 << 20;
    let mut server = Server::start(response("200 OK", "", &"y".repeat(MANY))).await;
    let envoy = envoy(granted(&server.url(""))).await;
    let mut invocation = event("test.call", Some(&server.url("/")));
    Arc::get_mut(&mut invocation.event).unwrap().data = Some(json!("x".repeat(MANY)).to_string().into());
    invocation.limits.max_event_size = 4 << 20;
    invocation.limits.max_emit_bytes = 4 << 20;
    let report = envoy.handle(invocation).await;
    assert_eq!(made(&report)["body"].as_str().map(str::len), Some(MANY));
    assert!(server.asked().await.len() > MANY);
    assert!(report.ledger.http_sent > MANY as u64 && report.ledger.http_received > MANY as u64);
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_not_sent() {
    let mut server = Server::start(response("200 OK", "", "")).await;
    let url = server.url("");
    for grants in [Vec::new(), granted(&format!("GET {url}")), granted(&format!("{url}/v1"))] {
        let report = envoy(grants.clone()).await.handle(event("test.call", Some(&format!("{url}/v2")))).await;
        assert_eq!(made(&report), json!({ "error": "HttpRequestDenied" }), "{grants:?}");
        let line = &report.logs[0].message;
        assert!(line.starts_with(&format!("POST {url} was denied: ")), "{line}");
        assert_eq!((report.ledger.http_sent, report.ledger.http_received), (0, 0));
    }
    assert!(server.was_left_alone());
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_unless_that_is_meant() {
    let mut server = Server::start(response("200 OK", "", "here")).await;
    let origin = format!("http://localhost:{}", server.address.port());
    let ask = async |reach| {
        let mut grants = granted(&origin);
        grants[0].reach = reach;
        envoy(grants).await.handle(event("test.call", Some(&origin))).await
    };
    let report = ask(HttpReach::Public).await;
    assert_eq!(made(&report), json!({ "error": "DestinationIpProhibited" }));
    assert!(report.logs[0].message.contains("is private"), "{:?}", report.logs);
    assert!(server.was_left_alone());
    assert_eq!(made(&ask(HttpReach::Private).await)["body"], "here");
}

#[tokio::test]
async fn a_time_out_ends_the_connection() {
    for wait in [Answer::Hold(Vec::new()), Answer::Hold(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec())] {
        let mut server = Server::start(wait).await;
        let envoy = envoy(granted(&server.url(""))).await;
        let mut invocation = event("test.call", Some(&server.url("/")));
        invocation.limits.timeout = Duration::from_secs(1);
        let report = envoy.handle(invocation).await;
        assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{:?}", report.outcome);
        server.gone().await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_has_a_code() {
    let server = Server::start(Answer::Say(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec())).await;
    let report = envoy(granted(&server.url(""))).await.handle(event("test.call", Some(&server.url("/")))).await;
    assert_eq!(made(&report), json!({ "error": "HttpResponseIncomplete" }));
}

#[tokio::test]
async fn the_client_is_powerless_until_something_is_granted() {
    let status = |component: &Component| {
        let import = component.imports().iter().find(|import| import.name == "wasi:http/client@0.3.0");
        import.unwrap().status
    };
    let lacking = |component: &Component| component.gaps().iter().any(|gap| gap.grant == GrantKind::Http);
    let without = envoy(Vec::new()).await;
    assert_eq!((status(&without), lacking(&without)), (ImportStatus::Powerless, true));
    let with = envoy(granted("https://api.example.com")).await;
    assert_eq!((status(&with), lacking(&with)), (ImportStatus::Provided, false));
}
