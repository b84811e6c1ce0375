//! `runtime.toml`: what is understood, and how every mistake is explained.
//!
//! Each `config-errors/NAME.toml` is rendered to `NAME.err` beside it. `UPDATE_GOLDEN=1 cargo test -p gristmill --test
//! config` rewrites them; then read what changed.

#![allow(clippy::unwrap_used, reason = "a test's helpers: whatever fails, fails the test")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gristmill::config::{
    self, BucketConfig, CodeCache, Color, Config, ConfigErrors, ConfigValue, DurabilityKind, EngineKind, Granted,
    HandlerConfig, HostConfig, PluginsConfig, QueueConfig,
};
use gristmill::source::Source;
use gristmill_core::{Backoff, Pattern, QueueName, RetryPolicy, Secret, Subscription};
use gristmill_host::{ChildCompiler, HostOptions, Instances, Interface, Limits};
use gristmill_queue::{EngineOptions, KeyOptions, OnDead, Payload, QueueOptions, Rate, Retention};
use proptest::prelude::*;

#[path = "config/manifests.rs"]
mod manifests;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Every key that there is.
const FULL: &str = r#"
[runtime]
data-dir = "${ROOT}/queue"
shutdown-grace = "1.5s"
memory = "2GiB"
max-instances = 100
stack = "2MiB"
max-component-size = "100MiB"
compile-time = "90s"
compile-memory = "4GiB"
code-cache = "cache"
code-cache-size = "2GiB"
keep-versions = 100

[http]
listen = "[::1]:0"

[queue]
engine = "rocksdb"
durability = "os"
max-event-size = "16MiB"
idempotency-window = "0s"
disk-reserve = "1GiB"
write-buffer = "128MiB"
cache = "1GiB"

[log]
retention = "7d"

[plugins]
dir = "more"
allow-subscribe = ["${EVENT}", "com.acme.*"]
require-digest = true

[defaults]
max-attempts = 0
lease = "2m"
backoff = { base = "500ms", factor = 3, max = "10m", jitter = 0.0 }
timeout = "1m"
memory = "128MiB"
concurrency = 8
max-state-writes = 10
max-log-rate = { per-second = 5, burst = 50 }
key-concurrency = 2
on-dead = "hold"
rate = { per-second = 2.5 }
key-rate = { per-second = 1, burst = 3 }
max-in-flight = 100
max-events = 1_000_000
max-bytes = "1GiB"
time-to-live = "1h"
max-age = "7d"
done-retention = { age = "1h", count = "unlimited" }
dead-retention = { age = "90d" }
cancelled-retention = { count = 0 }
keep-payload = true

[[handler]]
name = "resize"
component = "plugins/resize.wasm"
digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
interface = "wasi:cli/run"
subscribe = [{ type = "com.acme.image.*", source = "/shop" }, { subject = "$${x}" }]
grant = { emit = ["com.acme.thumbnail.*", "${EVENT}"], state = ["thumbnails", "prices:read"], env = ["TZ"], files = [
    "in:read", "/srv/out:write", { path = "../a:b", as = "/c/" }], sockets = ["tcp://10.0.0.0/8:*", "udp://DB.internal:53"] }
config = { width = 0x280, ratio = 0.50, "a.b" = true, event = "${EVENT}", key = { env = "API_KEY" }, cert = { file = "c.pem" } }
max-log-rate = "unlimited"
max-state-writes = 50_000
max-state-bytes = "64MiB"
max-emits = 0
max-emit-bytes = "1KiB"
max-log-bytes = "0B"
max-result-bytes = "2MiB"
max-call-bytes = "1GiB"
max-handles = 16
instances = "reuse"
reuse-events = 1
reuse-for = "1s"
max-attempts = 3
lease = "30s"
timeout = "5s"
memory = "1MiB"
concurrency = 1
ordering-key = "subject"
on-dead = "continue"
key-rate = "unlimited"
max-events = "unlimited"
max-bytes = "16MiB"
time-to-live = "unlimited"
done-retention = { age = "unlimited" }
keep-payload = false

