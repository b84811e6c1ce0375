//! What the engine asks of a place to keep bytes: reads, one atomic commit, and a sync.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys::Family;
use crate::contract::QueueError;

/// Called with each key and value of a scan.
pub(crate) type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A consistent view of the store.
pub(crate) trait View {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError>;

    /// Visits `from..to` in order, until told to stop. An empty `to` means no upper bound.
    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError>;
}

/// A place to keep bytes. Only the writer commits; views and syncs may run beside it.
pub(crate) trait Store: Send + Sync + 'static {
    /// What the writer reads: everything committed.
    fn current(&self) -> &dyn View;

    /// Runs `read` on a snapshot.
    fn snapshot(&self, read: &mut dyn FnMut(&dyn View)) -> Result<(), QueueError>;

    /// Applies all writes or none.
    fn commit(&self, writes: Writes) -> Result<(), QueueError>;

    /// Returns once everything committed before the call is as durable as publishers were promised.
    fn sync(&self) -> Result<(), QueueError>;

    /// Returns once everything committed before the call is as durable as this store can make it: for what must not be
    /// forgotten whatever publishers were promised.
    fn persist(&self) -> Result<(), QueueError>;
}

/// What a commit does to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    Put(Vec<u8>),
    Delete,
}

/// What a commit does, by family and key.
pub(crate) type Writes = BTreeMap<(Family, Vec<u8>), Write>;

/// The store as the commit in the making will leave it.
pub(crate) struct Tx<'a> {
    base: &'a dyn View,
    writes: Writes,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(base: &'a dyn View) -> Self {
        Self { base, writes: Writes::new() }
    }

    pub(crate) fn put(&mut self, family: Family, key: Vec<u8>, value: Vec<u8>) {
        self.writes.insert((family, key), Write::Put(value));
    }

    pub(crate) fn delete(&mut self, family: Family, key: Vec<u8>) {
        use std::collections::btree_map::Entry;
        match self.writes.entry((family, key)) {
            // Put in this very commit: it never reaches the store, so nothing is to be deleted there.
            Entry::Occupied(put) if family.is_single_delete() => {
                put.remove();
            }
            Entry::Occupied(mut put) => {
                put.insert(Write::Delete);
            }
            Entry::Vacant(none) => {
                none.insert(Write::Delete);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn into_writes(self) -> Writes {
        self.writes
    }
}

impl View for Tx<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        match self.writes.get(&(family, key.to_vec())) {
            Some(Write::Put(value)) => Ok(Some(Bytes::copy_from_slice(value))),
            Some(Write::Delete) => Ok(None),
            None => self.base.get(family, key),
        }
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let in_range = |key: &[u8]| to.is_empty() || key < to;
        let mut pending = self
            .writes
            .range((family, from.to_vec())..)
            .take_while(|((f, key), _)| *f == family && in_range(key))
            .map(|((_, key), write)| (key.as_slice(), write))
            .peekable();
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
