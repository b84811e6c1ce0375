//! What handlers are configured with, what they see of the machine, and what they log, through the binary.

use std::fs;
use std::process::{Command, Output};

use gristmill_test_guests::{CONFIGURED, PROGRAM_COMPONENT, PROGRAM_MODULE, VISITOR_COMPONENT, VISITOR_MODULE};
use serde_json::{Value, json};

use crate::rig::{self, Deployment, Running, event, text};

const ALL: &str = "{ type = \"test.*\" }";
const SECRETS: [&str; 2] = ["env-hunter2", "file-hunter2"];

fn about(id: &str, ty: &str, subject: &str) -> Value {
    let mut event = event(id, ty, json!(1));
    event["subject"] = json!(subject);
    event
}

fn handler(guest: &str, extra: &str) -> Deployment {
    Deployment::new(&[rig::handler("seer", guest, ALL, extra)])
}

/// What was printed and logged by whoever handled these events.
fn handled(deployment: &Deployment, events: &[Value], arguments: &[&str]) -> String {
    let file = deployment.events(events);
    let mut run = deployment.command(&["run", "--until-idle"]);
    let output = run.args(arguments).arg("--publish").arg(file).env("GM_KEY", SECRETS[0]).output().unwrap();
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{all}");
    all
}

/// The records that handlers logged, of JSON.
fn records(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|record| record["target"] == "handler").collect()
}

fn messages(log: &str) -> Vec<String> {
    records(log).iter().map(|record| record["message"].as_str().unwrap().to_owned()).collect()
}

const CONFIG: &str = "config = { width = 6_40, ratio = 0.5, deep = true, api-key = { env = \"GM_KEY\" }, cert = { file = \"cert.pem\" } }";

#[test]
fn secrets_reach_their_handler_and_nobody_else() {
    let deployment = handler(CONFIGURED, CONFIG);
    fs::write(deployment.path().join("cert.pem"), "file-hunter2\r\n").unwrap();
    let check = deployment.command(&["check"]).env("GM_KEY", SECRETS[0]).output().unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
    let events = [about("1", "test.candidate", "cert"), about("2", "test.draft", "none")];
    let mut shown = text(&check.stdout) + &text(&check.stderr);
    shown += &handled(&deployment, &events, &["--log", "trace"]);
    // A wrong interface, so that loading fails late.
    let broken = handler(VISITOR_COMPONENT, &format!("interface = \"gristmill:events/handler\"\n{CONFIG}"));
    fs::write(broken.path().join("cert.pem"), SECRETS[1]).unwrap();
    let wrong = broken.command(&["check", "--log", "trace"]).env("GM_KEY", SECRETS[0]).output().unwrap();
    assert!(!wrong.status.success());
    shown += &(text(&wrong.stdout) + &text(&wrong.stderr));
    // A granted variable, of which the guest tells no more than that it is there.
    for guest in [PROGRAM_COMPONENT, PROGRAM_MODULE] {
        let deployment = handler(guest, "grant = { emit = [\"test.*\"], env = [\"GM_KEY\"] }");
        let log = handled(&deployment, &[event("1", "test.surroundings", json!(1))], &["--log", "trace"]);
        assert!(log.contains("0 1 0"), "{log}");
        shown += &log;
    }
    for secret in SECRETS {
        assert!(!shown.contains(secret), "{shown}");
    }

    let running = deployment.start_in(&[], &[("GM_KEY", SECRETS[0])]);
    let all = json!([
        ["api-key", "env-hunter2"],
        ["cert", "file-hunter2"],
        ["deep", "true"],
        ["ratio", "0.5"],
        ["width", "640"]
    ]);
    assert_eq!(running.entry("seer", "done", "1")["result"], json!(["file-hunter2", all]));
    assert_eq!(running.entry("seer", "done", "2")["result"], json!([null, all]));
}

#[test]
fn secrets_that_cannot_be_read_stop_the_start() {
    let deployment = handler(CONFIGURED, CONFIG);
    let run = |arguments: &[&str]| deployment.command(arguments).env_remove("GM_KEY").output().unwrap();
    for output in [run(&["check"]), run(&["run"])] {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let config = fs::read_to_string(deployment.config()).unwrap();
        let line = config.lines().position(|line| line == CONFIG).unwrap() + 1;
        let at = |word: &str| format!("runtime.toml:{line}:{}: ", CONFIG.find(word).unwrap() + 1);
        let expected = [
            format!("{}`api-key` in `config`: the environment variable `GM_KEY` is not set", at("\"GM_KEY\"")),
            format!("{}`cert` in `config`: cannot read ", at("\"cert.pem\"")),
        ];
        assert!(expected.iter().all(|words| said.contains(words)) && said.contains("handler `seer`"), "{said}");
    }
}

/// Has an event handled, and gives the record of it.
fn handle(running: &Running, id: &str) {
    running.publish(&about(id, "test.later-draft", "cert"));
    running.await_log("handled");
}

