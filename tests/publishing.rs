//! What `gristmill publish` may ask for besides the events: the binary, against a running runtime and a stopped one.

use std::process::Output;

use super::rig::{Deployment, Running, acker, event};
use super::text;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const ALL: &str = "{ type = \"*\" }";
/// How the events are sent: over HTTP, or into the store of a stopped runtime.
const WAYS: [Way; 2] = [Way::Running, Way::Offline];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Running,
    Offline,
}

/// Publishes with these arguments; what the command said, and a runtime to look at what became of it.
fn publish(deployment: &Deployment, way: Way, arguments: &[&str]) -> (Output, Running) {
    let arguments = [&["publish", "--json"], arguments].concat();
    match way {
        Way::Running => {
            let running = deployment.start();
            (running.client(&arguments), running)
        }
        Way::Offline => {
            let output = deployment.command(&arguments).arg("--offline").output().unwrap();
            (output, deployment.start())
        }
    }
}

/// What became of each event, as `--json` says.
fn statuses(output: &Output) -> Vec<String> {
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    let results = reply["results"].as_array().unwrap();
    results.iter().map(|result| result["status"].as_str().unwrap().to_owned()).collect()
}

fn instant(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn key_priority_and_delay_hold_for_every_event() {
    for way in WAYS {
        let deployment = Deployment::new(&[acker("acker", ALL)]);
        let file = deployment.events(&[event("1", "a", json!(1)), event("2", "a", json!(1))]);
        let flags = ["--key", "A 7/&", "--priority", "7", "--delay", "1h", "--ttl", "2h"];
        let (output, running) = publish(&deployment, way, &[&flags[..], &[file.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
        assert_eq!(statuses(&output), ["accepted"; 2], "{way:?}");
        for id in ["1", "2"] {
            let entry = running.entry("acker", "scheduled", id);
            assert_eq!((&entry["key"], &entry["priority"]), (&json!("A 7/&"), &json!(7)), "{way:?}");
            let delay = instant(&entry["at"]).duration_since(instant(&entry["enqueued_at"]));
            assert_eq!(delay, SignedDuration::from_hours(1), "{way:?}");
        }
    }
}

#[test]
fn an_event_of_flags_waits_for_its_time() {
    for way in WAYS {
        let deployment = Deployment::new(&[acker("acker", ALL)]);
        let flags = ["--type", "a", "--id", "1", "--not-before", "2999-01-01T02:00:00.25+02:00"];
        let (output, running) = publish(&deployment, way, &flags);
        assert!(output.status.success(), "{way:?}: {}", text(&output.stderr));
        let entry = running.entry("acker", "scheduled", "1");
        assert_eq!(entry["at"], "2999-01-01T00:00:00.250Z", "{way:?}");
        assert_eq!((&entry["key"], &entry["priority"]), (&Value::Null, &json!(0)), "{way:?}");
    }
}

#[test]
fn what_a_repetition_means_is_up_to_the_publisher() {
    for way in WAYS {
        let deployment = Deployment::new(&[acker("acker", ALL)]);
        let running = (way == Way::Running).then(|| deployment.start());
        let again = |extra: &[&str]| {
            let flags = [&["publish", "--json", "--type", "a", "--id", "1", "--delay", "1h"], extra].concat();
            match &running {
                Some(running) => running.client(&flags),
                None => deployment.command(&flags).arg("--offline").output().unwrap(),
            }
        };
        assert_eq!(statuses(&again(&[])), ["accepted"], "{way:?}");
        assert_eq!(statuses(&again(&[])), ["duplicate"], "{way:?}");
        assert_eq!(statuses(&again(&["--on-duplicate", "return-existing"])), ["duplicate"], "{way:?}");
        assert_eq!(statuses(&again(&["--on-duplicate", "allow-after-failure"])), ["duplicate"], "{way:?}");
        assert_eq!(statuses(&again(&["--on-duplicate", "allow"])), ["accepted"], "{way:?}");
        let refused = again(&["--on-duplicate", "refuse"]);
        assert_eq!((statuses(&refused), refused.status.code()), (vec!["refused".to_owned()], Some(1)), "{way:?}");
        let told = text(&refused.stderr);
        assert!(told.contains("it was published before, as ") && told.contains("refused 1"), "{way:?}: {told}");
    }
}

#[test]
fn a_dedupe_key_takes_the_place_of_ids() {
    for way in WAYS {
        let deployment = Deployment::new(&[acker("acker", ALL)]);
        let file = deployment.events(&[event("1", "a", json!(1)), event("2", "a", json!(1))]);
        let flags = ["--dedupe-key", "once", file.to_str().unwrap()];
        let (output, running) = publish(&deployment, way, &flags);
        assert_eq!(statuses(&output), ["accepted", "duplicate"], "{way:?}");
        assert!(text(&output.stderr).contains("published 1 event (fsync), 1 known already, refused 0"), "{way:?}");
        assert_eq!(running.get("/v1/queues/acker")["totals"]["duplicates"], 1, "{way:?}");
    }
}

#[test]
fn wrong_flags_are_wrong_usage() {
    let deployment = Deployment::new(&[acker("acker", ALL)]);
    let long = "x".repeat(1_025);
    let cases = [
        (["--key", ""], "1 to 1024 bytes"),
        (["--dedupe-key", &long], "1 to 1024 bytes, not 1025"),
        (["--priority", "256"], "0..=255"),
        (["--delay", "5"], "a unit is missing: write \"5s\""),
        (["--not-before", "tomorrow"], "RFC 3339"),
        (["--ttl", "0s"], "more than zero"),
        (["--on-duplicate", "skip"], "return-existing, allow-after-failure, refuse, allow"),
        (["--source", "my shop"], "not a URI reference such as /shop/orders or https://example.com/shop: ` ` must"),
    ];
    for (flags, words) in cases {
        let output = deployment.command(&["publish", "--offline", "--type", "a"]).args(flags).output().unwrap();
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {told}");
        assert!(told.contains(words) && told.contains(flags[0]), "{flags:?}: {told}");
    }
    let both = ["publish", "--type", "a", "--delay", "5s", "--not-before", "2999-01-01T00:00:00Z"];
    let output = deployment.command(&both).output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(2) && told.contains("cannot be used with"), "{told}");
    assert!(!deployment.path().join("data").exists(), "no store was opened");
}

#[test]
fn help_has_every_flag() {
    let help = text(&super::rig::gristmill().args(["publish", "--help"]).output().unwrap().stdout);
    for flag in ["--key", "--dedupe-key", "--on-duplicate", "--priority", "--delay", "--not-before", "--ttl"] {
        assert!(help.contains(&format!("{flag} <")), "{flag} in\n{help}");
    }
    assert!(help.contains("allow-after-failure") && help.contains("[default: return-existing]"), "{help}");
}