[handler.backoff]
base = "2s"
jitter = 1

[[handler]]
name = "notify"
component = "/opt/notify.wasm"
subscribe = [{ type = "*" }]

[[bucket]]
name = "thumbnails"
max-bytes = "1GiB"

[[bucket]]
name = "prices"
max-bytes = "unlimited"
"#;

const SHORTEST: &str = r#"
[[handler]]
name = "hello"
component = "hello.wasm"
subscribe = [{ type = "*" }]
"#;

fn environment(name: &str) -> Option<String> {
    match name {
        "ROOT" => Some("/var/lib/gristmill".into()),
        "EVENT" => Some("com.acme.done".into()),
        "TIMEOUT" => Some("5".into()),
        "HUGE" => Some("8GiB".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    config::parse_with(text, Path::new("deploy/runtime.toml"), &environment)
}

fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

fn pattern(text: &str) -> Option<Pattern> {
    Some(Pattern::new(text))
}

/// Renders the errors of each `tests/FOLDER/NAME.toml`, which are to be as `NAME.err` says.
fn golden<T>(folder: &str, check: impl Fn(&str, &Path) -> Result<T, ConfigErrors>) {
    let folder = PathBuf::from("tests").join(folder);
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let files: BTreeSet<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut different = Vec::new();
    for path in files.iter().filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let origin = Path::new(path.file_name().unwrap());
        let Err(errors) = check(&fs::read_to_string(path).unwrap(), origin) else { panic!("{origin:?} is right") };
        assert!(!errors.problems().is_empty());
        assert!(errors.problems().is_sorted_by_key(|problem| problem.span().map(|span| span.start)), "{origin:?}");
        let rendered = errors.render(Color::Plain);
        let golden = path.with_extension("err");
        if update {
            fs::write(golden, rendered).unwrap();
        } else if fs::read_to_string(golden).ok().as_ref() != Some(&rendered) {
            different.push(format!("{}:\n{rendered}", origin.display()));
        }
    }
    assert!(different.is_empty(), "not as the golden files say (UPDATE_GOLDEN=1 accepts):\n\n{}", different.join("\n"));
    let orphans: Vec<_> = files
        .iter()
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "err") && !path.with_extension("toml").exists()
        })
        .collect();
    assert!(orphans.is_empty(), "without a .toml: {orphans:?}");
}

#[test]
fn every_mistake_is_explained() {
    golden("config-errors", |text, origin| config::parse_with(text, origin, &environment));
}