#[test]
fn a_signal_has_secrets_read_again() {
    let deployment = handler(CONFIGURED, "config = { cert = { file = \"cert.pem\" }, fixed = \"1\" }");
    let cert = deployment.path().join("cert.pem");
    let reread = |running: &Running| {
        running.signal("HUP");
        running.await_log("the secrets of all handlers were read again");
    };
    fs::write(&cert, "first").unwrap();
    let running = deployment.start();
    handle(&running, "1");
    fs::write(&cert, "second\n").unwrap();
    handle(&running, "2");
    reread(&running);
    handle(&running, "3");
    fs::remove_file(&cert).unwrap();
    running.signal("HUP");
    let record = running.await_log("a secret cannot be read again: its value stays as it was");
    assert_eq!(
        (&record["level"], &record["handler"], &record["key"]),
        (&json!("ERROR"), &json!("seer"), &json!("cert"))
    );
    assert!(!record.to_string().contains("second"), "{record}");
    running.await_log("the secrets of the handlers were read again, but for those that could not be");
    handle(&running, "4");
    running.stop();

    fs::write(&cert, "fifth").unwrap();
    let running = deployment.start();
    let told = |id| running.entry("seer", "done", id)["result"][0].clone();
    assert_eq!(["1", "2", "3", "4"].map(told), ["first", "first", "second", "second"]);
}

#[test]
fn a_deployment_grants_variables_and_directories() {
    let grant = "grant = { env = [\"GM_KEY\", \"GM_UNSET\"], files = [\"in:read\", { path = \"out\", as = \"/made\", access = \"write\" }] }";
    for guest in [VISITOR_COMPONENT, VISITOR_MODULE] {
        let deployment = handler(guest, grant);
        let check = |deployment: &Deployment| {
            let output = deployment.command(&["check"]).env("GM_KEY", "1").env_remove("GM_UNSET").output().unwrap();
            (output.status.success(), text(&output.stdout) + &text(&output.stderr))
        };
        let (loads, said) = check(&deployment);
        assert!(!loads && said.contains("cannot be opened") && said.contains("/in"), "{said}");
        for directory in ["in", "out"] {
            fs::create_dir(deployment.path().join(directory)).unwrap();
        }
        fs::write(deployment.path().join("in/a.txt"), "alpha").unwrap();
        let (loads, said) = check(&deployment);
        assert!(loads && said.contains("env: GM_KEY, GM_UNSET; files: "), "{said}");
        assert!(said.contains("seer is granted the environment variable GM_UNSET, which is not set here\n"), "{said}");
        assert_eq!(said.contains("grant = { sockets = "), guest == VISITOR_COMPONENT, "{said}");
        assert!(!said.contains("grant = { files = ") && !said.contains("grant = { env = "), "{said}");

        let events = [
            about("1", "test.env", "-"),
            about("2", "test.read", "/in/a.txt"),
            about("3", "test.write", "/made/b.txt"),
            about("4", "test.write", "/in/b.txt"),
            about("5", "test.read", "/in/../runtime.toml"),
        ];
        let log = handled(&deployment, &events, &["--log-format", "json"]);
        let mut messages = messages(&log);
        messages.sort_unstable();
        assert_eq!(messages[..3], ["GM_KEY=env-hunter2", "alpha", "done"], "{guest}: {messages:?}");
        assert!(messages.len() == 5 && messages[3..].iter().all(|line| line.starts_with("failed: ")), "{messages:?}");
        assert_eq!(fs::read_to_string(deployment.path().join("out/b.txt")).unwrap(), "written");
    }
}

#[test]
fn a_pipe_that_a_handler_waits_for_does_not_hold_the_process() {
    for guest in [VISITOR_COMPONENT, VISITOR_MODULE] {
        let deployment = handler(guest, "grant = { files = [\"in:read\"] }");
        fs::create_dir(deployment.path().join("in")).unwrap();
        let pipe = deployment.path().join("in/pipe");
        rig::pipe(&pipe);
        let running = deployment.start();
        running.publish(&about("1", "test.read", "/in/pipe"));
        let fed = rig::feed(&pipe);
        running.stop_in_time();
        drop(fed);
    }
}

#[test]
fn nobody_is_granted_the_queues_own_files() {
    for path in ["data", "data/below", ".", "link"] {
        let deployment = handler(VISITOR_COMPONENT, &format!("grant = {{ files = [\"{path}:/in:read\"] }}"));
        fs::create_dir_all(deployment.path().join("data/below")).unwrap();
        std::os::unix::fs::symlink("data", deployment.path().join("link")).unwrap();
        let output = deployment.command(&["check"]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path}: {said}");
        assert!(said.contains("the queue's store is in "), "{path}: {said}");
    }
    // Before there is any.
    let early = handler(VISITOR_COMPONENT, "grant = { files = [\".:/in:read\"] }");
    assert_eq!(early.command(&["check"]).output().unwrap().status.code(), Some(1));
    let memory = handler(VISITOR_COMPONENT, "grant = { files = [\".:/in:read\"] }\n[queue]\nengine = \"memory\"");
    assert!(memory.command(&["check"]).output().unwrap().status.success(), "there are no files");
}

