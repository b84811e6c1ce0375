//! What is to be written again.

use std::collections::BTreeSet;

/// What has changed since the last commit. The same thing changes many times in a row.
#[derive(Debug)]
pub(crate) struct Dirty<T> {
    last: Option<T>,
    all: BTreeSet<T>,
}

impl<T: Copy + Ord> Dirty<T> {
    pub(crate) const fn new() -> Self {
        Self { last: None, all: BTreeSet::new() }
    }

    pub(crate) fn insert(&mut self, changed: T) {
        if self.last != Some(changed) {
            self.last = Some(changed);
            self.all.insert(changed);
        }
    }

    pub(crate) fn remove(&mut self, gone: &T) {
        self.last = None;
        self.all.remove(gone);
    }

    pub(crate) fn take(&mut self) -> BTreeSet<T> {
        self.last = None;
        std::mem::take(&mut self.all)
    }
}
