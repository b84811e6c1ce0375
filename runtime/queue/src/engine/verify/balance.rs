//! Balances: whether two long lists in different orders hold the same, in little memory.
//!
//! What the one list has is added and what the other has is taken away, as hashes, in one of some thousand slots. A slot
//! that comes to zero holds the same on both sides, but for an accident of one in 2^64. Only what falls into the other
//! slots has to be looked at once more, one by one.

use std::hash::{BuildHasher, Hash, RandomState};

pub(super) struct Balance {
    slots: Vec<i128>,
    hasher: RandomState,
}

impl Balance {
    const SLOTS: usize = 4_096;

    pub(super) fn new() -> Self {
        Self { slots: vec![0; Self::SLOTS], hasher: RandomState::new() }
    }

    /// So many more, or fewer, of `what`.
    pub(super) fn add(&mut self, what: &impl Hash, times: i128) {
        let hash = self.hasher.hash_one(what);
        if let Some(slot) = self.slots.get_mut(Self::slot(hash)) {
            *slot = slot.wrapping_add(i128::from(hash | 1).wrapping_mul(times));
        }
    }

    /// Both sides hold the same.
    pub(super) fn is_even(&self) -> bool {
        self.slots.iter().all(|slot| *slot == 0)
    }

    /// Whether `what`, or something else in its slot, is not the same on both sides.
    pub(super) fn is_off(&self, what: &impl Hash) -> bool {
        self.slots.get(Self::slot(self.hasher.hash_one(what))).is_some_and(|slot| *slot != 0)
    }

    // The upper bits choose the slot, and all of them weigh.
    const fn slot(hash: u64) -> usize {
        (hash >> 52) as usize % Self::SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_in_another_order_is_even() {
        let mut balance = Balance::new();
        (0..10_000u64).for_each(|n| balance.add(&(n, "x"), 2));
        (0..10_000u64).rev().for_each(|n| balance.add(&(n, "x"), -2));
        assert!(balance.is_even());
    }

    #[test]
    fn what_differs_is_found_and_little_else() {
        let mut balance = Balance::new();
        (0..10_000u64).for_each(|n| balance.add(&n, 1));
        (0..10_000u64).filter(|n| *n != 77).for_each(|n| balance.add(&n, -1));
        balance.add(&78, -1);
        assert!(!balance.is_even() && balance.is_off(&77u64) && balance.is_off(&78));
        assert!((0..10_000u64).filter(|n| balance.is_off(n)).count() < 100);
    }
}
