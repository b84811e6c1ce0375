//! Where versions are kept: components by their digest, and a record for each handler.
//!
//! ```text
//! DATA-DIR/handlers/NAME.json               which versions NAME has had; the last is current
//! DATA-DIR/components/sha256-DIGITS.wasm    their bytes, each once
//! ```
//!
//! Everything is written under another name, synced and renamed. A record names only components that are there by then, so
//! that the renaming of the record is the moment at which another version is current: before it everything is as it was,
//! after it everything is new. What no record names is removed by the next commit.
//!
//! The memory engine keeps versions as it keeps events: until the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gristmill_core::HandlerName;
use gristmill_host::digest;
use tracing::warn;

use super::record::Record;
use crate::config::{Config, EngineKind};

const RECORDS: &str = "handlers";
const RECORD: &str = "json";
const COMPONENTS: &str = "components";
const COMPONENT: &str = "wasm";
/// What is being written begins with this.
const NEW: &str = ".new-";

/// Keeps versions. Every method touches the disk, and blocks; one change at a time is the caller's business.
#[derive(Debug)]
pub struct Versions(Place);

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Memory(Mutex<Memory>),
}

#[derive(Debug, Default)]
struct Memory {
    records: BTreeMap<HandlerName, Record>,
    components: BTreeMap<String, Bytes>,
}

/// What is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum VersionsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {error}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A record makes no sense.
    #[error(
        "{}: this record of a handler's versions is {why}\nremove the file, and the handler begins with what its \
         `component` is", .path.display()
    )]
    Record {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A component is not what its name says, or is not there.
    #[error("the component {digest} is not kept any more, or is damaged: deploy it again")]
    Component {
        /// Which one.
        digest: String,
    },
}

impl VersionsError {
    pub(super) fn interrupted(error: tokio::task::JoinError) -> Self {
        Self::Write { path: PathBuf::from(RECORDS), error: io::Error::other(error) }
    }
}

impl Versions {
    /// Those of a deployment.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        match config.queue.engine {
            EngineKind::Memory => Self::in_memory(),
            EngineKind::Rocksdb => Self::in_folder(&config.data_dir),
        }
    }

    /// They end with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self(Place::Memory(Mutex::default()))
    }

    /// They are kept in this folder.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self(Place::Folder(folder.to_owned()))
    }

    /// The record of a handler. `None`: it has none yet.
    ///
    /// # Errors
    /// When it cannot be read, or a newer release has written it.
    pub fn record(&self, handler: &HandlerName) -> Result<Option<Record>, VersionsError> {
        match &self.0 {
            Place::Memory(memory) => Ok(lock(memory).records.get(handler).cloned()),
            Place::Folder(folder) => read_record(&folder.join(RECORDS).join(format!("{handler}.{RECORD}"))),
        }
    }

    /// The bytes of a component that a record names.
    ///
    /// # Errors
    /// When they cannot be read, or are not those that were written.
    pub fn component(&self, wanted: &str) -> Result<Bytes, VersionsError> {
        let lost = || VersionsError::Component { digest: wanted.to_owned() };
        let bytes = match &self.0 {
            Place::Memory(memory) => lock(memory).components.get(wanted).cloned().ok_or_else(lost)?,
            Place::Folder(folder) => {
                let path = component_path(folder, wanted);
                match fs::read(&path) {
                    Ok(bytes) => bytes.into(),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(lost()),
                    Err(error) => return Err(VersionsError::Read { path, error }),
                }
            }
        };
        if digest(&bytes) == wanted { Ok(bytes) } else { Err(lost()) }
    }

    /// Keeps the bytes of a component, for a record to name.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep(&self, bytes: &Bytes) -> Result<(), VersionsError> {
        let digest = digest(bytes);
        match &self.0 {
            Place::Memory(memory) => {
                lock(memory).components.insert(digest, bytes.clone());
                Ok(())
            }
            // What is there may be damaged.
            Place::Folder(_) if self.component(&digest).is_ok() => Ok(()),
            Place::Folder(folder) => write(&component_path(folder, &digest), bytes),
        }
    }

    /// Makes `record` what is known of the handler: when this returns, its current version is the one to begin with after
    /// a crash.
    ///
    /// # Errors
    /// When it cannot be written; then everything is as it was, or, where the very last sync failed, either.
    pub fn commit(&self, handler: &HandlerName, record: &Record) -> Result<(), VersionsError> {
        match &self.0 {
            Place::Memory(memory) => {
                lock(memory).records.insert(handler.clone(), record.clone());
            }
            Place::Folder(folder) => {
                let path = folder.join(RECORDS).join(format!("{handler}.{RECORD}"));
                let text = serde_json::to_vec_pretty(record)
                    .map_err(|error| VersionsError::Write { path: path.clone(), error: error.into() })?;
                write(&path, &text)?;
            }
        }
        // What is left over costs space and nothing else.
        if let Err(error) = self.sweep() {
            warn!(%error, "components that no version needs are not removed");
        }
        Ok(())
    }

    /// Removes what no record names. Nothing goes if a record cannot be read.
    fn sweep(&self) -> Result<(), VersionsError> {
        match &self.0 {
            Place::Memory(memory) => {
                let mut memory = lock(memory);
                let Memory { records, components } = &mut *memory;
                let named = named(records.values());
                components.retain(|digest, _| named.contains(digest.as_str()));
                Ok(())
            }
            Place::Folder(folder) => {
                let mut records = Vec::new();
                let mut left_over = Vec::new();
                for path in files(&folder.join(RECORDS))? {
                    if path.extension() == Some(OsStr::new(RECORD)) {
                        records.extend(read_record(&path)?);
                    } else if is_unfinished(&path) {
                        left_over.push(path);
                    }
                }
                let named: BTreeSet<_> =
                    named(records.iter()).into_iter().map(|digest| component_path(folder, digest)).collect();
                left_over.extend(files(&folder.join(COMPONENTS))?.into_iter().filter(|path| !named.contains(path)));
                for path in left_over {
                    fs::remove_file(&path).map_err(|error| VersionsError::Write { path, error })?;
                }
                Ok(())
            }
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The digests of all components that these records name.
fn named<'a>(records: impl Iterator<Item = &'a Record>) -> BTreeSet<&'a str> {
    records.flat_map(Record::versions).map(|kept| kept.digest.as_str()).collect()
}

