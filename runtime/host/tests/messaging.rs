//! `wasi:messaging/incoming-handler`: events as messages.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use gristmill_core::{Event, Outcome, OutcomeKind, Pattern};
use gristmill_host::{Component, Grants, ImportStatus, Interface, Invocation, LoadRequest};
use gristmill_test_guests::{MESSENGER, bytes};
use serde_json::{Value, json};
use support::{host, invocation, request};

async fn messenger_with(emit: Vec<Pattern>) -> Component {
    let grants = Grants { emit, ..Grants::default() };
    host(4).load(LoadRequest { grants, ..request(bytes(MESSENGER)) }).await.unwrap()
}

async fn messenger() -> Component {
    messenger_with(vec![Pattern::new("test.*")]).await
}

fn about(topic: &str) -> Invocation {
    let mut event = Event::new("1", "/test", topic);
    event.subject = Some("order/1".to_owned());
    event.time = Some("2026-05-04T12:00:00Z".to_owned());
    event.dataschema = Some("urn:order".to_owned());
    event.datacontenttype = Some("text/plain".to_owned());
    event.extensions.insert("lang".to_owned(), "fr".to_owned());
    event.data = Some("hello".into());
    Invocation { event: Arc::new(event), ..invocation() }
}

/// The reason of a retry, which the guest's error is.
async fn refusal(component: &Component, topic: &str) -> String {
    match component.handle(about(topic)).await.outcome {
        Outcome::Retry { reason, after: None } => reason,
        other => panic!("{topic}: {other:?}"),
    }
}

#[tokio::test]
async fn ok_acks_and_an_error_is_a_retry() {
    let component = messenger().await;
    assert_eq!(component.interface(), Interface::Messaging);
    assert_eq!(component.handle(about("msg.ack")).await.outcome, Outcome::Ack { result: None });
    for (topic, reason) in [
        ("msg.timeout", "timeout"),
        ("msg.connection", "connection: gone"),
        ("msg.denied", "permission denied: by me"),
        ("msg.other", "not yet"),
    ] {
        assert_eq!(refusal(&component, topic).await, reason);
    }
}

#[tokio::test]
async fn a_message_is_the_event() {
    let described: Value = serde_json::from_str(&refusal(&messenger().await, "msg.describe").await).unwrap();
    assert_eq!(
        described,
        json!({
            "topic": "msg.describe",
            "content_type": "text/plain",
            "data": "hello",
            "metadata": [
                ["id", "1"],
                ["source", "/test"],
                ["subject", "order/1"],
                ["time", "2026-05-04T12:00:00Z"],
                ["dataschema", "urn:order"],
                ["lang", "fr"],
                ["gristmill-delivery-id", "e7"],
                ["gristmill-attempt", "1"],
                ["gristmill-queue", "guest"],
            ],
            "new": { "topic": null, "metadata": null },
        })
    );
}

#[tokio::test]
async fn what_is_sent_is_emitted() {
    let report = messenger().await.handle(about("msg.send")).await;
    assert_eq!(report.outcome, Outcome::Ack { result: None });
    let [emit] = &report.emits[..] else { panic!("{:?}", report.emits) };
    let event = &emit.event;
    assert_eq!((event.id.as_str(), event.source.as_str(), event.ty.as_str()), ("e7-1", "/handlers/guest", "test.made"));
    assert_eq!((event.subject.as_deref(), event.dataschema.as_deref()), (Some("order/7"), None));
    assert_eq!((event.datacontenttype.as_deref(), event.text()), (Some("application/json"), Some(r#"{"n":1}"#)));
    assert_eq!(event.extensions.get("lang").map(String::as_str), Some("de"));
    assert_eq!(event.extensions.get("gone"), None);
}

#[tokio::test]
async fn a_message_that_is_sent_on_is_another_event() {
    let report = messenger().await.handle(about("msg.forward")).await;
    let [emit] = &report.emits[..] else { panic!("{report:?}") };
    let event = &emit.event;
    assert_eq!((event.id.as_str(), event.source.as_str(), event.ty.as_str()), ("e7-1", "/handlers/guest", "test.made"));
    assert_eq!(event.time, None);
    assert_eq!((event.subject.as_deref(), event.dataschema.as_deref()), (Some("order/1"), Some("urn:order")));
    let names: Vec<_> = event.extensions.keys().map(String::as_str).collect();
    assert_eq!(names, ["gristmillhops", "lang"], "nothing of the delivery");
    assert_eq!((event.hops(), event.data.as_deref()), (1, Some(&b"hello"[..])));
}

#[tokio::test]
async fn what_an_error_sent_is_not_emitted() {
    let report = messenger().await.handle(about("msg.send-then-error")).await;
    assert_eq!((report.outcome.kind(), report.emits.len()), (OutcomeKind::Retry, 0));
}

#[tokio::test]
async fn what_cannot_be_sent_is_an_error() {
    let component = messenger().await;
    for (topic, words) in [
        ("msg.send-denied", "permission denied: type `forbidden.type` is not covered by the grant emit = [\"test.*\"]"),
        ("msg.send-wrong", "attribute `Content-Language`: "),
        ("msg.send-twice", "attribute `subject`: is given twice"),
        ("msg.request", "an event has no reply"),
        ("msg.reply", "an event has no reply"),
    ] {
        let reason = refusal(&component, topic).await;
        assert!(reason.starts_with(words), "{topic}: {reason}");
    }
}

#[tokio::test]
async fn without_a_grant_a_handler_may_receive() {
    let component = messenger_with(Vec::new()).await;
    let status = |name: &str| {
        component.imports().iter().find(|import| import.name.starts_with(name)).map(|import| import.status)
    };
    assert_eq!(status("wasi:messaging/producer@"), Some(ImportStatus::Powerless));
    assert_eq!(status("wasi:messaging/types@"), Some(ImportStatus::Provided));
    assert_eq!(component.handle(about("msg.ack")).await.outcome, Outcome::Ack { result: None });
    assert!(refusal(&component, "msg.send").await.starts_with("permission denied: "));
}

#[tokio::test]
async fn messages_do_not_fill_the_memory_of_the_host() {
    let component = messenger().await;
    let hoard = component.handle(about("msg.hoard")).await;
    let reason = hoard.outcome.reason().unwrap();
    assert_eq!(hoard.outcome.kind(), OutcomeKind::OverLimit);
    assert!(reason.contains("it keeps more than 32MiB in messages, which is twice `max-emit-bytes`"), "{reason}");
    assert_eq!(component.handle(about("msg.churn")).await.outcome, Outcome::Ack { result: None });
}