#[test]
fn every_key_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.data_dir, Path::new("/var/lib/gristmill/queue"));
    assert_eq!(config.shutdown_grace, Duration::from_millis(1_500));
    assert_eq!(config.listen, "[::1]:0".parse().unwrap());
    let queue = QueueConfig {
        engine: EngineKind::Rocksdb,
        durability: DurabilityKind::Os,
        max_event_size: 16 << 20,
        idempotency_window: Duration::ZERO,
        disk_reserve: 1 << 30,
        write_buffer: 128 << 20,
        cache: 1 << 30,
    };
    assert_eq!(config.queue, queue);
    assert_eq!(config.log_retention, Some(days(7)));
    let plugins = PluginsConfig {
        dir: Some("deploy/more".into()),
        allow_subscribe: vec![Pattern::new("com.acme.done"), Pattern::new("com.acme.*")],
        require_digest: true,
    };
    assert_eq!((&config.plugins, config.keep_versions), (&plugins, 100));
    let host = HostConfig {
        memory: 2 << 30,
        stack: 2 << 20,
        max_component_size: 100 << 20,
        compile_time: Duration::from_secs(90),
        compile_memory: 4 << 30,
        max_instances: Some(100),
        code_cache: CodeCache::Folder("deploy/cache".into()),
        code_cache_size: 2 << 30,
    };
    assert_eq!(config.host, host);
    let [resize, notify] = &config.handlers[..] else { panic!("{config:?}") };

    assert_eq!(resize.name, QueueName::new("resize").unwrap());
    assert_eq!(resize.component, Source::Path("deploy/plugins/resize.wasm".into()));
    assert_eq!(resize.digest.as_deref(), Some(DIGEST));
    assert_eq!(resize.interface, Some(Interface::Run));
    let subscribe = [
        Subscription { ty: pattern("com.acme.image.*"), source: pattern("/shop"), subject: None },
        Subscription { subject: pattern("${x}"), ..Subscription::default() },
    ];
    assert_eq!(resize.subscribe, subscribe);
    assert_eq!(resize.grant.emit, [Pattern::new("com.acme.thumbnail.*"), Pattern::new("com.acme.done")]);
    let state: Vec<_> = resize.grant.state.iter().map(ToString::to_string).collect();
    assert_eq!(state, ["thumbnails", "prices:read"]);
    let limits = Limits {
        timeout: Duration::from_secs(5),
        memory: 1 << 20,
        max_emits: 0,
        max_emit_bytes: 1 << 10,
        max_log_bytes: 0,
        max_event_size: 16 << 20,
        max_key_len: 1_024,
        max_state_writes: 50_000,
        max_state_bytes: 64 << 20,
        max_result_bytes: 2 << 20,
        max_call_bytes: 1 << 30,
        max_handles: 16,
    };
    assert_eq!(resize.limits, limits);
    assert_eq!(resize.instances, Instances::Reuse { events: 1, age: Duration::from_secs(1) });
    assert_eq!(resize.max_log_rate, None);
    assert_eq!(resize.grant.env, ["TZ"]);
    let files: Vec<_> = resize.grant.files.iter().map(ToString::to_string).collect();
    assert_eq!(files, ["deploy/in:/in:read", "/srv/out:/srv/out:write", "deploy/../a:b:/c:read"]);
    let sockets: Vec<_> = resize.grant.sockets.iter().map(ToString::to_string).collect();
    assert_eq!(sockets, ["tcp://10.0.0.0/8:*", "udp://db.internal:53"]);
    let text = |text: &str| ConfigValue::Text(Secret::new(text));
    let (line, _) = FULL.lines().enumerate().find(|(_, line)| line.starts_with("config = ")).unwrap();
    let place = |column| format!("deploy/runtime.toml:{}:{column}", line + 1);
    let expected = [
        ("a.b", text("true")),
        ("cert", ConfigValue::File { path: "deploy/c.pem".into(), place: place(118) }),
        ("event", text("com.acme.done")),
        ("key", ConfigValue::Env { name: "API_KEY".into(), place: place(89) }),
        ("ratio", text("0.50")),
        ("width", text("640")),
    ];
    let values: Vec<_> = resize.config.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    assert_eq!(values, expected);
    assert!(!format!("{:?}", resize.config).contains("com.acme.done"), "{:?}", resize.config);
    let bucket = |name: &str, max_bytes| BucketConfig { name: name.to_owned(), max_bytes };
    assert_eq!(config.buckets, [bucket("thumbnails", Some(1 << 30)), bucket("prices", None)]);
    assert_eq!(resize.concurrency, 1);
    let backoff = Backoff { base: Duration::from_secs(2), factor: 3.0, max: Duration::from_secs(600), jitter: 1.0 };
    let options = QueueOptions {
        retry: RetryPolicy { max_attempts: Some(3), backoff },
        lease: Duration::from_secs(30),
        time_to_live: None,
        max_age: Some(days(7)),
        max_events: None,
        max_bytes: Some(16 << 20),
        max_in_flight: 100,
        rate: Some(Rate { per_second: 2.5, burst: 3 }),
        key: KeyOptions { attribute: Some("subject".into()), concurrency: 2, rate: None, on_dead: OnDead::Continue },
        done: Retention { age: None, count: None },
        payload: Payload::Drop,
        dead: Retention { age: Some(days(90)), count: None },
        cancelled: Retention { age: Some(days(30)), count: Some(0) },
    };
    assert_eq!(resize.queue, options, "tables are merged key by key, but rates");

    assert_eq!(notify.component, Source::Path("/opt/notify.wasm".into()));
    assert_eq!(notify.digest, None);
    assert_eq!(notify.interface, None);
    assert_eq!(notify.grant, Granted::default());
    let limits = Limits {
        timeout: Duration::from_mins(1),
        memory: 128 << 20,
        max_event_size: 16 << 20,
        max_state_writes: 10,
        ..Limits::default()
    };
    assert_eq!(notify.limits, limits);
    assert_eq!(notify.max_log_rate, Some(Rate { per_second: 5.0, burst: 50 }));
    assert!(notify.config.is_empty());
    assert_eq!(notify.instances, Instances::Fresh);
    assert_eq!(notify.concurrency, 8);
    let backoff = Backoff { base: Duration::from_millis(500), jitter: 0.0, ..backoff };
    let key_rate = Some(Rate { per_second: 1.0, burst: 3 });
    let options = QueueOptions {
        retry: RetryPolicy { max_attempts: None, backoff },
        lease: Duration::from_secs(120),
        time_to_live: Some(Duration::from_secs(3_600)),
        max_events: Some(1_000_000),
        max_bytes: Some(1 << 30),
        key: KeyOptions { attribute: None, concurrency: 2, rate: key_rate, on_dead: OnDead::Hold },
        done: Retention { age: Some(Duration::from_secs(3_600)), count: None },
        payload: Payload::Keep,
        ..options
    };
    assert_eq!(notify.queue, options);
}

