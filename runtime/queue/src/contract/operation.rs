//! Operating: what people do to queues and entries.

use std::time::Duration;

use gristmill_core::{EntryId, OutcomeKind, Pattern, QueueName, State, Subscription, Timestamp};

use super::QueueError;
use super::options::{Rate, check_rate};

/// Something to do to a queue or its entries. Answered when it is done and durable; what is large is done in steps,
/// between other work, and ends at the next step if the call's future is dropped.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// An action on entries.
    Act(Act),
    /// Nothing more is claimed from the queue; publishing and settling go on. It is paused for one reason at a time: a
    /// later one takes its place. [`Claim::through`](super::Claim::through) is the way through a pause.
    Pause {
        /// Which queue.
        queue: QueueName,
        /// Why; shown in its stats.
        reason: String,
        /// In which case; in any other, nothing is changed.
        only_if: PauseIf,
    },
    /// Claims go on.
    Resume {
        /// Which queue.
        queue: QueueName,
        /// In which case; in any other, nothing is changed.
        only_if: ResumeIf,
    },
    /// The queue and all of its entries go, in whatever state they are. Leases become stale.
    Delete {
        /// Which queue.
        queue: QueueName,
    },
    /// The dead letters that hold an ordering key hold it no longer.
    FreeKey {
        /// Of which queue.
        queue: QueueName,
        /// Which key.
        key: String,
    },
    /// Events of the log come in again.
    Replay(Replay),
    /// How much a bucket may hold, in bytes of keys and values; `None`: no limit.
    LimitBucket {
        /// Which bucket.
        bucket: String,
        /// The limit.
        max_bytes: Option<u64>,
    },
}

impl Operation {
    /// Whether it makes sense. It may name so many entries.
    pub(crate) fn check(&self, max_named: usize) -> Result<(), QueueError> {
        match self {
            Self::Act(Act { on: Selection::Entries(entries), .. }) if entries.len() > max_named => {
                Err(QueueError::InvalidRequest(format!("an operation names at most {max_named} entries; use a filter")))
            }
            Self::Act(act) => check_rate(act.rate, || "the action".to_owned()),
            Self::Replay(replay) => check_rate(replay.rate, || "the replay".to_owned()),
            _ => Ok(()),
        }
    }
}

/// In which case a queue is paused. Looked at and done in one step: nobody comes in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseIf {
    /// In any case: if it is paused already, this is the reason from now on. For people.
    #[default]
    Any,
    /// If it is not paused, whatever the reason: what pauses by itself takes nobody's pause over.
    NotPaused,
}

/// In which case a queue is resumed. Looked at and done in one step: nobody comes in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ResumeIf {
    /// In any case, whether it is paused or not. For people.
    #[default]
    Any,
    /// If it is paused for exactly this reason: what has paused by itself ends its own pause only.
    Reason(String),
}

/// An action on some entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Act {
    /// What to do.
    pub action: Action,
    /// To which entries.
    pub on: Selection,
    /// How fast; `None`: as fast as other work allows.
    pub rate: Option<Rate>,
}

/// What can be done to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It will not be handled: from scheduled, waiting or ready to cancelled.
    Cancel,
    /// It is tried again: from dead to ready, its attempts counted anew. A dead letter that holds its ordering key
    /// becomes its head again; any other joins at the end.
    Redrive,
    /// It goes without a trace, unless somebody handles it.
    Purge,
    /// It goes on in another queue, under another id, with what is left of its time to live: from scheduled, waiting,
    /// ready or dead. Where a filter moves ready and waiting entries alike, those of an ordering key arrive in their
    /// order.
    Move(QueueName),
}

impl Action {
    /// The states that it applies to.
    #[must_use]
    pub const fn applies_to(&self) -> &'static [State] {
        match self {
            Self::Cancel => &[State::Scheduled, State::Waiting, State::Ready],
            Self::Redrive => &[State::Dead],
            Self::Purge => {
                &[State::Scheduled, State::Waiting, State::Ready, State::Done, State::Dead, State::Cancelled]
            }
            Self::Move(_) => &[State::Scheduled, State::Waiting, State::Ready, State::Dead],
        }
    }
}

/// Some entries.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// These, of any queues.
    Entries(Vec<EntryId>),
    /// Those of one queue that match.
    Where(Filter),
}

/// Which entries of a queue. What is not given matches all.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Of which queue.
    pub queue: QueueName,
    /// In one of these states; empty: in every state that the action applies to.
    pub states: Vec<State>,
    /// With a type that matches one of these; empty: any.
    pub types: Vec<Pattern>,
    /// Whose last attempt ended in one of these outcomes; empty: any.
    pub outcomes: Vec<OutcomeKind>,
    /// Whose last attempt has this text in its reason.
    pub reason: Option<String>,
    /// Whose last attempt was handled by this version: a component's digest, in full. Not among them are those whose last
    /// attempt the queue has ended itself, expired or lost: whoever handled it has not said.
    pub version: Option<String>,
    /// With this ordering key.
    pub key: Option<String>,
    /// That entered their state at least this long ago.
    pub older_than: Option<Duration>,
    /// That entered their state at most this long ago.
    pub younger_than: Option<Duration>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Filter {
    /// Every entry of `queue`.
    #[must_use]
    pub const fn all(queue: QueueName) -> Self {
        Self {
            queue,
            states: Vec::new(),
            types: Vec::new(),
            outcomes: Vec::new(),
            reason: None,
            version: None,
            key: None,
            older_than: None,
            younger_than: None,
            limit: None,
        }
    }
}

/// Events of the log that come into a queue once more, as new entries. Needs a log:
/// [`EngineOptions::log_retention`](crate::EngineOptions::log_retention).
#[derive(Clone, Debug, PartialEq)]
pub struct Replay {
    /// Into which queue.
    pub into: QueueName,
    /// From which moment.
    pub from: ReplayFrom,
    /// Up to which moment. Default: that of the call.
    pub until: Option<Timestamp>,
    /// Events that one of these wants; empty: all.
    pub matching: Vec<Subscription>,
    /// Which of those.
    pub what: ReplayWhat,
    /// How fast; `None`: as fast as other work allows.
    pub rate: Option<Rate>,
}

impl Replay {
    /// Everything that `into` has missed, as fast as other work allows.
    #[must_use]
    pub const fn new(into: QueueName) -> Self {
        let (from, what) = (ReplayFrom::Start, ReplayWhat::Missing);
        Self { into, from, until: None, matching: Vec::new(), what, rate: None }
    }
}

/// A moment in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// As far back as it goes.
    Start,
    /// What was published then and later.
    Time(Timestamp),
}

/// Which events of the log to replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplayWhat {
    /// Those that were not published into the queue: a new subscription catches up.
    #[default]
    Missing,
    /// All of them: everything is handled again.
    All,
}

/// The answer to an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operated {
    /// How many entries were changed. Of a pause or a resume: 1 if it was done, 0 if its condition was not met.
    pub changed: u64,
    /// For entries that were named: one answer each, in order.
    pub replies: Vec<ActReply>,
}

/// What became of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActReply {
    /// It was done.
    Done,
    /// It was moved, and has this id now.
    Moved(EntryId),
    /// It is in a state that the action does not apply to. Nothing was changed.
    WrongState(State),
    /// There is no such entry (any more).
    Unknown,
}

/// An entry that has just become a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its queue.
    pub queue: QueueName,
    /// The entry.
    pub entry: EntryId,
}
