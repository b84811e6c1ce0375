//! Handlers that are HTTP handlers: what they are asked, and what their responses mean.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Event, Outcome, OutcomeKind, Timestamp};
use gristmill_host::{Component, ImportStatus, Interface, Invocation, LoadError, Report};
use gristmill_test_guests::{RESPONDER, bytes};
use serde_json::{Value, json};
use support::{host, invocation, reason, request};

const EMPTY: Outcome = Outcome::Ack { result: None };

async fn responder() -> Component {
    host(2).load(request(bytes(RESPONDER))).await.unwrap()
}

fn event(ty: &str, extensions: &[(&str, &str)], data: &str) -> Invocation {
    let mut event = Event::new("1", "/test", ty);
    event.extensions = extensions.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    event.data = (!data.is_empty()).then(|| data.to_owned().into());
    Invocation { event: Arc::new(event), ..invocation() }
}

async fn respond(ty: &str, extensions: &[(&str, &str)], data: &str) -> Report {
    responder().await.handle(event(ty, extensions, data)).await
}

async fn status(component: &Component, status: u16, more: &[(&str, &str)], body: &str) -> Outcome {
    let status = status.to_string();
    let mut extensions = vec![("status", status.as_str())];
    extensions.extend(more);
    component.handle(event("test.status", &extensions, body)).await.outcome
}

