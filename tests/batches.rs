//! Batch handlers, from end to end.

use serde_json::{Value, json};

use crate::rig::{Deployment, Running, acker, batcher, event, outcomes};

const ALL: &str = "{ type = \"batch.*\" }";

/// One call at a time, so that what is published together is handled together.
fn one_batcher(extra: &str) -> Deployment {
    let extra = format!("concurrency = 1\n{extra}");
    Deployment::new(&[batcher("batcher", ALL, &extra), acker("made", "{ type = \"test.made\" }")])
}

/// Publishes one event for each type, called 1 and so on, in one commit, and runs until nothing is left to do.
fn after(deployment: &Deployment, types: &[&str]) -> Running {
    let events: Vec<_> = types.iter().zip(1..).map(|(ty, n)| event(&n.to_string(), ty, json!({}))).collect();
    deployment.run_until_idle(&events);
    deployment.start()
}

fn done(running: &Running, id: &str) -> Value {
    running.entry("batcher", "done", id)
}

/// The size of the batch whose ack counts, and the place in it.
fn place(running: &Running, id: &str) -> (u64, u64) {
    let result = done(running, id)["result"].clone();
    (result["of"].as_u64().unwrap(), result["at"].as_u64().unwrap())
}

/// The ids of the events for which something was emitted.
fn made_for(running: &Running) -> Vec<String> {
    let made = running.entries("made", "done");
    let mut subjects: Vec<_> =
        made.iter().map(|entry| entry["event"]["subject"].as_str().unwrap().to_owned()).collect();
    subjects.sort_unstable();
    subjects
}

