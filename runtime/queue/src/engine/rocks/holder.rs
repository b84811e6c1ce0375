//! Who has the store open: a note in its directory, for whoever finds it locked. The lock itself is RocksDB's.

use std::path::{Path, PathBuf};

use gristmill_core::{Clock, SystemClock};

/// The file's name in the store's directory.
pub(super) const FILE: &str = "HOLDER";

/// The note; gone when the store is closed.
pub(super) struct Holder(PathBuf);

impl Holder {
    /// Says that this process has the store open. Called while it holds the lock.
    pub(super) fn new(directory: &Path) -> Self {
        let path = directory.join(FILE);
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let text = format!(
            "process {} ({}, since {})",
            std::process::id(),
            program.as_deref().unwrap_or("unknown program"),
            SystemClock::new().now()
        );
        if let Err(error) = std::fs::write(&path, text) {
            tracing::warn!(%error, file = %path.display(), "who has the store open cannot be noted");
        }
        Self(path)
    }

    /// Who it is, in words.
    pub(super) fn describe(directory: &Path) -> String {
        let noted = std::fs::read_to_string(directory.join(FILE)).ok();
        let noted = noted.map(|text| text.trim().to_owned()).filter(|text| text.starts_with("process "));
        match noted {
            Some(text) if text.starts_with(&format!("process {} ", std::process::id())) => "this process".to_owned(),
            Some(text) => text.chars().filter(|c| !c.is_control()).take(200).collect(),
            None => "another process".to_owned(),
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
