//! What a person sees of `invoke` and `check`, word for word: `shown/NAME.txt`. `UPDATE_GOLDEN=1` rewrites them; then
//! read what changed. What differs from run to run is an `N`, and digests are cut.

use std::fmt::Write as _;
use std::path::Path;

use super::rig::{Deployment, actor, event, gristmill, handler, swapped};
use super::{ALL, text};
use gristmill_test_guests as guests;
use serde_json::json;

/// Lines that begin like this have numbers that nobody can foretell.
const MEASURED: [&str; 5] = ["time", "calls", "memory", "fuel", "bytes"];

pub(crate) fn compare(name: &str, shown: &str) {
    let path = Path::new("../../tests/shown").join(name).with_extension("txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(shown, expected, "{}", path.display());
}

/// Without what differs from run to run, and from machine to machine.
pub(crate) fn steady(shown: &str, folder: &Path) -> String {
    let guests = guests::path(guests::ACTOR);
    let shown = shown.replace(&folder.display().to_string(), "DIR");
    let shown = shown.replace(&guests.parent().unwrap().display().to_string(), "GUESTS");
    let mut steady = String::new();
    for line in shown.lines() {
        let line =
            if MEASURED.iter().any(|start| line.starts_with(start)) { numberless(line) } else { line.to_owned() };
        writeln!(steady, "{}", digestless(&line)).unwrap();
    }
    steady
}

fn numberless(line: &str) -> String {
    let mut shown = String::new();
    for c in line.chars() {
        match c {
            '0'..='9' | '.' if shown.ends_with('N') => {}
            '0'..='9' => shown.push('N'),
            other => shown.push(other),
        }
    }
    shown
}

fn digestless(line: &str) -> String {
    let mut parts = line.split("sha256:");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shown += "sha256:…";
        shown += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    shown
}

fn invoke(name: &str, guest: &str, ty: &str, arguments: &[&str]) {
    let deployment = Deployment::new(&[]);
    let file = deployment.events(&[event("1", ty, json!({ "type": "test.made", "count": 2 }))]);
    let output =
        gristmill().arg("invoke").arg(guests::path(guest)).arg("--event").arg(&file).args(arguments).output().unwrap();
    let shown = format!(
        "$ gristmill invoke {guest}.wasm --event {ty} {}\n{}{}exit {}\n",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr),
        output.status.code().unwrap(),
    );
    compare(name, &steady(&shown, deployment.path()));
}

#[test]
fn invoke_shows_what_became_of_a_call() {
    let emit = ["--emit", "test.*"];
    for ty in ["result", "emit", "log", "retry", "reject", "defer", "emit-denied", "exit"] {
        invoke(&format!("invoke-{ty}"), guests::ACTOR, &format!("test.{ty}"), &emit);
    }
    invoke("invoke-timeout", guests::ACTOR, "test.sleep", &[&emit[..], &["--timeout", "50ms"]].concat());
    invoke("invoke-no-grant", guests::ACTOR, "test.emit", &[]);
    invoke("invoke-program", guests::PROGRAM_MODULE, "test.emit", &emit);
    invoke("invoke-program-garbage", guests::PROGRAM_COMPONENT, "test.garbage", &emit);
    invoke("invoke-wrong-interface", guests::ACTOR, "test.ack", &["--interface", "wasi:cli/run"]);
}

#[test]
fn check_shows_every_handler_and_what_it_lacks() {
    let interfaces = [
        ("acker", guests::ACKER, ""),
        ("batcher", guests::BATCHER, "grant = { emit = [\"*\"], state = [\"counts\"] }"),
        ("caller", guests::CALLER, "grant = { http = [\"GET https://api.example.com\"] }"),
        ("greeter", guests::GREETER, ""),
        ("messenger", guests::MESSENGER, "grant = { emit = [\"test.*\"] }"),
        ("program", guests::PROGRAM_COMPONENT, "grant = { env = [\"PATH\"] }"),
        ("module", guests::PROGRAM_MODULE, ""),
        ("newer", guests::ENVOY, "grant = { emit = [\"test.*\"] }"),
        ("wrapped", guests::ACKER_MODULE, ""),
        ("ungranted", guests::CALLER, ""),
    ];
    let mut handlers: Vec<_> = interfaces.map(|(name, guest, extra)| handler(name, guest, ALL, extra)).into();
    handlers.push(swapped(&actor("greedy", ALL, ""), "grant = { emit = [\"test.*\"] }", ""));
    let deployment = Deployment::new(&handlers);
    let check = deployment.command(&["check"]).output().unwrap();
    let shown = format!(
        "$ gristmill check\n{}{}exit {}\n",
        text(&check.stdout),
        text(&check.stderr),
        check.status.code().unwrap()
    );
    compare("check", &steady(&shown, deployment.path()));
}
