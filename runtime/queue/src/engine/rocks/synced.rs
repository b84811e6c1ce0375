//! What is known to be on stable storage, noted in a small file beside the store: a log that was cut or damaged must not
//! look like one that never held more.
//!
//! ```text
//! SYNCED = sequence 8 (little-endian) | its complement 8
//! ```
//!
//! The note itself is not synced. After a power cut it may be an older one, and never says too much.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::OnLoss;
use crate::contract::QueueError;

/// The file's name in the store's directory.
pub(super) const FILE: &str = "SYNCED";
const LEN: usize = 16;

pub(super) struct Synced {
    file: File,
}

impl Synced {
    /// Compares what the store holds with what it is known to have held. False: it has lost something, or may have.
    pub(super) fn open(directory: &Path, sequence: u64, on_loss: OnLoss) -> Result<(Self, bool), QueueError> {
        let path = directory.join(FILE);
        let failed = |error: std::io::Error| QueueError::Unavailable(format!("{}: {error}", path.display()));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let noted = read(&file).map_err(failed)?;
        if noted.is_none() && file.metadata().map_err(failed)?.len() > 0 {
            tracing::warn!(file = %path.display(), "it cannot be read; a loss of synced commits would not be noticed this time");
        }
        let mut is_whole = noted.is_some() || sequence == 0;
        if let Err(loss) = Self::compare(directory, noted.unwrap_or(0), sequence) {
            if on_loss == OnLoss::Refuse {
                return Err(loss);
            }
            tracing::warn!(%loss, "accepted");
            is_whole = false;
        }
        let synced = Self { file };
        synced.note(sequence);
        Ok((synced, is_whole))
    }

    /// Up to where the store is known to have been on stable storage, if anything legible is noted.
    pub(super) fn noted(directory: &Path) -> Option<u64> {
        File::open(directory.join(FILE)).and_then(|file| read(&file)).ok().flatten()
    }

    /// Whether a store that ends at `sequence` holds all that was `noted`.
    pub(super) fn compare(directory: &Path, noted: u64, sequence: u64) -> Result<(), QueueError> {
        match noted.saturating_sub(sequence) {
            0 => Ok(()),
            missing => Err(QueueError::Corrupt(format!(
                "the store in {} has lost {missing} writes that were on stable storage: its log is damaged, or was \
                 replaced by an older one. Restore it from a backup; or open it without them, with `--accept-loss`: \
                 acknowledged events are lost then, and acked ones may be delivered again",
                directory.display()
            ))),
        }
    }

    /// Everything up to this sequence number is on stable storage.
    pub(super) fn note(&self, sequence: u64) {
        let mut bytes = [0; LEN];
        let (low, high) = bytes.split_at_mut(LEN / 2);
        low.copy_from_slice(&sequence.to_le_bytes());
        high.copy_from_slice(&(!sequence).to_le_bytes());
        // Best effort: an old note never says too much.
        if let Err(error) = self.file.write_all_at(&bytes, 0) {
            tracing::warn!(%error, "what is on stable storage cannot be noted");
        }
    }
}

fn read(file: &File) -> std::io::Result<Option<u64>> {
    let mut bytes = [0; LEN];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (Some(low), Some(high)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) else { return Ok(None) };
    let sequence = u64::from_le_bytes(*low);
    Ok((u64::from_le_bytes(*high) == !sequence).then_some(sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_holds_less_than_was_synced_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        Synced::open(directory.path(), 0, OnLoss::Refuse).unwrap().0.note(1_000);
        let error = Synced::open(directory.path(), 988, OnLoss::Refuse).err().unwrap().to_string();
        assert!(error.contains("lost 12 writes") && error.contains("--accept-loss"), "{error}");
        assert!(Synced::open(directory.path(), 1_000, OnLoss::Refuse).unwrap().1);
        assert!(!Synced::open(directory.path(), 988, OnLoss::Accept).unwrap().1);
        assert!(Synced::open(directory.path(), 988, OnLoss::Refuse).unwrap().1, "accepted once is enough");
    }

    #[test]
    fn a_garbled_note_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), [7; LEN]).unwrap();
        assert!(!Synced::open(directory.path(), 1, OnLoss::Refuse).unwrap().1);
    }
}
