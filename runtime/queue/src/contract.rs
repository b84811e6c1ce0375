//! The contract that every engine keeps: the [`Queue`] trait, its requests and its answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gristmill_core::{
    Attempt, Disposition, EntryId, Event, EventError, History, Outcome, QueueName, RetryPolicy, State, Timestamp,
};

/// A set of named queues with leases, retries and dead letters.
///
/// # Guarantees
///
/// 1. **Durable before acknowledged.** [`publish`](Self::publish), [`redrive`](Self::redrive) and a
///    [`settle`](Self::settle) that asks for it return after their effects are on stable storage, as far as the
///    engine's [`Durability`] goes; one sync serves everything that waits for it. Claims and settles do not wait; what
///    nobody waits for is synced within 100 ms.
/// 2. **At least once.** An entry whose publish returned stays until it is done or dead, whatever ends the process.
/// 3. **One commit per verdict.** What a settlement does (the ack, the events emitted with it, the stored result)
///    commits as a whole or not at all.
/// 4. **Fenced.** Settling and extending take the lease token of the delivery. A token is never issued twice; a stale
///    one changes nothing and is answered by [`SettleReply::StaleLease`].
/// 5. **Attempts end.** An attempt counts when it is claimed. Failures, expired and lost leases come back after a
///    backoff until [`RetryPolicy::max_attempts`] is reached; then the entry is dead. Deferral and release count
///    nothing. Redrive counts anew and keeps the history.
/// 6. **Ordered by readiness.** Higher priority first; within a priority, released entries first, then the order of
///    becoming ready, so that neither retries nor new traffic starve. Entries whose lease was lost in a crash are
///    handed out one at a time until each is settled, so that an entry that kills its process cannot spend the
///    attempts of its neighbours.
/// 7. **Leases end with the process** that holds them: after a reopen everything unsettled is ready again (or dead,
///    if that was its last attempt), and its attempts are remembered.
/// 8. **Clocks may jump.** Leases and waits use monotonic time, due times wall time. A jump back only delays.
///
/// Batches are judged item by item: the answer at position *i* belongs to the item at position *i*, and one item's
/// refusal does not touch the others. Dropping the future of a call is always safe; a claim whose future was dropped
/// gives back what it had been about to return, and no attempt is spent.
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// What this engine promises.
    fn capabilities(&self) -> Capabilities;

    /// Creates the queue, or replaces its options. Entries that exist are judged by the new options from now on.
    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError>;

    /// Publishes events, each to all of its queues in one commit or to none.
    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError>;

    /// Takes up to [`Claim::max`] ready entries, waiting up to [`Claim::wait`] for the first. A publish, a due time, a
    /// release and a redrive all wake a waiting claim. Empty when the wait is over.
    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError>;

    /// Settles deliveries: the queue's retry policy turns each outcome into a disposition.
    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError>;

    /// Makes leases last from now for as long as asked. Never shortens the past: a lease that has expired is stale.
    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError>;

    /// Counts of every queue, in the order of their names.
    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError>;

    /// Entries of one queue in one state, in pages.
    async fn list(&self, request: List) -> Result<Page, QueueError>;

    /// One entry with its event and history; `None` when it does not exist (any more).
    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError>;

    /// Makes dead entries ready again, their attempts counted anew.
    async fn redrive(&self, entries: Vec<EntryId>) -> Result<Vec<RedriveReply>, QueueError>;

    /// Stops the engine after everything committed so far is synced. Later calls answer [`QueueError::Closed`].
    async fn close(&self) -> Result<(), QueueError>;
}

/// What an engine promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The engine's name, as `runtime.toml` spells it.
    pub engine: &'static str,
    /// How durable an acknowledged publish is.
    pub durability: Durability,
    /// The largest event, in bytes of attributes and data.
    pub max_event_size: u64,
}

/// How far an acknowledged write has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives a power cut.
    #[default]
    Fsync,
    /// With the operating system: survives the process, not a power cut.
    Os,
    /// In this process's memory.
    Memory,
}

impl Durability {
    /// The name in JSON and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a queue treats its entries. Stored with the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueueOptions {
    /// Attempts and backoff.
    pub retry: RetryPolicy,
    /// How long a claim's lease lasts. Default: 30 s.
    pub lease: Duration,
    /// How long header and result of done entries are kept. Default: 24 h.
    pub done_retention: Duration,
    /// How many done entries are kept at most. Default: 100,000.
    pub done_max: u64,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            lease: Duration::from_secs(30),
            done_retention: Duration::from_secs(24 * 3_600),
            done_max: 100_000,
        }
    }
}

/// One event for some queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The event.
    pub event: Arc<Event>,
    /// Where it goes: all of them or none.
    pub queues: Vec<QueueName>,
    /// When it may be claimed; `None`: at once.
    pub delay: Option<Duration>,
    /// 0 to 255, higher first. Default: 0.
    pub priority: u8,
}

impl Publish {
    /// `event` to `queues`, at once, at the default priority.
    #[must_use]
    pub fn new(event: impl Into<Arc<Event>>, queues: impl IntoIterator<Item = QueueName>) -> Self {
        Self { event: event.into(), queues: queues.into_iter().collect(), delay: None, priority: 0 }
    }
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How durable the accepted events are.
    pub durability: Durability,
    /// One answer per event, in order.
    pub results: Vec<Result<Vec<EntryRef>, PublishError>>,
}

/// An entry and the queue it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRef {
    /// The queue.
    pub queue: QueueName,
    /// The entry.
    pub entry: EntryId,
}