#[test]
fn invoke_takes_grants_and_values() {
    let deployment = Deployment::new(&[]);
    fs::write(deployment.path().join("a.txt"), "alpha").unwrap();
    let invoke = |guest: &str, event: Value, arguments: &[&str]| -> Output {
        let file = deployment.events(&[event]);
        let mut invoke: Command = rig::gristmill();
        invoke.arg("invoke").arg(gristmill_test_guests::path(guest)).arg("--event").arg(file).args(arguments);
        invoke.env("GM_KEY", "1=2").env_remove("GM_UNSET").current_dir(deployment.path()).output().unwrap()
    };
    let set = ["--set", "width=6=4", "--set", "empty="];
    let shown = text(&invoke(CONFIGURED, about("1", "test.candidate", "width"), &set).stdout);
    assert!(shown.contains(r#"result   ["6=4",[["empty",""],["width","6=4"]]]"#), "{shown}");
    let shown = text(&invoke(VISITOR_MODULE, about("1", "test.env", "-"), &["--env", "GM_KEY"]).stdout);
    assert!(shown.contains("GM_KEY=1=2\n"), "{shown}");
    let shown = text(&invoke(VISITOR_MODULE, about("1", "test.read", "/in/a.txt"), &["--files", ".:/in:read"]).stdout);
    assert!(shown.contains("alpha\n"), "{shown}");
    for wrong in [["--set", "width"], ["--set", "=1"], ["--files", "in"], ["--sockets", "db:80"]] {
        assert_eq!(invoke(CONFIGURED, about("1", "test.candidate", "-"), &wrong).status.code(), Some(2), "{wrong:?}");
    }
    let unset = invoke(VISITOR_MODULE, about("1", "test.env", "-"), &["--env", "GM_UNSET"]);
    assert!(!unset.status.success() && text(&unset.stderr).contains("--env GM_UNSET"), "{}", text(&unset.stderr));
}

#[test]
fn lines_of_a_handler_are_records_without_control_characters() {
    let deployment = handler(VISITOR_COMPONENT, "");
    let mut traced = about("1", "test.paint", "-");
    traced["traceparent"] = json!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let mut untraced = about("2", "test.paint", "-");
    untraced["traceparent"] = json!("00-4bf92f35-00f067aa0ba902b7-01");
    let events = [traced, untraced];
    let painted = r"\u{1b}[31mred\u{1b}[0m\rover\u{7}\u{9b}2J \u{202e}back\tq";
    let log = handled(&deployment, &events, &["--log-format", "json"]);
    let mut records = records(&log);
    records.sort_by_key(|record| record["trace_id"].is_null());
    assert_eq!(records.len(), 2, "{log}");
    let digest = format!("sha256:{}", "x".repeat(12)).len();
    for record in &records {
        assert_eq!(record["message"], painted);
        assert_eq!((&record["handler"], &record["attempt"]), (&json!("seer"), &json!(1)), "{record}");
        assert_eq!((&record["level"], &record["context"]), (&json!("WARN"), &json!("stderr")), "{record}");
        assert_eq!(record["version"].as_str().unwrap().len(), digest, "{record}");
        assert!(!record["entry"].as_str().unwrap().is_empty(), "{record}");
    }
    assert_eq!(records[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(records[1]["trace_id"], Value::Null);

    let deployment = handler(VISITOR_COMPONENT, "");
    let log = handled(&deployment, &events, &["--log-format", "text"]);
    assert!(log.contains(painted), "{log}");
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()) && !log.contains('\u{202e}'), "{log:?}");
}

#[test]
fn a_handler_logs_no_more_than_it_may() {
    let slow = "max-log-rate = { per-second = 0.001, burst = 10 }\nconcurrency = 1";
    let deployment = handler(VISITOR_COMPONENT, slow);
    let events = [about("1", "test.chatter", "7"), about("2", "test.chatter", "500")];
    let log = handled(&deployment, &events, &["--log-format", "json"]);
    let records = records(&log);
    let lines = records.iter().filter(|record| record["message"].as_str().unwrap().starts_with("line ")).count();
    assert_eq!(lines, 10, "{log}");
    let dropped: u64 = records.iter().filter_map(|record| record["dropped"].as_u64()).sum();
    assert_eq!(dropped, 497, "{log}");
    assert!(log.contains(" lines dropped: the handler logs more than `max-log-rate` allows"), "{log}");

    let little = handler(VISITOR_COMPONENT, "max-log-bytes = \"1KiB\"");
    let log = handled(&little, &events[1..], &["--log-format", "json"]);
    let messages = messages(&log);
    assert_eq!(
        messages.last().map(String::as_str),
        Some("the log ends here: more than 1024 bytes were written (`max-log-bytes`)")
    );
    assert!(messages.len() < 200, "{}", messages.len());
}