fn total(deployment: &Deployment, key: &str) -> String {
    let output = deployment.command(&["state", "get", "--offline", "counts", key]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn what_comes_together_is_handled_together() {
    let running = after(&one_batcher(""), &["batch.ack"; 20]);
    assert_eq!(place(&running, "1"), (16, 0), "sixteen, if nobody says otherwise");
    assert_eq!(place(&running, "16"), (16, 15));
    assert_eq!(place(&running, "20"), (4, 3));
    let running = after(&one_batcher("batch-size = 3"), &["batch.ack"; 4]);
    assert_eq!((place(&running, "3"), place(&running, "4")), ((3, 2), (1, 0)));
}

#[test]
fn effects_of_a_batch_commit_once() {
    let deployment = one_batcher("");
    let running = after(&deployment, &["batch.emit", "batch.count", "batch.emit", "batch.count"]);
    assert_eq!(made_for(&running), ["1", "3"]);
    assert_eq!(place(&running, "4"), (4, 3));
    running.stop();
    assert_eq!(total(&deployment, "total"), "2");
}

#[test]
fn a_mixed_answer_discards_the_effects_and_the_acked_run_again() {
    let deployment = one_batcher("");
    let types = ["batch.emit", "batch.reject", "batch.count", "batch.retry-emit", "batch.ack"];
    let running = after(&deployment, &types);
    // All five; then, without an attempt, the three that were acked.
    assert_eq!(["1", "3", "5"].map(|id| place(&running, id)), [(3, 0), (3, 1), (3, 2)]);
    for id in ["1", "3", "5"] {
        assert_eq!(outcomes(&done(&running, id)), ["ack"], "no attempt was spent");
    }
    assert_eq!(made_for(&running), ["1"], "once, and nothing of what was not acked");
    assert_eq!(outcomes(&running.entry("batcher", "dead", "2")), ["reject"]);
    assert_eq!(outcomes(&running.entry("batcher", "dead", "4")), ["retry"; 3]);
    running.stop();
    assert_eq!(total(&deployment, "total"), "1");
}

#[test]
fn a_mixed_answer_without_effects_stands() {
    let running = after(&one_batcher(""), &["batch.ack", "batch.reject", "batch.ack"]);
    assert_eq!((place(&running, "1"), place(&running, "3")), ((3, 0), (3, 2)));
    assert_eq!(outcomes(&running.entry("batcher", "dead", "2")), ["reject"]);
}

#[test]
fn only_the_poison_event_spends_attempts() {
    for (poison, outcome) in [
        ("batch.trap", "trap"),
        ("batch.sleep", "timeout"),
        ("batch.short", "invalid_output"),
        ("batch.empty", "invalid_output"),
        ("batch.long", "invalid_output"),
    ] {
        let deployment = one_batcher("timeout = \"250ms\"\nmax-attempts = 2");
        let types = ["batch.emit", "batch.ack", "batch.ack", "batch.ack", poison, "batch.emit", "batch.count"];
        let running = after(&deployment, &types);
        let dead = running.entries("batcher", "dead");
        assert_eq!(dead.len(), 1, "{poison}");
        assert_eq!((dead[0]["event"]["id"].as_str(), outcomes(&dead[0])), (Some("5"), vec![outcome.to_owned(); 2]));
        for id in ["1", "2", "3", "4", "6", "7"] {
            assert_eq!(outcomes(&done(&running, id)), ["ack"], "{poison} {id}");
        }
        // In halves: three, then four, in which it is the second; so the other two of its half are together.
        assert_eq!((place(&running, "3"), place(&running, "4")), ((3, 2), (1, 0)), "{poison}");
        assert_eq!((place(&running, "6"), place(&running, "7")), ((2, 0), (2, 1)), "{poison}");
        assert_eq!(made_for(&running), ["1", "6"], "{poison}");
        running.stop();
        assert_eq!(total(&deployment, "total"), "1", "{poison}");
    }
}

#[test]
fn leases_last_as_long_as_the_halves_take() {
    // Four runs of half a second until it is known who sleeps.
    let deployment = one_batcher("timeout = \"500ms\"\nlease = \"1500ms\"\nmax-attempts = 1");
    let types =
        ["batch.sleep", "batch.ack", "batch.emit", "batch.ack", "batch.ack", "batch.ack", "batch.ack", "batch.ack"];
    let running = after(&deployment, &types);
    assert_eq!(outcomes(&running.entry("batcher", "dead", "1")), ["timeout"]);
    for id in ["2", "3", "4", "5", "6", "7", "8"] {
        assert_eq!(outcomes(&done(&running, id)), ["ack"], "{id}");
    }
    assert_eq!(made_for(&running), ["3"]);
}

#[test]
fn a_batch_that_needs_too_much_memory_is_handled_in_parts() {
    let deployment = one_batcher("memory = \"12MiB\"");
    let running = after(&deployment, &["batch.alloc"; 4]);
    for id in ["1", "2", "3", "4"] {
        assert_eq!(outcomes(&done(&running, id)), ["ack"], "{id}");
        assert_eq!(place(&running, id).0, 2, "two fit");
    }
}

#[test]
fn batches_that_touch_the_same_state_lose_no_update() {
    let deployment = Deployment::new(&[batcher("batcher", ALL, "concurrency = 8\nbatch-size = 4")]);
    let running = after(&deployment, &["batch.count"; 160]);
    assert_eq!(running.entries("batcher", "done").len(), 160);
    assert!(running.entries("batcher", "done").iter().all(|entry| outcomes(entry) == ["ack"]));
    running.stop();
    assert_eq!(total(&deployment, "total"), "160");
}

#[test]
fn a_batch_size_is_for_batch_handlers() {
    let handler = acker("acker", "{ type = \"test.*\" }") + "batch-size = 5\n";
    let check = Deployment::new(&[handler]).command(&["check"]).output().unwrap();
    let message = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(check.status.code(), Some(1), "{message}");
    assert!(message.contains("gristmill:events/handler@0.1.0 takes one event at a time"), "{message}");
}

#[test]
fn check_and_invoke_show_what_a_file_was_made_of() {
    let module = gristmill_test_guests::path(gristmill_test_guests::ACKER_MODULE);
    let handler = format!("[[handler]]\nname = \"m\"\ncomponent = {module:?}\nsubscribe = [{{ type = \"*\" }}]\n");
    let deployment = Deployment::new(&[handler]);
    let check = deployment.command(&["check"]).output().unwrap();
    let table = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(table.contains("gristmill:events/handler@0.1.0 (from a core module)"), "{table}");
    let running = after_one(&deployment);
    assert_eq!(outcomes(&running.entry("m", "done", "1")), ["ack"]);

    let file = deployment.events(&[event("1", "batch.emit", json!({}))]);
    let component = gristmill_test_guests::path(gristmill_test_guests::BATCHER);
    let mut invoke = crate::rig::gristmill();
    invoke.arg("invoke").arg(component).arg("--event").arg(&file).args(["--emit", "*", "--state", "counts"]);
    let output = invoke.output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.starts_with("runs     gristmill:events/batch-handler@0.1.0\noutcome  ack\n"), "{report}");
    assert!(report.contains("test.made") && report.contains(r#"{"of":1,"at":0}"#), "{report}");
}

fn after_one(deployment: &Deployment) -> Running {
    deployment.run_until_idle(&[event("1", "test.ack", json!({}))]);
    deployment.start()
}