#[tokio::test]
async fn an_event_is_a_request_in_binary_mode() {
    let mut event = Event::new("id 1", "/sensors/€", "test.echo");
    event.subject = Some("100% \"sure\"".to_owned());
    event.time = Some("2026-01-02T03:04:05Z".to_owned());
    event.datacontenttype = Some("text/plain; charset=utf-8".to_owned());
    event.dataschema = Some("https://example.com/schema".to_owned());
    event.extensions = [("traceparent".to_owned(), "00-ab".to_owned())].into();
    event.data = Some("grüße".into());
    let enqueued_at = Timestamp::from_micros(1_700_000_000_123_456);
    let invocation = Invocation { event: Arc::new(event), attempt: 2, enqueued_at, ..invocation() };
    let report = responder().await.handle(invocation).await;
    let Outcome::Ack { result: Some(told) } = &report.outcome else { panic!("{:?}", report.outcome) };
    let mut told: Value = serde_json::from_slice(told).unwrap();
    told["headers"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!(
        told,
        json!({
            "method": "Method::Post",
            "scheme": "Some(Scheme::Http)",
            "authority": "localhost",
            "path": "/",
            "headers": [
                ["ce-dataschema", "https://example.com/schema"],
                ["ce-id", "id%201"],
                ["ce-source", "/sensors/%E2%82%AC"],
                ["ce-specversion", "1.0"],
                ["ce-subject", "100%25%20%22sure%22"],
                ["ce-time", "2026-01-02T03:04:05Z"],
                ["ce-traceparent", "00-ab"],
                ["ce-type", "test.echo"],
                ["content-length", "7"],
                ["content-type", "text/plain; charset=utf-8"],
                ["gristmill-attempt", "2"],
                ["gristmill-delivery-id", "e7"],
                ["gristmill-enqueued-at", "2023-11-14T22:13:20.123Z"],
                ["gristmill-max-attempts", "5"],
                ["gristmill-queue", "guest"],
            ],
            "body": "grüße",
        })
    );
}

#[tokio::test]
async fn an_event_without_data_is_a_request_without_a_body() {
    let mut invocation = event("test.echo", &[], "");
    invocation.max_attempts = None;
    let Outcome::Ack { result: Some(told) } = responder().await.handle(invocation).await.outcome else { panic!("ack") };
    let told: Value = serde_json::from_slice(&told).unwrap();
    let names: Vec<_> = told["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap()).collect();
    assert!(!names.contains(&"content-type") && !names.contains(&"gristmill-max-attempts"), "{names:?}");
    assert_eq!(told["body"], "");
}

#[tokio::test]
async fn two_hundreds_ack_and_their_body_is_the_result() {
    let responder = responder().await;
    for code in [200, 201, 202, 204, 299] {
        assert_eq!(status(&responder, code, &[], "").await, EMPTY, "{code}");
        let result = Some(Bytes::from_static(b"done"));
        assert_eq!(status(&responder, code, &[], "done").await, Outcome::Ack { result }, "{code}");
    }
    let report = responder.handle(event("test.trailers", &[], "")).await;
    assert_eq!(report.outcome, Outcome::Ack { result: Some(Bytes::from_static(b"ok")) });
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let responder = responder().await;
    for (code, name) in [
        (408, "Request Timeout"),
        (425, "Too Early"),
        (429, "Too Many Requests"),
        (500, "Internal Server Error"),
        (501, "Not Implemented"),
        (503, "Service Unavailable"),
    ] {
        let reason = format!("HTTP {code} {name}: come back");
        assert_eq!(status(&responder, code, &[], " come back\n").await, Outcome::Retry { reason, after: None });
    }
    for code in [100, 103, 199, 599, 600, 999] {
        let outcome = status(&responder, code, &[], "").await;
        assert_eq!(outcome.kind(), OutcomeKind::Retry, "{code}");
        assert!(outcome.reason().unwrap().starts_with(&format!("HTTP {code}")), "{outcome:?}");
    }
}

#[tokio::test]
async fn what_will_not_pass_is_rejected() {
    let responder = responder().await;
    for (code, name) in
        [(300, " Multiple Choices"), (304, " Not Modified"), (400, " Bad Request"), (404, " Not Found"), (499, "")]
    {
        let reason = format!("HTTP {code}{name}: no");
        assert_eq!(status(&responder, code, &[], "no").await, Outcome::Reject { reason });
    }
    let reason = "HTTP 410 Gone".to_owned();
    assert_eq!(status(&responder, 410, &[], "").await, Outcome::Reject { reason });
}

#[tokio::test]
async fn retry_after_says_when_in_either_form() {
    let responder = responder().await;
    let after = async |code, value: &str| match status(&responder, code, &[("retryafter", value)], "").await {
        Outcome::Retry { after, .. } => after,
        other => panic!("{other:?}"),
    };
    for code in [408, 429, 503] {
        assert_eq!(after(code, "120").await, Some(Duration::from_secs(120)));
    }
    assert_eq!(after(503, "Sun, 06 Nov 1994 08:49:37 GMT").await, Some(Duration::ZERO), "long past");
    assert!(after(503, "Fri, 01 Jan 2100 00:00:00 GMT").await.unwrap() > Duration::from_hours(24));
    assert_eq!(after(503, "soon").await, None);
    assert!(matches!(status(&responder, 404, &[("retryafter", "1")], "").await, Outcome::Reject { .. }));
}

#[tokio::test]
async fn a_reason_has_the_beginning_of_a_long_body() {
    let bytes = "300000";
    for (code, expected) in [("500", OutcomeKind::Retry), ("400", OutcomeKind::Reject)] {
        let report = respond("test.stream", &[("status", code), ("bytes", bytes)], "").await;
        assert_eq!(report.outcome.kind(), expected);
        assert!(
            reason(&report).ends_with("xxxx") && (1_000..1_100).contains(&reason(&report).len()),
            "{}",
            reason(&report)
        );
    }
}

#[tokio::test]
async fn a_body_streams_up_to_the_largest_result() {
    let report = respond("test.stream", &[("bytes", "1048576")], "").await;
    let Outcome::Ack { result: Some(result) } = &report.outcome else { panic!("{:?}", report.outcome) };
    assert_eq!(result.len(), 1 << 20);
    let report = respond("test.stream", &[("bytes", "1048577")], "").await;
    assert_eq!(report.outcome.kind(), OutcomeKind::OverLimit);
    assert_eq!(reason(&report), "HTTP 200 OK, but the body is longer than 1MiB, which is `max-result-bytes`");
}

#[tokio::test]
async fn without_a_whole_response_there_is_no_ack() {
    for (ty, expected) in [
        ("test.none", "the handler returned without a response"),
        ("test.keep", "the handler returned before the end of its response"),
        ("test.open", "the handler returned before the end of its response"),
        ("test.abort", "HTTP 200 OK, but the body was dropped before it was finished"),
    ] {
        let outcome = respond(ty, &[], "").await.outcome;
        assert_eq!(outcome, Outcome::Retry { reason: expected.to_owned(), after: None }, "{ty}");
    }
    let report = respond("test.error", &[], "").await;
    assert_eq!(report.outcome.kind(), OutcomeKind::Retry);
    assert!(reason(&report).contains("no luck"), "{}", reason(&report));
}

#[tokio::test]
async fn a_response_is_no_ack_until_the_handler_has_returned() {
    let report = respond("test.panic-after", &[], "").await;
    assert_eq!(report.outcome.kind(), OutcomeKind::Trap);
    assert!(reason(&report).contains("after the response"), "{}", reason(&report));
    let mut invocation = event("test.loop-after", &[], "");
    invocation.limits.timeout = Duration::from_millis(100);
    assert_eq!(responder().await.handle(invocation).await.outcome.kind(), OutcomeKind::Timeout);
}

#[tokio::test]
async fn what_it_emits_and_logs_counts_as_of_any_handler() {
    let report = respond("test.emit", &[], "").await;
    assert_eq!(report.outcome, EMPTY);
    assert_eq!(report.emits.iter().map(|emit| emit.event.ty.as_str()).collect::<Vec<_>>(), ["com.acme.echoed"]);
    let report = respond("test.emit", &[("status", "503")], "").await;
    assert!(report.emits.is_empty() && report.outcome.kind() == OutcomeKind::Retry);
    let report = respond("test.log", &[], "").await;
    assert_eq!(report.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>(), ["from stdout"]);
}

#[tokio::test]
async fn too_many_attributes_are_an_error_of_the_host() {
    let names: Vec<_> = (0..40_000).map(|n| format!("x{n}")).collect();
    let extensions: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let report = respond("test.log", &extensions, "").await;
    assert_eq!(report.outcome.kind(), OutcomeKind::HostError, "{:?}", report.outcome);
}

#[tokio::test]
async fn it_is_found_by_its_name_in_any_version_of_wasi_0_2() {
    let component = responder().await;
    assert_eq!(component.interface(), Interface::IncomingHandler);
    assert_eq!(component.interface().to_string(), "wasi:http/incoming-handler@0.2");
    let types = component.imports().iter().find(|import| import.name.starts_with("wasi:http/types@")).unwrap();
    assert_eq!(types.status, ImportStatus::Provided);
    for (version, loads) in [("0.2.0", true), ("0.2.99", true), ("0.3.0", false)] {
        let error = host(1).load(request(empty(version))).await.unwrap_err();
        // It has the name, and nothing in it.
        assert_eq!(matches!(error, LoadError::Incompatible { .. }), loads, "{version}: {error}");
        assert_eq!(matches!(error, LoadError::NoHandler { .. }), !loads, "{version}: {error}");
    }
}

/// A component that exports an interface of this name, with nothing in it.
fn empty(version: &str) -> Bytes {
    let name = format!("wasi:http/incoming-handler@{version}");
    wat::parse_str(format!(r#"(component (instance $i) (export "{name}" (instance $i)))"#)).unwrap().into()
}
