//! `runtime.toml`, edited while it is in effect.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use super::rig::{Deployment, Running, actor, event, handler, text};
use super::{ALL, one_actor};
use gristmill_test_guests::CONFIGURED;

/// Replaces the configuration as an editor does.
pub(super) fn write(deployment: &Deployment, config: &str) {
    let new = deployment.path().join("new");
    std::fs::write(&new, config).unwrap();
    std::fs::rename(new, deployment.config()).unwrap();
}

fn config(deployment: &Deployment) -> String {
    std::fs::read_to_string(deployment.config()).unwrap()
}

/// Waits until the configuration was read again so often, applied or refused.
fn reloaded(running: &Running, counter: &str, times: u64) -> Value {
    running.until("the configuration is read again", |running| {
        let status = running.get("/v1/status")["config"].clone();
        (status[counter] == times).then_some(status)
    })
}

fn queue(running: &Running, name: &str) -> Value {
    running.get(&format!("/v1/queues/{name}"))
}

/// An event for the second handler.
fn for_second(id: &str, ty: &str) -> Value {
    let mut event = event(id, ty, json!(1));
    event["source"] = json!("/second");
    event
}

#[test]
fn handlers_come_change_and_go_with_the_file() {
    let deployment = Deployment::new(&[actor("actor", "{ source = \"/test\" }", "")]);
    let running = deployment.start();
    let first = config(&deployment);
    let second = first.clone() + &actor("second", "{ source = \"/second\" }", "");
    write(&deployment, &second);
    reloaded(&running, "applied", 1);
    running.publish(&for_second("1", "test.ack"));
    running.until("the new handler handles", |running| running.entries("second", "done").pop());

    // Another limit holds for the next event.
    write(&deployment, &second.replace("max-attempts = 3", "max-attempts = 1"));
    reloaded(&running, "applied", 2);
    running.publish(&event("2", "test.retry", json!(1)));
    let dead = running.until("one attempt was enough", |running| running.entries("actor", "dead").pop());
    assert_eq!(dead["attempts"], 1);

    // Without its handler, a queue is kept and paused; nothing goes into it any more.
    write(&deployment, &second);
    reloaded(&running, "applied", 3);
    running.publish(&for_second("3", "test.retry-twice"));
    write(&deployment, &first);
    reloaded(&running, "applied", 4);
    let paused = queue(&running, "second");
    assert_eq!((&paused["handler"], &paused["pause_reason"]), (&Value::Null, &json!("its handler was removed")));
    let another = for_second("4", "test.ack").to_string();
    let (status, refused) =
        running.request(reqwest::Method::POST, "/v1/events", "application/cloudevents+json", another);
    assert_eq!(status, 422, "{refused}");
    write(&deployment, &second);
    reloaded(&running, "applied", 5);
    let back = queue(&running, "second");
    assert_eq!((&back["handler"], &back["paused"]), (&json!("second"), &json!(false)));
    running.until("what waited is handled", |running| (running.entries("second", "done").len() == 2).then_some(()));
}

#[test]
fn a_wrong_file_changes_nothing_and_says_so() {
    let deployment = one_actor();
    let running = deployment.start();
    let right = config(&deployment);
    let before = running.get("/v1/handlers");
    let second = actor("second", "{ type = \"second.*\" }", "");
    for (refused, (wrong, words)) in [
        (right.clone() + "[[handler]]\nname = 5\n", "expected a string"),
        (right.replace("2s", "2 parsecs"), "2 parsecs"),
        (right.clone() + &second.replace("component = \"", "component = \"/nowhere"), "/nowhere"),
        // The second is right, and does not come alone.
        (right.replace("max-attempts", "attempts-max") + &second, "unknown key `attempts-max`"),
    ]
    .into_iter()
    .enumerate()
    {
        write(&deployment, &wrong);
        let status = reloaded(&running, "refused", refused as u64 + 1);
        assert!(status["error"]["reason"].as_str().unwrap().contains(words), "{status}");
        assert_eq!(running.get("/v1/handlers"), before);
    }
    let shown = running.client(&["status"]);
    let said = text(&shown.stderr);
    let is_refused = said.contains("the configuration was refused ") && said.contains("unknown key `attempts-max`");
    assert!(shown.status.code() == Some(1) && is_refused, "{said}");
    write(&deployment, &right);
    reloaded(&running, "applied", 1);
    assert!(running.client(&["status"]).status.success());
    assert_eq!(running.get("/v1/handlers"), before);
}

#[test]
fn settings_of_the_process_are_named_and_wait_for_a_restart() {
    let deployment = one_actor();
    let running = deployment.start();
    write(&deployment, &config(&deployment).replace("[runtime]", "[runtime]\nmemory = \"2GiB\"\ndata-dir = \"other\""));
    let status = reloaded(&running, "applied", 1);
    assert_eq!(status["needs_restart"], json!(["`[runtime] data-dir`", "`[runtime] memory`"]));
    let said = text(&running.client(&["status"]).stderr);
    assert!(said.contains("`[runtime] memory` has changed, and needs a restart to take effect"), "{said}");
    running.publish(&event("1", "test.ack", json!(1)));
    running.until("it goes on", |running| running.entries("actor", "done").pop());
    assert!(!deployment.path().join("other").exists());
}

#[test]
fn a_signal_reads_everything_again() {
    let secret = "config = { greeting = { file = \"secret\" } }\n";
    let deployment = Deployment::new(&[handler("configured", CONFIGURED, ALL, secret)]);
    std::fs::write(deployment.path().join("secret"), "one").unwrap();
    let running = deployment.start();
    std::fs::write(deployment.path().join("secret"), "two").unwrap();
    running.signal("HUP");
    running.await_log("the configuration was read again: no handler has changed");
    running.await_log("the secrets of all handlers were read again");
    assert_eq!(running.get("/v1/status")["config"]["applied"], 1);
    let mut asked = event("1", "test.candidate", json!(1));
    asked["subject"] = json!("greeting");
    running.publish(&asked);
    let done = running.until("it answers", |running| running.entries("configured", "done").pop());
    assert_eq!(done["result"][0], "two");
}

#[test]
fn a_file_that_is_written_slowly_is_read_once() {
    let deployment = one_actor();
    let running = deployment.start();
    let mut more = String::new();
    for number in 0..20 {
        writeln!(more, "{}", actor(&format!("more{number}"), "{ type = \"more\" }", "")).unwrap();
    }
    // Written line by line, in the middle of lines too: who reads it before it is closed finds half of it.
    std::fs::write(deployment.path().join("more"), config(&deployment) + &more).unwrap();
    let slowly = "while IFS= read -r line; do printf '%s' \"$line\"; printf '\\n'; done < more > runtime.toml";
    let mut writer = Command::new("sh").args(["-c", slowly]).current_dir(deployment.path()).spawn().unwrap();
    assert!(writer.wait().unwrap().success());
    let status = reloaded(&running, "applied", 1);
    assert_eq!((&status["refused"], running.versions("more19").len()), (&json!(0), 1));
}
