//! Requests that handlers send: a real guest, and real servers on this machine.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Event, Outcome};
use gristmill_host::{Component, Grants, ImportStatus, Invocation, LoadRequest, LogLevel, Report};
use gristmill_test_guests::{CALLER, bytes};
use serde_json::{Value, json};
use support::server::{Answer, PATIENCE, Server, response};
use support::{invocation, request};

async fn caller(grants: &[&str]) -> Component {
    let http = grants.iter().map(|grant| grant.parse().unwrap()).collect();
    let grants = Grants { http, ..Grants::default() };
    support::host(2).load(LoadRequest { grants, ..request(bytes(CALLER)) }).await.unwrap()
}

fn call(ty: &str, data: &Value) -> Invocation {
    let mut event = Event::new("1", "/test", ty);
    event.data = Some(data.to_string().into());
    let mut invocation = Invocation { event: Arc::new(event), ..invocation() };
    invocation.limits.timeout = PATIENCE;
    invocation
}

fn answer(report: &Report) -> Value {
    let Outcome::Ack { result: Some(result) } = &report.outcome else { panic!("{:?}", report.outcome) };
    serde_json::from_slice(result).unwrap()
}

/// The answer to one request, under one grant.
async fn ask(grant: &str, data: Value) -> Value {
    answer(&caller(&[grant]).await.handle(call("test.call", &data)).await)
}