/// Why an event was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is not a valid event.
    #[error(transparent)]
    Invalid(#[from] EventError),
    /// It names no queue at all; accepting it would lose it.
    #[error("no subscription matches type `{}` from source `{}`", .ty.escape_debug(), .source_attribute.escape_debug())]
    Unroutable {
        /// The event's type.
        ty: String,
        /// The event's source.
        source_attribute: String,
    },
    /// It names a queue that nobody configured.
    #[error("there is no queue `{0}`")]
    UnknownQueue(QueueName),
}

/// A request for deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// From which queue.
    pub queue: QueueName,
    /// How many at most.
    pub max: usize,
    /// How long to wait for the first. Default: not at all.
    pub wait: Duration,
}

impl Claim {
    /// Up to `max` entries of `queue`, without waiting.
    #[must_use]
    pub const fn new(queue: QueueName, max: usize) -> Self {
        Self { queue, max, wait: Duration::ZERO }
    }

    /// Waits up to `wait` for the first entry.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// The exclusive right to settle one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseToken {
    /// Which opening of the store issued it.
    pub incarnation: u64,
    /// The delivery's number, never issued twice.
    pub delivery: u64,
}

/// One attempt at one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Proof of the lease.
    pub lease: LeaseToken,
    /// How long the lease lasts, from the claim.
    pub lease_for: Duration,
    /// The entry.
    pub entry: EntryId,
    /// Its queue.
    pub queue: QueueName,
    /// 1 for the first.
    pub attempt: u32,
    /// `None`: no limit.
    pub max_attempts: Option<u32>,
    /// When the entry was published.
    pub enqueued_at: Timestamp,
    /// The event.
    pub event: Arc<Event>,
}

/// What became of one delivery, and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Proof of the lease.
    pub lease: LeaseToken,
    /// What was observed.
    pub outcome: Outcome,
    /// Which version of the handler it was: the component's digest. For the history.
    pub version: Option<String>,
    /// Events that are published if, and only if, the outcome is an ack. One without a queue is dropped.
    pub emits: Vec<Publish>,
}

impl Settle {
    /// `outcome` for the delivery of `lease`, without a version and without emitted events.
    #[must_use]
    pub const fn new(lease: LeaseToken, outcome: Outcome) -> Self {
        Self { lease, outcome, version: None, emits: Vec::new() }
    }
}

/// When a settlement is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confirm {
    /// When it is committed: visible to everybody, lost (as a whole) by a power cut in the next 100 ms.
    #[default]
    Committed,
    /// When it is as durable as an acknowledged publish.
    Durable,
}

/// The answer to a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleReply {
    /// It counts; this is what follows.
    Settled(Disposition),
    /// Somebody else's by now, or settled already. Nothing was changed.
    StaleLease,
    /// An emitted event cannot be published. Nothing was changed; the lease goes on.
    Refused(PublishError),
}

/// A lease that shall last longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extend {
    /// Proof of the lease.
    pub lease: LeaseToken,
    /// How long from now.
    pub by: Duration,
}

/// The answer to an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtendReply {
    /// It lasts as asked.
    Extended,
    /// It has ended. Nothing was changed.
    StaleLease,
}

/// Numbers of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The queue.
    pub queue: QueueName,
    /// Entries that are not due yet.
    pub scheduled: u64,
    /// Entries that may be claimed.
    pub ready: u64,
    /// Entries that somebody handles.
    pub leased: u64,
    /// Done entries that are still kept.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the entry that has waited longest has been ready.
    pub oldest_ready: Option<Duration>,
    /// When the next scheduled entry is due; exact up to 4,096 scheduled entries of other queues before it.
    pub next_due: Option<Timestamp>,
    /// Since the queue was created.
    pub totals: Totals,
}

/// What has ever happened in a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that came in.
    pub published: u64,
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
}

/// A request for a page of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Of which queue.
    pub queue: QueueName,
    /// In which state.
    pub state: State,
    /// How many at most; 1 to 1,000.
    pub limit: usize,
    /// [`Page::next`] of the page before.
    pub cursor: Option<String>,
}

/// Some entries, in the order in which their state processes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page starts; `None`: this is the last.
    pub next: Option<String>,
}

/// An event in a queue, and what has happened to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its queue.
    pub queue: QueueName,
    /// Its state.
    pub state: State,
    /// 0 to 255, higher first.
    pub priority: u8,
    /// Attempts that count, since publish or the last redrive; the running one included.
    pub attempts: u32,
    /// When it was published.
    pub enqueued_at: Timestamp,
    /// When it entered its state; for a scheduled one, when it is due.
    pub at: Timestamp,
    /// The event; without its data once it is done.
    pub event: Arc<Event>,
    /// Attempts that have ended.
    pub history: History,
    /// What the handler returned with its ack.
    pub result: Option<Bytes>,
}

impl Entry {
    /// The attempt that decided the entry's state.
    #[must_use]
    pub fn last_attempt(&self) -> Option<&Attempt> {
        self.history.last()
    }
}

/// The answer to a redrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedriveReply {
    /// It is ready again.
    Redriven,
    /// It is not dead: its state.
    NotDead(State),
    /// There is no such entry.
    Unknown,
}

/// Why the engine could not do something. Nothing was changed, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is no such queue.
    #[error("there is no queue `{0}`")]
    UnknownQueue(QueueName),
    /// The request is malformed: what, and what would be right.
    #[error("{0}")]
    InvalidRequest(String),
    /// The store failed. Retriable after the cause is mended: what was not answered may or may not have happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A stored record cannot be read.
    #[error("damaged record: {0}")]
    Corrupt(String),
    /// The engine is closed.
    #[error("the queue is closed")]
    Closed,
}
