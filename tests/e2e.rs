//! The binary, from its edges: what goes in by file, HTTP or command line, and what becomes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers: whatever fails, fails the test")]

mod batches;
mod calls;
mod compiling;
mod dead_letters;
mod deploying;
mod http;
mod manifests;
mod messages;
mod plugging;
mod programs;
mod publishing;
mod reloading;
mod rig;
mod shadowing;
mod shown;
mod sources;
mod state;
mod surroundings;
mod swapping;
mod trusting;

use std::process::Stdio;

use gristmill_core::Timestamp;
use rig::{Deployment, acker, actor, event, outcomes, reason, swapped, text};
use serde_json::{Value, json};

const ALL: &str = "{ type = \"test.*\" }";

fn one_actor() -> Deployment {
    Deployment::new(&[actor("actor", ALL, "")])
}

/// Runs the events to their end, and opens the runtime again to look.
fn after(deployment: &Deployment, events: &[Value]) -> rig::Running {
    deployment.run_until_idle(events);
    deployment.start()
}

#[test]
fn an_ack_is_done_and_keeps_its_result() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.ack", json!(1)), event("2", "test.result", json!(1))]);
    let done = running.entry("actor", "done", "1");
    assert_eq!(outcomes(&done), ["ack"]);
    assert_eq!(done["result"], Value::Null);
    assert_eq!(running.entry("actor", "done", "2")["result"], json!({ "answer": 42 }));
    let queue = running.get("/v1/queues/actor");
    assert_eq!((&queue["done"], &queue["totals"]["acked"], &queue["ready"]), (&json!(2), &json!(2), &json!(0)));
}

#[test]
fn retries_back_off_until_they_succeed() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.retry-twice", json!(1))]);
    let done = running.entry("actor", "done", "1");
    assert_eq!(outcomes(&done), ["retry", "retry", "ack"]);
    let started: Vec<jiff::Timestamp> = done["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["started_at"].as_str().unwrap().parse().unwrap())
        .collect();
    for pair in started.windows(2) {
        let waited = pair[1].duration_since(pair[0]);
        assert!(waited >= jiff::SignedDuration::from_millis(99), "base is 100 ms, jitter is 0: {waited:?}");
    }
}

#[test]
fn a_poison_event_is_dead_after_its_attempts() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.retry", json!({ "kept": true }))]);
    let dead = running.entry("actor", "dead", "1");
    assert_eq!(outcomes(&dead), ["retry", "retry", "retry"]);
    assert_eq!((reason(&dead).as_str(), &dead["event"]["data"]), ("not yet", &json!({ "kept": true })));
    let version = dead["history"][0]["version"].as_str().unwrap();
    assert!(version.starts_with("sha256:") && version.len() == 71, "{version}");
}

#[test]
fn a_reject_is_dead_at_once() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.reject", json!(1))]);
    let dead = running.entry("actor", "dead", "1");
    assert_eq!((outcomes(&dead), reason(&dead)), (vec!["reject".to_owned()], "bad order".to_owned()));
}

#[test]
fn traps_timeouts_and_the_memory_cap_are_told_apart() {
    let deployment = Deployment::new(&[swapped(&actor("actor", ALL, ""), "timeout = \"2s\"", "timeout = \"300ms\"")]);
    let types = ["test.trap", "test.panic", "test.loop", "test.sleep", "test.alloc", "test.exit"];
    let events: Vec<_> = types.iter().map(|ty| event(ty, ty, json!(1))).collect();
    let running = after(&deployment, &events);
    let expect = |ty: &str, outcome: &str, words: &[&str]| {
        let dead = running.entry("actor", "dead", ty);
        assert_eq!(outcomes(&dead), [outcome; 3], "{ty}");
        for word in words {
            assert!(reason(&dead).contains(word), "{ty}: {word:?} in {}", reason(&dead));
        }
    };
    expect("test.trap", "trap", &["unreachable"]);
    expect("test.panic", "trap", &["boom"]);
    expect("test.loop", "timeout", &["300ms"]);
    expect("test.sleep", "timeout", &["300ms"]);
    expect("test.alloc", "out_of_memory", &["16MiB"]);
    expect("test.exit", "trap", &["exit"]);
}

