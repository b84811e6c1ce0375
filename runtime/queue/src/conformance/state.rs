//! Rules of state: keys and values in buckets, that handlers share.

use bytes::Bytes;

use super::Rig;
use super::bench::Bench;
use crate::contract::{
    Change, Feature, MAX_STATE_KEY_LEN, Operation, StateError, StateRead, StateSnapshot, StateWrite, Transacted,
    Transaction,
};

/// A bench whose engine has state; `None`: it has none, and says so.
pub(super) async fn with_state<R: Rig>(rig: R) -> Option<Bench<R>> {
    let bench = Bench::new(rig).await;
    if !bench.has(Feature::State) {
        bench.is_refused(Feature::State, bench.rig.queue().transact(Transaction::default()).await);
        bench.is_refused(Feature::State, bench.rig.queue().snapshot().await.map(|_| ()));
        return None;
    }
    Some(bench)
}

pub(super) fn write(key: &str, change: Change) -> StateWrite {
    StateWrite { bucket: "stock".to_owned(), key: key.to_owned(), change }
}

pub(super) fn set(key: &str, value: &str) -> StateWrite {
    write(key, Change::Set(Bytes::from(value.to_owned())))
}

pub(super) fn read(key: &str) -> StateRead {
    StateRead::Key { bucket: "stock".to_owned(), key: key.to_owned() }
}

pub(super) fn read_all(prefix: &str) -> StateRead {
    StateRead::Prefix { bucket: "stock".to_owned(), prefix: prefix.to_owned() }
}

pub(super) fn blind(writes: Vec<StateWrite>) -> Transaction {
    Transaction { writes, ..Transaction::default() }
}

/// Reads on this snapshot, then writes.
pub(super) fn informed(on: &dyn StateSnapshot, reads: Vec<StateRead>, writes: Vec<StateWrite>) -> Transaction {
    Transaction { revision: Some(on.revision()), reads, writes }
}

impl<R: Rig> Bench<R> {
    pub(super) async fn transact(&self, transaction: Transaction) -> Transacted {
        self.rig.queue().transact(transaction).await.unwrap()
    }

    /// Writes without having read anything.
    pub(super) async fn put(&self, writes: Vec<StateWrite>) -> Vec<i64> {
        match self.transact(blind(writes)).await {
            Transacted::Committed(increments) => increments,
            other => panic!("blind writes do not conflict: {other:?}"),
        }
    }

    pub(super) async fn snapshot(&self) -> std::sync::Arc<dyn StateSnapshot> {
        self.rig.queue().snapshot().await.unwrap()
    }

    pub(super) async fn value(&self, key: &str) -> Option<String> {
        let value = self.snapshot().await.get("stock", key).unwrap();
        value.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }
}

/// Set, replaced, deleted; an empty value is one.
pub async fn a_key_has_the_value_that_was_written_last(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    assert_eq!(bench.value("a").await, None);
    bench.put(vec![set("a", "1"), set("b", "")]).await;
    assert_eq!((bench.value("a").await.as_deref(), bench.value("b").await.as_deref()), (Some("1"), Some("")));
    bench.put(vec![set("a", "2"), set("a", "3"), write("b", Change::Delete), write("none", Change::Delete)]).await;
    assert_eq!((bench.value("a").await.as_deref(), bench.value("b").await), (Some("3"), None));
    bench.put(vec![write("a", Change::Delete), set("a", "4")]).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.value("a").await.as_deref(), Some("4"), "after a reopen");
    assert_eq!(bench.snapshot().await.get("elsewhere", "a").unwrap(), None, "another bucket");
}

/// Counting needs no reading, and two who count do not get in each other's way.
pub async fn a_number_grows_by_increments(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let by = |n| write("n", Change::Increment(n));
    assert_eq!(bench.put(vec![by(5)]).await, [5]);
    assert_eq!(bench.put(vec![by(1), set("m", "40"), by(-10), write("m", Change::Increment(2))]).await, [6, -4, 42]);
    assert_eq!((bench.value("n").await.as_deref(), bench.value("m").await.as_deref()), (Some("-4"), Some("42")));
    let bench = bench.reopened().await;
    let queue = bench.rig.queue();
    let (first, second) = tokio::join!(queue.transact(blind(vec![by(1)])), queue.transact(blind(vec![by(1)])));
    assert_eq!((first, second), (Ok(Transacted::Committed(vec![-3])), Ok(Transacted::Committed(vec![-2]))));
}