#[test]
fn what_is_not_written_has_a_default() {
    let config = parse(SHORTEST).unwrap();
    assert_eq!(config.data_dir, Path::new("deploy/data"));
    assert_eq!(config.shutdown_grace, Duration::from_secs(10));
    assert_eq!(config.listen, "127.0.0.1:8080".parse().unwrap());
    let engine = EngineOptions::default();
    let expected = QueueConfig {
        engine: EngineKind::Rocksdb,
        durability: DurabilityKind::Fsync,
        max_event_size: engine.max_event_size,
        idempotency_window: engine.idempotency_window,
        disk_reserve: engine.disk_reserve,
        write_buffer: engine.write_buffer,
        cache: engine.cache,
    };
    assert_eq!((config.queue, config.log_retention), (expected, engine.log_retention));
    let options = HostOptions::default();
    let host = HostConfig {
        memory: options.memory,
        stack: options.stack,
        max_component_size: options.max_component_size,
        compile_time: ChildCompiler::DEFAULT_CPU,
        compile_memory: ChildCompiler::DEFAULT_MEMORY,
        max_instances: None,
        code_cache: CodeCache::Usual,
        code_cache_size: options.max_cache_size,
    };
    assert_eq!(config.host, host);
    let [HandlerConfig { digest, concurrency, limits, max_log_rate, instances, queue, grant, .. }] =
        &config.handlers[..]
    else {
        panic!("{config:?}")
    };
    assert_eq!((digest.as_deref(), *concurrency, grant), (None, 4, &Granted::default()));
    assert_eq!((limits, *instances), (&Limits::default(), Instances::Fresh));
    assert_eq!(*max_log_rate, Some(Rate { per_second: 100.0, burst: 1_000 }));
    assert_eq!(config.buckets, []);
    assert_eq!((config.plugins, config.keep_versions), (PluginsConfig::default(), 5));
    assert_eq!(*queue, QueueOptions::default(), "the engine's defaults and those of the file are the same");
}

