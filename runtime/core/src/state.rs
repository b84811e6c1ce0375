//! State: keys and values in named buckets, as those see it who use it for one delivery.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// The longest bucket name and the longest key, in bytes.
pub const MAX_STATE_KEY_LEN: usize = 1_024;
/// The longest name of a bucket that can be granted, in bytes.
pub const MAX_BUCKET_LEN: usize = 128;

/// What a handler sees of state: one moment, the same for all of its reads. The moment is that of the first read, so
/// that whoever reads nothing holds on to nothing.
///
/// Reads may touch the disk: call them where blocking is allowed.
pub trait StateReader: fmt::Debug + Send + Sync {
    /// The value of a key; `None`: there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, StateUnavailable>;

    /// The keys that sort behind `after`, in byte order, up to `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateUnavailable>;
}

/// State cannot be read now. The words are for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}")]
pub struct StateUnavailable(pub String);

/// What was read of state, and what is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateUse {
    /// What must still be as it was read.
    pub reads: Vec<StateRead>,
    /// What is written, in this order.
    pub writes: Vec<StateWrite>,
}

impl StateUse {
    /// Whether nothing was read or written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }
}

/// Something that was read, and must not have been changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateRead {
    /// One key, there or not.
    Key {
        /// Its bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// Which keys begin like this.
    Prefix {
        /// The bucket.
        bucket: String,
        /// How they begin; empty: all keys.
        prefix: String,
    },
}

/// A change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// Its bucket; made by its first key.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// What becomes of it.
    pub change: Change,
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has this value.
    Set(Bytes),
    /// It is gone.
    Delete,
    /// Its value, a decimal number (0 if there is none), grows by this much.
    Increment(i64),
}

/// What a handler may do with a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateAccess {
    /// Look.
    Read,
    /// Look and write.
    Write,
}

/// A bucket that a handler may use: `NAME`, or `NAME:read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateGrant {
    /// The bucket.
    pub bucket: String,
    /// What it may do there.
    pub access: StateAccess,
}

/// Why a text is no grant of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateGrantError {
    /// No bucket has such a name.
    #[error("`{}` is not the name of a bucket: 1 to {MAX_BUCKET_LEN} letters, digits, `-`, `_` and `.`", .0.escape_debug())]
    Name(String),
    /// What stands behind the colon is not `read`.
    #[error("unknown access `{}`: write `NAME` to read and write, `NAME:read` to read only", .0.escape_debug())]
    Access(String),
}

impl FromStr for StateGrant {
    type Err = StateGrantError;

    fn from_str(text: &str) -> Result<Self, StateGrantError> {
        let (bucket, access) = match text.split_once(':') {
            None => (text, StateAccess::Write),
            Some((bucket, "read")) => (bucket, StateAccess::Read),
            Some((_, other)) => return Err(StateGrantError::Access(other.to_owned())),
        };
        if !is_bucket_name(bucket) {
            return Err(StateGrantError::Name(bucket.to_owned()));
        }
        Ok(Self { bucket: bucket.to_owned(), access })
    }
}

impl fmt::Display for StateGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        match self.access {
            StateAccess::Write => Ok(()),
            StateAccess::Read => f.write_str(":read"),
        }
    }
}

/// Whether a bucket can have this name: 1 to 128 ASCII letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_bucket_name(name: &str) -> bool {
    let is_right = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !name.is_empty() && name.len() <= MAX_BUCKET_LEN && name.bytes().all(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_as_they_are_written() {
        for text in ["thumbnails", "prices:read", "A.b_c-1"] {
            assert_eq!(text.parse::<StateGrant>().unwrap().to_string(), text);
        }
        let read = "prices:read".parse::<StateGrant>().unwrap();
        assert_eq!((read.bucket.as_str(), read.access), ("prices", StateAccess::Read));
    }

    #[test]
    fn what_is_no_grant_is_explained() {
        let long = "x".repeat(MAX_BUCKET_LEN + 1);
        for name in ["", "a b", "a/b", "ä", &long] {
            assert_eq!(name.parse::<StateGrant>(), Err(StateGrantError::Name(name.to_owned())));
        }
        assert_eq!(":read".parse::<StateGrant>(), Err(StateGrantError::Name(String::new())));
        for (text, access) in [("a:write", "write"), ("a:", ""), ("a:read:b", "read:b")] {
            assert_eq!(text.parse::<StateGrant>(), Err(StateGrantError::Access(access.to_owned())));
        }
    }
}
