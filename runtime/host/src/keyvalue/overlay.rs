//! What one invocation sees of state: its own writes over one snapshot. What it takes from the snapshot is remembered,
//! because it must still be so when the invocation is acked; what it takes from its own writes need not be.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::state::{
    Change, MAX_STATE_KEY_LEN, StateRead, StateReader, StateUnavailable, StateUse, StateWrite,
};
use gristmill_core::units::format_size;

use super::{Answer, Bucket, Refusal};
use crate::options::Limits;

/// Keys in one answer of `list-keys`.
const PAGE: usize = 1_000;
/// Keys of one bucket that are remembered as read one by one. Whoever reads more has read the whole bucket: that is
/// less precise, and never wrong.
const MAX_READS: usize = 10_000;
/// Pages that the numbers of the first draft can stand for.
const MAX_CURSORS: usize = 10_000;

/// One invocation's view of state.
#[derive(Debug)]
pub(crate) struct Overlay {
    /// `None`: everything is empty.
    reader: Option<Arc<dyn StateReader>>,
    reads: BTreeMap<String, Seen>,
    /// For each bucket, what becomes of its keys; `None`: deleted.
    writes: BTreeMap<String, BTreeMap<String, Option<Bytes>>>,
    written: Written,
    max: Written,
    max_read_bytes: u64,
    bytes_read: u64,
    cursors: Vec<String>,
}

/// What was read of a bucket.
#[derive(Debug)]
enum Seen {
    Keys(BTreeSet<String>),
    All,
}

/// How much is written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    keys: usize,
    bytes: u64,
}

impl Overlay {
    pub(crate) fn new(reader: Option<Arc<dyn StateReader>>, limits: &Limits) -> Self {
        Self {
            reader,
            reads: BTreeMap::new(),
            writes: BTreeMap::new(),
            written: Written::default(),
            max: Written { keys: limits.max_state_writes, bytes: limits.max_state_bytes },
            // A guest cannot take more than its memory, and nobody else should hold it meanwhile.
            max_read_bytes: limits.memory,
            bytes_read: 0,
            cursors: Vec::new(),
        }
    }

    /// What was read and written, for the commit. Lets go of the snapshot: the queue remembers every write since the
    /// oldest one, and an instance that is kept may wait long for its next event.
    pub(crate) fn take_use(&mut self) -> StateUse {
        self.reader = None;
        let reads = std::mem::take(&mut self.reads).into_iter().flat_map(|(bucket, seen)| match seen {
            Seen::All => vec![StateRead::Prefix { bucket, prefix: String::new() }],
            Seen::Keys(keys) => keys.into_iter().map(|key| StateRead::Key { bucket: bucket.clone(), key }).collect(),
        });
        let writes = std::mem::take(&mut self.writes).into_iter().flat_map(|(bucket, keys)| {
            keys.into_iter().map(move |(key, value)| {
                let change = value.map_or(Change::Delete, Change::Set);
                StateWrite { bucket: bucket.clone(), key, change }
            })
        });
        StateUse { reads: reads.collect(), writes: writes.collect() }
    }

    /// The value of a key.
    pub(super) async fn get(&mut self, bucket: &str, key: &str) -> Answer<Option<Bytes>> {
        let found = self.get_many(bucket, vec![key.to_owned()]).await?;
        Ok(found.into_iter().next().and_then(|(_, value)| value))
    }

