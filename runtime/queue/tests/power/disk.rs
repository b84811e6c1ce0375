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

/// One file that was written.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    /// So many of its bytes are on stable storage.
    synced: u64,
    /// It is written over an older log.
    recycled: bool,
}

/// What the shim has noted.
#[derive(Debug, Default)]
pub(crate) struct Record {
    files: BTreeMap<FileId, Written>,
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
        assert!(!record.files.is_empty(), "the shim has seen nothing");
        record
    }

    fn note(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let file = || {
            let mut words = rest.split(' ');
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        match kind {
            "o" => drop(self.files.insert(file()?, Written::default())),
            "k" => self.files.get_mut(&file()?)?.recycled = true,
            "s" => {
                let length = rest.split(' ').nth(2)?.parse().ok()?;
                let written = self.files.entry(file()?).or_default();
                written.synced = written.synced.max(length);
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
    /// Logs that were written over older ones.
    recycled: usize,
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
        self.recycled += other.recycled;
        self.gone += other.gone;
    }
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { unsynced, recycled, gone } = self;
        write!(f, "{unsynced} bytes were not synced, {recycled} logs were recycled, {gone} files are gone")
    }
}

/// Writes to `to` what may be left of `from`.
///
/// `positions` says how far each open file has been written; a recycled log goes on behind that with older bytes.
pub(crate) fn after_the_cut(
    from: &Path,
    to: &Path,
    (record, record_path, positions): (&Record, &Path, &BTreeMap<FileId, u64>),
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
        if let Some(written) = record.files.get(&id) {
            let is_new = record.new_names.contains(&path);
            if is_new && matches!(kind, Kind::Log | Kind::Table) && random.random_bool(0.5) {
                torn.gone += 1;
                continue;
            }
            let synced = (written.synced as usize).min(bytes.len());
            // A recycled log is closed once it is synced; what follows in it is older, and was not touched.
            let written_to = if written.recycled { synced } else { bytes.len() };
            let end = positions.get(&id).map_or(written_to, |at| *at as usize).clamp(synced, bytes.len());
            let old = written.recycled.then(|| std::fs::read(older(record_path, id)).unwrap());
            torn.recycled += usize::from(kind == Kind::Log && old.is_some());
            torn.unsynced += if kind == Kind::Log { end - synced } else { 0 };
            match kind {
                Kind::Log => tear(&mut bytes, synced..end, old.as_deref(), random),
                Kind::Table => tear(&mut bytes, synced..end, None, random),
                Kind::Manifest => bytes.truncate(random.random_range(synced..=end)),
                Kind::Note => forget(&mut bytes, random),
                Kind::Other => {}
            }
        }
        std::fs::write(to.join(name), bytes).unwrap();
    }
    torn
}

/// Where the shim keeps what a log held before it was recycled.
fn older(record: &Path, (_, inode): FileId) -> PathBuf {
    let mut path = record.as_os_str().to_owned();
    path.push(format!(".{inode}"));
    path.into()
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
fn tear(bytes: &mut Vec<u8>, unsynced: std::ops::Range<usize>, old: Option<&[u8]>, random: &mut StdRng) {
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
                0 => before(bytes, at..next, old),
                1 => random.fill(&mut bytes[at..next]),
                _ => {}
            }
            at = next;
        }
    }
    if random.random_bool(0.2) {
        // The file has its length; what it holds there is not what was written.
        random.fill(&mut bytes[keep..unsynced.end]);
    } else if old.is_some() || random.random_bool(0.2) {
        before(bytes, keep..unsynced.end, old);
    } else {
        bytes.truncate(keep);
    }
}

/// Puts back what was there before these bytes were written.
fn before(bytes: &mut [u8], range: std::ops::Range<usize>, old: Option<&[u8]>) {
    for at in range {
        bytes[at] = old.and_then(|old| old.get(at)).copied().unwrap_or(0);
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
