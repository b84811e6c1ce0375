//! Reads, commits and syncs.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use bytes::Bytes;
use gristmill_core::Timestamp;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, CompactOptions, DB, FlushOptions, ReadOptions, SnapshotWithThreadMode,
    WriteBatch,
};

use super::holder::Holder;
use super::options::{ExpiredBefore, database, families, inspected, inspection};
use super::snags::Snags;
use super::space::DiskSpace;
use super::synced::Synced;
use super::{OnLoss, Settings, copies, room, unavailable};
use crate::contract::{Durability, QueueError};
use crate::engine::keys::{Family, Key};
use crate::engine::store::{Snapshot, Space, Still, Store, View, Visit, Write, Writes};

/// Less garbage than this, in bytes, is not worth a copy of what is live.
const MIN_GARBAGE: u64 = 1 << 20;

pub(super) struct Rocks {
    db: Arc<DB>,
    directory: PathBuf,
    durability: Durability,
    synced: Synced,
    space: DiskSpace,
    expired: ExpiredBefore,
    /// Memory for what is not yet in sorted files, in bytes: half of it for what is being written there.
    write_buffer: u64,
    /// Bytes committed to the log. Locked by whoever commits, and while a new log is begun.
    log: Mutex<u64>,
    /// Snapshots that may still be held.
    snapshots: Mutex<Vec<Weak<Frozen>>>,
    /// What was deleted since space was given back last.
    freed: Mutex<Freed>,
    /// Dropped last: until then the store is in use.
    _holder: Holder,
}

impl Rocks {
    pub(super) fn open(directory: &Path, settings: &Settings) -> Result<Self, QueueError> {
        let expired = ExpiredBefore::default();
        if settings.create {
            std::fs::create_dir_all(directory)
                .map_err(|error| QueueError::Unavailable(format!("cannot create {}: {error}", directory.display())))?;
        }
        copies::check_restored(directory)?;
        if !settings.create && !directory.join("CURRENT").exists() {
            let problem = format!("the store in {} is gone; it is used again when it is back", directory.display());
            return Err(QueueError::Unavailable(problem));
        }
        let holder = Holder::take(directory)?;
        let snags = Snags::remove(directory)?;
        if settings.on_loss == OnLoss::Refuse {
            look_first(directory)?;
        }
        let db = DB::open_cf_descriptors(&database(settings), directory, families(settings, &expired))
            .map_err(|error| explain(directory, &error))?;
        snags.forget();
        let (synced, is_whole) = Synced::open(directory, db.latest_sequence_number(), settings.on_loss)?;
        let store = Self {
            db: Arc::new(db),
            directory: directory.to_owned(),
            durability: settings.durability,
            synced,
            space: DiskSpace::new(directory, settings.disk_reserve),
            expired,
            write_buffer: settings.write_buffer,
            log: Mutex::new(0),
            snapshots: Mutex::default(),
            freed: Mutex::new(Freed::Unknown),
            _holder: holder,
        };
        room::take(directory, store.log_size());
        if !is_whole || copies::is_restored(directory) {
            copies::jump_ahead(&store)?;
            copies::has_jumped(directory)?;
        }
        Ok(store)
    }

    /// Begins a new log, and has what the old one holds written to sorted files.
    ///
    /// The old log is synced first, while nothing is committed: a power cut may keep of two unsynced logs the end of the
    /// newer and not the end of the older one, and the store would open without the commits between. RocksDB by itself
    /// does not sync before it begins a log; its own limits are therefore set so that this comes first.
    fn begin_log(&self, written: &mut u64) -> Result<(), QueueError> {
        self.persist()?;
        let mut flush = FlushOptions::default();
        flush.set_wait(false);
        self.db.flush_cfs_opt(&self.families()?, &flush).map_err(|error| unavailable(&error))?;
        *written = 0;
        room::take(&self.directory, self.log_size());
        Ok(())
    }

    /// How long a log gets before the next is begun, in bytes.
    const fn log_size(&self) -> u64 {
        self.write_buffer / 2
    }

    /// Has deletions of bodies meet what they delete, and gives back its space.
    fn collect(&self, from: Option<&Key>, to: Option<&Key>) -> Result<(), QueueError> {
        // Deleted bodies are still in the log until every family with data in it is in sorted files.
        self.begin_log(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))?;
        let bodies = handle(&self.db, Family::Body)?;
        let mut compact = CompactOptions::default();
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        // Moves references only. A file in which none is left is deleted.
        self.db.compact_range_cf_opt(bodies, from, to, &compact);
        let size = |property: &str| {
            let size = self.db.property_int_value_cf(bodies, property).map_err(|error| unavailable(&error))?;
            Ok::<_, QueueError>(size.unwrap_or(0))
        };
        let garbage = size("rocksdb.live-blob-file-garbage-size")?;
        if garbage < MIN_GARBAGE || garbage < size("rocksdb.live-blob-file-size")? / 2 {
            return Ok(());
        }
        // More garbage than bodies: copying the bodies gives back more than it takes.
        let switch = |on: &str| {
            self.db
                .set_options_cf(bodies, &[("enable_blob_garbage_collection", on)])
                .map_err(|error| unavailable(&error))
        };
        switch("true")?;
        self.db.compact_range_cf_opt(bodies, None::<&[u8]>, None::<&[u8]>, &compact);
        switch("false")
    }

    /// Those that are still held.
    fn snapshots(&self) -> impl Iterator<Item = Arc<Frozen>> {
        let snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshots.into_iter().filter_map(|snapshot| snapshot.upgrade())
    }

    fn families(&self) -> Result<Vec<&ColumnFamily>, QueueError> {
        Family::ALL.into_iter().map(|family| handle(&self.db, family)).collect()
    }
}