#[test]
fn bounds_are_allowed() {
    for (least, most) in [
        ("timeout = \"1ms\"", "timeout = \"24h\"\nlease = \"48h\""),
        ("timeout = \"4s\"\nlease = \"5s\"", "timeout = \"29s\""),
        ("memory = \"1MiB\"", "memory = \"1GiB\""),
        ("max-handles = 16", "max-handles = 100_000"),
        ("instances = \"fresh\"", "instances = \"reuse\"\nreuse-for = \"24h\""),
        ("concurrency = 1", "concurrency = 1024"),
        ("max-attempts = 0", "max-attempts = 4_294_967_295"),
        ("backoff = { factor = 1, jitter = 0 }", "backoff = { factor = 1e3, jitter = 1.0 }"),
        ("backoff = { base = \"1ms\", max = \"1ms\" }", "backoff = { base = \"1h\" }"),
        ("concurrency = 1\nmax-in-flight = 1", "max-in-flight = 1_000_000"),
        ("max-log-bytes = \"0B\"", "max-log-bytes = \"16MiB\""),
        ("max-events = 1", "max-events = 4_294_967_295"),
        ("max-bytes = \"1MiB\"", "max-bytes = \"16384GiB\""),
        ("rate = { per-second = 0.001, burst = 1 }", "rate = { per-second = 1e6, burst = 1_000_000 }"),
        ("time-to-live = \"1ms\"", "time-to-live = \"365d\""),
        ("dead-retention = { age = \"1s\", count = 0 }", "dead-retention = { age = \"3650d\" }"),
        ("ordering-key = \"id\"", "ordering-key = \"partition2\""),
    ] {
        for line in [least, most] {
            parse(&format!("{SHORTEST}{line}\n")).unwrap_or_else(|errors| panic!("{errors}"));
        }
    }
}

#[test]
fn a_contradiction_in_the_defaults_matters_only_where_it_counts() {
    let overridden = format!("[defaults]\ntimeout = \"1m\"\n{SHORTEST}lease = \"61s\"\n");
    assert_eq!(parse(&overridden).unwrap().handlers[0].queue.lease, Duration::from_secs(61));
}

#[test]
fn other_ways_to_write_toml_are_the_same() {
    let inline =
        "runtime.data-dir = 'q'\nhandler = [{ name = 'a', component = 'a.wasm', subscribe = [{ type = '*' }] }]";
    let config = parse(inline).unwrap();
    assert_eq!((config.data_dir.as_path(), config.handlers.len()), (Path::new("deploy/q"), 1));
    let windows = SHORTEST.replace('\n', "\r\n");
    assert_eq!(parse(&windows).unwrap().handlers.len(), 1);
    assert_eq!(parse(&format!("\u{feff}{SHORTEST}")).unwrap().handlers.len(), 1);
}

#[test]
fn a_path_without_a_folder_starts_here() {
    let config = config::parse(SHORTEST, Path::new("runtime.toml")).unwrap();
    assert_eq!(config.handlers[0].component, Source::Path("hello.wasm".into()));
}

#[test]
fn a_problem_can_be_taken_apart() {
    let text = format!("{SHORTEST}timeout = 5\n");
    let errors = parse(&text).unwrap_err();
    let [problem] = errors.problems() else { panic!("{errors}") };
    assert_eq!(problem.message(), "`timeout`: a unit is missing: write \"5s\"");
    assert_eq!(&text[problem.span().unwrap()], "5");
    assert_eq!(problem.label(), "expected a duration");
    assert_eq!(problem.help_lines(), ["for example: timeout = \"5s\"; the units are ms, s, m, h, d"]);
    assert!(errors.render(Color::Ansi).contains("\u{1b}["));
    assert!(!errors.to_string().contains('\u{1b}'));
}

#[test]
fn terminal_escapes_in_the_file_are_not_passed_on() {
    let errors = parse("\"\\u001b[31m\" = 1\nqueue.engine = \"\\u001b[31m\"\n\"\u{7f}\" = \"\u{1b}[31m\"").unwrap_err();
    assert!(!errors.to_string().contains('\u{1b}'), "{errors}");
}

