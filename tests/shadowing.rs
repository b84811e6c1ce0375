//! `deploy --shadow`: a new version compared with the current one over stored events, before it handles any.

use gristmill_test_guests::{CLERK, CLERK_CHANGED, path};
use serde_json::{Value, json};

use super::rig::{Deployment, Running, handler, text};

/// Clerks that have handled so many orders, and keep them.
fn clerks(orders: u64) -> (Deployment, Running) {
    let keys = "grant = { emit = [\"order.*\"], state = [\"orders\"] }\nkeep-payload = true\n";
    let deployment = Deployment::new(&[handler("clerk", CLERK, "{ source = \"/orders\" }", keys)]);
    let running = deployment.start();
    for n in 1..=orders {
        let ty = ["order.judge", "order.count", "order.look", "order.emit"][n as usize % 4];
        running.publish(&json!({
            "specversion": "1.0", "id": n.to_string(), "source": "/orders", "type": ty, "data": { "n": n }
        }));
    }
    running.until("all are done", |running| (running.entries("clerk", "done").len() == orders as usize).then_some(()));
    (deployment, running)
}

fn deploy(running: &Running, guest: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let path = path(guest);
    let all = [&["deploy", "clerk", path.to_str().unwrap()], arguments].concat();
    let output = running.client(&all);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_planted_difference_is_found_and_keeps_a_version_out() {
    // The changed one emits 8 for 7.
    let (_deployment, running) = clerks(40);
    let before = running.versions("clerk");
    let state = text(&running.client(&["state", "get", "orders", "total"]).stdout);
    let (code, _, said) = deploy(&running, CLERK_CHANGED, &["--shadow", "last:500", "--require-same"]);
    assert_eq!(code, Some(1), "{said}");
    for part in
        ["handler `clerk`: 1 of 40 events that were compared differ; none may", "39 same, 1 different", "event 2"]
    {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let (code, _, said) = deploy(&running, CLERK_CHANGED, &["--shadow", "last:500", "--max-different", "2"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(running.versions("clerk"), before);
    assert_eq!(text(&running.client(&["state", "get", "orders", "total"]).stdout), state, "nothing had an effect");
    assert!(running.entries("clerk", "done").len() == 40);

    let (code, said, _) = deploy(&running, CLERK_CHANGED, &["--shadow", "last:500", "--max-different", "3", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let deployed: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(deployed["shadow"]["events"], 40);
    assert_eq!(deployed["shadow"]["differing"][0]["event"], "7");
    assert_ne!(running.versions("clerk"), before);
}

#[test]
fn identical_builds_do_the_same() {
    let (deployment, running) = clerks(20);
    let mut bytes = gristmill_test_guests::bytes(CLERK);
    bytes.extend([0, 3, 1, b'v', 1]);
    let same = deployment.path().join("same.wasm");
    std::fs::write(&same, bytes).unwrap();
    let all = ["deploy", "clerk", same.to_str().unwrap(), "--shadow", "last:500", "--require-same"];
    let output = running.client(&all);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.starts_with("20 events: 20 same, 0 different\nclerk runs sha256:"), "{said}");
    let nothing = running.client(&["deploy", "clerk", same.to_str().unwrap(), "--shadow", "all"]);
    assert_eq!(nothing.status.code(), Some(2), "{}", text(&nothing.stderr));
}
