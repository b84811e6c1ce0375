//! The memory store: a sorted map, for tests and trials. Nothing survives the process.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::keys::Family;
use super::store::{Store, View, Visit, Write, Writes};
use super::{Engine, EngineOptions};
use crate::contract::{Durability, QueueError};

type Map = BTreeMap<(Family, Vec<u8>), Bytes>;

/// The in-memory engine: the transitions of the durable one over a sorted map. Clones share their content, so that a
/// test can open the same memory again, as it would a directory.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    map: Shared,
}

impl Memory {
    /// Opens an engine on this memory. One at a time.
    ///
    /// # Errors
    /// When its content is damaged, which no engine leaves behind.
    pub fn open(&self, options: EngineOptions) -> Result<Engine, QueueError> {
        let options = EngineOptions { durability: Durability::Memory, ..options };
        Engine::start("memory", Arc::new(self.map.clone()), options)
    }
}

#[derive(Clone, Debug, Default)]
struct Shared(Arc<RwLock<Map>>);

impl Store for Shared {
    fn current(&self) -> &dyn View {
        self
    }

    fn snapshot(&self, read: &mut dyn FnMut(&dyn View)) -> Result<(), QueueError> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        read(&*map);
        Ok(())
    }

    fn commit(&self, writes: Writes) -> Result<(), QueueError> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, write) in writes {
            match write {
                Write::Put(value) => {
                    debug_assert!(!key.0.is_single_delete() || !map.contains_key(&key), "put twice: {key:?}");
                    map.insert(key, Bytes::from(value));
                }
                Write::Delete => {
                    let old = map.remove(&key);
                    debug_assert!(!key.0.is_single_delete() || old.is_some(), "deleted twice: {key:?}");
                }
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), QueueError> {
        Ok(())
    }

    fn persist(&self) -> Result<(), QueueError> {
        Ok(())
    }
}

impl View for Shared {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        View::get(&*self.0.read().unwrap_or_else(PoisonError::into_inner), family, key)
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).scan(family, from, to, visit)
    }
}

impl View for Map {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        Ok(BTreeMap::get(self, &(family, key.to_vec())).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        for ((f, key), value) in self.range((family, from.to_vec())..) {
            let in_range = *f == family && (to.is_empty() || key.as_slice() < to);
            if !in_range || visit(key, value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
}
