//! Calls of handlers while they go on, and what is known of them afterwards.

use super::rig::{Deployment, actor, event, outcomes, reason, swapped};
use super::{ALL, after, text};
use serde_json::{Value, json};

/// With the last words on `[runtime]`, and keys of the handler.
fn deployment(runtime: &str, handler: &str) -> Deployment {
    let actor = swapped(&actor("actor", ALL, ""), "timeout = \"2s\"\n", "");
    Deployment::new(&[format!("{runtime}\n"), format!("{actor}{handler}\n")])
}

#[test]
fn a_call_that_goes_on_is_shown_and_can_be_ended() {
    let running = deployment("", "timeout = \"20s\"").start();
    let nothing = running.client(&["running"]);
    assert!(nothing.status.success() && text(&nothing.stderr).contains("nothing is running"));
    running.publish(&event("1", "test.sleep", json!(null)));
    running.await_log("delivering");
    let call = loop {
        let list: Value = serde_json::from_slice(&running.client(&["running", "--json"]).stdout).unwrap();
        if let Some(call) = list["items"].get(0) {
            break call.clone();
        }
    };
    assert_eq!((&call["handler"], &call["attempt"], &call["timeout_ms"]), (&json!("actor"), &json!(1), &json!(20_000)));
    let shown = text(&running.client(&["running"]).stdout);
    assert!(shown.starts_with("NUMBER  HANDLER") && shown.contains(call["entry"].as_str().unwrap()), "{shown}");
    let killed = running.client(&["kill", &call["number"].to_string()]);
    assert_eq!(text(&killed.stdout), format!("ended {}\n", call["number"]), "{}", text(&killed.stderr));
    let path = format!("/v1/entries/{}", call["entry"].as_str().unwrap());
    // It is settled a moment after it has ended.
    let ended = |entry: &Value| entry["history"].as_array().is_some_and(|history| !history.is_empty());
    let entry = (0..10_000).map(|_| running.get(&path)).find(ended).expect("it is settled");
    assert_eq!(
        (outcomes(&entry), reason(&entry).as_str()),
        (vec!["killed".to_owned()], "a person ended it; it was waiting in a host call")
    );
    let again = running.client(&["kill", "4711"]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(text(&again.stderr), "error: there is no call `4711`: it never began, or is over\n");
}

#[test]
fn a_dead_letter_keeps_what_its_last_call_cost_and_said() {
    let deployment = deployment("", "");
    let running =
        after(&deployment, &[event("1", "test.panic", json!(null)), event("2", "test.retry-twice", json!(null))]);
    let dead = running.entry("actor", "dead", "1");
    let postmortem = &dead["postmortem"];
    let log = postmortem["log"].as_array().unwrap();
    assert!(log.iter().any(|line| line["context"] == "stderr" && line["message"] == "boom"), "{log:?}");
    assert!(postmortem["wall_ms"].as_f64().unwrap() > 0.0 && postmortem["peak_memory"].as_u64().unwrap() > 1 << 20);
    assert!(postmortem["cpu_ms"].as_f64().unwrap() > 0.0 && postmortem["host_calls"].as_u64().unwrap() > 0);
    let shown = text(&running.client(&["dead", "show", dead["entry"].as_str().unwrap()]).stdout);
    assert!(shown.contains("last attempt\n  time ") && shown.contains("warn  stderr: boom"), "{shown}");
    assert_eq!(running.entry("actor", "done", "2")["postmortem"], json!(null), "it never died");
}

#[test]
fn a_dead_letter_tells_time_from_work_and_what_went_in_from_what_came_out() {
    let deployment = deployment("", "timeout = \"400ms\"");
    let mut emits = event("2", "test.emit-then-reject", json!({ "count": 3, "type": "test.nobody" }));
    emits["subject"] = json!("x".repeat(900));
    let running = after(&deployment, &[event("1", "test.sleep", json!("x".repeat(50_000))), emits]);
    let ms = |entry: &Value, key: &str| entry["postmortem"][key].as_f64().unwrap();
    let bytes = |entry: &Value, key: &str| entry["postmortem"][key].as_u64().unwrap();
    let waited = running.entry("actor", "dead", "1");
    assert!(ms(&waited, "wall_ms") >= 400.0 && ms(&waited, "host_ms") > 100.0, "{waited}");
    assert!(ms(&waited, "cpu_ms") < ms(&waited, "host_ms"), "{waited}");
    assert!(bytes(&waited, "bytes_in") > 50_000 && bytes(&waited, "bytes_out") == 0, "{waited}");
    assert!((1 << 20..16 << 20).contains(&bytes(&waited, "peak_memory")), "{waited}");
    let emitted = running.entry("actor", "dead", "2");
    assert!(bytes(&emitted, "host_calls") >= 3, "a call for each event: {emitted}");
    let (given, gave) = (bytes(&emitted, "bytes_in"), bytes(&emitted, "bytes_out"));
    assert!(given > 900 && 0 < gave && gave < 900, "{emitted}");
}

#[test]
fn ending_a_batch_ends_all_of_it_at_once() {
    let batcher =
        super::rig::batcher("batcher", "{ type = \"batch.*\" }", "timeout = \"30s\"\nlease = \"1m\"\nmax-attempts = 1");
    let running = Deployment::new(&[batcher]).start();
    let batch = json!([
        event("1", "batch.ack", json!(1)),
        event("2", "batch.sleep", json!(1)),
        event("3", "batch.ack", json!(1))
    ]);
    let kind = "application/cloudevents-batch+json";
    let (status, reply) = running.request(reqwest::Method::POST, "/v1/events", kind, batch.to_string());
    assert_eq!(status, 202, "{reply}");
    assert_eq!(running.await_log("delivering a batch")["deliveries"], 3);
    let call = loop {
        if let Some(call) = running.get("/v1/running")["items"].get(0) {
            break call["number"].to_string();
        }
    };
    assert!(running.client(&["kill", &call]).status.success());
    for _ in 0..3 {
        running.await_log("dead-lettered");
    }
    for id in ["1", "2", "3"] {
        let entry = running.entry("batcher", "dead", id);
        assert_eq!(outcomes(&entry), ["killed"], "{entry}");
        assert!(entry["postmortem"]["wall_ms"].as_f64().unwrap() > 0.0, "{entry}");
    }
    let metrics = running.page("/metrics");
    for line in [
        "gristmill_deliveries_total{handler=\"batcher\",outcome=\"killed\"} 3",
        "gristmill_call_duration_seconds_count{handler=\"batcher\"} 1",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}\n{metrics}");
    }
}

