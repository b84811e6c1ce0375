//! Claiming, settling, extending.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Disposition, EntryId, Event, Outcome, Pattern, Postmortem, QueueName, Timestamp};

use super::publish::{Publish, PublishError};
use super::state::{StateError, Transaction};

/// A request for deliveries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// From which queue.
    pub queue: QueueName,
    /// How many at most.
    pub max: usize,
    /// How long to wait for the first. Default: not at all.
    pub wait: Duration,
    /// Only events whose type matches one of these. Default: none, which means all. A call examines at most 4,096
    /// entries, and goes on where the last one with the same filter stopped.
    pub types: Vec<Pattern>,
    /// Overrides [`QueueOptions::lease`](super::QueueOptions::lease).
    pub lease: Option<Duration>,
    /// Who holds the leases. Default: this process.
    pub holder: Holder,
    /// What happens to the claimed entries. Default: they are leased.
    pub then: Then,
    /// Goes through a pause for exactly this reason, as if there were none: whoever has paused a queue by itself probes
    /// with such claims whether it may go on. A pause for any other reason stops it like any claim. Default: none, which
    /// means that every pause does.
    pub through: Option<String>,
}

impl Claim {
    /// Up to `max` entries of `queue`, without waiting.
    #[must_use]
    pub const fn new(queue: QueueName, max: usize) -> Self {
        Self {
            queue,
            max,
            wait: Duration::ZERO,
            types: Vec::new(),
            lease: None,
            holder: Holder::Process,
            then: Then::Lease,
            through: None,
        }
    }

    /// Waits up to `wait` for the first entry.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Goes through a pause for this reason, and no other.
    #[must_use]
    pub fn through(mut self, reason: impl Into<String>) -> Self {
        self.through = Some(reason.into());
        self
    }
}

/// Who holds a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// Somebody in this process: the lease ends with it.
    #[default]
    Process,
    /// Somebody outside: the lease is stored, and valid over a reopen of the store.
    Outside,
}

/// What happens to claimed entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// They are leased until they are settled.
    #[default]
    Lease,
    /// They are acked in the commit that claims them: at most once, if whoever claims does not survive.
    Ack,
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
    /// 1 for the first. The same again after an attempt that did not count.
    pub attempt: u32,
    /// How many of its attempts were [forgiven](Settle::forgive), since publish or the last redrive.
    pub forgiven: u32,
    /// `None`: no limit.
    pub max_attempts: Option<u32>,
    /// When the entry was published.
    pub enqueued_at: Timestamp,
    /// Its ordering key.
    pub key: Option<Arc<str>>,
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
    /// The failure does not count, whatever the outcome is: no attempt is spent, and the entry comes back after so long;
    /// zero: at once, and to the front. It keeps its ordering key. Its history has the attempt, with outcome, reason and
    /// version, marked as [forgiven](gristmill_core::Attempt::forgiven); a release, which says that nobody has handled
    /// it, leaves no trace. How often is up to whoever settles: [`Delivery::forgiven`] says how often it has been.
    /// [`max_age`](super::QueueOptions::max_age) ends what would come back later than that; what comes back at once, it
    /// lets pass. Default: none, which means that the retry policy decides. Not with an ack, nor with a release.
    pub forgive: Option<Duration>,
    /// What it cost and said: kept with the entry if this makes it a dead letter.
    pub postmortem: Option<Box<Postmortem>>,
    /// Events that are published if, and only if, the outcome is an ack. One without a queue is dropped. They are
    /// admitted above the limits of their queues, so that a handler cannot lock itself out; duplicates are looked for.
    pub emits: Vec<Publish>,
    /// What the handler read and wrote, validated and committed if, and only if, the outcome is an ack.
    pub transaction: Option<Transaction>,
    /// Further deliveries that are acked together with this one: all of them with the events and the transaction, in one
    /// commit, or none. The answer is for all; [`StaleLease`](SettleReply::StaleLease) if a single one is. Only with an
    /// ack, and each delivery once. Conflicts are counted for this one's lease.
    pub with: Vec<Acked>,
}

/// A delivery that is acked together with another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Proof of the lease.
    pub lease: LeaseToken,
    /// The handler's result.
    pub result: Option<Bytes>,
}

impl Settle {
    /// `outcome` for the delivery of `lease`, and nothing that goes with it.
    #[must_use]
    pub const fn new(lease: LeaseToken, outcome: Outcome) -> Self {
        Self {
            lease,
            outcome,
            version: None,
            forgive: None,
            postmortem: None,
            emits: Vec::new(),
            transaction: None,
            with: Vec::new(),
        }
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
    /// No such token was ever issued. Nothing was changed.
    Unknown,
    /// What the transaction read has been changed since. Nothing was changed; the lease goes on: run it again on a new
    /// snapshot, or release it. No attempt is spent. From the third conflict on, the delivery has the buckets that it
    /// touched to itself: other transactions on them conflict until it is settled. (Unless another has one of them: it
    /// gets all or none.)
    Conflict,
    /// An emitted event cannot be published. Nothing was changed; the lease goes on.
    Refused(PublishError),
    /// A write cannot be done. Nothing was changed; the lease goes on.
    StateRefused(StateError),
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
    /// No such token was ever issued.
    Unknown,
}
