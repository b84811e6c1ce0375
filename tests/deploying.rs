//! Versions: deployed by hand, rolled back, and what a restart makes of them.

use std::path::PathBuf;

use gristmill_host::digest;
use serde_json::{Value, json};

use super::rig::{Deployment, Running, acker, actor, event, text, version};
use super::{ALL, one_actor};
use gristmill_test_guests::ACTOR;

/// Writes a component beside the deployment.
fn file(deployment: &Deployment, name: &str, bytes: &[u8]) -> PathBuf {
    let path = deployment.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Which version has handled an event that is published now.
fn handled_by(running: &Running, id: &str) -> String {
    running.publish(&event(id, "test.ack", json!(1)));
    let done = running.until("the event is done", |running| {
        running.entries("actor", "done").into_iter().find(|entry| entry["event"]["id"] == id)
    });
    done["history"][0]["version"].as_str().unwrap().to_owned()
}

#[test]
fn a_deployed_version_takes_over_and_stays_over_a_restart() {
    let deployment = one_actor();
    let new = version(ACTOR, 1);
    let path = file(&deployment, "new.wasm", &new);
    let running = deployment.start();
    let first = running.versions("actor");
    assert_eq!(handled_by(&running, "1"), first[0]);
    let deployed = running.client(&["deploy", "actor", path.to_str().unwrap()]);
    assert!(deployed.status.success(), "{}", text(&deployed.stderr));
    let said = text(&deployed.stdout);
    assert!(said.starts_with(&format!("actor runs {} now, in the place of sha256:", &digest(&new)[..19])), "{said}");
    assert_eq!(running.versions("actor"), [digest(&new), first[0].clone()]);
    assert_eq!(handled_by(&running, "2"), digest(&new));
    running.stop();

    // The file that `component` names is the same as ever: what was deployed stays.
    std::fs::remove_file(path).unwrap();
    let running = deployment.start();
    assert_eq!(handled_by(&running, "3"), digest(&new));
    let back = running.client(&["rollback", "actor", "--json"]);
    let back: Value = serde_json::from_slice(&back.stdout).unwrap();
    assert_eq!((&back["before"], &back["current"]["digest"]), (&json!(digest(&new)), &json!(first[0])));
    assert_eq!(handled_by(&running, "4"), first[0]);
    running.stop();

    let running = deployment.start();
    assert_eq!(handled_by(&running, "5"), first[0], "what was rolled back stays, too");
    let listed = text(&running.client(&["handlers"]).stdout);
    let rows: Vec<_> = listed.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(
        (rows[0][2], rows[0][4], rows[1][2], rows[1][4]),
        ("current", "source", "earlier", "deploy"),
        "{listed}"
    );
}

#[test]
fn a_source_that_has_changed_takes_the_place_of_what_was_deployed() {
    let deployment = Deployment::new(&[]);
    let path = file(&deployment, "own.wasm", &version(ACTOR, 0));
    let handler = actor("actor", ALL, "");
    let head = std::fs::read_to_string(deployment.config()).unwrap();
    let own = handler.lines().map(|line| if line.starts_with("component") { "component = \"own.wasm\"" } else { line });
    std::fs::write(deployment.config(), head + &own.collect::<Vec<_>>().join("\n")).unwrap();
    let running = deployment.start();
    let deployed = file(&deployment, "deployed.wasm", &version(ACTOR, 1));
    assert!(running.client(&["deploy", "actor", deployed.to_str().unwrap()]).status.success());
    running.stop();
    std::fs::write(&path, version(ACTOR, 2)).unwrap();
    let running = deployment.start();
    let all = [2, 1, 0].map(|number| digest(&version(ACTOR, number)));
    assert_eq!(running.versions("actor"), all);
    // Of six, the first goes.
    for number in 3..6 {
        let path = file(&deployment, "deployed.wasm", &version(ACTOR, number));
        assert!(running.client(&["deploy", "actor", path.to_str().unwrap()]).status.success());
    }
    assert_eq!(running.versions("actor"), [5, 4, 3, 2, 1].map(|number| digest(&version(ACTOR, number))));
    let kept = std::fs::read_dir(deployment.path().join("data/components")).unwrap().count();
    assert_eq!(kept, 5, "what no version needs is not kept");
    let third = digest(&version(ACTOR, 3));
    let back = running.client(&["rollback", "actor", "--to", &third[7..15]]);
    assert!(back.status.success(), "{}", text(&back.stderr));
    assert_eq!(running.versions("actor")[..2], [3, 5].map(|number| digest(&version(ACTOR, number))));
}

#[test]
fn what_cannot_be_deployed_changes_nothing() {
    let deployment = Deployment::new(&[actor("actor", ALL, ""), acker("pinned", "{ type = \"other\" }")]);
    let pin = digest(&gristmill_test_guests::bytes(gristmill_test_guests::ACKER));
    deployment.swap("name = \"pinned\"", &format!("name = \"pinned\"\ndigest = \"{pin}\""));
    let running = deployment.start();
    let before = running.get("/v1/handlers");
    let broken = file(&deployment, "broken.wasm", &version(ACTOR, 1)[..4_000]);
    let zip = file(&deployment, "zip.wasm", b"PK\x03\x04");
    let keeper = gristmill_test_guests::path(gristmill_test_guests::KEEPER);
    let fine = file(&deployment, "fine.wasm", &version(gristmill_test_guests::ACKER, 1));
    for (arguments, words) in [
        (vec!["deploy", "actor", broken.to_str().unwrap()], "handler `actor`: the component that was sent: "),
        (vec!["deploy", "actor", zip.to_str().unwrap()], "zip archive"),
        (vec!["deploy", "actor", keeper.to_str().unwrap()], "grant = { state = "),
        (vec!["deploy", "nobody", fine.to_str().unwrap()], "there is no handler `nobody`; there are: actor, pinned"),
        (vec!["deploy", "pinned", fine.to_str().unwrap()], "runtime.toml pins it to sha256:"),
        (vec!["deploy", "actor", "missing.wasm"], "cannot read missing.wasm"),
        (vec!["rollback", "actor"], "it has no earlier version"),
        (vec!["rollback", "actor", "--to", "sha256:00"], "it has no version sha256:00; kept are: sha256:"),
    ] {
        let refused = running.client(&arguments);
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains(words), "{arguments:?}: {said}");
    }
    assert_eq!(running.get("/v1/handlers"), before);
    assert_eq!(handled_by(&running, "1"), running.versions("actor")[0]);
    let same = gristmill_test_guests::path(ACTOR);
    let said = text(&running.client(&["deploy", "actor", same.to_str().unwrap()]).stdout);
    assert!(said.ends_with(" already\n"), "{said}");
    assert_eq!(running.get("/v1/handlers"), before);
}
