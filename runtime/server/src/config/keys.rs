//! Which keys a table has, and what an unknown one may have meant.

use std::ops::Range;

use super::error::Problem;
use super::suggest::{closest, either, normal, quoted};

/// The keys of one table.
#[derive(Debug)]
pub(super) struct Keys {
    /// How people call the table.
    title: &'static str,
    /// What it may hold.
    known: &'static [&'static str],
    /// What a later version will let it hold.
    later: &'static [&'static str],
}

/// The file itself.
pub(super) const ROOT: Keys = Keys {
    title: "the top level",
    known: &["runtime", "http", "http-client", "queue", "log", "defaults", "plugins", "handler", "bucket"],
    later: &[],
};
/// `[runtime]`.
pub(super) const RUNTIME: Keys = Keys {
    title: "[runtime]",
    known: &[
        "data-dir",
        "shutdown-grace",
        "memory",
        "max-instances",
        "stack",
        "max-component-size",
        "compile-time",
        "compile-memory",
        "code-cache",
        "code-cache-size",
        "keep-versions",
    ],
    later: &[],
};
/// `[http]`.
pub(super) const HTTP: Keys = Keys { title: "[http]", known: &["listen"], later: &["tokens"] };
/// `[http-client]`.
pub(super) const HTTP_CLIENT: Keys = Keys { title: "[http-client]", known: &["ca-file"], later: &[] };
/// `[queue]`.
pub(super) const QUEUE: Keys = Keys {
    title: "[queue]",
    known: &["engine", "durability", "max-event-size", "idempotency-window", "disk-reserve", "write-buffer", "cache"],
    later: &[],
};
/// `[log]`.
pub(super) const LOG: Keys = Keys { title: "[log]", known: &["retention"], later: &[] };
/// `[plugins]`.
pub(super) const PLUGINS: Keys =
    Keys { title: "[plugins]", known: &["dir", "allow-subscribe", "require-digest"], later: &[] };
/// What `[defaults]` says for all handlers, and a `[[handler]]` for itself.
const SHARED: [&str; 33] = [
    "max-attempts",
    "backoff",
    "timeout",
    "lease",
    "memory",
    "concurrency",
    "max-state-writes",
    "max-state-bytes",
    "max-emits",
    "max-emit-bytes",
    "max-log-bytes",
    "max-log-rate",
    "max-result-bytes",
    "max-call-bytes",
    "max-handles",
    "instances",
    "reuse-events",
    "reuse-for",
    "key-concurrency",
    "on-dead",
    "rate",
    "key-rate",
    "max-in-flight",
    "max-events",
    "max-bytes",
    "time-to-live",
    "max-age",
    "done-retention",
    "dead-retention",
    "cancelled-retention",
    "keep-payload",
    "canary",
    "breaker",
];
/// What only a `[[handler]]` has.
const OWN: [&str; 9] =
    ["name", "component", "digest", "interface", "batch-size", "subscribe", "config", "grant", "ordering-key"];
/// Both, in this order.
const OWN_AND_SHARED: [&str; OWN.len() + SHARED.len()] = {
    let mut keys = [""; OWN.len() + SHARED.len()];
    let mut at = 0;
    while at < keys.len() {
        keys[at] = if at < OWN.len() { OWN[at] } else { SHARED[at - OWN.len()] };
        at += 1;
    }
    keys
};
/// `[defaults]`.
pub(super) const DEFAULTS: Keys = Keys { title: "[defaults]", known: &SHARED, later: &[] };
/// `[[handler]]`.
pub(super) const HANDLER: Keys = Keys { title: "[[handler]]", known: &OWN_AND_SHARED, later: &[] };
/// The manifest of a component. What is not among them and `[[handler]]` has, is runtime.toml's to say: what paths and
/// grants are, what the queue keeps, and what publishers would feel.
pub(super) const MANIFEST: Keys = Keys {
    title: "a manifest",
    known: &[
        "description",
        "subscribe",
        "ordering-key",
        "batch-size",
        "interface",
        "wants",
        "config",
        "max-attempts",
        "timeout",
        "memory",
        "concurrency",
        "max-state-writes",
        "max-state-bytes",
        "max-emits",
        "max-emit-bytes",
        "max-log-bytes",
        "max-log-rate",
        "max-result-bytes",
        "max-call-bytes",
        "max-handles",
        "instances",
        "reuse-events",
        "reuse-for",
        "key-concurrency",
        "rate",
        "key-rate",
        "time-to-live",
        "max-age",
    ],
    later: &[],
};
/// `backoff`.
pub(super) const BACKOFF: Keys = Keys { title: "backoff", known: &["base", "factor", "max", "jitter"], later: &[] };
/// `canary`.
pub(super) const CANARY: Keys =
    Keys { title: "canary", known: &["share", "for", "max-failure-rate", "min-deliveries"], later: &[] };
