//! Looking: stats, keys, lists and single entries.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Attempt, EntryId, Event, History, Postmortem, QueueName, State, Timestamp};

use super::QueueError;

/// The longest page.
const MAX_PAGE: usize = 1_000;

/// Numbers of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStats {
    /// The queue.
    pub queue: QueueName,
    /// Why nothing is claimed from it; `None`: it is not paused.
    pub paused: Option<String>,
    /// Entries that are not due yet.
    pub scheduled: u64,
    /// Entries behind others of their key.
    pub waiting: u64,
    /// Entries that may be claimed.
    pub ready: u64,
    /// Entries that somebody handles.
    pub leased: u64,
    /// Done entries that are still kept.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Cancelled entries that are still kept.
    pub cancelled: u64,
    /// Attributes and data of the entries that are scheduled, waiting, ready or leased.
    pub bytes: u64,
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
    /// Publishes that repeated an earlier one, counted in each queue that it names.
    pub duplicates: u64,
    /// Deliveries that were acked.
    pub acked: u64,
    /// Deliveries that failed and were scheduled again.
    pub retried: u64,
    /// Deliveries that were deferred, or forgiven until later.
    pub deferred: u64,
    /// Entries that became dead letters.
    pub dead_lettered: u64,
    /// Dead letters that were redriven.
    pub redriven: u64,
    /// Entries that were cancelled.
    pub cancelled: u64,
}

/// What an engine has done since it was opened by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Commits to the store.
    pub commits: u64,
    /// Syncs of the store; each serves everything that waits for it.
    pub syncs: u64,
    /// Settlements and extensions with a stale or unknown token.
    pub stale: u64,
    /// How often the store failed, and was opened anew.
    pub reopened: u64,
}

/// A request for a page of ordering keys that are in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKeys {
    /// Of which queue.
    pub queue: QueueName,
    /// Which of them.
    pub which: WhichKeys,
    /// How many at most; 1 to 1,000.
    pub limit: usize,
    /// [`KeyPage::next`] of the page before.
    pub cursor: Option<String>,
}

impl ListKeys {
    /// The first keys of `queue` that are in use, as many as a page has.
    #[must_use]
    pub const fn new(queue: QueueName) -> Self {
        Self { queue, which: WhichKeys::Active, limit: MAX_PAGE, cursor: None }
    }

    pub(crate) fn check(&self) -> Result<(), QueueError> {
        check_limit(self.limit)
    }
}

/// Which ordering keys to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhichKeys {
    /// All that have an entry that is ready, leased or waiting, or hold one back.
    #[default]
    Active,
    /// Those whose dead letters hold back the entries behind them. A call examines at most 4,096 keys.
    Held,
}

/// Some ordering keys, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<KeyStats>,
    /// Where the next page starts; `None`: this is the last.
    pub next: Option<String>,
}

/// One ordering key that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStats {
    /// The key.
    pub key: String,
    /// Its entries that are ready, leased, or between two attempts.
    pub busy: u32,
    /// Its entries that wait behind those.
    pub waiting: u64,
    /// The dead letters that hold it.
    pub held_by: Vec<EntryId>,
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

impl List {
    /// The first entries of `queue` in this state, as many as a page has.
    #[must_use]
    pub const fn new(queue: QueueName, state: State) -> Self {
        Self { queue, state, limit: MAX_PAGE, cursor: None }
    }

    pub(crate) fn check(&self) -> Result<(), QueueError> {
        check_limit(self.limit)
    }
}

pub(super) fn check_limit(limit: usize) -> Result<(), QueueError> {
    if limit == 0 || limit > MAX_PAGE {
        return Err(QueueError::InvalidRequest(format!("`limit` is {limit}; a page has 1 to {MAX_PAGE} entries")));
    }
    Ok(())
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
    /// Its ordering key.
    pub key: Option<Arc<str>>,
    /// Attempts that count, since publish or the last redrive; the running one included.
    pub attempts: u32,
    /// When it was published.
    pub enqueued_at: Timestamp,
    /// When it entered its state; for a scheduled one, when it is due.
    pub at: Timestamp,
    /// The event; without its data once it is done, unless the queue keeps it.
    pub event: Arc<Event>,
    /// Attempts that have ended.
    pub history: History,
    /// What the delivery cost and said that made it a dead letter last, if whoever settled it knew.
    pub postmortem: Option<Box<Postmortem>>,
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

/// The answer to a wait.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited {
    /// It has ended: done, dead or cancelled, as durable as an acknowledged publish.
    Ended(Box<Entry>),
    /// Not yet; this is its state.
    Pending(State),
    /// There is no such entry (any more).
    Unknown,
}
