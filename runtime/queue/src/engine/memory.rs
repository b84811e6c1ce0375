//! The memory store: sorted maps, for tests and trials. Nothing survives the process.

use std::array;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use gristmill_core::Timestamp;

use super::keys::{Family, Key};
use super::records::OriginRecord;
use super::store::{Snapshot, Space, Still, Store, View, Visit, Write, Writes};
use super::{Engine, EngineOptions};
use crate::contract::{Durability, QueueError};

/// Records that one call of `expire_origins` looks at.
const EXPIRE_AT_ONCE: usize = 1_000;

/// The in-memory engine: the transitions of the durable one over sorted maps. Clones share their content, so that a
/// test can open the same memory again, as it would a directory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    shared: Shared,
}

impl Memory {
    /// Opens an engine on this memory. One at a time.
    ///
    /// # Errors
    /// When its content is damaged, which no engine leaves behind.
    pub fn open(&self, options: EngineOptions) -> Result<Engine, QueueError> {
        let options = EngineOptions { durability: Durability::Memory, ..options };
        let shared = self.shared.clone();
        Engine::start("memory", Box::new(move || Ok(Arc::new(shared.clone()))), options)
    }

    /// The store under the engine, for tests that damage it.
    #[cfg(test)]
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.shared.clone())
    }

    /// Makes the next commit or sync fail, as that of a disk may, once: for tests of what follows. The engine opens the
    /// memory again by itself.
    pub fn fail_next(&self, fault: Fault) {
        self.shared.0.write().unwrap_or_else(PoisonError::into_inner).fault = Some(fault);
    }

    /// Remembers every commit from now on until a sync covers it, so that [`after_power_cut`](Self::after_power_cut)
    /// has something to lose: for tests.
    pub fn remember_commits(&self) {
        let mut state = self.shared.0.write().unwrap_or_else(PoisonError::into_inner);
        state.unsynced = Some(vec![state.maps.clone()]);
    }

    /// What a power cut at this moment would leave: everything synced and, of the commits since, a share of the first
    /// ones, 0 to 1. The copy remembers its commits, too.
    #[must_use]
    pub fn after_power_cut(&self, share: f64) -> Self {
        let state = self.shared.0.read().unwrap_or_else(PoisonError::into_inner);
        let kept = state.unsynced.as_ref().and_then(|commits| {
            let last = commits.len().saturating_sub(1);
            commits.get((last as f64 * share.clamp(0.0, 1.0)).round() as usize)
        });
        let copy = Self::default();
        copy.shared.0.write().unwrap_or_else(PoisonError::into_inner).maps = kept.unwrap_or(&state.maps).clone();
        copy.remember_commits();
        copy
    }
}

/// What [`Memory::fail_next`] makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next commit that writes anything. It changes nothing.
    Commit,
    /// The next sync. What was committed before it stays.
    Sync,
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    maps: Maps,
    /// Where the next look for expired origins begins.
    origins_from: Key,
    /// What is to fail.
    fault: Option<Fault>,
    /// The maps as the last sync found them, and after each commit since, if a test wants to know.
    unsynced: Option<Vec<Maps>>,
}

impl State {
    fn check(&mut self, about_to: Fault) -> Result<(), QueueError> {
        match self.fault.take_if(|fault| *fault == about_to) {
            Some(fault) => Err(QueueError::Unavailable(format!("a test made this {fault:?} fail"))),
            None => Ok(()),
        }
    }

    fn committed(&mut self) {
        if let Some(commits) = &mut self.unsynced {
            commits.push(self.maps.clone());
        }
    }

    fn synced(&mut self) {
        if let Some(commits) = &mut self.unsynced {
            commits.drain(..commits.len().saturating_sub(1));
        }
    }
}

impl Shared {
    /// The lock is held for as long as it takes to share the maps, so that a reader cannot hold up the writer.
    fn maps(&self) -> Maps {
        self.0.read().unwrap_or_else(PoisonError::into_inner).maps.clone()
    }
}

