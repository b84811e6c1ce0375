//! State: a key-value space in buckets, read on snapshots and written by transactions.

use bytes::Bytes;

use super::QueueError;
pub use gristmill_core::state::{Change, MAX_STATE_KEY_LEN, StateRead, StateWrite};

/// How far state had got; orders snapshots and commits of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

impl Revision {
    /// For who implements a [`StateSnapshot`]: a larger number is a later moment.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number that it was made of.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// State as it was at one moment. What a snapshot holds on to is freed when it is dropped.
///
/// Reads may touch the disk: call them where blocking is allowed.
pub trait StateSnapshot: Send + Sync {
    /// The moment.
    fn revision(&self) -> Revision;

    /// The value of a key; `None`: there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, QueueError>;

    /// Keys that begin with `prefix` and sort behind `after`, in byte order, up to `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn keys(&self, bucket: &str, prefix: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, QueueError>;

    /// Names of the buckets that hold anything, in byte order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn buckets(&self) -> Result<Vec<String>, QueueError>;
}

/// Reads that must still be true and writes that happen together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The snapshot that was read; `None` when nothing was.
    pub revision: Option<Revision>,
    /// What was read there.
    pub reads: Vec<StateRead>,
    /// What is written, in this order.
    pub writes: Vec<StateWrite>,
}

/// The answer to a transaction that is no part of a settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transacted {
    /// It happened. The new values of the keys that were incremented, in the order of the writes.
    Committed(Vec<i64>),
    /// What it read has been changed since, or is too long ago. Nothing was changed.
    Conflict,
    /// A write cannot be done. Nothing was changed.
    Refused(StateError),
}

/// Why a write cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The bucket holds as much as it may.
    #[error("bucket `{}` is full: it may hold {max_bytes} bytes of keys and values", .bucket.escape_debug())]
    Full {
        /// The bucket.
        bucket: String,
        /// Its limit.
        max_bytes: u64,
    },
    /// An increment of something that is no decimal number, or beyond 64 bits.
    #[error("key `{}` of bucket `{}` cannot be incremented: {problem}", .key.escape_debug(), .bucket.escape_debug())]
    NotANumber {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What it is instead.
        problem: &'static str,
    },
    /// A name that cannot be.
    #[error("a {what} has {len} bytes; 1 to {MAX_STATE_KEY_LEN} are allowed")]
    InvalidName {
        /// `bucket name` or `key`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
}
