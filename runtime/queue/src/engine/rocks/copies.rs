//! Backup and restore: a checkpoint of the running store, and a store made of one.

use std::fs::File;
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
    let mark = directory.join(RESTORED);
    std::fs::write(&mark, b"").and_then(|()| sync(&mark)).map_err(|error| at(&mark, error))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(backup).map_err(|error| at(backup, error))? {
        names.push(entry.map_err(|error| at(backup, error))?.file_name());
    }
    names.retain(|name| name != holder::FILE && name != synced::FILE && name != "LOCK");
    // What makes it a store comes last.
    names.sort_by_key(|name| name == "CURRENT");
    for name in names {
        let to = directory.join(&name);
        std::fs::copy(backup.join(&name), &to).and_then(|_| sync(&to)).map_err(|error| at(&to, error))?;
    }
    sync(directory).map_err(|error| at(directory, error))?;
    let settings = Settings {
        durability: Durability::Fsync,
        disk_reserve: 0,
        on_loss: OnLoss::Refuse,
        write_buffer: 16 << 20,
        cache: 8 << 20,
        create: false,
    };
    Rocks::open(directory, &settings).map(drop)
}

fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Stands in a directory that is being restored, until what it issues differs from what the original does.
const RESTORED: &str = "RESTORED";

pub(super) fn is_restored(directory: &Path) -> bool {
    directory.join(RESTORED).exists()
}

/// Refuses what a restore that was interrupted has left.
pub(super) fn check_restored(directory: &Path) -> Result<(), QueueError> {
    if is_restored(directory) && !directory.join("CURRENT").exists() {
        return Err(QueueError::Corrupt(format!(
            "restoring into {} was interrupted: empty it, and restore again",
            directory.display()
        )));
    }
    Ok(())
}

/// See [`jump_ahead`].
pub(super) fn has_jumped(directory: &Path) -> Result<(), QueueError> {
    match std::fs::remove_file(directory.join(RESTORED)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(directory, error)),
        _ => Ok(()),
    }
}

/// Whether it holds a store of ours.
fn check_backup(backup: &Path) -> Result<(), QueueError> {
    let no_backup = |problem: String| {
        QueueError::InvalidRequest(format!("{} is not a backup of a queue: {problem}", backup.display()))
    };
    if !backup.join("CURRENT").exists() {
        return Err(no_backup("there is no store in it".to_owned()));
    }
    let families = DB::list_cf(&Options::default(), backup).map_err(|error| no_backup(error.to_string()))?;
    match Family::ALL.into_iter().find(|family| !families.iter().any(|name| name == family.stored_name())) {
        Some(missing) => Err(no_backup(format!("the family `{}` is missing", missing.stored_name()))),
        None => Ok(()),
    }
}

/// What the store issues from now on differs from what it may have issued and forgotten, and from what the store issues
/// that it is a copy of.
pub(super) fn jump_ahead(store: &Rocks) -> Result<(), QueueError> {
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
