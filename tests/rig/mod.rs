//! A deployment in a temporary directory, run by the real binary.
#![allow(dead_code, reason = "shared by test binaries that use different parts")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's rig")]

pub(crate) mod load;
pub(crate) mod registry;
pub(crate) mod web;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// No signal that a test waits for takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a named pipe.
pub(crate) fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Opens a named pipe for writing, which waits for a reader.
pub(crate) fn feed(path: &Path) -> File {
    let (sender, opened) = channel();
    let path = path.to_owned();
    std::thread::spawn(move || sender.send(File::options().write(true).open(path)));
    opened.recv_timeout(PATIENCE).expect("nobody reads the pipe").unwrap()
}

pub(crate) struct Deployment {
    directory: TempDir,
}

/// The binary that cargo has just built.
pub(crate) fn gristmill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    for name in ["GRISTMILL_URL", "GRISTMILL_CONFIG", "GRISTMILL_LOG", "GRISTMILL_LOG_FORMAT"] {
        command.env_remove(name);
    }
    // Compiled code is shared by the tests, and with nobody else.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command.stdin(Stdio::null());
    command
}

/// A handler of the guest `actor` with short limits. `extra` is more TOML.
pub(crate) fn actor(name: &str, subscribe: &str, extra: &str) -> String {
    handler(name, gristmill_test_guests::ACTOR, subscribe, &format!("grant = {{ emit = [\"test.*\"] }}\n{extra}"))
}

/// A handler of the guest `acker`.
pub(crate) fn acker(name: &str, subscribe: &str) -> String {
    handler(name, gristmill_test_guests::ACKER, subscribe, "")
}

/// A handler of the plain program, in the form that `guest` names, with short limits.
pub(crate) fn program(name: &str, guest: &str, subscribe: &str, extra: &str) -> String {
    handler(name, guest, subscribe, &format!("grant = {{ emit = [\"test.*\"] }}\n{extra}"))
}

/// A handler of the guest `batcher`. `extra` is more TOML, and counts where it contradicts the short limits.
pub(crate) fn batcher(name: &str, subscribe: &str, extra: &str) -> String {
    let grant = "grant = { emit = [\"*\"], state = [\"counts\"] }";
    let all = handler(name, gristmill_test_guests::BATCHER, subscribe, &format!("{grant}\n{extra}"));
    // Of a key that is written twice, the last one.
    let key = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
    let lines: Vec<_> = all.lines().collect();
    let last = |at: usize| !lines[at + 1..].iter().any(|other| !other.is_empty() && key(other) == key(lines[at]));
    let kept = (0..lines.len()).filter(|at| last(*at)).map(|at| lines[at].to_owned() + "\n");
    kept.collect()
}

/// A handler of the guest `messenger`, with short limits.
pub(crate) fn messenger(name: &str, subscribe: &str) -> String {
    handler(name, gristmill_test_guests::MESSENGER, subscribe, "grant = { emit = [\"test.*\"] }")
}

/// A handler of the guest `keeper`. `extra` is more TOML, the grant among it.
pub(crate) fn keeper(name: &str, subscribe: &str, extra: &str) -> String {
    handler(name, gristmill_test_guests::KEEPER, subscribe, extra)
}

/// A handler of a guest, with short limits. `extra` is more TOML.
pub(crate) fn handler(name: &str, guest: &str, subscribe: &str, extra: &str) -> String {
    let component = gristmill_test_guests::path(guest);
    format!(
        "[[handler]]\nname = \"{name}\"\ncomponent = {component:?}\nsubscribe = [{subscribe}]\n\
         timeout = \"2s\"\nmemory = \"16MiB\"\nmax-attempts = 3\n\
         backoff = {{ base = \"100ms\", factor = 1.0, max = \"1s\", jitter = 0.0 }}\n{extra}\n"
    )
}

/// `text` with another part in place of one that has to be there.
#[track_caller]
pub(crate) fn swapped(text: &str, part: &str, other: &str) -> String {
    assert!(text.contains(part), "{part:?} is not in {text}");
    text.replace(part, other)
}

/// The guest as another version of itself: it does the same, and has another digest for each `number`.
pub(crate) fn version(guest: &str, number: u8) -> Vec<u8> {
    let mut bytes = gristmill_test_guests::bytes(guest);
    // A custom section: its kind, its size, the length of its name, the name, and what is in it.
    bytes.extend([0, 3, 1, b'v', number]);
    bytes
}

