//! The RocksDB store. Only here is RocksDB named.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, ColumnFamilyDescriptor, DB, DBCompressionType, Direction, IteratorMode, Options, ReadOptions,
    WriteBatch,
};

use super::keys::Family;
use super::store::{Store, View, Visit, Write, Writes};
use super::{Engine, EngineOptions};
use crate::contract::{Durability, QueueError};

/// Memory for writes that are not yet in sorted files, for each family.
const WRITE_BUFFER: usize = 32 << 20;
/// The log is cut when it gets longer than this.
const MAX_LOG: u64 = 256 << 20;

/// The embedded, durable engine: one RocksDB database in a directory of its own.
#[derive(Clone, Copy, Debug)]
pub struct RocksDb;

impl RocksDb {
    /// Opens the store in `directory`, creating it if there is none. Leases of an earlier process end.
    ///
    /// # Errors
    /// When another process has it open, when it cannot be written, and when its records are damaged.
    pub fn open(directory: &Path, options: EngineOptions) -> Result<Engine, QueueError> {
        let db = open(directory).map_err(|error| QueueError::Unavailable(explain(directory, error.as_ref())))?;
        let durability = match options.durability {
            Durability::Memory => Durability::Fsync,
            asked => asked,
        };
        let sync = durability == Durability::Fsync;
        Engine::start("rocksdb", Arc::new(Rocks { db, sync }), EngineOptions { durability, ..options })
    }
}

fn explain(directory: &Path, error: &str) -> String {
    if error.contains("LOCK") && error.contains("temporarily unavailable") || error.contains("lock hold by") {
        return format!(
            "{} is in use by another process; stop it, or talk to it over HTTP instead",
            directory.display()
        );
    }
    format!("cannot open {}: {error}", directory.display())
}

fn open(directory: &Path) -> Result<DB, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_max_total_wal_size(MAX_LOG);
    options.set_keep_log_file_num(4);
    options.set_bytes_per_sync(1 << 20);
    DB::open_cf_descriptors(&options, directory, Family::ALL.map(descriptor))
}

fn descriptor(family: Family) -> ColumnFamilyDescriptor {
    let mut options = Options::default();
    options.set_write_buffer_size(WRITE_BUFFER);
    options.set_compression_type(DBCompressionType::Lz4);
    let mut table = BlockBasedOptions::default();
    if matches!(family, Family::Place | Family::Done | Family::Dead) {
        // Looked up by key, and mostly absent.
        table.set_bloom_filter(10.0, false);
    }
    options.set_block_based_table_factory(&table);
    ColumnFamilyDescriptor::new(family.stored_name(), options)
}

struct Rocks {
    db: DB,
    sync: bool,
}

impl Rocks {
    fn family(&self, family: Family) -> Result<&rocksdb::ColumnFamily, QueueError> {
        let name = family.stored_name();
        self.db.cf_handle(name).ok_or_else(|| QueueError::Corrupt(format!("the family `{name}` is missing")))
    }
}

fn unavailable(error: rocksdb::Error) -> QueueError {
    QueueError::Unavailable(error.to_string())
}

impl Store for Rocks {
    fn current(&self) -> &dyn View {
        self
    }

    fn snapshot(&self, read: &mut dyn FnMut(&dyn View)) -> Result<(), QueueError> {
        read(&Snapshot { rocks: self, snapshot: self.db.snapshot() });
        Ok(())
    }

    fn commit(&self, writes: Writes) -> Result<(), QueueError> {
        let mut batch = WriteBatch::default();
        for ((family, key), write) in writes {
            let cf = self.family(family)?;
            match write {
                Write::Put(value) => batch.put_cf(cf, key, value),
                Write::Delete if family.is_single_delete() => batch.single_delete_cf(cf, key),
                Write::Delete => batch.delete_cf(cf, key),
            }
        }
        self.db.write(batch).map_err(unavailable)
    }

    fn sync(&self) -> Result<(), QueueError> {
        if self.sync { self.persist() } else { Ok(()) }
    }

    fn persist(&self) -> Result<(), QueueError> {
        self.db.flush_wal(true).map_err(unavailable)
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        if let Err(error) = self.db.flush_wal(true) {
            tracing::error!(%error, "the last sync of the store failed");
        }
    }
}

impl View for Rocks {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        let value = self.db.get_pinned_cf(self.family(family)?, key).map_err(unavailable)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let items = self.db.iterator_cf_opt(self.family(family)?, bounded(to), start(from));
        drive(items, visit)
    }
}

struct Snapshot<'a> {
    rocks: &'a Rocks,
    snapshot: rocksdb::Snapshot<'a>,
}

impl View for Snapshot<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, QueueError> {
        let value = self.snapshot.get_pinned_cf(self.rocks.family(family)?, key).map_err(unavailable)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), QueueError> {
        let items = self.snapshot.iterator_cf_opt(self.rocks.family(family)?, bounded(to), start(from));
        drive(items, visit)
    }
}

fn start(from: &[u8]) -> IteratorMode<'_> {
    IteratorMode::From(from, Direction::Forward)
}

fn bounded(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    if !to.is_empty() {
        options.set_iterate_upper_bound(to);
    }
    options
}

type Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

fn drive(items: impl Iterator<Item = Item>, visit: &mut Visit<'_>) -> Result<(), QueueError> {
    for item in items {
        let (key, value) = item.map_err(unavailable)?;
        if visit(&key, &value) == ControlFlow::Break(()) {
            break;
        }
    }
    Ok(())
}
