//! Room on the disk that holds the store.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::store::Space;

/// How long an answer is good for: in that time, a fast disk takes a few MiB.
const FRESH: Duration = Duration::from_millis(20);

pub(super) struct DiskSpace {
    directory: PathBuf,
    reserve: u64,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl DiskSpace {
    pub(super) fn new(directory: &Path, reserve: u64) -> Self {
        Self { directory: directory.to_owned(), reserve, seen: Mutex::new(None) }
    }

    pub(super) fn look(&self) -> Space {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let available = match *seen {
            Some((at, available)) if at.elapsed() < FRESH => available,
            _ => {
                let available = self.ask();
                *seen = Some((Instant::now(), available));
                available
            }
        };
        Space { available, reserve: self.reserve }
    }

    /// What this user may still write, in bytes. A file system that does not say has room.
    fn ask(&self) -> u64 {
        match rustix::fs::statvfs(&self.directory) {
            Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
            Err(error) => {
                tracing::warn!(%error, directory = %self.directory.display(), "free space cannot be told");
                u64::MAX
            }
        }
    }
}
