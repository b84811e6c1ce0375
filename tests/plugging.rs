//! The folder of plugins: a component that is put there handles events, and what becomes of it when it changes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gristmill_host::digest;
use gristmill_test_guests::ACKER;
use serde_json::{Value, json};

use super::rig::{Deployment, Running, event, gristmill, text, version};

/// A deployment with a folder of plugins, and nothing in it.
fn empty() -> Deployment {
    let plugins = "[plugins]\ndir = \"plugins\"\nallow-subscribe = [\"test.*\"]\n";
    let deployment = Deployment::new(&[plugins.to_owned()]);
    fs::create_dir(folder(&deployment)).unwrap();
    // Whatever the umask is: a folder that others can write to is refused.
    fs::set_permissions(folder(&deployment), fs::Permissions::from_mode(0o755)).unwrap();
    deployment
}

fn folder(deployment: &Deployment) -> PathBuf {
    deployment.path().join("plugins")
}

/// Opens a file of the folder that only its owner can write to.
fn create(deployment: &Deployment, name: &str) -> fs::File {
    let path = folder(deployment).join(name);
    fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).unwrap()
}

/// Puts a file there as who deploys with care does: under another name first.
fn put(deployment: &Deployment, name: &str, bytes: &[u8]) {
    create(deployment, ".new").write_all(bytes).unwrap();
    fs::rename(folder(deployment).join(".new"), folder(deployment).join(name)).unwrap();
}

/// A component that acks everything of `test.*`, as it says itself; another one for each `number`.
fn plugin(deployment: &Deployment, number: u8) -> Vec<u8> {
    let (component, manifest) = (deployment.path().join("built.wasm"), deployment.path().join("manifest.toml"));
    fs::write(&component, version(ACKER, number)).unwrap();
    fs::write(&manifest, "subscribe = [{ type = \"test.*\" }]\n").unwrap();
    let embedded = gristmill().arg("embed").arg(&component).arg("--manifest").arg(&manifest).output().unwrap();
    assert!(embedded.status.success(), "{}", text(&embedded.stderr));
    fs::read(component).unwrap()
}

/// Publishes; the entry, if somebody subscribes to it.
fn published(running: &Running, id: &str) -> Option<String> {
    let event = event(id, "test.ack", json!(1)).to_string();
    let (status, reply) = running.request(reqwest::Method::POST, "/v1/events", "application/cloudevents+json", event);
    assert!(status == 202 || status == 422, "{status}: {reply}");
    (status == 202).then(|| reply["results"][0]["entries"][0]["entry"].as_str().unwrap().to_owned())
}

/// Which version handles an event that is published now.
fn handles(running: &Running, id: &str) -> String {
    let entry = published(running, id).expect("somebody subscribes");
    running.done(&entry)["history"][0]["version"].as_str().unwrap().to_owned()
}

/// Files of the folder that cannot be used.
fn wrong(running: &Running) -> Vec<Value> {
    running.get("/v1/status")["plugins"].as_array().unwrap().clone()
}

/// Waits until the plugin is this one.
fn until_current(running: &Running, name: &str, bytes: &[u8]) {
    let new = digest(bytes);
    running.until("the plugin is at work", |running| (running.current(name)? == new).then_some(()));
}

#[test]
fn a_file_that_appears_handles_events_and_one_that_goes_leaves_its_queue_paused() {
    let deployment = empty();
    let running = deployment.start();
    assert_eq!(published(&running, "early"), None);
    let [first, second, third] = [1, 2, 3].map(|number| plugin(&deployment, number));

    let began = Instant::now();
    put(&deployment, "acker.wasm", &first);
    let entry = running.until("somebody subscribes", |running| published(running, "1"));
    let done = running.done(&entry);
    println!("from the new file to the end of its first event: {:?}", began.elapsed());
    assert_eq!((&done["queue"], &done["history"][0]["version"]), (&json!("acker"), &json!(digest(&first))));

    put(&deployment, "acker.wasm", &second);
    until_current(&running, "acker", &second);
    assert_eq!(handles(&running, "2"), digest(&second));

    put(&deployment, "acker.wasm", &third[..4_000]);
    let told = running.until("the broken file is told", |running| wrong(running).pop());
    assert!(told["path"].as_str().unwrap().ends_with("acker.wasm"), "{told}");
    assert!(!told["error"].as_str().unwrap().is_empty(), "{told}");
    assert_eq!(running.current("acker"), Some(digest(&second)));
    assert_eq!(handles(&running, "3"), digest(&second));

    put(&deployment, "acker.wasm", &third);
    until_current(&running, "acker", &third);
    assert_eq!((wrong(&running), handles(&running, "4")), (vec![], digest(&third)));

    fs::remove_file(folder(&deployment).join("acker.wasm")).unwrap();
    let paused = running.until("the queue is paused", |running| {
        let queue = running.get("/v1/queues/acker");
        (queue["paused"] == true).then_some(queue)
    });
    assert_eq!((&paused["pause_reason"], &paused["handler"]), (&json!("its handler was removed"), &Value::Null));
    assert_eq!((running.current("acker"), published(&running, "late")), (None, None));

    put(&deployment, "acker.wasm", &first);
    let entry = running.until("it is back", |running| published(running, "5"));
    assert_eq!(running.done(&entry)["history"][0]["version"], digest(&first));
}

#[test]
fn a_component_with_its_manifest_beside_it_handles_events_after_a_restart_too() {
    let deployment = empty();
    let component = version(ACKER, 1);
    put(&deployment, "beside.toml", b"subscribe = [{ type = \"test.*\" }]\n");
    put(&deployment, "beside.wasm", &component);
    let running = deployment.start();
    assert_eq!(handles(&running, "1"), digest(&component));
    running.stop();
    let other = version(ACKER, 2);
    put(&deployment, "beside.wasm", &other);
    let running = deployment.start();
    assert_eq!(handles(&running, "2"), digest(&other), "what changed while nothing ran is found at the start");
}

#[test]
fn a_file_that_is_written_slowly_is_loaded_once() {
    let deployment = empty();
    let running = deployment.start();
    let component = plugin(&deployment, 1);
    let mut file = create(&deployment, "slow.wasm");
    for part in component.chunks(component.len() / 30) {
        file.write_all(part).unwrap();
        // Whoever reads what is not touched for a moment finds a part of it.
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!((running.current("slow"), wrong(&running)), (None, vec![]));
    }
    drop(file);
    until_current(&running, "slow", &component);
    assert_eq!((running.versions("slow"), wrong(&running)), (vec![digest(&component)], vec![]));
    assert_eq!(handles(&running, "1"), digest(&component));
}
