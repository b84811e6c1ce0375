//! Stores that have lost something: refused as they are, opened without it when that is accepted, and never in silence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gristmill_core::{EntryId, Outcome, State};
use gristmill_queue::{
    Claim, Confirm, Engine, Holder, List, OnLoss, Queue, QueueError, QueueOptions, RocksDb, Settle, SettleReply,
};

use super::{copy, data, entries, logs, open, options, publish, queue, refusal};

/// How many entries are in sorted files, and how many there are.
const SORTED: usize = 30;
const ALL: usize = 70;

/// A store as a kill leaves it, everything in it synced; its entries.
async fn killed(scratch: &Path) -> (PathBuf, Vec<EntryId>) {
    let (original, killed) = (scratch.join("original"), scratch.join("killed"));
    let engine = open(&original).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    let mut published = publish(&engine, 0..SORTED).await;
    // Into sorted files.
    engine.reclaim().await.unwrap();
    for n in SORTED..ALL {
        published.extend(publish(&engine, n..n + 1).await);
    }
    copy(&original, &killed);
    engine.close().await.unwrap();
    (killed, published)
}

/// In which RocksDB writes its logs, in bytes.
const BLOCK: usize = 32 << 10;

/// Every file but the note of who has the store open, which is nobody.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    });
    files.filter(|(name, _)| name != "HOLDER").collect()
}

/// A refusal changed nothing.
fn assert_same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, damage: Damage) {
    for name in before.keys().chain(after.keys()) {
        assert!(before.get(name) == after.get(name), "{damage:?}: {name} is not as it was");
    }
}

/// What may happen to a log.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// It ends after this share of what was written, in per mille.
    Cut(usize),
    /// Its last byte is missing.
    CutLast,
    /// Sixteen bytes are others, from this share on.
    Garbled(usize),
    /// So many bytes in the middle were never written.
    Zeroed(usize),
    /// What looks like a record of a recycled log stands at the end, and at the beginning of every block behind it. The
    /// last record is missing.
    Recycled,
    Missing,
}

impl Damage {
    const EVERY: [Self; 15] = [
        Self::Cut(0),
        Self::Cut(1),
        Self::Cut(250),
        Self::Cut(500),
        Self::Cut(900),
        Self::CutLast,
        Self::Garbled(0),
        Self::Garbled(333),
        Self::Garbled(500),
        Self::Garbled(997),
        Self::Zeroed(16),
        Self::Zeroed(512),
        Self::Zeroed(5_000),
        Self::Recycled,
        Self::Missing,
    ];

