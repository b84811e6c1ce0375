//! What the engine asks of a place to keep bytes: reads, one atomic commit, and a sync.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use gristmill_core::Timestamp;

use super::chunk::Chunk;
use super::keys::{Family, Key};
use crate::contract::QueueError;

/// Called with each key and value of a scan.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A consistent view of the store.
pub(crate) trait View {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError>;

    /// Visits `from..to` in order, until told to stop. An empty `to` means no upper bound.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError>;
}

/// A view that stays as it is, and can be looked at from its end.
pub(crate) trait Still: View {
    /// Visits `from..to` from the last key to the first, until told to stop. An empty `to` means no upper bound.
    fn scan_back(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError>;
}

/// One that stays as it is for as long as it is held, on any thread.
pub(crate) type Snapshot = Arc<dyn Still + Send + Sync>;

/// A place to keep bytes. Only the writer commits; views, snapshots and syncs may run beside it.
pub(crate) trait Store: Send + Sync + 'static {
    /// What the writer reads: everything committed.
    fn current(&self) -> &dyn View;

    /// Everything committed, as it is now.
    fn snapshot(&self) -> Result<Snapshot, QueueError>;

    /// Applies all writes or none.
    fn commit(&self, writes: Writes) -> Result<(), QueueError>;

    /// Returns once everything committed before the call is as durable as publishers were promised.
    fn sync(&self) -> Result<(), QueueError>;

    /// Returns once everything committed before the call is as durable as this store can make it: for what must not be
    /// forgotten whatever publishers were promised.
    fn persist(&self) -> Result<(), QueueError>;

    /// What publishers may still use; `None`: the store has no bounds of its own. Cheap enough to ask at every commit.
    fn space(&self) -> Option<Space>;

    /// Records of the `Origin` family that expired before `now` may be dropped, whenever it suits the store.
    fn expire_origins(&self, now: Timestamp);

    /// Gives back the space of what was deleted. False: some of it is still in use, and is to be given back later.
    /// Slow; called from a thread of its own, from time to time.
    fn reclaim(&self) -> Result<bool, QueueError>;

    /// It is about to be dropped: slow work ends early.
    fn interrupt(&self) {}

    /// Writes a copy of everything committed to a new directory. Slow; work goes on meanwhile.
    fn backup(&self, directory: &Path) -> Result<(), QueueError>;
}

/// Room on the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) available: u64,
    /// Kept back for settling.
    pub(crate) reserve: u64,
}

impl Space {
    pub(crate) const fn is_low(self) -> bool {
        self.available < self.reserve
    }
}

/// What a commit does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Bytes),
    Delete,
}

/// What a commit does.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    families: [Vec<(Key, Write)>; Family::COUNT],
    ranges: Vec<(Family, Key, Key)>,
}

impl Writes {
    /// What happens to one family's keys, in the order in which it happens: the last word on a key counts.
    pub(crate) const fn family(&self, family: Family) -> &Vec<(Key, Write)> {
        &self.families[family as usize]
    }

    /// Every write.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Family, &Key, &Write)> {
        let each = |family: Family| self.family(family).iter().map(move |(key, write)| (family, key, write));
        Family::ALL.into_iter().flat_map(each)
    }

    /// Ranges, from the first key up to the second, that are deleted before anything is written.
    pub(crate) fn ranges(&self) -> &[(Family, Key, Key)] {
        &self.ranges
    }

    /// Nearly how many bytes all keys and values take together.
    pub(crate) fn len_hint(&self) -> usize {
        let size = |(key, write): &(Key, Write)| {
            key.len()
                + 12
                + match write {
                    Write::Put(value) => value.len(),
                    Write::Delete => 0,
                }
        };
        64 + self.families.iter().flatten().map(size).sum::<usize>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.families.iter().all(Vec::is_empty)
    }
}

/// The store as the commit in the making will leave it.
///
/// Writes are gathered in the order in which they come. Families that are read again before the commit get an index of
/// them, at the first read; those that are only written, which are the busy ones, do without.
pub(crate) struct Tx<'a> {
    base: &'a dyn View,
    writes: Writes,
    /// Bytes of keys and values so far.
    size: usize,
    chunk: Chunk,
    indexes: [RefCell<Option<Index>>; Family::COUNT],
}

/// The last write of each key.
type Index = BTreeMap<Key, usize>;

impl<'a> Tx<'a> {
    pub(crate) fn new(base: &'a dyn View) -> Self {
        Self { base, writes: Writes::default(), size: 0, chunk: Chunk::default(), indexes: Default::default() }
    }

