//! Room for the log, taken before it is needed.
//!
//! A sync of a file that grows must also write the file's new length, which takes a third of the sync. RocksDB can
//! therefore take room for its log ahead, and reads a log that ends in zeros as one that ends there; but not as it is
//! built here. So it is done from outside, in the way that RocksDB would.

use std::path::Path;

/// Takes room for the log that was begun last: `size` bytes, but no more than 16 MiB. If that does not work, syncs are
/// slower.
#[cfg(target_os = "linux")]
pub(super) fn take(directory: &Path, size: u64) {
    use rustix::fs::{FallocateFlags, fallocate};
    const MAX: u64 = 16 << 20;
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
    let logs = files.filter(|path| path.extension().is_some_and(|end| end == "log"));
    // Logs have numbers that grow.
    let numbered = logs.filter_map(|path| Some((path.file_stem()?.to_str()?.parse::<u64>().ok()?, path)));
    let Some((_, log)) = numbered.max() else { return };
    let file = std::fs::File::options().write(true).open(&log);
    let taken = file.and_then(|file| Ok(fallocate(&file, FallocateFlags::empty(), 0, size.min(MAX))?));
    if let Err(error) = taken {
        tracing::debug!(%error, log = %log.display(), "no room can be taken ahead for the log");
    }
}

/// Not done here.
#[cfg(not(target_os = "linux"))]
pub(super) fn take(_directory: &Path, _size: u64) {}