async fn error_of(answer: Answer, more: Value) -> String {
    let server = Server::start(answer).await;
    let mut data = json!({ "url": server.url("/") });
    data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(&server.url(""), data).await["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_granted_request_goes_out_and_its_response_comes_back() {
    let answer = response("201 Created", "x-kind: a\r\nx-kind: b\r\n", "made");
    let mut server = Server::start(answer).await;
    let caller = caller(&[&format!("POST {}/v1", server.url(""))]).await;
    let data =
        json!({ "url": server.url("/v1/orders?n=1"), "method": "POST", "headers": [["x-id", "7"]], "body": "hello" });
    let invocation = call("test.call", &data);
    let given = invocation.event.size();
    let report = caller.handle(invocation).await;
    let told = self::answer(&report);
    assert_eq!((&told["status"], &told["body"]), (&json!(201), &json!("made")));
    assert_eq!(told["headers"]["content-length"], "4");
    let asked = server.asked().await;
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<_> = head.lines().collect();
    lines[1..].sort_unstable();
    let host = format!("host: {}", server.address);
    assert_eq!(lines, ["POST /v1/orders?n=1 HTTP/1.1", &host, "transfer-encoding: chunked", "x-id: 7"]);
    assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
    server.gone().await;
    let (sent, received) = server.traffic();
    assert_eq!((report.ledger.http_sent, report.ledger.http_received), (sent, received));
    let Outcome::Ack { result: Some(result) } = &report.outcome else { panic!("{:?}", report.outcome) };
    let in_all = (given + received, result.len() as u64 + sent);
    assert_eq!((report.ledger.bytes_in, report.ledger.bytes_out), in_all);
}

#[tokio::test]
async fn many_names_are_looked_up_one_after_the_other() {
    let server = Server::start(response("200 OK", "", "here")).await;
    let origin = format!("http://localhost:{}", server.address.port());
    let caller = caller(&[&origin]).await;
    // More than may be looked up at once.
    for _ in 0..12 {
        let report = caller.handle(call("test.call", &json!({ "url": origin }))).await;
        assert_eq!(answer(&report)["body"], "here");
    }
}

#[tokio::test]
async fn what_is_not_granted_is_denied_and_not_sent() {
    let mut server = Server::start(response("200 OK", "", "")).await;
    let url = server.url("");
    let port = server.address.port();
    for (grants, method, asked) in [
        (vec![], "GET", format!("{url}/")),
        (vec![format!("POST,PUT {url}")], "GET", format!("{url}/")),
        (vec![format!("{url}/v1")], "GET", format!("{url}/v2")),
        (vec![format!("{url}/v1")], "GET", format!("{url}/v1/../v2")),
        (vec!["http://127.0.0.1".to_owned()], "GET", format!("{url}/")),
        (vec![format!("https://127.0.0.1:{port}")], "GET", format!("{url}/")),
        (vec![format!("http://localhost:{port}")], "GET", format!("{url}/")),
        (vec![url.clone()], "CONNECT", format!("{url}/")),
    ] {
        let grants: Vec<_> = grants.iter().map(String::as_str).collect();
        let report = caller(&grants).await.handle(call("test.call", &json!({ "url": asked, "method": method }))).await;
        assert_eq!(answer(&report), json!({ "error": "HttpRequestDenied" }), "{grants:?} {asked}");
        let line = report.logs.first().unwrap();
        assert_eq!((line.level, line.context.as_str()), (LogLevel::Warn, "gristmill"));
        // Without its path, which may be a secret.
        assert!(line.message.starts_with(&format!("{method} {url} was denied: ")), "{}", line.message);
        assert_eq!((report.ledger.http_sent, report.ledger.http_received), (0, 0));
    }
    assert!(server.was_left_alone());
}

#[tokio::test]
async fn the_log_says_what_was_denied_and_why() {
    let message = async |grants: &[&str]| {
        let data = json!({ "url": "https://api.example.com/orders?secret=1" });
        caller(grants).await.handle(call("test.call", &data)).await.logs.remove(0).message
    };
    let denied = "GET https://api.example.com:443 was denied: ";
    assert_eq!(message(&[]).await, format!("{denied}the handler has no grant of HTTP"));
    assert_eq!(
        message(&["GET https://a.example.com", "http://localhost:81"]).await,
        format!(
            "{denied}it is not covered by the grant http = [\"GET https://a.example.com\", \"http://localhost:81 private\"]"
        )
    );
}

#[tokio::test]
async fn the_import_is_powerless_until_something_is_granted() {
    let status = |component: &Component| {
        let import = component.imports().iter().find(|import| import.name.starts_with("wasi:http/outgoing-handler@"));
        import.unwrap().status
    };
    assert_eq!(status(&caller(&[]).await), ImportStatus::Powerless);
    assert_eq!(status(&caller(&["https://api.example.com"]).await), ImportStatus::Provided);
}

#[tokio::test]
async fn only_host_and_port_may_say_where_a_request_goes() {
    let mut server = Server::start(response("200 OK", "", "")).await;
    let port = server.address.port();
    for authority in
        [format!("127.0.0.1:{port}@127.0.0.1:{port}"), format!("127.1:{port}"), format!("2130706433:{port}")]
    {
        let told = ask(&server.url(""), json!({ "url": format!("http://{authority}/") })).await;
        assert_eq!(told, json!({ "error": "HttpRequestUriInvalid" }), "{authority}");
    }
    let told = ask(&server.url(""), json!({ "url": server.url("/"), "headers": [["host", "other"]] })).await;
    assert!(told["error"].as_str().unwrap().contains("Forbidden"), "{told}");
    assert!(server.was_left_alone());
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let mut server = Server::start(response("302 Found", "location: /elsewhere\r\n", "")).await;
    let told = ask(&server.url(""), json!({ "url": server.url("/") })).await;
    assert_eq!((&told["status"], &told["headers"]["location"]), (&json!(302), &json!("/elsewhere")));
    assert!(server.asked().await.starts_with("GET / "));
    assert!(server.was_left_alone());
}

#[tokio::test]
async fn the_name_of_this_machine_means_its_own_addresses() {
    let server = Server::start(response("200 OK", "", "here")).await;
    let origin = format!("http://localhost:{}", server.address.port());
    assert_eq!(ask(&origin, json!({ "url": origin })).await["body"], "here");
}

#[tokio::test]
async fn a_time_out_ends_the_connection() {
    for wait in [Answer::Hold(Vec::new()), Answer::Hold(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec())] {
        let mut server = Server::start(wait).await;
        let caller = caller(&[&server.url("")]).await;
        let mut invocation = call("test.call", &json!({ "url": server.url("/") }));
        invocation.limits.timeout = Duration::from_secs(1);
        let report = caller.handle(invocation).await;
        assert!(matches!(report.outcome, Outcome::Timeout { .. }), "{:?}", report.outcome);
        server.gone().await;
    }
}

#[tokio::test]
async fn dropping_the_invocation_ends_the_connection() {
    let mut server = Server::start(Answer::Hold(Vec::new())).await;
    let caller = caller(&[&server.url("")]).await;
    let invocation = call("test.call", &json!({ "url": server.url("/") }));
    tokio::select! {
        report = caller.handle(invocation) => panic!("{report:?}"),
        _ = server.asked() => {}
    }
    server.gone().await;
}

#[tokio::test]
async fn a_guest_may_set_shorter_time_outs() {
    let half = || Answer::Hold(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec());
    let read = "ConnectionReadTimeout";
    assert_eq!(error_of(Answer::Hold(Vec::new()), json!({ "first_byte_ms": 50 })).await, read);
    assert_eq!(error_of(half(), json!({ "between_bytes_ms": 50 })).await, read);
    assert_eq!(error_of(half(), json!({ "between_bytes_ms": 0 })).await, read);
}

#[tokio::test]
async fn what_goes_wrong_has_a_code() {
    let say = |text: &str| Answer::Say(text.as_bytes().to_vec());
    let none = json!({});
    assert_eq!(error_of(say(""), none.clone()).await, "HttpResponseIncomplete");
    assert_eq!(error_of(say("HTTP/1.1 200"), none.clone()).await, "HttpResponseIncomplete");
    assert_eq!(error_of(say("SSH-2.0-x\r\n\r\n"), none.clone()).await, "HttpProtocolError");
    assert_eq!(
        error_of(say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"), none.clone()).await,
        "HttpResponseIncomplete"
    );
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(70_000));
    assert_eq!(error_of(say(&large), none.clone()).await, "HttpResponseHeaderSectionSize(None)");
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(300));
    assert_eq!(error_of(say(&many), none).await, "HttpResponseHeaderSectionSize(None)");

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{closed}");
    assert_eq!(ask(&url, json!({ "url": url })).await, json!({ "error": "ConnectionRefused" }));
    let nowhere = "http://no-such-host.invalid";
    let told = ask(nowhere, json!({ "url": nowhere })).await;
    assert!(told["error"].as_str().unwrap().starts_with("DnsError("), "{told}");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    const MANY: usize = 3 << 20;
    let mut server = Server::start(response("200 OK", "", &"y".repeat(MANY))).await;
    let caller = caller(&[&server.url("")]).await;
    let report = caller.handle(call("test.call", &json!({ "url": server.url("/") }))).await;
    assert_eq!(answer(&report)["length"], MANY);
    server.asked().await;
    let upload = json!({ "url": server.url("/"), "method": "POST", "count": MANY,
        "headers": [["content-length", MANY.to_string()]] });
    let report = caller.handle(call("test.upload", &upload)).await;
    assert_eq!(answer(&report)["status"], 200);
    let asked = server.asked().await;
    assert_eq!(asked.split_once("\r\n\r\n").unwrap().1.len(), MANY);
    assert!(report.ledger.http_sent > MANY as u64 && report.ledger.http_received > MANY as u64);
}