    pub(crate) fn put(&mut self, family: Family, key: Key, value: impl Into<Bytes>) {
        self.write(family, key, Write::Put(value.into()));
    }

    /// Puts a value of about `len` bytes, which `encode` appends.
    pub(crate) fn put_with(
        &mut self,
        family: Family,
        key: Key,
        len: usize,
        encode: impl FnOnce(&mut BytesMut),
    ) -> Bytes {
        encode(self.chunk.room(len));
        let value = self.chunk.take().freeze();
        self.put(family, key, value.clone());
        value
    }

    pub(crate) fn delete(&mut self, family: Family, key: Key) {
        self.write(family, key, Write::Delete);
    }

    fn write(&mut self, family: Family, key: Key, write: Write) {
        self.size += key.len();
        if let Write::Put(value) = &write {
            self.size += value.len();
        }
        let writes = &mut self.writes.families[family as usize];
        if let Some(index) = self.indexes[family as usize].get_mut() {
            index.insert(key.clone(), writes.len());
        }
        writes.push((key, write));
    }

    /// Deletes a range of keys that this commit neither reads nor writes, of a family without single-deletes.
    pub(crate) fn delete_range(&mut self, family: Family, from: Key, to: Key) {
        debug_assert!(!family.is_single_delete(), "{family:?}");
        self.writes.ranges.push((family, from, to));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// How many bytes this commit writes so far: keys and values.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }

    /// Looks at this commit's own writes to a family; `None`: it has none.
    fn own<T>(&self, family: Family, look: impl FnOnce(&Index, &[(Key, Write)]) -> T) -> Option<T> {
        let writes = self.writes.family(family);
        if writes.is_empty() {
            return None;
        }
        let mut index = self.indexes[family as usize].borrow_mut();
        let index = index.get_or_insert_with(|| (0..).zip(writes).map(|(at, (key, _))| (key.clone(), at)).collect());
        Some(look(index, writes))
    }

    /// This commit's own writes to a range of keys, in their order.
    fn own_range(&self, family: Family, from: &[u8], to: &[u8]) -> Vec<(Key, Write)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let upper = if to.is_empty() { Unbounded } else { Excluded(to) };
        let found = self.own(family, |index, writes| {
            let range = index.range::<[u8], _>((Included(from), upper));
            range.filter_map(|(_, at)| writes.get(*at).cloned()).collect()
        });
        found.unwrap_or_default()
    }
}

impl View for Tx<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        let own = self
            .own(family, |index, writes| index.get(key).and_then(|at| writes.get(*at)).map(|(_, write)| write.clone()));
        match own.flatten() {
            Some(Write::Put(value)) => Ok(Some(value)),
            Some(Write::Delete) => Ok(None),
            None => self.base.get(family, key),
        }
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        let own = self.own_range(family, from, to);
        if own.is_empty() {
            return self.base.scan(family, from, to, visit);
        }
        let mut pending = own.iter().map(|(key, write)| (key.as_slice(), write)).peekable();
        let mut stopped = false;
        let emit = |key: &[u8], write: &Write, visit: &mut Visit<'_>| match write {
            Write::Put(value) => visit(key, value),
            Write::Delete => ControlFlow::Continue(()),
        };
        self.base.scan(family, from, to, &mut |key, value| {
            while let Some((own, write)) = pending.next_if(|(own, _)| *own < key) {
                if emit(own, write, visit).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match pending.next_if(|(own, _)| *own == key) {
                Some((own, write)) => emit(own, write, visit),
                None => visit(key, value),
            };
            stopped = flow.is_break();
            flow
        })?;
        if !stopped {
            for (own, write) in pending {
                if emit(own, write, visit).is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Visits every key with `prefix`; stops at the first error.
pub(crate) fn for_each(
    view: &dyn View,
    family: Family,
    prefix: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), QueueError>,
) -> Result<(), QueueError> {
    let visit = |key: &[u8], value: &[u8]| visit(key, value).map(ControlFlow::Continue);
    try_scan(view, family, prefix, &super::keys::after_prefix(prefix), visit)
}

/// Visits `from..to` in order, as [`View::scan`] does, until told to stop or something fails.
pub(crate) fn try_scan(
    view: &dyn View,
    family: Family,
    from: &[u8],
    to: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, QueueError>,
) -> Result<(), QueueError> {
    let mut failed = None;
    view.scan(family, from, to, &mut |key, value| {
        visit(key, value).unwrap_or_else(|error| {
            failed = Some(error);
            ControlFlow::Break(())
        })
    })?;
    failed.map_or(Ok(()), Err)
}