/// What is no number does not grow, and nothing else of the transaction happens.
pub async fn what_is_no_number_cannot_be_incremented(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let max = i64::MAX.to_string();
    bench.put(vec![set("word", "seven"), set("huge", &max), set("n", "1")]).await;
    for key in ["word", "huge"] {
        let writes = vec![set("n", "2"), write(key, Change::Increment(1)), set("n", "3")];
        match bench.transact(blind(writes)).await {
            Transacted::Refused(StateError::NotANumber { bucket, key: named, .. }) => {
                assert_eq!((bucket.as_str(), named.as_str()), ("stock", key));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.value("n").await.as_deref(), Some("1"));
    assert_eq!(bench.value("word").await.as_deref(), Some("seven"));
}

/// Keys are listed by prefix, in byte order, in pieces.
pub async fn keys_of_a_bucket_are_listed_by_prefix(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let mut names = ["a", "a/1", "a/2", "a/\u{fc}", "ab", "b", "\u{e9}"];
    bench.put(names.iter().rev().map(|key| set(key, "x")).collect()).await;
    bench.put(vec![StateWrite { bucket: "other".into(), key: "a/3".into(), change: Change::Set(Bytes::new()) }]).await;
    bench.put(vec![set("a/0", "x"), write("a/0", Change::Delete)]).await;
    names.sort_unstable();
    let snapshot = bench.snapshot().await;
    let keys = |prefix, after, limit| snapshot.keys("stock", prefix, after, limit).unwrap();
    assert_eq!(keys("", None, 100), names);
    assert_eq!(keys("a/", None, 100), ["a/1", "a/2", "a/\u{fc}"]);
    assert_eq!(keys("a/", Some("a/1"), 1), ["a/2"]);
    assert_eq!(keys("a/", Some("a/15"), 100), ["a/2", "a/\u{fc}"], "behind one that is not there");
    assert_eq!(keys("a/", Some("a/\u{fc}"), 100), [""; 0]);
    assert_eq!(keys("", Some("a"), 2), ["a/1", "a/2"]);
    assert_eq!(keys("nothing", None, 100), [""; 0]);
    assert_eq!(snapshot.keys("nowhere", "", None, 100).unwrap(), [""; 0]);
    assert_eq!(snapshot.buckets().unwrap(), ["other", "stock"]);
    bench.put(vec![StateWrite { bucket: "other".into(), key: "a/3".into(), change: Change::Delete }]).await;
    assert_eq!(bench.snapshot().await.buckets().unwrap(), ["stock"], "an empty bucket is none");
}

/// A snapshot does not change, whatever happens after it was taken.
pub async fn a_snapshot_shows_one_moment(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    bench.put(vec![set("a", "1"), set("b", "1")]).await;
    let before = bench.snapshot().await;
    bench.put(vec![set("a", "2"), write("b", Change::Delete), set("c", "2")]).await;
    let after = bench.snapshot().await;
    assert!(before.revision() < after.revision());
    let all = |snapshot: &dyn StateSnapshot| {
        let keys = snapshot.keys("stock", "", None, 100).unwrap();
        let value = |key: &String| snapshot.get("stock", key).unwrap().unwrap();
        keys.iter().map(|key| format!("{key}{}", String::from_utf8_lossy(&value(key)))).collect::<Vec<_>>()
    };
    assert_eq!(all(&*before), ["a1", "b1"]);
    assert_eq!(all(&*after), ["a2", "c2"]);
}

/// A bucket holds as much as it may; what is over a new limit may shrink, and others are not concerned.
pub async fn a_bucket_is_limited(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let limit = |max_bytes| Operation::LimitBucket { bucket: "stock".to_owned(), max_bytes };
    bench.operate(limit(Some(10))).await;
    bench.put(vec![set("k", "123456789")]).await;
    let full = Transacted::Refused(StateError::Full { bucket: "stock".to_owned(), max_bytes: 10 });
    assert_eq!(bench.transact(blind(vec![set("l", "")])).await, full, "a key counts as well");
    assert_eq!(bench.transact(blind(vec![set("k", "1234567890")])).await, full);
    bench.put(vec![set("l", "1"), set("k", "1234567")]).await;
    let bench = bench.reopened().await;
    assert_eq!(bench.transact(blind(vec![set("m", "1")])).await, full, "the limit is stored");
    bench.operate(limit(Some(4))).await;
    bench.put(vec![set("k", "123456")]).await;
    let elsewhere = StateWrite { bucket: "other".into(), key: "k".into(), change: Change::Set(Bytes::from("12345")) };
    bench.put(vec![elsewhere]).await;
    bench.operate(limit(None)).await;
    bench.put(vec![set("m", "123456789")]).await;
    assert_eq!(bench.value("l").await.as_deref(), Some("1"));
}

/// Names that cannot be are refused.
pub async fn names_in_state_are_limited(rig: impl Rig) {
    let Some(bench) = with_state(rig).await else { return };
    let name = |len| "x".repeat(len);
    bench.put(vec![set(&name(MAX_STATE_KEY_LEN), "1")]).await;
    for len in [0, MAX_STATE_KEY_LEN + 1] {
        let refused = Transacted::Refused(StateError::InvalidName { what: "key", len });
        assert_eq!(bench.transact(blind(vec![set(&name(len), "1")])).await, refused);
        let bucket = StateWrite { bucket: name(len), key: "k".into(), change: Change::Delete };
        let refused = Transacted::Refused(StateError::InvalidName { what: "bucket name", len });
        assert_eq!(bench.transact(blind(vec![bucket])).await, refused);
    }
}