/// An event of type `ty`.
pub(crate) fn event(id: &str, ty: &str, data: Value) -> Value {
    json!({ "specversion": "1.0", "id": id, "source": "/test", "type": ty, "data": data })
}

impl Deployment {
    pub(crate) fn new(handlers: &[String]) -> Self {
        let directory = TempDir::new().unwrap();
        let head = "[http]\nlisten = \"127.0.0.1:0\"\n[runtime]\nshutdown-grace = \"1s\"\n";
        std::fs::write(directory.path().join("runtime.toml"), format!("{head}{}", handlers.concat())).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("runtime.toml")
    }

    /// Puts another part in place of one of the configuration.
    #[track_caller]
    pub(crate) fn swap(&self, part: &str, other: &str) {
        let config = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), swapped(&config, part, other)).unwrap();
    }

    /// Writes the events as NDJSON.
    pub(crate) fn events(&self, events: &[Value]) -> PathBuf {
        let path = self.path().join("events.ndjson");
        let lines = events.iter().fold(String::new(), |mut lines, event| {
            writeln!(lines, "{event}").unwrap();
            lines
        });
        std::fs::write(&path, lines).unwrap();
        path
    }

    /// A command of the binary, with this deployment's configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = gristmill();
        // In front: the arguments may end with an option whose value is still to come.
        command.arg("--config").arg(self.config()).args(arguments);
        command
    }

    /// Publishes the events, runs until nothing is left to do, and returns what the command printed.
    pub(crate) fn run_until_idle(&self, events: &[Value]) -> Output {
        let file = self.events(events);
        let mut command = self.command(&["run", "--until-idle", "--publish"]);
        let output = command.arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Starts the runtime, and returns when it is ready.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, arguments: &[&str]) -> Running {
        self.start_in(arguments, &[])
    }

    /// The same, with more variables in its environment.
    pub(crate) fn start_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        self.launch(arguments, environment).made_ready()
    }

    /// Starts a runtime that has little to say of each event: for thousands of them.
    pub(crate) fn start_quietly(&self) -> Running {
        self.launch_logging("info", &[], &[]).made_ready()
    }

    /// The same, but returns at once: nobody knows yet where it will listen.
    pub(crate) fn launch(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        self.launch_logging("debug", arguments, environment)
    }

    fn launch_logging(&self, level: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = self.command(&["run", "--log", level, "--log-format", "json"]);
        command.envs(environment.iter().copied());
        let mut child = command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or_else(|_| json!({ "message": line }));
                if sender.send(record).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, url: String::new() }
    }
}

/// A client of plain HTTP.
fn client() -> reqwest::Client {
    gristmill::tls::use_ring();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build().unwrap()
}

/// Deploys a component to the runtime at `url`; calls `begin` in the moment before the request is sent. The status, and
/// what was said; an error if there was no answer.
pub(crate) fn deploy(
    url: &str,
    handler: &str,
    component: Vec<u8>,
    begin: impl FnOnce(),
) -> reqwest::Result<(u16, Value)> {
    let url = format!("{url}/v1/handlers/{handler}/component?now=true");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let request = client().put(url).body(component);
        begin();
        let response = request.send().await?;
        let status = response.status().as_u16();
        // The status is an answer, even if the rest of it does not come.
        let body = response.bytes().await.unwrap_or_default();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    })
}

/// A runtime at work; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Value>,
    pub(crate) url: String,
}

impl Running {
    fn made_ready(mut self) -> Self {
        self.url = self.await_log("ready")["url"].as_str().unwrap().to_owned();
        self
    }