    fn happens_to(self, log: &Path) {
        let mut bytes = std::fs::read(log).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let at = |share: usize| end * share / 1_000;
        match self {
            Self::Cut(share) => bytes.truncate(at(share)),
            Self::CutLast => bytes.truncate(end - 1),
            Self::Garbled(share) => bytes[at(share)..].iter_mut().take(16).for_each(|byte| *byte ^= 0xa5),
            Self::Zeroed(length) => bytes[at(500)..].iter_mut().take(length).for_each(|byte| *byte = 0),
            Self::Recycled => {
                bytes.truncate(end - 1);
                bytes.resize(end.next_multiple_of(BLOCK) + 3 * BLOCK, 5);
            }
            Self::Missing => return std::fs::remove_file(log).unwrap(),
        }
        std::fs::write(log, bytes).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_lost_something_is_refused_as_it_is_and_opened_if_that_is_accepted() {
    let scratch = tempfile::tempdir().unwrap();
    let (killed, published) = killed(scratch.path()).await;
    for damage in Damage::EVERY {
        let directory = scratch.path().join("damaged");
        copy(&killed, &directory);
        let log = logs(&directory).pop().unwrap();
        damage.happens_to(&log);

        let before = files(&directory);
        for _ in 0..2 {
            let error = refusal(&directory);
            assert!(error.contains("--accept-loss") && error.contains(" has lost "), "{damage:?}: {error}");
            assert_same(&before, &files(&directory), damage);
        }

        let engine = RocksDb::open(&directory, options(OnLoss::Accept)).unwrap();
        let left = entries(&engine).await;
        let kept = published.iter().take_while(|entry| left.contains_key(entry)).count();
        assert!((SORTED..ALL).contains(&kept) && left.len() == kept, "{damage:?}: {kept} of {} in a row", left.len());
        let new = publish(&engine, 100..105).await;
        assert!(new.iter().all(|entry| !published.contains(entry)), "{damage:?}: an id is issued again");
        assert_eq!(engine.claim(Claim::new(queue(), 1_000)).await.unwrap().len(), kept + 5, "{damage:?}");
        let report = engine.verify().await.unwrap();
        assert!(report.is_sound(), "{damage:?}: {report}");
        engine.close().await.unwrap();
        drop(engine);
        // From then on it is whole.
        let engine = open(&directory).unwrap();
        assert_eq!(entries(&engine).await.len(), kept + 5, "{damage:?}");
        drop(engine);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}

/// A token that was given out before the loss, and forgotten with it, is not issued for another delivery.
#[tokio::test]
async fn what_was_issued_before_an_accepted_loss_is_fenced() {
    let scratch = tempfile::tempdir().unwrap();
    let (original, killed) = (scratch.path().join("original"), scratch.path().join("killed"));
    let engine = open(&original).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    engine.reclaim().await.unwrap();
    engine.close().await.unwrap();
    drop(engine);
    let claim = || Claim { holder: Holder::Outside, ..Claim::new(queue(), 100) };
    let engine = open(&original).unwrap();
    publish(&engine, 0..5).await;
    let before = engine.claim(claim()).await.unwrap();
    publish(&engine, 5..6).await;
    copy(&original, &killed);
    drop(engine);

    for log in logs(&killed) {
        Damage::Cut(0).happens_to(&log);
    }
    let engine = RocksDb::open(&killed, options(OnLoss::Accept)).unwrap();
    engine.configure(queue(), QueueOptions::default()).await.unwrap();
    publish(&engine, 10..15).await;
    assert_eq!(engine.claim(claim()).await.unwrap().len(), 5);
    assert_eq!(before.len(), 5);
    for delivery in before {
        let ack = Settle::new(delivery.lease, Outcome::Ack { result: None });
        let reply = engine.settle(vec![ack], Confirm::Committed).await.unwrap().remove(0);
        assert!(matches!(reply, SettleReply::Unknown | SettleReply::StaleLease), "{reply:?}");
    }
}

/// What may happen to a sorted file, or to one of bodies.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// Sixteen bytes are others, from this share on, in per mille.
    Garbled(usize),
    Cut,
    Missing,
}

impl Harm {
    const EVERY: [Self; 5] = [Self::Garbled(0), Self::Garbled(300), Self::Garbled(970), Self::Cut, Self::Missing];

    fn happens_to(self, file: &Path) {
        let mut bytes = std::fs::read(file).unwrap();
        let length = bytes.len();
        match self {
            Self::Garbled(share) => {
                bytes[length * share / 1_000..].iter_mut().take(16).for_each(|byte| *byte ^= 0xa5);
            }
            Self::Cut => bytes.truncate(length / 2),
            Self::Missing => return std::fs::remove_file(file).unwrap(),
        }
        std::fs::write(file, bytes).unwrap();
    }
}

/// Every entry that can be read, and its state unless its data cannot be read; or that something cannot.
async fn read(engine: &Engine) -> Result<BTreeMap<EntryId, Option<State>>, QueueError> {
    let mut found = BTreeMap::new();
    for state in State::ALL {
        let list = List { queue: queue(), state, limit: 1_000, cursor: None };
        for entry in engine.list(list).await?.entries {
            let is_whole = entry.event.data == Some(data(entry.event.id.parse().unwrap()));
            found.insert(entry.id, is_whole.then_some(entry.state));
        }
    }
    Ok(found)
}

/// To accept what a log lost is not to accept that sorted files are damaged: that is said, or nothing is missing.
#[tokio::test]
async fn damaged_sorted_files_are_never_accepted_in_silence() {
    let scratch = tempfile::tempdir().unwrap();
    let (killed, published) = killed(scratch.path()).await;
    let is_sorted = |name: &&String| name.ends_with(".sst") || name.ends_with(".blob");
    let sorted: Vec<_> = files(&killed).keys().filter(is_sorted).cloned().collect();
    assert!(sorted.len() > 3, "{sorted:?}");
    let mut told = 0;
    for (file, harm) in sorted.iter().flat_map(|file| Harm::EVERY.map(|harm| (file, harm))) {
        let directory = scratch.path().join("damaged");
        copy(&killed, &directory);
        harm.happens_to(&directory.join(file));
        let opened = RocksDb::open(&directory, options(OnLoss::Accept));
        match opened {
            Err(error) => {
                assert!(error.to_string().contains(directory.to_str().unwrap()), "{file}, {harm:?}: {error}");
                told += 1;
            }
            Ok(engine) => match (read(&engine).await, engine.verify().await) {
                (Ok(found), Ok(report)) => {
                    assert!(
                        published.iter().all(|entry| found.contains_key(entry)),
                        "{file}, {harm:?}: {}",
                        found.len()
                    );
                    // An entry is shown without its data rather than not at all.
                    let is_whole = found.values().all(|state| *state == Some(State::Ready));
                    assert!(is_whole || !report.is_sound(), "{file}, {harm:?}");
                    told += usize::from(!report.is_sound());
                }
                _ => told += 1,
            },
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
    assert!(told > sorted.len(), "{told} of {} damages were found out", sorted.len() * Harm::EVERY.len());
}