impl Store for Shared {
    fn current(&self) -> &dyn View {
        self
    }

    fn snapshot(&self) -> Result<Snapshot, QueueError> {
        Ok(Arc::new(self.maps()))
    }

    fn commit(&self, writes: Writes) -> Result<(), QueueError> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.check(Fault::Commit)?;
        #[cfg(debug_assertions)]
        super::discipline::check(&state.maps, &writes)?;
        for (family, from, to) in writes.ranges() {
            state.maps.delete_range(*family, from, to);
        }
        for family in Family::ALL {
            let writes = writes.family(family);
            if writes.is_empty() {
                continue;
            }
            let map = state.maps.family_mut(family);
            for (key, write) in writes {
                match write {
                    Write::Put(value) => map.insert(key.clone(), value.clone()),
                    Write::Delete => map.remove(key),
                };
            }
        }
        state.committed();
        Ok(())
    }

    fn sync(&self) -> Result<(), QueueError> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.check(Fault::Sync)?;
        state.synced();
        Ok(())
    }

    fn persist(&self) -> Result<(), QueueError> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).synced();
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        None
    }

    fn expire_origins(&self, now: Timestamp) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let from = std::mem::take(&mut state.origins_from);
        let mut rest = state.maps.family(Family::Origin).range(from..);
        let looked_at = rest.by_ref().take(EXPIRE_AT_ONCE);
        let expired: Vec<Key> =
            looked_at.filter(|(_, value)| OriginRecord::is_expired(value, now)).map(|(key, _)| key.clone()).collect();
        // At the end: the next call begins anew.
        state.origins_from = rest.next().map(|(key, _)| key.clone()).unwrap_or_default();
        if !expired.is_empty() {
            let map = state.maps.family_mut(Family::Origin);
            for key in expired {
                map.remove(&key);
            }
        }
    }

    fn reclaim(&self) -> Result<bool, QueueError> {
        Ok(true)
    }

    fn backup(&self, _directory: &std::path::Path) -> Result<(), QueueError> {
        Err(QueueError::InvalidRequest("the memory engine keeps nothing that could be backed up".to_owned()))
    }
}

impl View for Shared {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).maps.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        self.maps().scan(family, from, to, visit)
    }
}

/// A map for each family. Cloning shares them; whoever writes to one that is shared gets a copy of it.
#[derive(Clone, Debug)]
struct Maps([Arc<BTreeMap<Key, Bytes>>; Family::COUNT]);

impl Default for Maps {
    fn default() -> Self {
        Self(array::from_fn(|_| Arc::default()))
    }
}

impl Maps {
    fn family(&self, family: Family) -> &BTreeMap<Key, Bytes> {
        &self.0[family as usize]
    }

    fn family_mut(&mut self, family: Family) -> &mut BTreeMap<Key, Bytes> {
        Arc::make_mut(&mut self.0[family as usize])
    }

    fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        let Some(bounds) = bounds(from, to) else { return };
        let keys: Vec<Key> = self.family(family).range::<[u8], _>(bounds).map(|(key, _)| key.clone()).collect();
        let map = self.family_mut(family);
        for key in keys {
            map.remove(&key);
        }
    }
}

