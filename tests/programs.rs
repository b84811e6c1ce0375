//! Handlers that are plain programs, from end to end.

use serde_json::json;

use crate::rig::{self, Deployment, acker, event, outcomes, program, reason, swapped};

const FORMS: [&str; 2] = [gristmill_test_guests::PROGRAM_MODULE, gristmill_test_guests::PROGRAM_COMPONENT];

fn subscribe(types: &[&str]) -> String {
    types.iter().map(|ty| format!("{{ type = \"{ty}\" }}")).collect::<Vec<_>>().join(", ")
}

#[test]
fn programs_handle_events_like_any_other_handler() {
    let types = ["test.ack", "test.emit", "test.retry", "test.reject", "test.garbage", "test.panic", "test.loop"];
    for guest in FORMS {
        let quick = "timeout = \"300ms\"";
        let handler = swapped(&program("program", guest, &subscribe(&types), ""), "timeout = \"2s\"", quick);
        let deployment = Deployment::new(&[handler, acker("made", "{ type = \"test.made\" }")]);
        let events: Vec<_> = types.iter().map(|ty| event(ty, ty, json!({ "kept": true }))).collect();
        deployment.run_until_idle(&events);
        let running = deployment.start();

        assert_eq!(outcomes(&running.entry("program", "done", "test.ack")), ["ack"], "{guest}");
        let parent = running.entry("program", "done", "test.emit")["entry"].as_str().unwrap().to_owned();
        let made = running.entries("made", "done");
        let mut ids: Vec<_> = made.iter().map(|entry| entry["event"]["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2].map(|n| format!("{parent}-{n}")), "{guest}");
        assert_eq!(made[0]["event"]["source"], "/handlers/program");

        let expect = |ty: &str, outcome: &str, attempts: usize, words: &str| {
            let dead = running.entry("program", "dead", ty);
            assert_eq!(outcomes(&dead), vec![outcome; attempts], "{guest} {ty}");
            assert!(reason(&dead).contains(words), "{guest} {ty}: {}", reason(&dead));
        };
        expect("test.retry", "retry", 3, "not yet");
        expect("test.garbage", "invalid_output", 3, "line 1 of stdout is no event");
        expect("test.panic", "trap", 3, "boom");
        expect("test.loop", "timeout", 3, "300ms");
        // Rust's standard library for WASI 0.2 knows no status but 0 and 1.
        let is_module = guest == gristmill_test_guests::PROGRAM_MODULE;
        let (outcome, attempts) = if is_module { ("reject", 1) } else { ("retry", 3) };
        expect("test.reject", outcome, attempts, "bad order");
    }
}

#[test]
fn check_and_invoke_show_the_interface() {
    let shown = ["wasi-preview1-command", "wasi:cli/run@0.2"];
    let handlers = FORMS.map(|guest| program(&guest.replace('_', "-"), guest, &subscribe(&["test.*"]), ""));
    let check = Deployment::new(&handlers).command(&["check"]).output().unwrap();
    let table = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && shown.iter().all(|name| table.contains(name)), "{table}");

    let deployment = Deployment::new(&[]);
    let file = deployment.events(&[event("1", "test.emit", json!(1))]);
    for (guest, name) in FORMS.into_iter().zip(shown) {
        let mut invoke = rig::gristmill();
        invoke.arg("invoke").arg(gristmill_test_guests::path(guest)).arg("--event").arg(&file);
        let output = invoke.args(["--emit", "test.*"]).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
        assert!(report.starts_with(&format!("runs     {name}\noutcome  ack\n")), "{report}");
        assert!(report.contains("test.made"), "{report}");
    }
}

#[test]
fn the_configuration_says_which_interface() {
    let with = |interface: &str| {
        let extra = format!("interface = \"{interface}\"");
        let handler = program("program", gristmill_test_guests::PROGRAM_COMPONENT, &subscribe(&["test.*"]), &extra);
        Deployment::new(&[handler]).command(&["check"]).output().unwrap()
    };
    let right = with("wasi:cli/run");
    assert!(right.status.success(), "{}", String::from_utf8_lossy(&right.stderr));
    let wrong = with("gristmill:events/handler");
    let message = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(1), "{message}");
    assert!(message.contains("the interface gristmill:events/handler is asked for"), "{message}");
    assert_eq!(with("wasi:cli/walk").status.code(), Some(2), "no such interface");
    let mut invoke = rig::gristmill();
    let component = gristmill_test_guests::path(gristmill_test_guests::PROGRAM_COMPONENT);
    invoke.arg("invoke").arg(component).args(["--event", "/dev/null", "--interface", "wasi:cli/walk"]);
    assert_eq!(invoke.output().unwrap().status.code(), Some(2));
}
