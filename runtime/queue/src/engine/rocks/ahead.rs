//! Room for the log, taken before it is needed.
//!
//! A sync of a file that grows must also write the file's new length, which takes a third of the sync. RocksDB can
//! therefore take room for its log ahead, and reads a log that ends in zeros as one that ends there; but not as it is
//! built here. So it is done from outside, as RocksDB would do it.

use std::path::{Path, PathBuf};

/// The most that is taken, in bytes.
const MAX: u64 = 16 << 20;

/// Takes room for the log that was begun last, `size` bytes in all. If that does not work, syncs are slower.
pub(super) fn take_room(directory: &Path, size: u64) {
    #[cfg(target_os = "linux")]
    if let Some(log) = newest_log(directory) {
        use rustix::fs::{FallocateFlags, fallocate};
        let taken = std::fs::File::options()
            .write(true)
            .open(&log)
            .and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, size.min(MAX))?));
        if let Err(error) = taken {
            tracing::debug!(%error, log = %log.display(), "no room can be taken ahead for the log");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (directory, size, MAX);
}

/// Logs have numbers that grow.
fn newest_log(directory: &Path) -> Option<PathBuf> {
    let files = std::fs::read_dir(directory).ok()?.flatten().map(|file| file.path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    logs.filter_map(|path| Some((number(&path)?, path))).max().map(|(_, path)| path)
}
