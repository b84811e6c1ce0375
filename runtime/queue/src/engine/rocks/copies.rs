//! Backup and restore: a checkpoint of the running store, and a store made of one.

use std::path::Path;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{DB, Options};

use super::{OnLoss, Settings, db::Rocks, holder, synced, unavailable};
use crate::contract::{Durability, QueueError};
use crate::engine::keys::{Family, Meta};
use crate::engine::records::{NumberRecord, Record};
use crate::engine::store::{Store, Tx};

/// How far a restored store's numbers jump ahead: more than the original can have issued since the backup.
const JUMP: u64 = 1 << 40;

fn at(path: &Path, problem: impl std::fmt::Display) -> QueueError {
    QueueError::Unavailable(format!("{}: {problem}", path.display()))
}

/// Links or copies everything committed into a new directory.
pub(super) fn backup(db: &DB, store: &Path, directory: &Path) -> Result<(), QueueError> {
    if directory.exists() {
        return Err(QueueError::InvalidRequest(format!(
            "{} exists: name a directory that does not",
            directory.display()
        )));
    }
    if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|error| at(parent, error))?;
    }
    let checkpoint = Checkpoint::new(db).map_err(|error| unavailable(&error))?;
    // However long the log is, it is copied: otherwise a new one would be begun before the old one is synced.
    checkpoint.create_checkpoint_with_log_size(directory, u64::MAX).map_err(|error| unavailable(&error))?;
    tracing::info!(store = %store.display(), backup = %directory.display(), "backed up");
    Ok(())
}

/// Copies a backup to where a store shall be.
pub(super) fn restore(backup: &Path, directory: &Path) -> Result<(), QueueError> {
    check_backup(backup)?;
    if std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(QueueError::InvalidRequest(format!(
            "{} is not empty: restore into a directory that is",
            directory.display()
        )));
    }
    std::fs::create_dir_all(directory).map_err(|error| at(directory, error))?;
    for entry in std::fs::read_dir(backup).map_err(|error| at(backup, error))? {
        let entry = entry.map_err(|error| at(backup, error))?;
        let name = entry.file_name();
        if name == holder::FILE || name == synced::FILE || name == "LOCK" {
            continue;
        }
        let to = directory.join(&name);
        std::fs::copy(entry.path(), &to).map_err(|error| at(&to, error))?;
    }
    jump_ahead(directory)
}

/// Whether it holds a store of ours.
fn check_backup(backup: &Path) -> Result<(), QueueError> {
    let no_backup = |problem: String| {
        QueueError::InvalidRequest(format!("{} is not a backup of a queue: {problem}", backup.display()))
    };
    let families = DB::list_cf(&Options::default(), backup).map_err(|error| no_backup(error.to_string()))?;
    match Family::ALL.into_iter().find(|family| !families.iter().any(|name| name == family.stored_name())) {
        Some(missing) => Err(no_backup(format!("the family `{}` is missing", missing.stored_name()))),
        None => Ok(()),
    }
}

/// The store that the backup is of goes on: what this one issues must differ from what that one does.
fn jump_ahead(directory: &Path) -> Result<(), QueueError> {
    let settings = Settings {
        durability: Durability::Fsync,
        disk_reserve: 0,
        on_loss: OnLoss::Refuse,
        write_buffer: 16 << 20,
        cache: 8 << 20,
        create: false,
    };
    let store = Rocks::open(directory, &settings)?;
    let key = Meta::Reserved.encode();
    let reserved = match store.current().get(Family::Meta, &key)? {
        Some(bytes) => NumberRecord::decode(&bytes)?.0,
        None => 1,
    };
    let mut tx = Tx::new(store.current());
    // Not by the same each time: a backup may be restored twice.
    let ahead = JUMP + rand::random::<u64>() % JUMP;
    tx.put(Family::Meta, key, NumberRecord(reserved.saturating_add(ahead)).encode());
    store.commit(tx.into_writes())?;
    store.persist()
}
