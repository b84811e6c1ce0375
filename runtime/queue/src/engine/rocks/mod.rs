//! The RocksDB store. Only here is RocksDB named.
//!
//! | file | noun |
//! | --- | --- |
//! | `options` | how RocksDB is set up, and why |
//! | `db` | reads, commits and syncs |
//! | `room` | room for the log, taken before it is needed |
//! | `snags` | damage to a log on which RocksDB never stops reading |
//! | `synced` | what is known to be on stable storage, noted beside the store |
//! | `holder` | who has the store open |
//! | `space` | room on the disk |
//! | `copies` | backup and restore |

mod copies;
mod db;
mod holder;
mod options;
mod room;
mod snags;
mod space;
mod synced;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::EngineOptions;
use super::handle::Engine;
use super::store::Store;
use crate::contract::{Durability, QueueError};

/// The embedded, durable engine: one RocksDB database in a directory of its own.
#[derive(Clone, Copy, Debug)]
pub struct RocksDb;

impl RocksDb {
    /// Opens the store in `directory`, creating it if there is none. Leases of an earlier process end.
    ///
    /// # Errors
    /// When another process has it open, when it cannot be written, when its records are damaged, and when it has lost
    /// what it had acknowledged (see [`OnLoss`]).
    pub fn open(directory: &Path, options: EngineOptions) -> Result<Engine, QueueError> {
        let durability = match options.durability {
            Durability::Memory => Durability::Fsync,
            asked => asked,
        };
        let settings = Settings {
            durability,
            disk_reserve: options.disk_reserve,
            on_loss: options.on_loss,
            write_buffer: options.write_buffer,
            cache: options.cache,
            create: true,
        };
        let directory = directory.to_owned();
        let is_there = AtomicBool::new(false);
        let opener = move || {
            // A store that is gone when it is opened again must not come back empty.
            let settings = Settings { create: settings.create && !is_there.load(Ordering::Relaxed), ..settings };
            let store = db::Rocks::open(&directory, &settings)?;
            is_there.store(true, Ordering::Relaxed);
            Ok(Arc::new(store) as Arc<dyn Store>)
        };
        Engine::start("rocksdb", Box::new(opener), EngineOptions { durability, ..options })
    }

    /// Copies a backup into `directory`, which must not exist or be empty, and makes it a store of its own: what it
    /// issues from then on differs from what the store issued that the backup is of.
    ///
    /// # Errors
    /// When `backup` is no backup, when `directory` holds anything, and when it cannot be written.
    pub fn restore(backup: &Path, directory: &Path) -> Result<(), QueueError> {
        copies::restore(backup, directory)
    }
}

/// What to do with a store that has lost commits that were on stable storage: its log is damaged, or was replaced by an
/// older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// It is not opened. The error says how much is missing.
    #[default]
    Refuse,
    /// It is opened without what is missing: acknowledged events are lost, and what was acked may be delivered again.
    Accept,
}

/// How the store is opened.
#[derive(Clone, Copy, Debug)]
struct Settings {
    durability: Durability,
    /// Free space below which publishes are refused, in bytes.
    disk_reserve: u64,
    on_loss: OnLoss,
    /// Of all families together, in bytes.
    write_buffer: u64,
    /// In bytes.
    cache: u64,
    /// Whether there need not be a store yet.
    create: bool,
}

fn unavailable(error: &rocksdb::Error) -> QueueError {
    use rocksdb::ErrorKind;
    match error.kind() {
        ErrorKind::Corruption => QueueError::Corrupt(error.to_string()),
        _ => QueueError::Unavailable(error.to_string()),
    }
}
