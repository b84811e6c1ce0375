//! Who has the store open: a note in its directory, locked for as long as it is true. RocksDB has a lock of its own; this
//! one comes first, so that whoever finds it taken can say by whom, and so that nobody looks at a store that changes.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use gristmill_core::{Clock, SystemClock};

use crate::contract::QueueError;

/// The file's name in the store's directory.
pub(super) const FILE: &str = "HOLDER";

/// The locked note; emptied when the store is closed. It is never removed: two could hold two files of one name.
pub(super) struct Holder(File);

impl Holder {
    /// Takes the store for this process.
    pub(super) fn take(directory: &Path) -> Result<Self, QueueError> {
        let path = directory.join(FILE);
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => "; who opens the store has to be allowed to write there",
                _ => "",
            };
            QueueError::Unavailable(format!("cannot open {}: {error}{advice}", path.display()))
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(QueueError::Unavailable(format!(
                    "{} is in use by {}; stop it, or talk to it over HTTP instead",
                    directory.display(),
                    describe(&mut file)
                )));
            }
            // A file system without locks. RocksDB may do better.
            Err(TryLockError::Error(error)) => tracing::warn!(%error, file = %path.display(), "it cannot be locked"),
        }
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let program = program.as_deref().unwrap_or("unknown program");
        let text = format!("process {} ({program}, since {})", std::process::id(), SystemClock::new().now());
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(text.as_bytes())) {
            tracing::warn!(%error, file = %path.display(), "who has the store open cannot be noted");
        }
        Ok(Self(file))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.set_len(0);
    }
}

/// Who it is, in words.
fn describe(file: &mut File) -> String {
    let mut text = String::new();
    let noted = file.read_to_string(&mut text).is_ok() && text.starts_with("process ");
    match noted {
        true if text.starts_with(&format!("process {} ", std::process::id())) => "this process".to_owned(),
        true => text.chars().filter(|c| !c.is_control()).take(200).collect(),
        false => "another process".to_owned(),
    }
}
