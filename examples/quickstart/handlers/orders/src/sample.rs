//! The quickstart's README says what becomes of its events; these tests hold it to that.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use gristmill_sdk::testing::{self, Host};
use gristmill_sdk::{Event, Payload, Raw, Verdict};
use serde_json::Value;

const EVENTS: &str = include_str!("../../../events.ndjson");

fn events() -> impl Iterator<Item = Event<Raw>> {
    EVENTS.lines().map(|line| {
        let structured: Value = serde_json::from_str(line).unwrap();
        let mut event = Event::<Raw>::for_test(structured["type"].as_str().unwrap(), &structured["data"]);
        if let Some(data) = structured["data_base64"].as_str() {
            event.data = Raw(Some(Payload::Binary(BASE64.decode(data).unwrap())));
        }
        event.id = structured["id"].as_str().unwrap().to_owned();
        event.subject = structured["subject"].as_str().map(str::to_owned);
        event
    })
}

/// Panics, loops and hoards: not to be called in a test.
fn crashes(event: &Event<Raw>) -> bool {
    event.data.json::<Value>().is_ok_and(|order| order["note"].as_str().is_some_and(|note| note.starts_with("demo:")))
}

#[test]
fn there_are_as_many_events_as_the_readme_says() {
    let mut types = BTreeMap::<String, usize>::new();
    for event in events() {
        *types.entry(event.ty).or_default() += 1;
    }
    let expected = [("cancelled", 20), ("paid", 451), ("placed", 480), ("shipped", 149)];
    assert!(types.into_iter().eq(expected.map(|(name, count)| (format!("com.acme.order.{name}"), count))));
    assert_eq!(events().filter(crashes).count(), 3);
}

#[test]
fn every_event_ends_as_the_readme_says() {
    let host = Host::new();
    let mut failures = Vec::new();
    for event in events().filter(|event| !crashes(event)) {
        let order = event.subject.clone().unwrap();
        let verdict = (1..=3)
            .map(|attempt| {
                let mut event = event.clone();
                event.delivery.attempt = attempt;
                testing::invoke(super::handle, event)
            })
            .find(|verdict| !matches!(verdict, Verdict::Retry { .. }));
        match verdict {
            Some(Verdict::Ack(_)) => {}
            Some(Verdict::Reject(reason)) => failures.push((order, reason)),
            Some(Verdict::Defer { .. }) => panic!("order {order} was deferred"),
            Some(Verdict::Retry { .. }) | None => failures.push((order, "still failing".to_owned())),
        }
    }
    let expected = [
        ("A-1601", "data.items[0]: EOF while parsing"),
        ("A-1602", "data.items[0].quantity: invalid type: string \"two\""),
        ("A-1603", "data.customer: missing field `email`"),
        ("A-1604", "order A-1604 says "),
        ("A-1608", "still failing"),
    ];
    assert_eq!(failures.len(), expected.len(), "{failures:?}");
    for ((order, reason), (expected_order, expected_reason)) in failures.iter().zip(expected) {
        assert_eq!(order, expected_order);
        assert!(reason.starts_with(expected_reason), "{order}: {reason}");
    }
    assert_eq!(host.emitted().len(), 443);
}
