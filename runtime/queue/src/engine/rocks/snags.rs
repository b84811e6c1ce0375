//! Damage to a log that RocksDB's reader does not see, or never gets past; made visible before it reads.
//!
//! Where a record should begin, a damaged log may hold what looks like a record of a recycled log. RocksDB's reader
//! takes that for damage, but does not get past it: it reads it again, for ever. With another kind of record there it
//! reports the damage, as it does everywhere else.
//!
//! And where a part of the log was never written, so that it reads as zeros, the reader goes on behind it without a word:
//! what comes after a hole would be applied without what was in it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::contract::QueueError;

/// Logs are written in blocks; no record crosses their ends.
const BLOCK: usize = 32 << 10;
/// Checksum, length, and at [`KIND`] the kind of a record.
const HEADER: usize = 7;
const KIND: usize = 6;
/// No kind of record.
const NONE: u8 = 0xff;

/// Places in the logs of one store. Dropped, they are as they were.
pub(super) struct Snags(Vec<Snag>);

struct Snag {
    log: PathBuf,
    /// Of the byte that was changed.
    at: u64,
    was: u8,
}

impl Snags {
    /// Finds all of them and makes them harmless.
    pub(super) fn remove(directory: &Path) -> Result<Self, QueueError> {
        let mut snags = Self(Vec::new());
        for log in logs(directory) {
            let failed = |error: io::Error| QueueError::Unavailable(format!("{}: {error}", log.display()));
            for (at, was) in find(&log).map_err(failed)? {
                tracing::warn!(log = %log.display(), at, "the log is damaged");
                write(&log, at, NONE).map_err(failed)?;
                snags.0.push(Snag { log: log.clone(), at, was });
            }
        }
        Ok(snags)
    }

    /// The store is opened: what is damaged goes with the log.
    pub(super) fn forget(mut self) {
        self.0.clear();
    }
}

impl Drop for Snags {
    fn drop(&mut self) {
        for Snag { log, at, was } in &self.0 {
            if let Err(error) = write(log, *at, *was) {
                tracing::warn!(%error, log = %log.display(), "the log cannot be put back as it was");
            }
        }
    }
}

fn write(log: &Path, at: u64, byte: u8) -> io::Result<()> {
    File::options().write(true).open(log)?.write_all_at(&[byte], at)
}

/// The logs of a store, in no order.
fn logs(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path());
    files.filter(|path| path.extension().is_some_and(|end| end == "log"))
}

/// Where a log has a kind of record that must not be read as such, and which.
fn find(log: &Path) -> io::Result<Vec<(u64, u8)>> {
    let mut file = File::open(log)?;
    let mut found = Vec::new();
    let mut block = Vec::with_capacity(BLOCK);
    let mut start = 0;
    let mut has_ended = false;
    loop {
        block.clear();
        if file.by_ref().take(BLOCK as u64).read_to_end(&mut block)? == 0 {
            return Ok(found);
        }
        let end = walk(&block);
        let snag = match (end, block.get(KIND)) {
            (End::Snag(at, kind), _) => Some((at, kind)),
            // Behind a hole.
            (_, Some(&kind)) if has_ended && !is_zero(&block) => Some((KIND, kind)),
            _ => None,
        };
        found.extend(snag.map(|(at, kind)| (start + at as u64, kind)));
        has_ended |= end == End::Zeros;
        start += block.len() as u64;
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().take(HEADER).all(|byte| *byte == 0)
}

/// How the records of a block end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the block, or with damage that is seen.
    Whole,
    /// Nothing was written from there on.
    Zeros,
    /// With a kind at this place that the reader does not get past.
    Snag(usize, u8),
}

fn walk(block: &[u8]) -> End {
    let mut at = 0;
    while let Some(&[_, _, _, _, low, high, kind]) = block.get(at..).and_then(<[u8]>::first_chunk::<HEADER>) {
        match kind {
            // Full, first, middle and last records that may be written over older ones; a log's timestamps and
            // predecessor, the same way.
            5..=8 | 11 | 131 => return End::Snag(at + KIND, kind),
            0 if low == 0 && high == 0 => return End::Zeros,
            _ => at += HEADER + usize::from(u16::from_le_bytes([low, high])),
        }
    }
    End::Whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, length: u16) -> Vec<u8> {
        let [low, high] = length.to_le_bytes();
        [vec![1, 2, 3, 4, low, high, kind], vec![7; usize::from(length)]].concat()
    }

    #[test]
    fn snags_are_where_records_begin() {
        assert_eq!(walk(&[record(1, 9), record(5, 3)].concat()), End::Snag(16 + KIND, 5));
        // The same bytes inside a record are its own affair.
        assert_eq!(walk(&[record(1, 8), record(4, 0), vec![5; 6]].concat()), End::Whole);
        assert_eq!(walk(&[record(2, 100), vec![0; 50], record(5, 3)].concat()), End::Zeros);
        assert_eq!(walk(&[]), End::Whole);
    }

    #[test]
    fn what_is_behind_a_hole_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("000004.log");
        let block = |first: u8| [record(first, 100), vec![0; BLOCK - HEADER - 100]].concat();
        let whole = record(1, u16::try_from(BLOCK - HEADER).unwrap());
        for (blocks, expected) in [
            (vec![whole.clone(), block(1)], None),
            (vec![whole.clone(), block(1), vec![0; BLOCK]], None),
            (vec![block(1), whole.clone()], Some((BLOCK + KIND, 1))),
            (vec![whole.clone(), vec![0; BLOCK], block(2)], Some((2 * BLOCK + KIND, 2))),
        ] {
            std::fs::write(&log, blocks.concat()).unwrap();
            let found = find(&log).unwrap();
            assert_eq!(found.first().copied(), expected.map(|(at, kind)| (at as u64, kind)));
        }
    }

    #[test]
    fn a_log_is_changed_in_one_byte_and_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("000004.log");
        let mut bytes = record(3, u16::try_from(BLOCK - HEADER).unwrap());
        bytes.extend(record(131, 5));
        std::fs::write(&log, &bytes).unwrap();
        let snags = Snags::remove(directory.path()).unwrap();
        let mut changed = bytes.clone();
        changed[BLOCK + KIND] = NONE;
        assert_eq!(std::fs::read(&log).unwrap(), changed);
        drop(snags);
        assert_eq!(std::fs::read(&log).unwrap(), bytes);
        Snags::remove(directory.path()).unwrap().forget();
        assert_eq!(std::fs::read(&log).unwrap(), changed);
    }
}