#[test]
fn very_many_problems_are_counted() {
    let errors = parse(&"[[handler]]\n".repeat(1_000)).unwrap_err();
    assert_eq!(errors.problems().len(), 1_000);
    let last = errors.to_string();
    assert_eq!(last.lines().last(), Some("error: 1000 errors in `deploy/runtime.toml`; the first 50 are shown"));
}

#[test]
fn a_file_that_cannot_be_read_says_what_to_do() {
    let errors = config::load(Path::new("no-such-folder/runtime.toml")).unwrap_err();
    let expected = "\
error: there is no configuration file `no-such-folder/runtime.toml`
 |
 = help: pass another with `--config FILE`
 = help: or create it; this is a whole one:
           [[handler]]
           name = \"hello\"
           component = \"hello.wasm\"
           subscribe = [{ type = \"*\" }]";
    assert_eq!(errors.to_string(), expected);
    assert!(errors.source().is_some());

    let folder = tempfile::tempdir().unwrap();
    let errors = config::load(folder.path()).unwrap_err();
    assert_eq!(errors.problems()[0].message(), format!("`{}` is a folder", folder.path().display()));
}

#[test]
fn a_file_is_loaded_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runtime.toml");
    fs::write(&path, SHORTEST).unwrap();
    assert_eq!(config::load(&path).unwrap().handlers[0].component, Source::Path(folder.path().join("hello.wasm")));

    fs::write(&path, b"[runtime]\ndata-dir = \"caf\xe9\"\n").unwrap();
    let errors = config::load(&path).unwrap_err();
    assert_eq!(errors.problems()[0].message(), "the file is not UTF-8");
    assert!(errors.to_string().contains("runtime.toml:2:16"), "{errors}");
}

/// Reads and renders `text`, whatever it is.
fn survives(text: &str) {
    if let Err(errors) = parse(text) {
        assert!(!errors.problems().is_empty());
        assert!(!errors.render(Color::Plain).is_empty());
        assert!(!errors.render(Color::Ansi).is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_heap_of_toml_panics(parts in proptest::collection::vec(prop::sample::select(PARTS), 0..40)) {
        survives(&parts.concat());
    }

    #[test]
    fn no_mutation_of_a_valid_file_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..6usize, any::<char>()), 1..6),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(characters.len());
            let end = (at + removed).min(characters.len());
            characters.splice(at..end, [inserted]);
        }
        survives(&characters.iter().collect::<String>());
    }

    #[test]
    fn no_dropped_lines_panic(kept in proptest::collection::vec(any::<bool>(), 40)) {
        let lines = FULL.lines().zip(kept.into_iter().cycle()).filter(|(_, kept)| *kept);
        survives(&lines.map(|(line, _)| line).collect::<Vec<_>>().join("\n"));
    }
}

/// What TOML is made of, and what may go wrong in it.
const PARTS: &[&str] = &[
    "[[handler]]",
    "[handler]",
    "[queue]",
    "[plugins]",
    "dir",
    "[defaults]",
    "[runtime]",
    "handler",
    "queue",
    "name",
    "subscribe",
    "lease",
    "timeout",
    "backoff",
    "base",
    "rate",
    "per-second",
    "done-retention",
    "age",
    "\"unlimited\"",
    "grant",
    "emit",
    "engine",
    "type",
    "=",
    "=",
    "=",
    ".",
    ",",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "\n",
    "\n",
    "\r\n",
    "\t",
    "#",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "${",
    "$${",
    "}",
    "${ROOT}",
    "\"5s\"",
    "\"${NOPE}\"",
    "5",
    "-1",
    "1e9",
    "inf",
    "0x",
    "true",
    "1979-05-27",
    "\u{feff}",
    "ä",
    "\u{0}",
    "\u{202e}",
    "日本",
];