fn component_path(folder: &Path, digest: &str) -> PathBuf {
    folder.join(COMPONENTS).join(format!("{}.{COMPONENT}", digest.replace(':', "-")))
}

/// Whether it was being written when a process ended: one change at a time, and this one is over.
fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NEW.as_bytes()))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, VersionsError> {
    let unreadable = |error| VersionsError::Read { path: folder.to_owned(), error };
    match fs::read_dir(folder) {
        Ok(files) => files.map(|file| file.map(|file| file.path())).collect::<Result<_, _>>().map_err(unreadable),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
    }
}

fn read_record(path: &Path) -> Result<Option<Record>, VersionsError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(VersionsError::Read { path: path.to_owned(), error }),
    };
    let wrong = |why: String| VersionsError::Record { path: path.to_owned(), why };
    // Its format first: everything else may have another form then.
    let format = serde_json::from_slice::<Format>(&text).map_err(|error| wrong(format!("damaged: {error}")))?;
    if format.format > Record::FORMAT {
        return Err(wrong(format!("of a newer release: its format is {}", format.format)));
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| wrong(format!("damaged: {error}")))
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

/// Writes a file wholly or not at all, and returns when it is on the disk.
fn write(path: &Path, bytes: &[u8]) -> Result<(), VersionsError> {
    let wrong = |error| VersionsError::Write { path: path.to_owned(), error };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(wrong)?;
    let mut file = tempfile::Builder::new().prefix(NEW).tempfile_in(folder).map_err(wrong)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(wrong)?;
    file.persist(path).map_err(|error| wrong(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use gristmill_core::Timestamp;

    use super::*;
    use crate::deployment::record::{Kept, Origin};
    use crate::http::model::Time;

    fn version(bytes: &'static str) -> Kept {
        let digest = digest(bytes.as_bytes());
        Kept { digest, size: bytes.len() as u64, origin: Origin::Deploy, since: Time(Timestamp::EPOCH) }
    }

    /// Makes one version after the other current, keeping two.
    fn deploy(versions: &Versions, handler: &HandlerName, all: &[&'static str]) -> Record {
        let mut record = versions.record(handler).unwrap();
        for bytes in all {
            versions.keep(&Bytes::from_static(bytes.as_bytes())).unwrap();
            let next = match record.take() {
                Some(mut record) => {
                    record.activate(version(bytes), 2);
                    record
                }
                None => Record::new(version(bytes)),
            };
            versions.commit(handler, &next).unwrap();
            record = Some(next);
        }
        record.unwrap()
    }

    #[test]
    fn components_stay_as_long_as_a_record_names_them() {
        let folder = tempfile::tempdir().unwrap();
        for versions in [Versions::in_memory(), Versions::in_folder(folder.path())] {
            let (one, other) = (HandlerName::new("one").unwrap(), HandlerName::new("other").unwrap());
            assert_eq!(versions.record(&one).unwrap(), None);
            deploy(&versions, &other, &["a"]);
            let record = deploy(&versions, &one, &["a", "b", "c"]);
            assert_eq!(versions.record(&one).unwrap(), Some(record));
            for kept in ["a", "b", "c"] {
                assert_eq!(versions.component(&digest(kept.as_bytes())).unwrap(), kept);
            }
            deploy(&versions, &other, &["d", "e"]);
            assert!(versions.component(&digest(b"a")).is_err(), "nobody has it any more");
        }
        let left = files(&folder.path().join(COMPONENTS)).unwrap();
        assert_eq!(left.len(), 4, "{left:?}");
    }

    #[test]
    fn another_start_finds_what_was_committed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let one = HandlerName::new("one").unwrap();
        let record = deploy(&Versions::in_folder(folder.path()), &one, &["a"]);
        // As far as a deployment got that was killed before its commit.
        Versions::in_folder(folder.path()).keep(&Bytes::from_static(b"b")).unwrap();
        let again = Versions::in_folder(folder.path());
        assert_eq!(again.record(&one).unwrap(), Some(record.clone()));
        again.commit(&one, &record).unwrap();
        assert!(again.component(&digest(b"b")).is_err(), "what was left over is gone");
    }

    #[test]
    fn a_deployment_that_ends_after_any_step_leaves_the_old_version_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let (at, one) = (|name: &str| folder.path().join(name), HandlerName::new("one").unwrap());
        let old = deploy(&Versions::in_folder(folder.path()), &one, &["a"]);
        let mut new = old.clone();
        new.activate(version("b"), 1);
        let text = serde_json::to_vec_pretty(&new).unwrap();
        // What keep() and commit() do, one after the other.
        let steps: [(&str, &Record, &dyn Fn()); 6] = [
            ("half of a component", &old, &|| fs::write(at("components/.new-1"), "").unwrap()),
            ("a component", &old, &|| write(&component_path(folder.path(), &digest(b"b")), b"b").unwrap()),
            ("half of a record", &old, &|| fs::write(at("handlers/.new-2"), &text[..text.len() / 2]).unwrap()),
            ("a record", &old, &|| fs::write(at("handlers/.new-3"), &text).unwrap()),
            ("its renaming", &new, &|| fs::rename(at("handlers/.new-3"), at("handlers/one.json")).unwrap()),
            ("half of a sweep", &new, &|| fs::remove_file(component_path(folder.path(), &digest(b"a"))).unwrap()),
        ];
        for (step, expected, carry_out) in steps {
            carry_out();
            let again = Versions::in_folder(folder.path());
            let found = again.record(&one).unwrap().unwrap();
            assert_eq!(found, *expected, "after {step}");
            let bytes = again.component(&found.current.digest).unwrap();
            assert_eq!(digest(&bytes), found.current.digest, "after {step}");
        }
        // The next deployment removes what is left over, and nothing else.
        deploy(&Versions::in_folder(folder.path()), &one, &["c"]);
        let mut left = files(&at(COMPONENTS)).unwrap();
        left.sort();
        let mut kept = ["b", "c"].map(|bytes| component_path(folder.path(), &digest(bytes.as_bytes())));
        kept.sort();
        assert_eq!(left, kept);
        assert_eq!(files(&at(RECORDS)).unwrap(), [at("handlers/one.json")]);
    }

    #[test]
    fn what_is_damaged_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let (versions, one) = (Versions::in_folder(folder.path()), HandlerName::new("one").unwrap());
        deploy(&versions, &one, &["a"]);
        let component = component_path(folder.path(), &digest(b"a"));
        fs::write(&component, "x").unwrap();
        assert!(versions.component(&digest(b"a")).is_err());
        versions.keep(&Bytes::from_static(b"a")).unwrap();
        assert_eq!(versions.component(&digest(b"a")).unwrap(), "a", "deployed again, it is whole");
        let path = folder.path().join("handlers/one.json");
        for (text, why) in [
            ("{\"format\": 2}", "of a newer release: its format is 2"),
            ("{\"format\": 1, \"source\": null}", "damaged: missing field `current`"),
            ("{\"form", "damaged: EOF"),
        ] {
            fs::write(&path, text).unwrap();
            let error = versions.record(&one).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("one.json"), "{error}");
            versions.keep(&Bytes::from_static(b"z")).unwrap();
            versions.sweep().unwrap_err();
            assert!(versions.component(&digest(b"z")).is_ok(), "who cannot read who needs what removes nothing");
        }
    }
}
