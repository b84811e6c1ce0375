//! What a disk may hold after the power was cut.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use rand::rngs::StdRng;

/// What the kernel writes back at a time.
const PAGE: usize = 4_096;

/// Device and inode.
pub(crate) type FileId = (u64, u64);

/// What the shim has noted.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// How many bytes of each file that was written are on stable storage.
    synced: BTreeMap<FileId, u64>,
    /// Names that no sync of their directory covers.
    new_names: BTreeSet<PathBuf>,
}

impl Record {
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the shim was loaded, and has noted something");
        let mut record = Self::default();
        for line in text.lines() {
            record.note(line).unwrap_or_else(|| panic!("the shim's record: {line}"));
        }
        assert!(!record.synced.is_empty(), "the shim has seen nothing");
        record
    }

    fn note(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let file = || {
            let mut words = rest.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        match kind {
            "o" => drop(self.synced.entry(file()?).or_default()),
            "t" => drop(self.synced.insert(file()?, 0)),
            "s" => {
                let length: u64 = rest.split(' ').nth(2)?.parse().ok()?;
                let synced = self.synced.entry(file()?).or_default();
                *synced = length.max(*synced);
            }
            "d" => self.new_names.retain(|name| name.parent() != Some(Path::new(rest))),
            "n" => drop(self.new_names.insert(rest.into())),
            "g" => drop(self.new_names.remove(Path::new(rest))),
            _ => return None,
        }
        Some(())
    }
}

/// What a cut could do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Torn {
    /// Bytes that were written, and not synced.
    unsynced: usize,
    /// Files that are gone.
    gone: usize,
}

impl Torn {
    /// Whether there was anything to lose.
    pub(crate) const fn is_something(&self) -> bool {
        self.unsynced > 0
    }
}

impl std::ops::AddAssign for Torn {
    fn add_assign(&mut self, other: Self) {
        self.unsynced += other.unsynced;
        self.gone += other.gone;
    }
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unsynced, gone } = self;
        write!(f, "{unsynced} bytes were not synced, {gone} files are gone")
    }
}

/// Writes to `to` what may be left of `from`.
///
/// `positions` says how far each open file has been written; a log goes on behind that with room taken ahead, which reads
/// as zeros whatever happens.
pub(crate) fn after_the_cut(
    from: &Path,
    to: &Path,
    (record, positions): (&Record, &BTreeMap<FileId, u64>),
    random: &mut StdRng,
) -> Torn {
    let mut torn = Torn::default();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let meta = std::fs::metadata(&path).unwrap();
        let id = (meta.dev(), meta.ino());
        let name = path.file_name().unwrap().to_str().unwrap();
        let kind = Kind::of(name);
        let mut bytes = std::fs::read(&path).unwrap();
        // What this process has not written was there before it.
        if let Some(synced) = record.synced.get(&id) {
            let is_new = record.new_names.contains(&path);
            if is_new && matches!(kind, Kind::Log | Kind::Table) && random.random_bool(0.5) {
                torn.gone += 1;
                continue;
            }
            let synced = (*synced as usize).min(bytes.len());
            let written = match kind {
                Kind::Log => bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
                _ => bytes.len(),
            };
            let end = positions.get(&id).map_or(written, |at| *at as usize).max(synced).min(bytes.len());
            torn.unsynced += if kind == Kind::Log { end - synced } else { 0 };
            match kind {
                Kind::Log => tear(&mut bytes, synced..end, random),
                Kind::Table => tear(&mut bytes, synced..end, random),
                Kind::Manifest => bytes.truncate(random.random_range(synced..=end)),
                Kind::Note => forget(&mut bytes, random),
                Kind::Other => {}
            }
        }
        std::fs::write(to.join(name), bytes).unwrap();
    }
    torn
}

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Appended to, and synced from time to time.
    Log,
    /// Written once: sorted files and blobs, and files that are about to get their name.
    Table,
    /// Appended to. Its length is the last that a journaling file system writes: it may be too short, never garbled.
    Manifest,
    /// Written over and never synced.
    Note,
    /// Made before the store is opened (`CURRENT`, `IDENTITY`, …), or of no account.
    Other,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name.rsplit_once('.') {
            Some((_, "log")) => Self::Log,
            Some((_, "sst" | "blob" | "dbtmp")) => Self::Table,
            _ if name.starts_with("MANIFEST-") => Self::Manifest,
            _ if name == "SYNCED" => Self::Note,
            _ => Self::Other,
        }
    }
}

/// What was not synced is there, or not, or something else is.
fn tear(bytes: &mut Vec<u8>, unsynced: std::ops::Range<usize>, random: &mut StdRng) {
    if unsynced.is_empty() {
        return;
    }
    let keep = match random.random_range(0..5) {
        0 | 1 => unsynced.start,
        2 => unsynced.end,
        _ => random.random_range(unsynced.clone()),
    };
    // Pages are written back in any order: some of those that should be there are not.
    if random.random_bool(0.4) {
        let mut at = unsynced.start;
        while at < keep {
            let next = ((at / PAGE + 1) * PAGE).min(keep);
            match random.random_range(0..4) {
                0 => bytes[at..next].fill(0),
                1 => random.fill(&mut bytes[at..next]),
                _ => {}
            }
            at = next;
        }
    }
    // The file may have its length all the same; what it holds there is not what was written.
    match random.random_range(0..5) {
        0 => random.fill(&mut bytes[keep..unsynced.end]),
        1 | 2 => bytes[keep..unsynced.end].fill(0),
        _ => bytes.truncate(keep),
    }
}

/// A small file that is never synced.
fn forget(bytes: &mut Vec<u8>, random: &mut StdRng) {
    match random.random_range(0..10) {
        0 => bytes.clear(),
        1 => bytes.fill(0),
        // What a process last said is what a disk is most likely to hold, and says the most.
        _ => {}
    }
}