    /// The values of keys, in their order.
    pub(super) async fn get_many(&mut self, bucket: &str, keys: Vec<String>) -> Answer<Vec<(String, Option<Bytes>)>> {
        for key in &keys {
            check_key(key)?;
        }
        let own = self.writes.get(bucket);
        let known = |key: &str| own.and_then(|own| own.get(key)).cloned();
        let known: Vec<_> = keys.into_iter().map(|key| (known(&key), key)).collect();
        for (own, key) in &known {
            if own.is_none() {
                self.note_key(bucket, key);
            }
        }
        let is_stored = self.reader.is_some() && known.iter().any(|(own, _)| own.is_none());
        let (reader, bucket, max) = (self.reader.clone(), bucket.to_owned(), self.max_read_bytes);
        let look = move || {
            let mut bytes = 0_u64;
            let mut found = Vec::with_capacity(known.len());
            for (own, key) in known {
                let value = match (own, &reader) {
                    (Some(own), _) => own,
                    (None, Some(reader)) => reader.get(&bucket, &key)?,
                    (None, None) => None,
                };
                bytes = bytes.saturating_add(value.as_ref().map_or(0, |value| value.len() as u64));
                if bytes > max {
                    let max = format_size(max);
                    return Err(Refusal::Other(format!("the values are larger than the handler's memory of {max}")));
                }
                found.push((key, value));
            }
            Ok(found)
        };
        let found = if is_stored { blocking(look).await? } else { look()? };
        let bytes: usize = found.iter().filter_map(|(_, value)| value.as_ref()).map(Bytes::len).sum();
        self.bytes_read = self.bytes_read.saturating_add(bytes as u64);
        Ok(found)
    }