#[test]
fn a_deferral_spends_no_attempt() {
    let deployment = one_actor();
    let running = after(&deployment, &[event("1", "test.defer", json!(1))]);
    let done = running.entry("actor", "done", "1");
    assert_eq!((outcomes(&done), &done["attempts"]), (vec!["defer".to_owned(), "ack".to_owned()], &json!(1)));
}

#[test]
fn emitted_events_reach_their_subscribers_with_the_ack_and_only_then() {
    let emitting = "{ type = \"test.emit*\" }";
    let deployment = Deployment::new(&[
        actor("actor", emitting, ""),
        acker("first", "{ type = \"test.made\" }"),
        acker("second", "{ type = \"test.made\", source = \"/handlers/*\" }"),
        acker("other", "{ subject = \"elsewhere\" }"),
    ]);
    let data = json!({ "count": 3, "type": "test.made" });
    let running = after(
        &deployment,
        &[
            event("1", "test.emit", data.clone()),
            event("2", "test.emit-then-retry", data.clone()),
            event("3", "test.emit-then-trap", data),
        ],
    );
    let parent = running.entry("actor", "done", "1")["entry"].as_str().unwrap().to_owned();
    for queue in ["first", "second"] {
        let done = running.entries(queue, "done");
        let mut ids: Vec<_> = done.iter().map(|entry| entry["event"]["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3].map(|n| format!("{parent}-{n}")), "{queue}");
        assert_eq!(done[0]["event"]["source"], "/handlers/actor");
        assert_eq!(done[0]["event"]["gristmillhops"], "1");
    }
    assert!(running.entries("other", "done").is_empty());
    assert_eq!(running.entries("actor", "dead").len(), 2);
}

#[test]
fn what_was_not_granted_is_denied_and_loops_end() {
    let deployment = one_actor();
    let running =
        after(&deployment, &[event("1", "test.emit-denied", json!(1)), event("2", "test.emit-loop", json!(1))]);
    assert!(reason(&running.entry("actor", "dead", "1")).contains("forbidden.type"));
    let dead = running.entries("actor", "dead");
    let looping = dead.iter().find(|entry| entry["event"]["type"] == "test.emit-loop").unwrap();
    assert_eq!((outcomes(looping), &looping["event"]["gristmillhops"]), (vec!["loop".to_owned()], &json!("16")));
}

#[test]
fn an_event_is_routed_to_every_queue_that_wants_it() {
    let deployment = Deployment::new(&[
        acker("by-type", "{ type = \"shop.*\" }"),
        acker("by-subject", "{ subject = \"vip/*\" }, { source = \"/vip\" }"),
    ]);
    let running = deployment.start();
    let publish = |id: &str, ty: &str, subject: &str| {
        let mut event = event(id, ty, json!(1));
        event["subject"] = json!(subject);
        let entries = running.publish(&event)["entries"].as_array().unwrap().clone();
        entries.iter().map(|entry| entry["queue"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(publish("1", "shop.paid", "vip/7"), ["by-type", "by-subject"]);
    assert_eq!(publish("2", "shop.paid", "7"), ["by-type"]);
    assert_eq!(publish("3", "other", "vip/8"), ["by-subject"]);
    let unwanted = event("4", "other", json!(1)).to_string();
    let (status, problem) =
        running.request(reqwest::Method::POST, "/v1/events", "application/cloudevents+json", unwanted);
    assert_eq!(status, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("no subscription matches"), "{problem}");
}

/// An event about `subject`.
fn about(subject: &str, id: &str, ty: &str) -> Value {
    let mut event = event(id, ty, json!(1));
    event["subject"] = json!(subject);
    event
}

#[test]
fn entries_of_a_key_are_handled_one_at_a_time_in_order() {
    let deployment = Deployment::new(&[actor("actor", ALL, "ordering-key = \"subject\"")]);
    let events = [
        about("A-7", "1", "test.retry-twice"),
        about("A-7", "2", "test.defer"),
        about("A-7", "3", "test.ack"),
        about("A-8", "4", "test.ack"),
    ];
    let running = after(&deployment, &events);
    let span = |id: &str| {
        let entry = running.entry("actor", "done", id);
        let at = |attempt: &Value| attempt["started_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let history = entry["history"].as_array().unwrap();
        (at(&history[0]), entry["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap())
    };
    let [first, second, third] = ["1", "2", "3"].map(span);
    assert!(first.1 <= second.0 && second.1 <= third.0, "{first:?} {second:?} {third:?}");
    assert_eq!(running.entry("actor", "done", "4")["key"], "A-8");
}

#[test]
fn a_dead_letter_holds_its_key_if_that_is_asked_for() {
    let deployment = Deployment::new(&[actor("actor", ALL, "ordering-key = \"subject\"\non-dead = \"hold\"")]);
    let events = [about("A-7", "1", "test.reject"), about("A-7", "2", "test.ack"), about("A-8", "3", "test.ack")];
    let table = text(&deployment.run_until_idle(&events).stdout);
    assert!(table.contains("WAITING"), "it ends although an entry waits, and says so:\n{table}");
    let running = deployment.start();
    let json = |arguments: &[&str]| -> Value {
        let output = running.client(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let queues = json(&["queues", "--json"]);
    let queue = &queues["items"][0];
    let counts = ["ready", "waiting", "done", "dead", "cancelled"].map(|state| queue[state].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 1, 1, 0], "{queue}");
    let waiting = json(&["entries", "list", "actor", "--state", "waiting", "--json"]);
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1);
    assert_eq!((&waiting["items"][0]["key"], &waiting["items"][0]["event"]["id"]), (&json!("A-7"), &json!("2")));
    assert_eq!(json(&["entries", "list", "actor", "--state", "cancelled", "--json"])["items"], json!([]));
    let list = text(&running.client(&["queues"]).stdout);
    assert!(list.contains("WAITING") && !list.contains("CANCELLED"), "{list}");
}

#[test]
fn emitted_events_carry_their_keys() {
    let emitting = "{ type = \"test.emit\" }";
    let deployment = Deployment::new(&[actor("actor", emitting, ""), acker("acker", "{ type = \"test.made\" }")]);
    let emission = |count: u32, key: &str, dedupe_key: Value| json!({ "count": count, "type": "test.made", "key": key, "dedupe_key": dedupe_key });
    let running = after(
        &deployment,
        &[
            event("1", "test.emit", emission(2, "A-7", Value::Null)),
            event("2", "test.emit", emission(3, "A-8", json!("once"))),
        ],
    );
    let done = running.entries("acker", "done");
    let mut keys: Vec<_> = done.iter().map(|entry| entry["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["A-7", "A-7", "A-8"], "of those with a dedupe key there is one");
    assert_eq!(running.get("/v1/queues/acker")["totals"]["duplicates"], 2);
    assert_eq!(running.entries("actor", "done").len(), 2);
}

#[test]
fn an_event_is_accepted_once() {
    let deployment = Deployment::new(&[acker("acker", "{ type = \"*\" }")]);
    let running = deployment.start();
    let first = running.publish(&event("1", "a.b", json!(1)));
    let again = running.publish(&event("1", "a.b", json!(1)));
    assert_eq!((&first["status"], &again["status"]), (&json!("accepted"), &json!("duplicate")));
    assert_eq!((&again["entries"], &again["durability"]), (&first["entries"], &json!("fsync")));
    let flags = ["publish", "--type", "a.b", "--source", "/test", "--id", "1"];
    let told = text(&running.client(&flags).stderr);
    assert!(told.contains("published 0 events (fsync), 1 known already, refused 0"), "{told}");
    running.stop();
    let file = deployment.events(&[event("1", "a.b", json!(1)), event("2", "a.b", json!(1))]);
    let offline = deployment.command(&["publish", "--offline"]).arg(&file).output().unwrap();
    assert!(text(&offline.stderr).contains("published 1 event (fsync), 1 known already"), "{}", text(&offline.stderr));
}

#[test]
fn a_full_queue_refuses_events_until_some_are_handled() {
    let slow = swapped(&actor("actor", ALL, "max-events = 1"), "timeout = \"2s\"", "timeout = \"20s\"");
    let deployment = Deployment::new(&[slow]);
    let running = deployment.start();
    running.publish(&event("1", "test.sleep", json!(1)));
    running.await_log("delivering");
    let one = event("2", "test.ack", json!(1)).to_string();
    let (status, problem) = running.request(reqwest::Method::POST, "/v1/events", "application/cloudevents+json", one);
    assert_eq!((status, &problem["type"]), (429, &json!("urn:gristmill:problem:queue-full")));
    assert!(problem["detail"].as_str().unwrap().contains("queue `actor` is full"), "{problem}");
    let flags = ["publish", "--type", "test.ack", "--json"];
    let refused = running.client(&flags);
    assert_eq!(refused.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&refused.stdout).unwrap();
    assert_eq!(
        (&reply["results"][0]["status"], &reply["results"][0]["error"]["status"]),
        (&json!("refused"), &json!(429))
    );
}

#[test]
fn a_graceful_stop_releases_what_runs_and_spends_no_attempt() {
    let slow = swapped(&actor("actor", ALL, ""), "timeout = \"2s\"", "timeout = \"20s\"");
    let deployment = Deployment::new(&[slow]);
    let running = deployment.start();
    let result = running.publish(&event("1", "test.sleep", json!(1)));
    running.await_log("delivering");
    running.stop();
    let again = deployment.start();
    let entry = result["entries"][0]["entry"].as_str().unwrap();
    let record = again.await_log("delivering");
    assert_eq!((&record["entry"], &record["attempt"]), (&json!(entry), &json!(1)));
    assert!(again.get(&format!("/v1/entries/{entry}"))["history"].as_array().unwrap().is_empty());
}

#[test]
fn a_handler_that_runs_may_finish_within_the_grace() {
    let quick = swapped(&actor("actor", ALL, ""), "timeout = \"2s\"", "timeout = \"500ms\"");
    let backoff = "base = \"100ms\", factor = 1.0, max = \"1s\"";
    let quick = swapped(&quick, backoff, "base = \"1h\", factor = 1.0, max = \"1h\"");
    let deployment = Deployment::new(&[quick]);
    let running = deployment.start();
    let entry = running.publish(&event("1", "test.sleep", json!(1)))["entries"][0]["entry"].clone();
    running.await_log("delivering");
    running.stop();
    let found = deployment.start().get(&format!("/v1/entries/{}", entry.as_str().unwrap()));
    assert_eq!((outcomes(&found), &found["state"]), (vec!["timeout".to_owned()], &json!("scheduled")));
}

#[test]
fn a_kill_loses_nothing() {
    let slow = swapped(&actor("actor", ALL, ""), "timeout = \"2s\"", "timeout = \"20s\"");
    let deployment = Deployment::new(&[slow]);
    let running = deployment.start();
    let entries: Vec<_> = (0..3)
        .map(|n| running.publish(&event(&n.to_string(), "test.sleep", json!(1)))["entries"][0]["entry"].clone())
        .collect();
    running.await_log("delivering");
    running.signal("KILL");
    running.wait();
    let again = deployment.start();
    for entry in entries {
        let found = again.get(&format!("/v1/entries/{}", entry.as_str().unwrap()));
        assert!(["ready", "leased"].contains(&found["state"].as_str().unwrap()), "{found}");
    }
}

#[test]
fn events_can_be_published_to_a_stopped_runtime_only() {
    let deployment = one_actor();
    let file = deployment.events(&[event("1", "test.ack", json!(1)), json!({ "no": "event" })]);
    let publish = |arguments: &[&str]| {
        let mut command = deployment.command(&["publish", "--offline"]);
        command.arg(&file).args(arguments).output().unwrap()
    };
    let offline = publish(&[]);
    assert_eq!(offline.status.code(), Some(1), "one line is no event");
    let complaint = text(&offline.stderr);
    assert!(complaint.contains("events.ndjson:2: ") && complaint.contains("specversion"), "{complaint}");
    let running = deployment.start();
    let refused = publish(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use by process "), "{}", text(&refused.stderr));
    running.await_log("delivering");
    running.stop();
    assert_eq!(deployment.start().entries("actor", "done").len(), 1);
}

#[test]
fn a_stopped_store_can_be_copied_and_goes_on_elsewhere() {
    let deployment = one_actor();
    let file = deployment.events(&[event("1", "test.ack", json!(1)), event("2", "test.reject", json!(1))]);
    let run = |deployment: &Deployment, arguments: &[&str]| deployment.command(arguments).output().unwrap();
    let copy = deployment.path().join("copy").display().to_string();
    let nothing = run(&deployment, &["backup", "--offline", &copy]);
    assert!(text(&nothing.stderr).contains("there is no store"), "{}", text(&nothing.stderr));
    assert!(run(&deployment, &["publish", "--offline", file.to_str().unwrap()]).status.success());
    let running_only = run(&deployment, &["backup", &copy]);
    assert_eq!(running_only.status.code(), Some(1));
    assert!(text(&running_only.stderr).contains("--offline"), "{}", text(&running_only.stderr));
    let backup = run(&deployment, &["backup", "--offline", &copy]);
    assert!(backup.status.success(), "{}", text(&backup.stderr));

    let elsewhere = one_actor();
    let restored = run(&elsewhere, &["restore", &copy]);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let again = run(&elsewhere, &["restore", &copy]);
    assert!(text(&again.stderr).contains("there is a store"), "{}", text(&again.stderr));
    let running = after(&elsewhere, &[event("3", "test.ack", json!(1))]);
    assert_eq!((running.entries("actor", "done").len(), running.entries("actor", "dead").len()), (2, 1));
    let in_use = run(&elsewhere, &["backup", "--offline", &format!("{copy}-2")]);
    assert!(text(&in_use.stderr).contains("is in use by process "), "{}", text(&in_use.stderr));
}

#[test]
fn a_store_that_lost_events_opens_only_when_that_is_accepted() {
    let deployment = one_actor();
    let file = deployment.events(&[event("1", "test.ack", json!(1))]);
    let publish = deployment.command(&["publish", "--offline"]).arg(file).output().unwrap();
    assert!(publish.status.success(), "{}", text(&publish.stderr));
    for file in std::fs::read_dir(deployment.path().join("data/queue")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
    }
    let run =
        |arguments: &[&str]| deployment.command(&[&["run", "--until-idle"], arguments].concat()).output().unwrap();
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--accept-loss"), "{}", text(&refused.stderr));
    let accepted = run(&["--accept-loss"]);
    assert!(accepted.status.success(), "{}", text(&accepted.stderr));
    assert!(run(&[]).status.success(), "from then on it is whole");
}

#[test]
fn events_can_be_published_from_the_command_line() {
    let deployment = Deployment::new(&[acker("acker", "{ type = \"*\" }")]);
    let running = deployment.start();
    let flags = ["publish", "--type", "a.b", "--source", "/s", "--id", "7", "--data", "{\"n\":1}", "--json"];
    let output = running.client(&flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["results"][0]["status"], "accepted");
    assert_eq!(reply["results"][0]["durability"], "fsync");
    running.await_log("delivering");
    let queues = text(&running.client(&["queues"]).stdout);
    assert!(queues.contains("acker"), "{queues}");
    let probe = |path| running.request(reqwest::Method::GET, path, "", String::new()).0;
    assert_eq!((probe("/healthz"), probe("/readyz")), (200, 200));
}

#[test]
fn a_run_ends_with_a_table() {
    let deployment = one_actor();
    let output = deployment.run_until_idle(&[event("1", "test.ack", json!(1)), event("2", "test.reject", json!(1))]);
    let table = text(&output.stdout);
    for word in
        ["QUEUE", "PUBLISHED", "ACKED", "RETRIED", "DEAD", "EVENTS/S", "P50", "P99", "Dead letters", "bad order"]
    {
        assert!(table.contains(word), "{word} in\n{table}");
    }
}

#[test]
fn a_deployment_can_be_checked() {
    let deployment = one_actor();
    let check = deployment.command(&["check"]).output().unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
    assert!(text(&check.stdout).contains("gristmill:events/handler@0.1.0"), "{}", text(&check.stdout));

    // Whoever reads the output may have seen enough.
    let mut check = deployment.command(&["check"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(check.stdout.take());
    let check = check.wait_with_output().unwrap();
    assert!(check.status.success() && check.stderr.is_empty(), "{}", text(&check.stderr));

    let missing = "[[handler]]\nname = \"gone\"\ncomponent = \"gone.wasm\"\nsubscribe = [{ type = \"*\" }]\n";
    let ungranted = swapped(&actor("greedy", ALL, ""), "grant = { emit = [\"test.*\"] }", "");
    let broken = Deployment::new(&[missing.to_owned(), ungranted]);
    let check = broken.command(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    let complaint = text(&check.stderr);
    assert!(complaint.contains("gone.wasm") && complaint.contains("grant = { emit ="), "both at once: {complaint}");
    let run = broken.command(&["run", "--until-idle"]).output().unwrap();
    assert_eq!(run.status.code(), Some(1), "{}", text(&run.stderr));
}

#[test]
fn a_start_can_be_interrupted() {
    let slow = "[[handler]]\nname = \"slow\"\ncomponent = \"slow.wasm\"\nsubscribe = [{ type = \"*\" }]\n";
    let deployment = Deployment::new(&[slow.to_owned()]);
    let component = deployment.path().join("slow.wasm");
    rig::pipe(&component);
    let running = deployment.launch(&[], &[]);
    let fed = rig::feed(&component);
    let messages = running.stop_in_time();
    assert!(!messages.iter().any(|message| message.contains("ready")), "{messages:?}");
    drop(fed);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let deployment = one_actor();
    std::fs::write(deployment.config(), "[runtime]\nspeed = 1\n").unwrap();
    let run = deployment.command(&["run"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(text(&run.stderr).contains("speed"), "{}", text(&run.stderr));
    assert_eq!(rig::gristmill().arg("frobnicate").output().unwrap().status.code(), Some(2));
    let nobody = rig::gristmill().args(["queues", "--url", "http://127.0.0.1:1"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("gristmill run"), "{}", text(&nobody.stderr));
}

#[test]
fn a_component_can_be_tried_without_a_queue() {
    let deployment = one_actor();
    let file = deployment.events(&[event("1", "test.emit", json!({ "type": "test.made" }))]);
    let component = gristmill_test_guests::path(gristmill_test_guests::ACTOR);
    let mut command = rig::gristmill();
    let output = command.arg("invoke").arg(&component).arg("--event").arg(&file).args(["--emit", "test.*"]).output();
    let output = output.unwrap();
    let report = text(&output.stdout);
    assert!(output.status.success(), "{report}{}", text(&output.stderr));
    assert!(report.contains("outcome  ack") && report.contains("test.made"), "{report}");
}

#[test]
fn the_quickstart_ends_as_its_readme_says() {
    // Cargo starts tests in the folder of their package.
    let example = "../../examples/quickstart";
    let deployment = Deployment::new(&[]);
    let config = std::fs::read_to_string(format!("{example}/runtime.toml")).unwrap();
    let guest = |name| gristmill_test_guests::path(name).display().to_string();
    let orders = guest(gristmill_test_guests::QUICKSTART_ORDERS);
    let config = swapped(&config, "components/quickstart_orders.wasm", &orders);
    let receipts = guest(gristmill_test_guests::QUICKSTART_RECEIPTS);
    let config = swapped(&config, "components/quickstart_receipts.wasm", &receipts);
    std::fs::write(deployment.config(), config).unwrap();
    let mut run = deployment.command(&["run", "--until-idle", "--publish"]);
    let output = run.arg(format!("{example}/events.ndjson")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let running = deployment.start();
    let count = |queue: &str| {
        let queue = running.get(&format!("/v1/queues/{queue}"));
        [&queue["done"], &queue["dead"]].map(|count| count.as_u64().unwrap())
    };
    assert_eq!((count("orders"), count("receipts")), ([1_092, 8], [443, 0]));
    let mut kinds: Vec<_> = running.entries("orders", "dead").iter().flat_map(|dead| outcomes(dead).pop()).collect();
    kinds.sort();
    assert_eq!(kinds, ["out_of_memory", "reject", "reject", "reject", "reject", "retry", "timeout", "trap"]);
}

#[test]
fn timestamps_in_answers_are_rfc_3339() {
    let deployment = Deployment::new(&[acker("acker", "{ type = \"*\" }")]);
    let running = after(&deployment, &[event("1", "x", json!(1))]);
    let at = running.entry("acker", "done", "1")["enqueued_at"].as_str().unwrap().to_owned();
    let parsed: jiff::Timestamp = at.parse().unwrap();
    let micros = u64::try_from(parsed.as_microsecond()).unwrap();
    assert_eq!(Timestamp::from_micros(micros).to_string(), at);
}
