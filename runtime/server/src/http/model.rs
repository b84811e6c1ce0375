//! The JSON of the HTTP surface, which `--json` on the command line prints too.

use gristmill_core::{EntryId, HandlerName, OutcomeKind, QueueName, State, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::problem::Problem;
pub use crate::deployment::record::Origin;
use crate::shadow::comparison::Comparison;

/// A page of things.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List<T> {
    /// The things.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `null`: this is the last.
    pub next: Option<String>,
}

/// A queue and its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// Who handles it; `null` when the deployment has no such handler any more.
    pub handler: Option<HandlerName>,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// Why; `null`: it is not paused.
    pub pause_reason: Option<String>,
    /// Entries that are not due yet.
    pub scheduled: u64,
    /// Entries that wait for an earlier one of their ordering key.
    pub waiting: u64,
    /// Entries that may be claimed.
    pub ready: u64,
    /// Entries that are being handled.
    pub leased: u64,
    /// Done entries that are still kept.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Entries that were withdrawn.
    pub cancelled: u64,
    /// Attributes and data of the entries that are scheduled, waiting, ready or leased.
    pub bytes: u64,
    /// How long the entry that has waited longest has been ready, in milliseconds.
    pub oldest_ready_ms: Option<u64>,
    /// When the next scheduled entry is due.
    pub next_due: Option<Time>,
    /// What has ever happened.
    pub totals: Totals,
}

/// What has happened in a queue since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Entries that came in.
    pub published: u64,
    /// Publishes that repeated an earlier one.
    pub duplicates: u64,
    /// Deliveries that were acked.
    pub acked: u64,
    /// Deliveries that failed and were scheduled again.
    pub retried: u64,
    /// Deliveries that were deferred.
    pub deferred: u64,
    /// Entries that became dead letters.
    pub dead_lettered: u64,
    /// Dead letters that were redriven.
    pub redriven: u64,
    /// Entries that were cancelled.
    pub cancelled: u64,
}

/// An event in a queue, and what has happened to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its id.
    pub entry: EntryId,
    /// Its queue.
    pub queue: QueueName,
    /// Its state.
    pub state: State,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Its ordering key; `null`: it has none.
    pub key: Option<String>,
    /// Attempts that count, since publish or the last redrive; the running one included.
    pub attempts: u32,
    /// When it was published.
    pub enqueued_at: Time,
    /// When it entered its state; for a scheduled one, when it is due.
    pub at: Time,
    /// Attempts that have ended, oldest first.
    pub history: Vec<Attempt>,
    /// How many attempts between the first and the last ten are not in `history`.
    pub history_omitted: u32,
    /// The event as CloudEvents JSON. Lists leave data above 4 KiB out: ask for the entry alone. Done
    /// entries keep none.
    pub event: Box<RawValue>,
    /// How many bytes of data the event has, whether they are shown or not.
    pub data_bytes: u64,
    /// What the delivery cost and said that made it a dead letter last; `null`: nothing is known, or it was none.
    #[serde(default)]
    pub postmortem: Option<Postmortem>,
    /// What the handler returned: JSON as it is, text as a string, anything else as `{"base64": "…"}`.
    pub result: Option<Box<RawValue>>,
}

/// One attempt that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, counted anew after a redrive.
    pub attempt: u32,
    /// What became of it.
    pub outcome: OutcomeKind,
    /// Why, in words that may be the handler's.
    pub reason: Option<String>,
    /// The digest of the component that handled it.
    pub version: Option<String>,
    /// When it was claimed.
    pub started_at: Time,
    /// From claim to settlement.
    pub duration_ms: u64,
    /// It failed, and did not count; left out where it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgiven: bool,
}

/// A call of a handler that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Which one, among all since the start of the runtime.
    pub number: u64,
    /// The handler.
    pub handler: HandlerName,
    /// The digest of the component.
    pub version: String,
    /// The entry that it handles.
    pub entry: String,
    /// 1 for the first.
    pub attempt: u32,
    /// How long it has been going on.
    pub elapsed_ms: u64,
    /// How long it may go on in all.
    pub timeout_ms: u64,
    /// Bytes of memory that it has.
    pub memory: u64,
}

/// A call was ended; its outcome is `killed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// Which one.
    pub number: u64,
}

/// What a delivery cost and said. Times are in fractions of milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Postmortem {
    /// Wall-clock time.
    pub wall_ms: f64,
    /// Of that, on a processor.
    pub cpu_ms: f64,
    /// Bytes of all memories and tables.
    pub peak_memory: u64,
    /// How many host functions were called.
    pub host_calls: u64,
    /// The time that passed in them.
    pub host_ms: f64,
    /// Bytes that it was given.
    pub bytes_in: u64,
    /// Bytes that it gave.
    pub bytes_out: u64,
    /// The last lines of its log, oldest first.
    pub log: Vec<LastLine>,
}