#[tokio::test]
async fn nothing_is_read_ahead_of_the_guest_and_what_it_drops_is_closed() {
    let mut server = Server::start(Answer::Flood(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())).await;
    let caller = caller(&[&server.url("")]).await;
    let report = caller.handle(call("test.peek", &json!({ "url": server.url("/") }))).await;
    assert!(answer(&report)["length"].as_u64().unwrap() > 0);
    // What was read before the guest had gone; the rest of it filled the buffers of the kernel.
    assert!(report.ledger.http_received < 1 << 20, "{}", report.ledger.http_received);
    server.gone().await;
}

#[tokio::test]
async fn further_requests_wait_for_a_free_connection() {
    let mut server = Server::start(response("200 OK", "", "ok")).await;
    let caller = caller(&[&server.url("")]).await;
    let report = caller.handle(call("test.calls", &json!({ "url": server.url("/"), "count": 20 }))).await;
    let told = answer(&report);
    assert!(told.as_array().unwrap().iter().all(|answer| answer["body"] == "ok"), "{told}");
    for _ in 0..20 {
        server.asked().await;
    }

    let mut server = Server::start(Answer::Hold(Vec::new())).await;
    let caller = self::caller(&[&server.url("")]).await;
    let data = json!({ "url": server.url("/"), "count": 9, "connect_ms": 1_000, "first_byte_ms": 2_000 });
    let told = answer(&caller.handle(call("test.calls", &data)).await);
    let errors: Vec<_> = told.as_array().unwrap().iter().map(|answer| answer["error"].as_str().unwrap()).collect();
    let limited = errors.iter().filter(|error| **error == "ConnectionLimitReached").count();
    assert_eq!((errors.len(), limited), (9, 1), "{errors:?}");
    for _ in 0..8 {
        server.asked().await;
    }
    assert!(server.was_left_alone());
}