    /// Bytes of all values that were read, and of all that is written.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes_read, self.written.bytes)
    }

    /// All of these changes, or none: keys and their values, `None` to delete.
    pub(super) fn write(&mut self, bucket: &str, changes: Vec<(String, Option<Bytes>)>) -> Answer<()> {
        for (key, _) in &changes {
            check_key(key)?;
        }
        // The last change of a key counts.
        let changes: BTreeMap<_, _> = changes.into_iter().collect();
        let own = self.writes.get(bucket);
        let size = |key: &str, value: &Option<Bytes>| (key.len() + value.as_ref().map_or(0, Bytes::len)) as u64;
        let Written { mut keys, mut bytes } = self.written;
        for (key, value) in &changes {
            match own.and_then(|own| own.get(key)) {
                Some(old) => bytes = bytes.saturating_sub(size(key, old)),
                None => keys += 1,
            }
            bytes = bytes.saturating_add(size(key, value));
        }
        if keys > self.max.keys {
            return Err(Refusal::Other(format!("one invocation may write at most {} keys", self.max.keys)));
        }
        if bytes > self.max.bytes {
            let max = format_size(self.max.bytes);
            return Err(Refusal::Other(format!("one invocation may write at most {max} of keys and values")));
        }
        self.written = Written { keys, bytes };
        self.writes.entry(bucket.to_owned()).or_default().extend(changes);
        Ok(())
    }

    /// Adds to a number. The sum is told, so that the number counts as read.
    pub(super) async fn increment<N>(&mut self, bucket: &Bucket, key: String, delta: N) -> Answer<N>
    where
        N: Into<i128> + TryFrom<i128>,
    {
        let name = bucket.to_write()?;
        let number = number(self.get(name, &key).await?.as_deref())?;
        let too_large = || Refusal::other("the sum does not fit into 64 bits");
        let sum = number.checked_add(delta.into()).ok_or_else(too_large)?;
        let told = N::try_from(sum).map_err(|_| too_large())?;
        self.write(name, vec![(key, Some(Bytes::from(sum.to_string())))])?;
        Ok(told)
    }

    /// A page of the keys behind `after`, and where the next page begins, if there is one.
    pub(super) async fn list(&mut self, bucket: &str, after: Option<String>) -> Answer<(Vec<String>, Option<String>)> {
        self.reads.insert(bucket.to_owned(), Seen::All);
        let mut after = after;
        loop {
            let stored = self.stored_keys(bucket, after.clone()).await?;
            // Behind the last stored key of a full page there may be more, which come first.
            let end = if stored.len() < PAGE { None } else { stored.last().cloned() };
            let mut keys: BTreeSet<String> = stored.into_iter().collect();
            for (key, value) in self.own_keys(bucket, after.as_deref(), end.as_deref()) {
                if value.is_some() {
                    keys.insert(key.clone())
                } else {
                    keys.remove(key)
                };
            }
            let more = end.is_some() || keys.len() > PAGE;
            let keys: Vec<_> = keys.into_iter().take(PAGE).collect();
            if keys.is_empty() && more {
                // All of them were deleted by this invocation.
                after = end;
                continue;
            }
            let next = if more { keys.last().cloned() } else { None };
            return Ok((keys, next));
        }
    }

    /// [`list`](Self::list), where a number stands for the place at which a page begins.
    pub(super) async fn list_numbered(
        &mut self,
        bucket: &str,
        cursor: Option<u64>,
    ) -> Answer<(Vec<String>, Option<u64>)> {
        let after = match cursor {
            None => None,
            Some(number) => {
                let index = usize::try_from(number).unwrap_or(usize::MAX);
                let after = self.cursors.get(index).cloned();
                Some(after.ok_or_else(|| Refusal::other("the cursor is none that this invocation was given"))?)
            }
        };
        let (keys, next) = self.list(bucket, after).await?;
        Ok((keys, next.map(|next| self.cursor(next)).transpose()?))
    }

    fn cursor(&mut self, after: String) -> Answer<u64> {
        if let Some(index) = self.cursors.iter().position(|known| *known == after) {
            return Ok(index as u64);
        }
        if self.cursors.len() >= MAX_CURSORS {
            return Err(Refusal::Other(format!("one invocation may list at most {MAX_CURSORS} pages of keys")));
        }
        self.cursors.push(after);
        Ok(self.cursors.len() as u64 - 1)
    }

    async fn stored_keys(&self, bucket: &str, after: Option<String>) -> Answer<Vec<String>> {
        let Some(reader) = self.reader.clone() else { return Ok(Vec::new()) };
        let bucket = bucket.to_owned();
        blocking(move || Ok(reader.keys(&bucket, after.as_deref(), PAGE)?)).await
    }

    /// What this invocation has written behind `after`, up to `end`.
    fn own_keys(
        &self,
        bucket: &str,
        after: Option<&str>,
        end: Option<&str>,
    ) -> impl Iterator<Item = (&String, &Option<Bytes>)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let own =
            self.writes.get(bucket).into_iter().flat_map(move |own| own.range::<str, _>((after, Bound::Unbounded)));
        own.take_while(move |(key, _)| end.is_none_or(|end| key.as_str() <= end))
    }

    fn note_key(&mut self, bucket: &str, key: &str) {
        let seen = self.reads.entry(bucket.to_owned()).or_insert_with(|| Seen::Keys(BTreeSet::new()));
        if let Seen::Keys(keys) = seen {
            keys.insert(key.to_owned());
            if keys.len() > MAX_READS {
                *seen = Seen::All;
            }
        }
    }
}

/// Reads, where the disk may be waited for.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|_| Err(Refusal::other("reading the state was interrupted")))
}

impl From<StateUnavailable> for Refusal {
    fn from(error: StateUnavailable) -> Self {
        Self::other(error)
    }
}

fn check_key(key: &str) -> Answer<()> {
    if key.is_empty() || key.len() > MAX_STATE_KEY_LEN {
        let len = key.len();
        return Err(Refusal::Other(format!("a key has {len} bytes; 1 to {MAX_STATE_KEY_LEN} are allowed")));
    }
    Ok(())
}

/// A value as a number, as every host of `wasi:keyvalue` writes it: in decimal digits.
fn number(value: Option<&[u8]>) -> Answer<i128> {
    let Some(value) = value else { return Ok(0) };
    let text = std::str::from_utf8(value).ok();
    let number = text.and_then(|text| text.trim().parse::<i128>().ok());
    number.ok_or_else(|| Refusal::other("the value is no decimal number"))
}
