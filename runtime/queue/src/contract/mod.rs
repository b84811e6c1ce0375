//! The contract that every engine keeps: the [`Queue`] trait, its requests and its answers.
//!
//! | module | noun |
//! | --- | --- |
//! | `options` | how a queue treats its entries |
//! | `publish` | publishing |
//! | `delivery` | claiming, settling, extending |
//! | `state` | the key-value space that handlers share |
//! | `inspect` | looking |
//! | `sample` | the latest events, to try a handler on |
//! | `operation` | operating |
//! | `verify` | checking a whole store |

mod delivery;
mod inspect;
mod operation;
mod options;
mod publish;
mod sample;
mod state;
mod verify;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::{EntryId, QueueName};

pub use delivery::*;
pub use inspect::*;
pub use operation::*;
pub use options::*;
pub use publish::*;
pub use sample::*;
pub use state::*;
pub use verify::*;

/// A set of named queues with leases, retries and dead letters, and the state that goes with them.
///
/// # Guarantees
///
/// 1. **Durable before acknowledged.** [`publish`](Self::publish) (also when it answers
///    [`Duplicate`](PublishStatus::Duplicate)), [`configure`](Self::configure), [`operate`](Self::operate),
///    [`wait`](Self::wait), [`transact`](Self::transact) and a [`settle`](Self::settle) that asks for it return after
///    what they say is on stable storage, as far as the engine's [`Durability`] goes; one sync serves everything that
///    waits for it. Claims and settles do not wait; what nobody waits for is synced within 100 ms.
/// 2. **At least once.** An entry whose publish returned stays until it is done, dead or cancelled, whatever ends the
///    process; all three can be listed and counted. A store that has lost synced commits refuses to open.
/// 3. **One commit per verdict.** What a settlement does (the ack, the events emitted with it, its state writes, the
///    stored result) commits as a whole or not at all. A [`Transaction`] is serializable: the keys and prefixes that it
///    read on its snapshot must be unchanged when it commits. Several deliveries may be acked [`with`](Settle::with) one
///    such settlement: all of them, or none.
/// 4. **Fenced.** Settling and extending take the lease token of the delivery. No token, number or position is ever
///    issued twice. A stale token changes nothing, is answered by [`SettleReply::StaleLease`], and is counted.
/// 5. **Attempts end.** An attempt counts when it is claimed. Failures and expired leases come back after a backoff,
///    lost ones at once, until [`max_attempts`](gristmill_core::RetryPolicy::max_attempts) is reached; then the entry is
///    dead.
///    Deferral, release and [forgiveness](Settle::forgive) count nothing; [`max_age`](QueueOptions::max_age) ends what
///    comes back later. Redrive counts anew and keeps the history.
/// 6. **Ordered by key.** Entries with the same ordering key in one queue are handled one at a time, in publish order,
///    through retries, deferrals and forgiveness, which hold the key; release keeps it; redrive joins at the end; a delayed publish
///    joins when it is due. Priority ranks the heads of keys only. Without a key: higher priority first; within a
///    priority, released entries first, then the order of becoming ready, so that neither retries nor new traffic
///    starve. Keys take turns. Entries whose lease was lost in a crash are handed out one at a time until each is
///    settled, so that an entry that kills its process cannot spend the attempts of its neighbours.
/// 7. **Leases of the process end with it**: after a reopen what it had not settled is ready again (or dead, if that
///    was its last attempt), and its attempts are remembered. Leases of [`Holder::Outside`] are stored and go on.
/// 8. **Bounded.** Memory does not grow with the backlog, nor with the number of keys. A queue over its limits refuses
///    publishes with [`PublishError::Full`]; nothing is dropped. Emits, retries, redrives, moves and replays are admitted
///    above them.
/// 9. **Clocks may jump.** Leases, rates and waits of the process use monotonic time; due times, time to live, retention
///    and idempotency use wall time. A jump back only delays.
///
/// Batches are judged item by item: the answer at position *i* belongs to the item at position *i*, and one item's
/// refusal does not touch the others. Dropping the future of a call is always safe; a claim whose future was dropped
/// gives back what it had been about to return, and no attempt is spent.
///
/// What an engine cannot do is missing from its [`Capabilities::features`]; asking for it is
/// [`QueueError::Unsupported`].
#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// What this engine promises.
    fn capabilities(&self) -> Capabilities;

    /// What it has done since it was opened.
    fn counters(&self) -> Counters;

    /// Creates the queue, or replaces its options. Entries that exist are judged by the new options from now on.
    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError>;

    /// Publishes events, each to all of its queues in one commit or to none.
    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError>;

    /// Takes up to [`Claim::max`] ready entries, waiting up to [`Claim::wait`] for the first. A publish, a due time, a
    /// release, a redrive, a free key, a rate that allows more, the end of a pause, and one that the claim goes
    /// [`through`](Claim::through) all wake a waiting claim. Empty when the wait is over.
    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError>;

    /// Settles deliveries: the queue's retry policy turns each outcome into a disposition, unless it is
    /// [forgiven](Settle::forgive).
    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError>;

    /// Makes leases last from now for as long as asked. Never revives one that has expired.
    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError>;

    /// Waits until an entry has ended, up to `timeout`; zero: looks once.
    async fn wait(&self, entry: EntryId, timeout: Duration) -> Result<Waited, QueueError>;

    /// Does something to queues or entries.
    async fn operate(&self, operation: Operation) -> Result<Operated, QueueError>;

    /// Counts of every queue, in the order of their names.
    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError>;

    /// Ordering keys of one queue that are in use, in pages.
    async fn keys(&self, request: ListKeys) -> Result<KeyPage, QueueError>;

    /// Entries of one queue in one state, in pages.
    async fn list(&self, request: List) -> Result<Page, QueueError>;

    /// One entry with its event and history; `None` when it does not exist (any more).
    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError>;

    /// The entries of the latest publish of an event, by its source and id; for as long as the idempotency window, and
    /// only those that still exist.
    async fn find(&self, source: String, id: String) -> Result<Vec<Entry>, QueueError>;

    /// The latest events of one queue, with their data: as many as are found of those that are asked for.
    async fn sample(&self, request: Sample) -> Result<Vec<Sampled>, QueueError>;

    /// State as it is now.
    async fn snapshot(&self) -> Result<Arc<dyn StateSnapshot>, QueueError>;

    /// Reads and writes state apart from any delivery.
    async fn transact(&self, transaction: Transaction) -> Result<Transacted, QueueError>;

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
    /// What it can do beyond publishing, claiming and settling.
    pub features: &'static [Feature],
}