#[test]
fn each_of_a_batch_that_is_rejected_keeps_what_the_call_cost() {
    let batcher = super::rig::batcher("batcher", "{ type = \"batch.*\" }", "");
    let deployment = Deployment::new(&[batcher]);
    let running = after(&deployment, &[event("1", "batch.ack", json!(1)), event("2", "batch.reject", json!(1))]);
    let dead = running.entry("batcher", "dead", "2");
    assert!(dead["postmortem"]["peak_memory"].as_u64().unwrap() > 1 << 16, "{dead}");
    assert_eq!(running.entry("batcher", "done", "1")["postmortem"], json!(null));
}

/// What handlers open must not be what the store lacks.
#[test]
fn as_many_files_may_be_open_as_the_system_allows() {
    let deployment = deployment("", "");
    let mut shell = std::process::Command::new("sh");
    // With fewer than the store needs already.
    shell.arg("-c").arg("ulimit -Sn 32; exec \"$@\"").arg("sh").arg(super::rig::gristmill().get_program());
    shell.arg("--config").arg(deployment.config()).args(["run", "--until-idle"]);
    let output = shell.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn calls_are_counted() {
    let running = deployment("", "").start();
    running.publish(&event("1", "test.ack", json!(null)));
    running.publish(&event("2", "test.reject", json!(null)));
    running.await_log("dead-lettered");
    let metrics = loop {
        let metrics = running.page("/metrics");
        if metrics.contains("outcome=\"ack\"") {
            break metrics;
        }
    };
    for line in [
        "gristmill_deliveries_total{handler=\"actor\",outcome=\"ack\"} 1",
        "gristmill_deliveries_total{handler=\"actor\",outcome=\"reject\"} 1",
        "gristmill_call_duration_seconds_count{handler=\"actor\"} 2",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}\n{metrics}");
    }
}

#[test]
fn waiting_for_memory_costs_no_lease() {
    // One at a time, though four may run; the last waits longer than its lease lasts.
    let limits = "timeout = \"500ms\"\nlease = \"1500ms\"\nmax-attempts = 1";
    let deployment = deployment("memory = \"16MiB\"", limits);
    deployment.swap("max-attempts = 3\n", "");
    let events: Vec<_> = (0..5).map(|n| event(&n.to_string(), "test.loop", json!(null))).collect();
    let running = after(&deployment, &events);
    let dead = running.entries("actor", "dead");
    assert_eq!(dead.len(), 5);
    for entry in dead {
        assert_eq!(outcomes(&entry), ["timeout"], "{entry}");
    }
}

#[test]
fn a_handler_larger_than_the_host_allows_is_no_handler() {
    let deployment = deployment("max-component-size = \"1KiB\"", "");
    let check = deployment.command(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    let complaint = text(&check.stderr);
    assert!(complaint.contains("at most 1KiB are loaded") && complaint.contains("max-component-size"), "{complaint}");
}

#[test]
fn compiled_code_is_kept_where_it_is_told() {
    let deployment = deployment("code-cache = \"code\"", "");
    for _ in 0..2 {
        let check = deployment.command(&["check"]).output().unwrap();
        assert!(check.status.success(), "{}", text(&check.stderr));
    }
    let kept = std::fs::read_dir(deployment.path().join("code")).unwrap().count();
    assert_eq!(kept, 1);
}

#[test]
fn no_handler_may_write_where_compiled_code_is() {
    let files = |access: &str| format!("grant = {{ emit = [\"test.*\"], files = [\"mine:{access}\"] }}");
    for (access, code) in [("read", Some(0)), ("write", Some(1))] {
        let deployment = deployment("code-cache = \"mine/code\"", "");
        std::fs::create_dir(deployment.path().join("mine")).unwrap();
        deployment.swap("grant = { emit = [\"test.*\"] }", &files(access));
        let check = deployment.command(&["check"]).output().unwrap();
        assert_eq!(check.status.code(), code, "{access}: {}", text(&check.stderr));
        assert_eq!(text(&check.stderr).contains("compiled code is in "), access == "write");
    }
}

#[test]
fn a_batch_that_waits_for_memory_costs_no_lease() {
    let limits = "timeout = \"500ms\"\nlease = \"1500ms\"\nmax-attempts = 1\nbatch-size = 2";
    let batcher = super::rig::batcher("batcher", "{ type = \"batch.*\" }", limits);
    let deployment = Deployment::new(&["memory = \"16MiB\"\n".to_owned(), batcher]);
    let events: Vec<_> = (0..4).map(|n| event(&n.to_string(), "batch.sleep", json!(null))).collect();
    let running = after(&deployment, &events);
    let dead = running.entries("batcher", "dead");
    assert_eq!(dead.len(), 4);
    for entry in dead {
        assert_eq!(outcomes(&entry), ["timeout"], "{entry}");
    }
}
