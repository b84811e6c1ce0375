//! Versions that are tried, and handlers that fail: what goes wrong stays small.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use gristmill_host::digest;
use gristmill_test_guests::{ACKER, ACTOR};
use serde_json::{Value, json};

use super::ALL;
use super::rig::{Deployment, Running, event, handler, outcomes, text, version};

/// A handler that acks everything, whose next version does what the type of an event says.
fn tried(canary: &str, extra: &str) -> (Deployment, PathBuf) {
    let keys = format!("grant = {{ emit = [\"test.*\"] }}\ncanary = {{ {canary} }}\n{extra}");
    let deployment = Deployment::new(&[handler("tried", ACKER, ALL, &keys)]);
    let path = deployment.path().join("new.wasm");
    std::fs::write(&path, version(ACTOR, 1)).unwrap();
    (deployment, path)
}

fn deploy(running: &Running, path: &Path) {
    let deployed = running.client(&["deploy", "tried", path.to_str().unwrap()]);
    assert!(deployed.status.success(), "{}", text(&deployed.stderr));
    assert!(text(&deployed.stdout).starts_with("tried tries sha256:"), "{}", text(&deployed.stdout));
}

fn status(running: &Running, name: &str) -> Value {
    let handlers = running.get("/v1/handlers");
    handlers["items"].as_array().unwrap().iter().find(|handler| handler["name"] == name).unwrap().clone()
}

/// All entries of the queue, when so many are done.
fn done(running: &Running, queue: &str, count: usize) -> Vec<Value> {
    running.until("all are done", |running| {
        let done = running.entries(queue, "done");
        (done.len() == count).then_some(done)
    })
}

fn versions(entry: &Value) -> Vec<&str> {
    entry["history"].as_array().unwrap().iter().map(|attempt| attempt["version"].as_str().unwrap()).collect()
}