/// `breaker`.
pub(super) const BREAKER: Keys =
    Keys { title: "breaker", known: &["max-failure-rate", "deliveries", "probe", "max-probe"], later: &[] };
/// `rate` and `key-rate`.
pub(super) const RATE: Keys = Keys { title: "rate", known: &["per-second", "burst"], later: &[] };
/// `done-retention`, `dead-retention` and `cancelled-retention`.
pub(super) const RETENTION: Keys = Keys { title: "retention", known: &["age", "count"], later: &[] };
/// `grant`.
pub(super) const GRANT: Keys =
    Keys { title: "grant", known: &["emit", "state", "http", "env", "files", "sockets"], later: &[] };
/// A secret among the values of `config`.
pub(super) const SECRET: Keys = Keys { title: "config", known: &["env", "file"], later: &[] };
/// One item of `grant.files`.
pub(super) const DIRECTORY: Keys = Keys { title: "files", known: &["path", "as", "access"], later: &[] };
/// `[[bucket]]`.
pub(super) const BUCKET: Keys = Keys { title: "[[bucket]]", known: &["name", "max-bytes"], later: &[] };
/// One item of `subscribe`.
pub(super) const SUBSCRIBE: Keys = Keys { title: "subscribe", known: &["type", "source", "subject"], later: &[] };

/// Where a misplaced key may belong.
const HOMES: [&Keys; 8] = [&RUNTIME, &HTTP, &HTTP_CLIENT, &QUEUE, &LOG, &DEFAULTS, &PLUGINS, &HANDLER];
/// A line of a list of keys is about this long.
const LIST_WIDTH: usize = 90;

impl Keys {
    /// What to say about `key` at `span`; `None` if it is known.
    pub(super) fn check(&self, key: &str, span: Range<usize>) -> Option<Problem> {
        if self.known.contains(&key) {
            return None;
        }
        let shown = quoted(key);
        if let Some(later) = self.later.iter().find(|later| **later == normal(key)) {
            return Some(
                Problem::new(format!("{} is not supported by this version", self.located(later)), span, "remove it")
                    .help(self.allowed()),
            );
        }
        if self.title == MANIFEST.title && HANDLER.known.contains(&key) {
            return Some(self.not_a_manifests(key, span));
        }
        let homes: Vec<&str> = HOMES.iter().filter(|home| home.known.contains(&key)).map(|home| home.title).collect();
        let suggestion = closest(key, self.known);
        let label = match (suggestion, homes.is_empty()) {
            (Some(suggestion), _) => format!("did you mean {}?", self.written(suggestion)),
            (None, false) => format!("it belongs in {}", either(&homes)),
            (None, true) => String::from("no such key"),
        };
        Some(Problem::new(format!("unknown key {shown} {}", self.place()), span, label).help(self.allowed()))
    }

    /// What a handler has, and a manifest has not.
    fn not_a_manifests(&self, key: &str, span: Range<usize>) -> Problem {
        let label = match key {
            "grant" => "did you mean `wants`? Only runtime.toml grants",
            "name" | "component" => "the file's own name says it",
            _ => "runtime.toml says it, in `[[handler]]`",
        };
        Problem::new(format!("`{key}` cannot be set by a manifest"), span, label).help(self.allowed())
    }

    fn is_root(&self) -> bool {
        self.title == ROOT.title
    }

    fn shown(&self) -> String {
        if self.is_root() || self.title == MANIFEST.title { self.title.to_owned() } else { format!("`{}`", self.title) }
    }

    fn place(&self) -> String {
        format!("{} {}", if self.is_root() { "at" } else { "in" }, self.shown())
    }

    /// `key` and where it stands; of a table, its name says so.
    fn located(&self, key: &str) -> String {
        if self.is_root() { self.written(key) } else { format!("`{key}` {}", self.place()) }
    }

    fn allowed(&self) -> String {
        let mut allowed = format!("{} allows", self.shown());
        let mut width = allowed.len();
        for (i, key) in self.known.iter().enumerate() {
            let word = self.written(key);
            let comma = if i + 1 < self.known.len() { "," } else { "" };
            let wraps = width + word.len() > LIST_WIDTH;
            allowed.push(if wraps { '\n' } else { ' ' });
            width = if wraps { 0 } else { width + 1 } + word.len() + comma.len();
            allowed += &word;
            allowed += comma;
        }
        allowed
    }

    fn written(&self, key: &str) -> String {
        match (self.is_root(), key) {
            (true, "handler" | "bucket") => format!("`[[{key}]]`"),
            (true, key) => format!("`[{key}]`"),
            (false, key) => format!("`{key}`"),
        }
    }
}
