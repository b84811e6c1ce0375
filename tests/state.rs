//! State, with the real binary: kept by handlers, looked at and changed by people.

use serde_json::{Value, json};

use crate::rig::{Deployment, event, keeper, outcomes, reason};
use crate::text;

const ALL: &str = "{ type = \"test.state\" }";
const GRANT: &str = "grant = { state = [\"orders\", \"prices:read\"] }\n";

fn keep(id: &str, draft: u8, operations: Value, then: &str) -> Value {
    event(id, "test.state", json!({ "draft": draft, "do": operations, "then": then }))
}

#[test]
fn a_counter_counts_through_both_drafts_and_every_concurrency() {
    let deployment = Deployment::new(&[keeper("keeper", ALL, &format!("{GRANT}concurrency = 8\n"))]);
    let events: Vec<_> = (0..50)
        .map(|n| {
            let operations = json!([["increment", "orders", "n", 1], ["set", "orders", format!("seen/{n:02}"), "yes"]]);
            keep(&n.to_string(), n % 2 + 1, operations, "ack")
        })
        .collect();
    deployment.run_until_idle(&events);
    let state =
        |arguments: &[&str]| deployment.command(&[&["state"], arguments, &["--offline"]].concat()).output().unwrap();
    assert_eq!(text(&state(&["get", "orders", "n"]).stdout), "50");
    let seen = text(&state(&["list", "orders", "--prefix", "seen/"]).stdout);
    assert_eq!(seen.lines().count(), 50, "{seen}");
    let running = deployment.start();
    let done = running.entries("keeper", "done");
    assert!(done.len() == 50 && done.iter().all(|entry| entry["attempts"] == 1), "a conflict is no attempt");
}

#[test]
fn nothing_of_a_failed_handler_is_kept() {
    let deployment = Deployment::new(&[keeper("keeper", ALL, GRANT)]);
    let writes = || json!([["set", "orders", "a", "1"], ["delete", "orders", "kept"]]);
    let events = [
        keep("0", 1, json!([["set", "orders", "kept", "1"]]), "ack"),
        keep("1", 1, writes(), "trap"),
        keep("2", 2, writes(), "reject"),
        keep("3", 2, writes(), "retry"),
        keep("4", 2, json!([["set", "prices", "a", "1"], ["get", "secrets", "a"]]), "reject"),
    ];
    let running = crate::after(&deployment, &events);
    assert_eq!(outcomes(&running.entry("keeper", "dead", "1")), ["trap"; 3]);
    let denied = json!({ "error": "access-denied" });
    assert_eq!(reason(&running.entry("keeper", "dead", "4")), json!([denied, denied]).to_string());
    running.stop();
    let export = deployment.command(&["state", "export", "--offline"]).output().unwrap();
    let line: Value = serde_json::from_slice(&export.stdout).unwrap();
    assert_eq!(line, json!({ "bucket": "orders", "key": "kept", "value": "1" }));
}

#[test]
fn people_look_at_the_state_and_change_it() {
    let deployment = Deployment::new(&[keeper("keeper", ALL, GRANT)]);
    let state = |arguments: &[&str]| {
        let output = deployment.command(&[&["state"], arguments].concat()).output().unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    assert!(state(&["list", "--offline"]).2.contains("there is no store at "));
    assert_eq!(state(&["set", "--offline", "prices", "apple", "12"]).0, 0);
    assert_eq!(state(&["set", "--offline", "prices", "pear\u{1b}[31m", "13"]).0, 0);
    assert_eq!(state(&["list", "--offline"]).1, "prices\n");
    assert_eq!(state(&["list", "--offline", "prices"]).1, "apple\npear\\u{1b}[31m\n");
    assert_eq!(state(&["list", "--offline", "--json"]).1, "{\"items\":[\"prices\"],\"next\":null}\n");
    assert_eq!(state(&["get", "--offline", "prices", "apple"]).1, "12");
    assert_eq!(state(&["set", "--offline", "prices", "pear\u{1b}[31m", "--delete"]).0, 0);
    assert_eq!(state(&["export", "--offline"]).1, "{\"bucket\":\"prices\",\"key\":\"apple\",\"value\":\"12\"}\n");
    let (code, _, error) = state(&["get", "--offline", "prices", "pear"]);
    assert_eq!((code, error.as_str()), (1, "error: there is no key `pear` in bucket `prices`\n"));
    // What a person wrote is what a handler reads.
    let running = crate::after(&deployment, &[keep("1", 2, json!([["get", "prices", "apple"]]), "ack")]);
    assert_eq!(running.entry("keeper", "done", "1")["result"], json!(["12"]));
    assert!(state(&["list", "--offline"]).2.contains("error: "), "a runtime has the store open");
    let ask = |arguments: &[&str]| {
        let output = running.client(&[&["state"], arguments].concat());
        (text(&output.stdout), text(&output.stderr))
    };
    assert_eq!(ask(&["list"]).0, "prices\n");
    assert_eq!(ask(&["list", "prices", "--prefix", "ap", "--json"]).0, "{\"items\":[\"apple\"],\"next\":null}\n");
    assert_eq!(ask(&["get", "prices", "apple"]).0, "12");
    assert_eq!(ask(&["get", "prices", "../pear"]).1, "error: there is no key `../pear` in bucket `prices`\n");
    assert!(ask(&["set", "prices", "apple", "1"]).1.contains("--offline"));
    assert!(ask(&["export"]).1.contains("--offline"));
}

#[test]
fn state_without_a_grant_does_not_start_and_says_what_to_write() {
    let deployment = Deployment::new(&[keeper("keeper", ALL, "")]);
    let output = deployment.command(&["check"]).output().unwrap();
    let error = text(&output.stderr);
    assert!(
        !output.status.success() && error.contains("grant = { state = [\"thumbnails\", \"prices:read\"] }"),
        "{error}"
    );
}

#[test]
fn invoke_begins_with_nothing_and_prints_what_was_written() {
    let deployment = Deployment::new(&[keeper("keeper", ALL, GRANT)]);
    let operations =
        json!([["increment", "orders", "n", 1], ["delete", "orders", "a\nb"], ["set", "prices", "a", "1"]]);
    let file = deployment.events(&[keep("1", 2, operations, "ack")]);
    let component = gristmill_test_guests::path(gristmill_test_guests::KEEPER);
    let invoke = |arguments: &[&str]| {
        let mut command = deployment.command(&["invoke"]);
        let output = command.arg(&component).arg("--event").arg(&file).args(arguments).output().unwrap();
        text(&output.stdout) + &text(&output.stderr)
    };
    let printed = invoke(&["--state", "orders", "--state", "prices:read"]);
    assert!(
        printed.contains("\nwrote    orders/n = 1\n") && printed.contains("\ndeleted  orders/a\\nb\n"),
        "{printed}"
    );
    assert!(printed.contains("access-denied"), "{printed}");
    assert!(invoke(&[]).contains("--state thumbnails --state prices:read"), "{}", invoke(&[]));
}