impl Capabilities {
    /// Whether the engine can do this.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// Something that not every engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// [`Publish::key`] and [`KeyOptions`].
    OrderingKeys,
    /// [`Publish::on_duplicate`] and [`Queue::find`].
    Idempotency,
    /// [`QueueOptions::rate`] and [`KeyOptions::rate`].
    Rates,
    /// [`Claim::types`].
    FilteredClaims,
    /// [`Holder::Outside`].
    StoredLeases,
    /// [`Queue::snapshot`], [`Queue::transact`] and [`Settle::transaction`].
    State,
    /// [`Operation::Replay`].
    Log,
}

impl Feature {
    /// Everything there is.
    pub const ALL: &'static [Self] = &[
        Self::OrderingKeys,
        Self::Idempotency,
        Self::Rates,
        Self::FilteredClaims,
        Self::StoredLeases,
        Self::State,
        Self::Log,
    ];

    /// The name in errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderingKeys => "ordering keys",
            Self::Idempotency => "idempotency",
            Self::Rates => "rates",
            Self::FilteredClaims => "filtered claims",
            Self::StoredLeases => "stored leases",
            Self::State => "state",
            Self::Log => "the event log",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
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

/// Why the engine could not do something. Nothing was changed, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// There is no such queue.
    #[error("there is no queue `{0}`")]
    UnknownQueue(QueueName),
    /// The request is malformed: what, and what would be right.
    #[error("{0}")]
    InvalidRequest(String),
    /// This engine cannot do it.
    #[error("the engine `{engine}` does not support {feature}")]
    Unsupported {
        /// Which engine.
        engine: &'static str,
        /// What it cannot do.
        feature: Feature,
    },
    /// The store failed. Retriable: the engine opens it again by itself. What was not answered may or may not have
    /// happened.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A stored record cannot be read.
    #[error("damaged record: {0}")]
    Corrupt(String),
    /// The engine is closed.
    #[error("the queue is closed")]
    Closed,
}