/// A line of a handler's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLine {
    /// `trace`, `debug`, `info`, `warn`, `error` or `critical`.
    pub level: String,
    /// `stdout`, `stderr`, or what the handler gave.
    pub context: String,
    /// What it says.
    pub message: String,
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReply {
    /// One result per event, in order.
    pub results: Vec<PublishResult>,
}

/// What became of one published event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishResult {
    /// The event's source; `null` when what was sent has none.
    pub source: Option<String>,
    /// The event's id; `null` when what was sent has none.
    pub id: Option<String>,
    /// Whether it was taken.
    pub status: PublishStatus,
    /// How durable it is: `fsync`, `os` or `memory`; `null` when it was refused.
    pub durability: Option<String>,
    /// Its entries: those just made, or those of the earlier publish that it repeats.
    pub entries: Vec<EntryRef>,
    /// Why it was refused.
    pub error: Option<Problem>,
}

impl PublishResult {
    /// The event was not taken, and why.
    #[must_use]
    pub const fn refused(source: Option<String>, id: Option<String>, error: Problem) -> Self {
        Self { source, id, status: PublishStatus::Refused, durability: None, entries: Vec::new(), error: Some(error) }
    }
}

/// Whether an event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishStatus {
    /// It is in its queues.
    Accepted,
    /// It was published before, within the idempotency window, and was not added again.
    Duplicate,
    /// It is in none.
    Refused,
}

/// An entry and the queue it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRef {
    /// The queue.
    pub queue: QueueName,
    /// The entry.
    pub entry: EntryId,
}

/// The answer to a redrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// The entry.
    pub entry: EntryId,
    /// Its state now; it may be handled already.
    pub state: State,
}

/// A handler and its versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Handler {
    /// Its name, and its queue's.
    pub name: HandlerName,
    /// What the host calls.
    pub interface: String,
    /// The digest that the configuration pins it to; `null`: none.
    pub pinned: Option<String>,
    /// The versions that are kept; the first handles events.
    pub versions: Vec<Version>,
    /// A version that is tried with a share of the deliveries; `null`: none.
    pub canary: Option<Canary>,
    /// The version that was tried last and had to go, since the process began; `null`: none.
    pub rolled_back: Option<RolledBack>,
    /// Why it gets no deliveries, if the circuit breaker has seen to that; `null`: it gets them.
    pub circuit: Option<Circuit>,
}

/// A version that is tried with a share of the deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    /// The version.
    pub version: Version,
    /// Its share of the deliveries, 0 to 1.
    pub share: f64,
    /// How many of its deliveries are over.
    pub handled: u64,
    /// How many of them it has failed.
    pub failed: u64,
    /// How long until it may take over, in milliseconds.
    pub left_ms: u64,
}

/// A version that was tried, and had to go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// Its digest.
    pub digest: String,
    /// When.
    pub at: Time,
    /// Why.
    pub reason: String,
}

/// A handler that is only probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circuit {
    /// Why.
    pub reason: String,
    /// How many probes have failed in a row.
    pub failed_probes: u32,
    /// How long until the next one, in milliseconds.
    pub next_probe_ms: u64,
}

/// A version of a handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Of its component: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// Of its component, in bytes.
    pub size: u64,
    /// Where it came from.
    pub origin: Origin,
    /// When it began to handle events last.
    pub since: Time,
}

/// The answer to a deployment or a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// The handler.
    pub handler: HandlerName,
    /// The version that handles events now.
    pub current: Version,
    /// The digest of the one that did before; the same: nothing has changed.
    pub before: String,
    /// What the new version imports that the old one did not and that needs a grant, a line each.
    pub wants: Vec<String>,
    /// The new version, where it has a share of the deliveries first; `null`: it does not.
    pub canary: Option<Version>,
    /// How the new version compares with the one before over stored events; `null`: nobody asked.
    pub shadow: Option<Comparison>,
    /// A version that had a share of the deliveries, and has it no more; `null`: there was none.
    pub ended: Option<Version>,
}

/// A runtime at a glance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What came of its configuration.
    pub config: Reloads,
    /// Its handlers.
    pub handlers: Vec<Handler>,
    /// Files in the folder of plugins that are not loaded. What they were before may be at work.
    pub plugins: Vec<WrongPlugin>,
}

/// A file in the folder of plugins that is not loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrongPlugin {
    /// The file.
    pub path: String,
    /// Why not.
    pub error: String,
}

/// How often the configuration was read again, and what came of it last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// How often it was applied.
    pub applied: u64,
    /// How often it was refused, and nothing changed.
    pub refused: u64,
    /// Why it was refused last; `null`: what is written is what holds.
    pub error: Option<Refused>,
    /// Settings that have changed, and need a restart to take effect.
    pub needs_restart: Vec<String>,
}

/// A configuration that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// When.
    pub at: Time,
    /// Why.
    pub reason: String,
}

/// A wall-clock instant, written in RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let instant: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        let micros = u64::try_from(instant.as_microsecond()).unwrap_or_default();
        Ok(Self(Timestamp::from_micros(micros)))
    }
}