impl View for Maps {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        Ok(self.family(family).get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let Some(bounds) = bounds(from, to) else { return Ok(()) };
        for (key, value) in self.family(family).range::<[u8], _>(bounds) {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

impl Still for Maps {
    fn scan_back(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let Some(bounds) = bounds(from, to) else { return Ok(()) };
        for (key, value) in self.family(family).range::<[u8], _>(bounds).rev() {
            if visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}

/// Where a range of keys begins and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// `None`: there is nothing in between, and a map would panic.
fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Bounds<'a>> {
    match to {
        [] => Some((Included(from), Unbounded)),
        _ if from >= to => None,
        _ => Some((Included(from), Excluded(to))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::Tx;
    use super::*;

    fn commit(store: &dyn Store, write: impl FnOnce(&mut Tx<'_>)) -> Result<(), QueueError> {
        let mut tx = Tx::new(store.current());
        write(&mut tx);
        store.commit(tx.into_writes())
    }

    fn keys(view: &dyn View, family: Family) -> Vec<Vec<u8>> {
        let mut keys = vec![];
        let mut visit = |key: &[u8], _: &[u8]| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        };
        view.scan(family, &[], &[], &mut visit).unwrap();
        keys
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let store = Shared::default();
        commit(&store, |tx| tx.put(Family::Done, Key::from_slice(b"a"), "1")).unwrap();
        let snapshot = store.snapshot().unwrap();
        commit(&store, |tx| {
            tx.put(Family::Done, Key::from_slice(b"a"), "2");
            tx.put(Family::Done, Key::from_slice(b"b"), "2");
        })
        .unwrap();
        assert_eq!(snapshot.get(Family::Done, b"a").unwrap().unwrap(), "1");
        assert_eq!(keys(&*snapshot, Family::Done), [b"a"]);
        assert_eq!(store.get(Family::Done, b"a").unwrap().unwrap(), "2");
    }

    #[test]
    fn a_range_goes_before_the_puts_of_the_same_commit() {
        let store = Shared::default();
        commit(&store, |tx| {
            for key in [b"a", b"b", b"c"] {
                tx.put(Family::Log, Key::from_slice(key), "1");
            }
        })
        .unwrap();
        commit(&store, |tx| {
            tx.put(Family::Log, Key::from_slice(b"b"), "2");
            tx.delete_range(Family::Log, Key::from_slice(b"a"), Key::from_slice(b"c"));
        })
        .unwrap();
        assert_eq!(keys(&store, Family::Log), [b"b", b"c"]);
    }

    #[test]
    fn a_single_delete_key_is_put_once_and_deleted_once() {
        let store = Shared::default();
        let key = || Key::from_slice(b"k");
        commit(&store, |tx| tx.put(Family::Ready, key(), "1")).unwrap();
        let twice = commit(&store, |tx| tx.put(Family::Ready, key(), "2")).unwrap_err();
        assert!(twice.to_string().contains("exists already"), "{twice}");
        commit(&store, |tx| tx.delete(Family::Ready, key())).unwrap();
        let twice = commit(&store, |tx| tx.delete(Family::Ready, key())).unwrap_err();
        assert!(twice.to_string().contains("does not exist"), "{twice}");
        // Other families have no such rule.
        commit(&store, |tx| tx.delete(Family::Done, key())).unwrap();
    }

    #[test]
    fn expired_origins_go_a_thousand_at_a_time() {
        let store = Shared::default();
        let value = |expiry: u64| [&[1], expiry.to_le_bytes().as_slice()].concat();
        commit(&store, |tx| {
            for n in 0..2_500u16 {
                let expiry = if n % 2 == 0 { 10 } else { 1_000 };
                tx.put(Family::Origin, Key::from_slice(&n.to_be_bytes()), value(expiry));
            }
            tx.put(Family::Origin, Key::from_slice(b"unreadable"), "?");
        })
        .unwrap();
        let now = Timestamp::from_micros(11);
        for left in [2_001, 1_501, 1_251, 1_251] {
            store.expire_origins(now);
            assert_eq!(keys(&store, Family::Origin).len(), left);
        }
    }

    #[test]
    fn an_empty_or_inverted_range_visits_nothing() {
        let store = Shared::default();
        commit(&store, |tx| tx.put(Family::Done, Key::from_slice(b"b"), "1")).unwrap();
        for (from, to) in [(b"b", b"b"), (b"c", b"a")] {
            store.scan(Family::Done, from, to, &mut |key, _| panic!("{key:?}")).unwrap();
        }
    }
}
