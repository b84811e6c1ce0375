//! Publishing.

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{EntryId, Event, EventError, QueueName, Timestamp};

use super::Durability;

/// One event for some queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The event.
    pub event: Arc<Event>,
    /// Where it goes: all of them or none.
    pub queues: Vec<QueueName>,
    /// When it may be claimed. Default: at once.
    pub due: Due,
    /// 0 to 255, higher first. Default: 0.
    pub priority: u8,
    /// The ordering key in all of the queues, 1 to [`MAX_KEY_LEN`] bytes. Default: as each queue's
    /// [`KeyOptions::attribute`](super::KeyOptions::attribute) says.
    pub key: Option<String>,
    /// Overrides [`QueueOptions::time_to_live`](super::QueueOptions::time_to_live).
    pub time_to_live: Option<Duration>,
    /// Takes the place of the event's id where duplicates are looked for, 1 to [`MAX_KEY_LEN`] bytes.
    pub dedupe_key: Option<String>,
    /// What to do when the source has published this id (or this `dedupe_key`) within the idempotency window. An
    /// operator's redrive and a replay are never duplicates.
    pub on_duplicate: OnDuplicate,
}

/// The longest ordering key and the longest dedupe key, in bytes.
pub const MAX_KEY_LEN: usize = 1_024;

impl Publish {
    /// `event` to `queues`, at once, at the default priority.
    #[must_use]
    pub fn new(event: impl Into<Arc<Event>>, queues: impl IntoIterator<Item = QueueName>) -> Self {
        Self {
            event: event.into(),
            queues: queues.into_iter().collect(),
            due: Due::Now,
            priority: 0,
            key: None,
            time_to_live: None,
            dedupe_key: None,
            on_duplicate: OnDuplicate::default(),
        }
    }
}

/// When an entry may be claimed for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Due {
    /// At once.
    #[default]
    Now,
    /// So long after the publish.
    After(Duration),
    /// Not before then, by the wall clock.
    At(Timestamp),
}

/// What a publish means that repeats an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Nothing is published; the answer names the entries of the earlier one.
    #[default]
    ReturnExisting,
    /// It is published again if an entry of the earlier one is dead or cancelled; otherwise as `ReturnExisting`.
    AllowAfterFailure,
    /// Nothing is published; the answer is [`PublishError::Duplicate`].
    Refuse,
    /// It is published again.
    Allow,
}

/// The answer to a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How durable the accepted events are.
    pub durability: Durability,
    /// One answer per event, in order.
    pub results: Vec<Result<Accepted, PublishError>>,
}

/// An event that is in its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whether by this publish.
    pub status: PublishStatus,
    /// Its entries: those just made, or those of the earlier publish.
    pub entries: Vec<EntryRef>,
}

/// How an event came to be in its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishStatus {
    /// By this publish.
    Accepted,
    /// By an earlier one.
    Duplicate,
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
    /// An ordering key or a dedupe key is empty or too long.
    #[error("the {name} has {len} bytes; 1 to {MAX_KEY_LEN} are allowed")]
    InvalidKey {
        /// Which one: `ordering key` or `dedupe key`.
        name: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A queue holds as much as it may. Retriable once some of it is handled.
    #[error("queue `{queue}` is full: {limit}")]
    Full {
        /// Which queue.
        queue: QueueName,
        /// Which limit.
        limit: Limit,
    },
    /// [`OnDuplicate::Refuse`]: it was published before.
    #[error("it was published before, as {}", .0.iter().map(|e| e.entry.as_str()).collect::<Vec<_>>().join(", "))]
    Duplicate(Vec<EntryRef>),
    /// The disk is nearly full; what is left is for settling. Retriable once there is space.
    #[error("the disk is nearly full: {available} bytes are free, {reserve} are kept back for settling")]
    DiskFull {
        /// What is free, in bytes.
        available: u64,
        /// What is kept back, in bytes.
        reserve: u64,
    },
}

/// A limit of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// [`QueueOptions::max_events`](super::QueueOptions::max_events).
    #[error("it may hold {0} events")]
    Events(u64),
    /// [`QueueOptions::max_bytes`](super::QueueOptions::max_bytes).
    #[error("it may hold {0} bytes")]
    Bytes(u64),
}
