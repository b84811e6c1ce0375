//! Samples: the latest events of a queue, whole, to try a handler on.

use std::sync::Arc;

use gristmill_core::{Event, QueueName, Timestamp};

use super::QueueError;
use super::inspect::{Entry, check_limit};

/// A request for the latest events of a queue, with their data. Looking changes nothing: they stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Of which queue.
    pub queue: QueueName,
    /// Which of them.
    pub which: SampleOf,
    /// How many at most; 1 to 1,000.
    pub limit: usize,
}

/// Which events of a queue to sample. A call examines at most 4,096 records of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleOf {
    /// The last that came into the queue, the latest first. Found are:
    ///
    /// - entries that are leased, ready, waiting, scheduled or dead; of the waiting and the scheduled, the first 4,096 as
    ///   lists have them;
    /// - done entries whose data is there: kept by [`Payload::Keep`](super::Payload::Keep), or in the log, if there is
    ///   one. An event that never had any looks like one whose data has gone, and is found in the log only;
    /// - events of the log that were published into the queue and whose entries are not found: among the latest 4,096
    ///   of all queues.
    ///
    /// Without a log, and without data that is kept, that is what is still in the queue. Cancelled entries are no part
    /// of it.
    #[default]
    Last,
    /// Its dead letters, the latest death first.
    Dead,
}

impl Sample {
    /// The last events of `queue`, at most `limit` of them.
    #[must_use]
    pub const fn last(queue: QueueName, limit: usize) -> Self {
        Self { queue, which: SampleOf::Last, limit }
    }

    /// The latest dead letters of `queue`, at most `limit` of them.
    #[must_use]
    pub const fn dead(queue: QueueName, limit: usize) -> Self {
        Self { queue, which: SampleOf::Dead, limit }
    }

    pub(crate) fn check(&self) -> Result<(), QueueError> {
        check_limit(self.limit)
    }
}

/// An event that a queue has, or had.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// The event, with its data.
    pub event: Arc<Event>,
    /// When it was published.
    pub published_at: Timestamp,
    /// What has become of it in this queue, as [`Queue::get`](super::Queue::get) has it; `None`: it was found in the log
    /// alone.
    pub entry: Option<Entry>,
}
