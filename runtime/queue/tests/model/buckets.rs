//! State: what snapshots see and transactions do.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use gristmill_queue::{Change, LeaseToken, StateError, StateRead, StateWrite, Transaction};

/// Buckets, and when each key was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets {
    pub(crate) values: BTreeMap<(String, String), Bytes>,
    pub(crate) limits: HashMap<String, u64>,
    written: BTreeMap<(String, String), u64>,
    time: u64,
    floor: u64,
    reserved: HashMap<String, LeaseToken>,
}

/// State as it was.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    time: u64,
    pub(crate) values: BTreeMap<(String, String), Bytes>,
}

/// What a transaction comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Committed(Vec<i64>),
    Conflict,
    Refused(StateError),
}

impl Buckets {
    pub(crate) fn now(&self) -> Moment {
        Moment { time: self.time, values: self.values.clone() }
    }

    /// What was read before is too long ago.
    pub(crate) fn reopened(&mut self) {
        self.time += 1;
        self.floor = self.time;
        self.reserved.clear();
    }

    pub(crate) fn free(&mut self, token: LeaseToken) {
        self.reserved.retain(|_, holder| *holder != token);
    }

    pub(crate) fn reserve(&mut self, transaction: &Transaction, token: LeaseToken) {
        self.free(token);
        let buckets = touched(transaction);
        if buckets.iter().all(|bucket| !self.reserved.contains_key(bucket)) {
            self.reserved.extend(buckets.into_iter().map(|bucket| (bucket, token)));
        }
    }

    /// What the transaction would come to; `read_at`: the moment that it read.
    pub(crate) fn check(
        &self,
        transaction: &Transaction,
        read_at: Option<&Moment>,
        delivery: Option<LeaseToken>,
    ) -> Verdict {
        let reserved = |bucket: &String| self.reserved.get(bucket).is_some_and(|holder| Some(*holder) != delivery);
        let since = |(_, time): (&(String, String), &u64)| read_at.is_none_or(|moment| *time > moment.time);
        let changed = transaction.reads.iter().any(|read| match read {
            StateRead::Key { bucket, key } => {
                self.written.get_key_value(&(bucket.clone(), key.clone())).is_some_and(since)
            }
            // Writing a key that is there already counts as well, which the contract leaves open.
            StateRead::Prefix { bucket, prefix } => {
                self.written.iter().filter(|((b, key), _)| b == bucket && key.starts_with(prefix)).any(since)
            }
        });
        let too_old = !transaction.reads.is_empty() && read_at.is_none_or(|moment| moment.time < self.floor);
        if touched(transaction).iter().any(reserved) || changed || too_old {
            return Verdict::Conflict;
        }
        let mut after = self.values.clone();
        let mut increments = Vec::new();
        for StateWrite { bucket, key, change } in &transaction.writes {
            let at = (bucket.clone(), key.clone());
            match change {
                Change::Set(value) => drop(after.insert(at, value.clone())),
                Change::Delete => drop(after.remove(&at)),
                Change::Increment(by) => {
                    let old = after.get(&at).map_or(Some(0), |value| std::str::from_utf8(value).ok()?.parse().ok());
                    let Some(new) = old.and_then(|old: i64| old.checked_add(*by)) else {
                        let problem = if old.is_some() {
                            "the sum does not fit into 64 bits"
                        } else {
                            "its value is no decimal number of 64 bits"
                        };
                        return Verdict::Refused(StateError::NotANumber { bucket: at.0, key: at.1, problem });
                    };
                    increments.push(new);
                    after.insert(at, Bytes::from(new.to_string()));
                }
            }
        }
        for (bucket, max_bytes) in self.limits.iter().collect::<BTreeMap<_, _>>() {
            let bytes = |values: &BTreeMap<(String, String), Bytes>| {
                values.iter().filter(|((b, _), _)| b == bucket).map(|((_, key), v)| (key.len() + v.len()) as u64).sum()
            };
            let (before, after): (u64, u64) = (bytes(&self.values), bytes(&after));
            if after > before && after > *max_bytes {
                return Verdict::Refused(StateError::Full { bucket: bucket.clone(), max_bytes: *max_bytes });
            }
        }
        Verdict::Committed(increments)
    }

    /// Does what was found to be possible.
    pub(crate) fn apply(&mut self, transaction: &Transaction) {
        self.time += 1;
        for StateWrite { bucket, key, change } in &transaction.writes {
            let at = (bucket.clone(), key.clone());
            self.written.insert(at.clone(), self.time);
            match change {
                Change::Set(value) => drop(self.values.insert(at, value.clone())),
                Change::Delete => drop(self.values.remove(&at)),
                Change::Increment(by) => {
                    let old: i64 =
                        self.values.get(&at).map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap());
                    self.values.insert(at, Bytes::from((old + by).to_string()));
                }
            }
        }
    }
}

fn touched(transaction: &Transaction) -> Vec<String> {
    let read = transaction.reads.iter().map(|read| match read {
        StateRead::Key { bucket, .. } | StateRead::Prefix { bucket, .. } => bucket.clone(),
    });
    read.chain(transaction.writes.iter().map(|write| write.bucket.clone())).collect()
}