/// Refuses a store that has lost what was on stable storage, before anything is changed: opening it would drop what is
/// left of its log behind the damage.
fn look_first(directory: &Path) -> Result<(), QueueError> {
    let Some(noted) = Synced::noted(directory) else { return Ok(()) };
    let looked = DB::list_cf(&inspection(), directory).and_then(|names| {
        let db = DB::open_cf_descriptors_read_only(&inspection(), directory, inspected(names), false)?;
        Ok(db.latest_sequence_number())
    });
    match looked {
        Ok(sequence) => Synced::compare(directory, noted, sequence),
        // Whatever it is, opening it says it better.
        Err(_) => Ok(()),
    }
}

/// Bodies that were deleted and whose space has not been given back.
#[derive(Debug, Default)]
enum Freed {
    #[default]
    Nothing,
    /// From the first key to the last.
    Bodies(Key, Key),
    /// Deleted before the store was opened, if any.
    Unknown,
}

impl Freed {
    fn add(&mut self, key: &Key) {
        match self {
            Self::Nothing => *self = Self::Bodies(key.clone(), key.clone()),
            Self::Bodies(first, _) if key < first => first.clone_from(key),
            Self::Bodies(_, last) if key > last => last.clone_from(key),
            Self::Bodies(..) | Self::Unknown => {}
        }
    }

    fn merge(&mut self, other: Self) {
        match other {
            Self::Nothing => {}
            Self::Bodies(first, last) => {
                self.add(&first);
                self.add(&last);
            }
            Self::Unknown => *self = Self::Unknown,
        }
    }
}

/// Why a store cannot be opened, for the person who has to do something about it.
fn explain(directory: &Path, error: &rocksdb::Error) -> QueueError {
    let text = error.to_string();
    let is_locked = text.contains("LOCK") && text.contains("temporarily unavailable") || text.contains("lock hold by");
    if is_locked {
        return QueueError::Unavailable(format!(
            "{} is in use by another process; stop it, or talk to it over HTTP instead",
            directory.display()
        ));
    }
    let at = directory.display();
    match unavailable(error) {
        QueueError::Corrupt(_) => QueueError::Corrupt(format!("the store in {at}: {text}; restore it from a backup")),
        _ => QueueError::Unavailable(format!("cannot open {at}: {text}")),
    }
}

fn handle(db: &DB, family: Family) -> Result<&ColumnFamily, QueueError> {
    let name = family.stored_name();
    db.cf_handle(name).ok_or_else(|| QueueError::Corrupt(format!("the family `{name}` is missing")))
}

impl Store for Rocks {
    fn current(&self) -> &dyn View {
        self
    }

    fn snapshot(&self) -> Result<Snapshot, QueueError> {
        let frozen = Arc::new(Frozen(RwLock::new(Some(FrozenDb::new(self.db.clone(), |db| db.snapshot())))));
        let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if snapshots.len() >= snapshots.capacity() {
            snapshots.retain(|snapshot| snapshot.strong_count() > 0);
        }
        snapshots.push(Arc::downgrade(&frozen));
        Ok(frozen)
    }