    /// The next log record with this message.
    pub(crate) fn await_log(&self, message: &str) -> Value {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(record) if record["message"] == message => return record,
                Ok(record) => seen.push(record.to_string()),
                Err(_) => panic!("{message:?} was not logged, but:\n{}", seen.join("\n")),
            }
        }
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.request(reqwest::Method::GET, path, "", String::new());
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// What is at `path`, as text.
    pub(crate) fn page(&self, path: &str) -> String {
        let url = format!("{}{path}", self.url);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = client();
            client.get(url).send().await.unwrap().text().await.unwrap()
        })
    }

    /// Publishes in structured mode; the reply's only result.
    pub(crate) fn publish(&self, event: &Value) -> Value {
        let (status, body) =
            self.request(reqwest::Method::POST, "/v1/events", "application/cloudevents+json", event.to_string());
        assert_eq!(status, 202, "{body}");
        body["results"][0].clone()
    }

    pub(crate) fn request(
        &self,
        method: reqwest::Method,
        path: &str,
        content_type: &str,
        body: String,
    ) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = client();
            let mut request = client.request(method, url);
            if !content_type.is_empty() {
                request = request.header("content-type", content_type).body(body);
            }
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body = response.bytes().await.unwrap();
            (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
        })
    }

    /// Every entry of a queue in a state.
    pub(crate) fn entries(&self, queue: &str, state: &str) -> Vec<Value> {
        self.get(&format!("/v1/queues/{queue}/entries?state={state}&limit=1000"))["items"].as_array().unwrap().clone()
    }

    /// The same, where there may be more of them than one page holds.
    pub(crate) fn all_entries(&self, queue: &str, state: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/v1/queues/{queue}/entries?state={state}&limit=1000{cursor}"));
            all.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// The entry of the event with this id, in a state.
    pub(crate) fn entry(&self, queue: &str, state: &str, id: &str) -> Value {
        let entries = self.entries(queue, state);
        let found = entries.iter().find(|entry| entry["event"]["id"] == id);
        found.unwrap_or_else(|| panic!("no {state} entry of {id} in {queue}: {entries:?}")).clone()
    }

    /// A command of the binary that talks to this runtime.
    pub(crate) fn client(&self, arguments: &[&str]) -> Output {
        gristmill().args(arguments).args(["--url", &self.url]).output().unwrap()
    }

    /// Looks until there is something.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let started = std::time::Instant::now();
        loop {
            if let Some(seen) = look(self) {
                return seen;
            }
            assert!(started.elapsed() < PATIENCE, "it did not come to pass: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The versions of a handler by their digests; the first is current.
    pub(crate) fn versions(&self, handler: &str) -> Vec<String> {
        let handlers = self.get("/v1/handlers");
        let found = handlers["items"].as_array().unwrap().iter().find(|item| item["name"] == handler);
        let versions = found.unwrap_or_else(|| panic!("no {handler} in {handlers}"))["versions"].as_array().unwrap();
        versions.iter().map(|version| version["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// An entry, when it is done.
    pub(crate) fn done(&self, entry: &str) -> Value {
        self.until("the entry is done", |running| {
            let entry = running.get(&format!("/v1/entries/{entry}"));
            (entry["state"] == "done").then_some(entry)
        })
    }

    /// The digest of the version of a handler that handles events, if there is such a handler.
    pub(crate) fn current(&self, handler: &str) -> Option<String> {
        let handlers = self.get("/v1/handlers");
        let found = handlers["items"].as_array().unwrap().iter().find(|item| item["name"] == handler)?;
        Some(found["versions"][0]["digest"].as_str().unwrap().to_owned())
    }

    /// Deploys a component, which takes over at once if it can. The status, and what was said.
    pub(crate) fn deploy(&self, handler: &str, component: Vec<u8>) -> (u16, Value) {
        deploy(&self.url, handler, component, || ()).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let killed = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(killed.success());
    }

    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// Ends it in the middle of what it does. Returns when it is over.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(self) {
        self.signal("TERM");
        let status = self.wait();
        assert!(status.success(), "{status}");
    }

    /// The same, of one that may not end. Its log ends with the process. The messages of the rest of the log.
    pub(crate) fn stop_in_time(self) -> Vec<String> {
        self.signal("TERM");
        let mut messages = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(record) => messages.push(record["message"].to_string()),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on after:\n{}", messages.join("\n")),
            }
        }
        let status = self.wait();
        assert!(status.success(), "{status}");
        messages
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Output as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The outcomes in an entry's history.
pub(crate) fn outcomes(entry: &Value) -> Vec<String> {
    let history = entry["history"].as_array().unwrap();
    history.iter().map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect()
}

/// The reason of the last attempt.
pub(crate) fn reason(entry: &Value) -> String {
    entry["history"].as_array().unwrap().last().unwrap()["reason"].as_str().unwrap().to_owned()
}