/// The how manieth event it is; done entries keep no data.
fn number(entry: &Value) -> u64 {
    entry["event"]["id"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_version_that_fails_is_rolled_back_and_nobody_notices() {
    let (deployment, path) = tried("share = 0.5, for = \"1h\"", "");
    let (old, new) = (digest(&gristmill_test_guests::bytes(ACKER)), digest(&version(ACTOR, 1)));
    let running = deployment.start();
    deploy(&running, &path);
    assert_eq!(status(&running, "tried")["canary"]["version"]["digest"], new.as_str());
    // One of twenty fails on the new version.
    let events: Vec<_> =
        (0..400).map(|n| event(&n.to_string(), if n % 20 == 7 { "test.trap" } else { "test.ack" }, json!(n))).collect();
    events.iter().for_each(|event| drop(running.publish(event)));
    let rolled_back = running.until("it is rolled back", |running| {
        let status = status(running, "tried");
        (!status["rolled_back"].is_null()).then_some(status)
    });
    assert_eq!((&rolled_back["canary"], &rolled_back["rolled_back"]["digest"]), (&Value::Null, &json!(new)));
    let why = rolled_back["rolled_back"]["reason"].as_str().unwrap();
    assert!(why.starts_with("2 of ") && why.contains(" deliveries failed, the last one: trap: "), "{why}");
    assert_eq!(running.versions("tried"), std::slice::from_ref(&old));
    let (mut tried, mut failed) = (0, 0);
    for entry in done(&running, "tried", 400) {
        assert_eq!(entry["attempts"], 1, "no attempt is spent on a canary: {entry}");
        match versions(&entry).as_slice() {
            [only] if *only == new => tried += 1,
            [only] => assert_eq!(*only, old),
            [first, second] => {
                assert_eq!((*first, *second, &*outcomes(&entry)), (&*new, &*old, &["trap".into(), "ack".into()][..]));
                assert_eq!(entry["history"][0]["forgiven"], true);
                failed += 1;
            }
            more => panic!("{more:?}"),
        }
    }
    assert!(tried > 0 && (2..=8).contains(&failed), "{tried} tried, {failed} failed");
    let said = text(&running.client(&["status"]).stderr);
    assert!(said.contains(" was rolled back ") && said.contains("trap"), "{said}");
    running.stop();
    let running = deployment.start();
    assert_eq!(running.versions("tried"), [old], "and stays away");
}

#[test]
fn a_version_that_is_right_takes_over_and_keys_stay_in_order() {
    let (deployment, path) = tried("share = 0.5, for = \"50ms\", min-deliveries = 30", "ordering-key = \"subject\"\n");
    let new = digest(&version(ACTOR, 1));
    let running = deployment.start();
    let mut published = 0;
    let mut publish = |running: &Running, times: usize| {
        for _ in 0..times {
            let mut event = event(&published.to_string(), "test.ack", json!(published));
            event["subject"] = json!(format!("key-{}", published % 20));
            running.publish(&event);
            published += 1;
        }
    };
    publish(&running, 100);
    deploy(&running, &path);
    // One of each key: too few for the new version to take over.
    publish(&running, 20);
    done(&running, "tried", 120);
    publish(&running, 280);
    running.until("it takes over", |running| (running.versions("tried")[0] == new).then_some(()));
    assert_eq!(status(&running, "tried")["canary"], Value::Null);
    publish(&running, 40);
    let mut keys: BTreeMap<String, Vec<(u64, String, String)>> = BTreeMap::new();
    for entry in done(&running, "tried", 440) {
        let began = entry["history"][0]["started_at"].as_str().unwrap().to_owned();
        let run = (number(&entry), began, versions(&entry)[0].to_owned());
        keys.entry(entry["key"].as_str().unwrap().to_owned()).or_default().push(run);
    }
    let mut tried = 0;
    for (key, mut runs) in keys {
        runs.sort();
        assert!(runs.is_sorted_by_key(|(_, began, _)| began), "{key}: {runs:?}");
        let by_new: Vec<_> = runs.iter().map(|(.., version)| *version == new).collect();
        assert!(by_new.is_sorted(), "{key} goes to the new version once, and never back: {by_new:?}");
        tried += usize::from(runs.iter().any(|(n, _, version)| (100..120).contains(n) && *version == new));
    }
    assert!((1..20).contains(&tried), "{tried} of 20 keys were tried before it took over");
}

#[test]
fn what_a_canary_fails_goes_to_the_old_version_with_all_of_its_key() {
    let (deployment, path) = tried("share = 1.0, for = \"1h\", max-failure-rate = 1.0", "ordering-key = \"subject\"\n");
    let new = digest(&version(ACTOR, 1));
    let running = deployment.start();
    deploy(&running, &path);
    for n in 0..12 {
        let mut event = event(&n.to_string(), if n == 4 { "test.reject" } else { "test.ack" }, json!(n));
        event["subject"] = json!(if n % 2 == 0 { "even" } else { "odd" });
        running.publish(&event);
    }
    let by_new: BTreeSet<_> = done(&running, "tried", 12)
        .iter()
        .filter(|entry| *versions(entry).last().unwrap() == new)
        .map(number)
        .collect();
    assert_eq!(by_new, [0, 1, 2, 3, 5, 7, 9, 11].into());
    let back = running.client(&["rollback", "tried"]);
    assert!(back.status.success() && status(&running, "tried")["canary"].is_null(), "{}", text(&back.stderr));
}

/// A handler with a breaker that opens after ten failures in a row.
fn fragile() -> Deployment {
    let breaker = "breaker = { max-failure-rate = 1.0, deliveries = 10, probe = \"20ms\", max-probe = \"40ms\" }";
    Deployment::new(&[handler("fragile", ACTOR, ALL, &format!("grant = {{ emit = [\"test.*\"] }}\n{breaker}\n"))])
}

#[test]
fn a_handler_that_fails_over_and_over_gets_nothing_until_it_is_better() {
    let deployment = fragile();
    let running = deployment.start();
    for n in 0..30 {
        running.publish(&event(&n.to_string(), "test.trap", json!(n)));
    }
    let open = |running: &Running| {
        let circuit = status(running, "fragile")["circuit"].clone();
        (circuit["failed_probes"].as_u64() > Some(2)).then_some(circuit)
    };
    let circuit = running.until("it is probed", open);
    let reason = "circuit breaker: 10 of the last 10 deliveries failed, the last one: trap: ";
    assert!(circuit["reason"].as_str().unwrap().starts_with(reason), "{circuit}");
    let queue = running.get("/v1/queues/fragile");
    assert_eq!((&queue["pause_reason"], &queue["dead"]), (&circuit["reason"], &json!(0)));
    let said = text(&running.client(&["status"]).stderr);
    assert!(said.contains("fragile gets no events: circuit breaker: "), "{said}");
    running.stop();

    let running = deployment.start();
    running.until("another process goes on with it", open);
    let better = deployment.path().join("better.wasm");
    std::fs::write(&better, gristmill_test_guests::bytes(ACKER)).unwrap();
    let deployed = running.client(&["deploy", "fragile", better.to_str().unwrap()]);
    assert!(deployed.status.success(), "{}", text(&deployed.stderr));
    let all = done(&running, "fragile", 30);
    assert!(all.iter().all(|entry| entry["attempts"].as_u64() <= Some(3)));
    let forgiven = |attempt: &&Value| attempt["forgiven"] == true;
    let probes = all.iter().flat_map(|entry| entry["history"].as_array().unwrap()).filter(forgiven).count();
    assert!(probes > 2, "{probes}");
    let queue = running.get("/v1/queues/fragile");
    assert_eq!((&queue["paused"], &queue["dead"]), (&json!(false), &json!(0)));
    assert_eq!(status(&running, "fragile")["circuit"], Value::Null);
}

#[test]
fn one_good_event_closes_the_circuit() {
    let running = fragile().start();
    for n in 0..10 {
        running.publish(&event(&n.to_string(), "test.trap", json!(n)));
    }
    running.until("it opens", |running| {
        let circuit = &status(running, "fragile")["circuit"];
        (!circuit.is_null()).then_some(())
    });
    running.publish(&event("good", "test.ack", json!(1)));
    done(&running, "fragile", 1);
    running.until("it goes on", |running| (running.get("/v1/queues/fragile")["paused"] == false).then_some(()));
}

#[test]
fn a_run_until_idle_ends_with_an_open_circuit_and_says_so() {
    let deployment = fragile();
    let events: Vec<_> = (0..30).map(|n| event(&n.to_string(), "test.trap", json!(n))).collect();
    let file = deployment.events(&events);
    let output = deployment.command(&["run", "--until-idle", "--publish"]).arg(file).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("its queue is paused, until a probe is handled"), "{said}");
    let running = deployment.start();
    assert_eq!(running.get("/v1/queues/fragile")["dead"], 0);
}

#[test]
fn a_person_closes_a_circuit_and_pauses_a_queue() {
    let deployment = fragile();
    let running = deployment.start();
    for n in 0..10 {
        running.publish(&event(&n.to_string(), "test.trap", json!(n)));
    }
    running.until("it opens", |running| (!status(running, "fragile")["circuit"].is_null()).then_some(()));
    let paused = running.client(&["pause", "fragile", "--reason", "maintenance"]);
    assert_eq!(text(&paused.stdout), "fragile is paused: maintenance\n", "{}", text(&paused.stderr));
    running.publish(&event("good", "test.ack", json!(1)));
    assert_eq!(running.get("/v1/queues/fragile")["done"], 0, "a person's pause is for probes, too");
    let resumed = running.client(&["resume", "fragile"]);
    assert_eq!(text(&resumed.stdout), "fragile goes on\n", "{}", text(&resumed.stderr));
    done(&running, "fragile", 1);
    let unknown = running.client(&["resume", "nobody"]);
    assert!(unknown.status.code() == Some(1) && text(&unknown.stderr).contains("there are: fragile"));
    let metrics = running.page("/metrics");
    assert!(metrics.contains("gristmill_config_reloads_total{result=\"refused\"} 0"), "{metrics}");
}

/// Handlers of a file beside the deployment, which is the acker, and whose next version is tried.
fn own_file(canary: &str) -> Deployment {
    let keys = format!("grant = {{ emit = [\"test.*\"] }}\ncanary = {{ {canary} }}\n");
    let handler = handler("tried", ACKER, ALL, &keys);
    let own = handler.lines().map(|line| if line.starts_with("component") { "component = \"own.wasm\"" } else { line });
    let deployment = Deployment::new(&[own.collect::<Vec<_>>().join("\n")]);
    std::fs::write(deployment.path().join("own.wasm"), gristmill_test_guests::bytes(ACKER)).unwrap();
    deployment
}

#[test]
fn what_a_source_delivers_is_tried_too_over_a_restart_and_once() {
    let deployment = own_file("share = 1.0, for = \"1h\", max-failure-rate = 0.0");
    let (old, new) = (digest(&gristmill_test_guests::bytes(ACKER)), digest(&version(ACTOR, 1)));
    let is_tried = |running: &Running| {
        let status = status(running, "tried");
        (status["canary"]["version"]["digest"] == new.as_str()).then_some(())
    };
    let running = deployment.start();
    std::fs::write(deployment.path().join("own.wasm"), version(ACTOR, 1)).unwrap();
    running.signal("HUP");
    running.until("it is tried", is_tried);
    assert_eq!(running.versions("tried"), std::slice::from_ref(&old));
    running.stop();

    // Another process tries it as well, beside the version that was current.
    let running = deployment.start();
    running.until("it is tried again", is_tried);
    running.publish(&event("1", "test.trap", json!(1)));
    running.until("it is rolled back", |running| (!status(running, "tried")["rolled_back"].is_null()).then_some(()));
    assert_eq!(versions(&done(&running, "tried", 1)[0]), [&*new, &*old]);
    running.signal("HUP");
    running.await_log("the configuration was read again: no handler has changed");
    assert!(status(&running, "tried")["canary"].is_null());
    running.stop();
    let running = deployment.start();
    assert_eq!(running.versions("tried"), [old], "what its source has was tried, and had its chance");
    assert!(status(&running, "tried")["canary"].is_null());
}

#[test]
fn a_handler_whose_file_is_gone_goes_on_and_says_so() {
    let deployment = own_file("share = 0.5");
    let running = deployment.start();
    let before = running.versions("tried");
    running.stop();
    std::fs::remove_file(deployment.path().join("own.wasm")).unwrap();
    let running = deployment.start();
    assert_eq!(running.versions("tried"), before);
    running.publish(&event("1", "test.ack", json!(1)));
    done(&running, "tried", 1);
    let shown = running.client(&["status"]);
    assert!(shown.status.code() == Some(1) && text(&shown.stderr).contains("own.wasm"), "{}", text(&shown.stderr));
}