    fn commit(&self, writes: Writes) -> Result<(), QueueError> {
        #[cfg(debug_assertions)]
        crate::engine::discipline::check(self, &writes)?;
        let mut batch = WriteBatch::with_capacity_bytes(writes.len_hint());
        for (family, from, to) in writes.ranges() {
            batch.delete_range_cf(handle(&self.db, *family)?, from, to);
        }
        for family in Family::ALL {
            let writes = writes.family(family);
            if writes.is_empty() {
                continue;
            }
            let cf = handle(&self.db, family)?;
            for (key, write) in writes {
                match write {
                    Write::Put(value) => batch.put_cf(cf, key, value),
                    Write::Delete if family.is_single_delete() => batch.single_delete_cf(cf, key),
                    Write::Delete => batch.delete_cf(cf, key),
                }
            }
        }
        let mut written = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > self.log_size() {
            self.begin_log(&mut written)?;
        }
        *written += batch.size_in_bytes() as u64;
        self.db.write(batch).map_err(|error| unavailable(&error))?;
        let bodies = writes.family(Family::Body);
        if !bodies.is_empty() {
            // After the deletions: space that is given back in between must not count as given back.
            let mut freed = self.freed.lock().unwrap_or_else(PoisonError::into_inner);
            bodies.iter().filter(|(_, write)| *write == Write::Delete).for_each(|(key, _)| freed.add(key));
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), QueueError> {
        match self.durability {
            Durability::Fsync => self.persist(),
            Durability::Os | Durability::Memory => Ok(()),
        }
    }

    fn persist(&self) -> Result<(), QueueError> {
        // What is committed from now on may or may not be covered.
        let sequence = self.db.latest_sequence_number();
        self.db.flush_wal(true).map_err(|error| unavailable(&error))?;
        self.synced.note(sequence);
        Ok(())
    }

    fn space(&self) -> Option<Space> {
        Some(self.space.look())
    }

    fn expire_origins(&self, now: Timestamp) {
        self.expired.store(now.as_micros(), Ordering::Relaxed);
    }

    fn interrupt(&self) {
        self.db.cancel_all_background_work(false);
    }

    fn reclaim(&self) -> Result<bool, QueueError> {
        let freed = std::mem::take(&mut *self.freed.lock().unwrap_or_else(PoisonError::into_inner));
        let (from, to) = match &freed {
            Freed::Nothing => return Ok(true),
            Freed::Bodies(first, last) => (Some(first), Some(last)),
            Freed::Unknown => (None, None),
        };
        let reclaimed = self.collect(from, to);
        // A snapshot that is held keeps what it shows.
        let is_seen = self.snapshots().next().is_some();
        if is_seen || reclaimed.is_err() {
            self.freed.lock().unwrap_or_else(PoisonError::into_inner).merge(freed);
        }
        reclaimed.map(|()| !is_seen)
    }

    fn backup(&self, directory: &Path) -> Result<(), QueueError> {
        copies::backup(&self.db, &self.directory, directory)
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        if let Err(error) = self.persist() {
            tracing::error!(%error, "the last sync of the store failed");
        }
        // Whoever still holds a snapshot must not keep the database from being opened again.
        let snapshots = std::mem::take(&mut *self.snapshots.lock().unwrap_or_else(PoisonError::into_inner));
        for snapshot in snapshots.iter().filter_map(Weak::upgrade) {
            drop(snapshot.0.write().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl View for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        let value = self.db.get_pinned_cf(handle(&self.db, family)?, key).map_err(|error| unavailable(&error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let mut items = self.db.raw_iterator_cf_opt(handle(&self.db, family)?, bounded(to));
        drive(&mut items, from, visit)
    }
}

type DbSnapshot<'a> = SnapshotWithThreadMode<'a, DB>;

self_cell::self_cell!(
    struct FrozenDb {
        owner: Arc<DB>,
        #[not_covariant]
        dependent: DbSnapshot,
    }
);

/// A snapshot. Ends with the store that it was taken of.
struct Frozen(RwLock<Option<FrozenDb>>);

impl Frozen {
    fn with<T>(
        &self,
        read: impl for<'a> FnOnce(&'a DB, &DbSnapshot<'a>) -> Result<T, QueueError>,
    ) -> Result<T, QueueError> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(frozen) => frozen.with_dependent(|db, snapshot| read(db, snapshot)),
            None => Err(QueueError::Unavailable("the snapshot ended when its store was closed".to_owned())),
        }
    }
}

impl View for Frozen {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        self.with(|db, snapshot| {
            let value = snapshot.get_pinned_cf(handle(db, family)?, key).map_err(|error| unavailable(&error))?;
            Ok(value.map(|value| Bytes::copy_from_slice(&value)))
        })
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        self.with(|db, snapshot| {
            let mut items = snapshot.raw_iterator_cf_opt(handle(db, family)?, bounded(to));
            drive(&mut items, from, visit)
        })
    }
}

impl Still for Frozen {
    fn scan_back(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        self.with(|db, snapshot| {
            let mut options = bounded(to);
            options.set_iterate_lower_bound(from);
            let mut items = snapshot.raw_iterator_cf_opt(handle(db, family)?, options);
            items.seek_to_last();
            while let Some((key, value)) = items.item() {
                if visit(key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
                items.prev();
            }
            items.status().map_err(|error| unavailable(&error))
        })
    }
}

fn bounded(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    if !to.is_empty() {
        options.set_iterate_upper_bound(to);
    }
    options
}

fn drive<D: rocksdb::DBAccess>(
    items: &mut rocksdb::DBRawIteratorWithThreadMode<'_, D>,
    from: &[u8],
    visit: &mut Visit<'_>,
) -> Result<(), QueueError> {
    items.seek(from);
    while let Some((key, value)) = items.item() {
        if visit(key, value) == ControlFlow::Break(()) {
            return Ok(());
        }
        items.next();
    }
    items.status().map_err(|error| unavailable(&error))
}
