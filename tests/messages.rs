//! Handlers of messages, from end to end.

use serde_json::json;

use crate::rig::{Deployment, acker, event, messenger, outcomes, reason};

#[test]
fn events_are_messages_and_sent_messages_are_events() {
    let handler = messenger("messenger", "{ type = \"msg.*\" }");
    let deployment = Deployment::new(&[handler, acker("made", "{ type = \"test.made\" }")]);
    let topics = ["msg.send", "msg.forward", "msg.other", "msg.send-denied"];
    let events: Vec<_> = topics.iter().map(|topic| event(topic, topic, json!({ "kept": true }))).collect();
    deployment.run_until_idle(&events);
    let running = deployment.start();
    for id in ["msg.send", "msg.forward"] {
        assert_eq!(outcomes(&running.entry("messenger", "done", id)), ["ack"], "{id}");
    }
    let mut made: Vec<_> = running.entries("made", "done").iter().map(|entry| entry["event"].clone()).collect();
    made.sort_by_key(|event| event["subject"].to_string());
    assert_eq!(made.len(), 2);
    assert_eq!((&made[0]["subject"], &made[0]["lang"]), (&json!("order/7"), &json!("de")));
    assert_eq!((&made[1]["subject"], &made[1]["source"]), (&json!(null), &json!("/handlers/messenger")));
    for (id, words) in [("msg.other", "not yet"), ("msg.send-denied", "permission denied: type `forbidden.type`")] {
        let dead = running.entry("messenger", "dead", id);
        assert_eq!(outcomes(&dead), ["retry"; 3], "{id}");
        assert!(reason(&dead).starts_with(words), "{id}: {}", reason(&dead));
    }
}
