//! What a handler reads through `wasi:config`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Event, Outcome, Secret};
use gristmill_host::{Component, Configuration, Instances, Invocation, LoadRequest};
use gristmill_test_guests::{CONFIGURED, bytes};
use serde_json::{Value, json};
use support::{host, invocation, request};

const INTERFACES: [&str; 3] = ["test.candidate", "test.later-draft", "test.draft"];

fn configuration(values: &[(&str, &str)]) -> Configuration {
    values.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect()
}

async fn ask(component: &Component, interface: &str, key: &str, values: &[(&str, &str)]) -> Value {
    let mut event = Event::new("1", "/test", interface);
    event.subject = Some(key.to_owned());
    let asking = Invocation { event: Arc::new(event), configuration: configuration(values), ..invocation() };
    let report = component.handle(asking).await;
    let Outcome::Ack { result: Some(result) } = report.outcome else { panic!("{:?}", report.outcome) };
    serde_json::from_slice(&result).unwrap()
}

#[tokio::test]
async fn values_are_read_one_by_one_and_all_at_once() {
    let component = host(2).load(request(bytes(CONFIGURED))).await.unwrap();
    let values = [("width", "640"), ("empty", ""), ("greeting", "gr\u{fc}\u{df}\n\"Gott\"")];
    let all = json!([["empty", ""], ["greeting", "gr\u{fc}\u{df}\n\"Gott\""], ["width", "640"]]);
    for interface in INTERFACES {
        assert_eq!(ask(&component, interface, "width", &values).await, json!(["640", all]), "{interface}");
        assert_eq!(ask(&component, interface, "empty", &values).await, json!(["", all]), "{interface}");
        assert_eq!(ask(&component, interface, "Width", &values).await, json!([null, all]), "{interface}");
        assert_eq!(ask(&component, interface, "width", &[]).await, json!([null, []]), "{interface}");
    }
}

#[tokio::test]
async fn each_invocation_has_the_configuration_that_it_was_given() {
    // Whether the instance is a new one, or has been asked before.
    for instances in [Instances::Fresh, Instances::Reuse { events: 10, age: Duration::from_mins(1) }] {
        let component = host(2).load(LoadRequest { instances, ..request(bytes(CONFIGURED)) }).await.unwrap();
        for value in ["1", "2", "1"] {
            assert_eq!(ask(&component, INTERFACES[0], "n", &[("n", value)]).await[0], value);
        }
    }
}

#[test]
fn nothing_shows_a_value() {
    let invocation = Invocation { configuration: configuration(&[("api-key", "hunter2")]), ..invocation() };
    let shown = format!("{invocation:?} {:#?}", invocation.configuration);
    assert!(shown.contains("api-key") && !shown.contains("hunter2"), "{shown}");
}
