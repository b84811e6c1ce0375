//! The folder of plugins: what is in it, what has changed, and whether it can be trusted.
//!
//! Only files that are called `NAME.wasm` count, links to regular files among them; each is read once, so that the bytes
//! whose digest is known are the bytes that run. Whoever can write there decides which code runs here, so that a folder
//! or a file that others can write to is refused.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use gristmill_core::HandlerName;
use tracing::error;

use super::watch::QUIET;
use crate::cli::text::one_line;
use crate::config::{Config, HandlerConfig, Plugin};
use crate::manifest;

/// What components end with.
const COMPONENT: &str = "wasm";
/// What a manifest beside one ends with.
const MANIFEST: &str = "toml";
/// Bits of a mode that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// A folder of plugins, and what was in it when it was looked at last.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    max_size: u64,
    seen: BTreeMap<PathBuf, Stamps>,
    /// Whether it was looked at before, so that it is looked at again.
    is_known: bool,
}

/// What has changed since the last look.
#[derive(Debug, Default)]
pub struct Found {
    /// Plugins that are new, or others than before, with their bytes.
    pub(crate) changed: Vec<(Plugin, Bytes)>,
    /// Files that are there and cannot be used, and why not.
    pub(crate) wrong: Vec<(PathBuf, String)>,
    /// Files that are not there any more.
    pub(super) gone: Vec<PathBuf>,
}

/// The folder cannot be looked at. Nothing is known to have changed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("cannot read the folder of plugins `{}`: {error}\nmake it, or change `[plugins] dir`", .path.display())]
    Read {
        /// The folder.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// Others could put a component there.
    #[error(
        "the folder of plugins `{}` can be written to by others than its owner, who could run their code here\n\
         run: chmod go-w {}", .path.display(), .path.display()
    )]
    Open {
        /// The folder.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "the folder of plugins `{}` belongs to another user (id {owner}), who could run code here\n\
         give it to the user that runs this, or to root", .path.display()
    )]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
}

/// How a component and the manifest beside it looked. Another stamp means another file, or other contents.
type Stamps = (Stamp, Option<Stamp>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The plugins of a deployment.
#[derive(Clone, Debug, Default)]
pub(super) struct Plugins {
    /// Those that are handlers, or would be if the configuration let them.
    pub(super) known: BTreeMap<HandlerName, Plugin>,
    /// What is wrong with a file. What it was before may still be at work.
    pub(super) wrong: BTreeMap<PathBuf, String>,
}

impl Plugins {
    /// Notes what is wrong with a file, and tells the log.
    pub(super) fn refuse(&mut self, path: &Path, why: String) {
        let why = why.strip_prefix("error: ").map_or(why.clone(), str::to_owned);
        let shown = path.display().to_string();
        let why = if why.contains(&shown) { why } else { format!("{shown}: {why}") };
        error!("a plugin is refused:\n{why}");
        self.wrong.insert(path.to_owned(), why);
    }

    /// A plugin is loaded.
    pub(super) fn accept(&mut self, plugin: Plugin) {
        self.wrong.remove(&plugin.path);
        self.known.insert(plugin.name.clone(), plugin);
    }

    /// Forgets what is not there any more, and notes what is wrong.
    pub(super) fn note(&mut self, gone: &[PathBuf], wrong: Vec<(PathBuf, String)>) {
        self.known.retain(|_, plugin| !gone.contains(&plugin.path));
        self.wrong.retain(|path, _| !gone.contains(path));
        for (path, why) in wrong {
            self.refuse(&path, why);
        }
    }

    /// The handlers that `written` means, each with its plugin if it is one. What the configuration does not let a plugin
    /// be, it is not.
    pub(super) fn handlers(&mut self, written: &Config) -> Vec<(HandlerConfig, Option<Plugin>)> {
        let mut handlers: Vec<_> = written.handlers.iter().map(|handler| (handler.clone(), None)).collect();
        for plugin in self.known.clone().into_values() {
            match written.plugin(&plugin) {
                Ok(handler) => {
                    handlers.retain(|(other, _)| other.name != handler.name);
                    handlers.push((handler, Some(plugin)));
                }
                Err(errors) => self.refuse(&plugin.path, errors.to_string()),
            }
        }
        handlers
    }
}

impl Found {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.wrong.is_empty() && self.gone.is_empty()
    }
}

impl Folder {
    /// The folder of a deployment, if it has one. Nothing is read yet.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let path = config.plugins.dir.clone()?;
        Some(Self { path, max_size: config.host.max_component_size, seen: BTreeMap::new(), is_known: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file of this name matters.
    #[must_use]
    pub fn is_of_interest(path: &Path) -> bool {
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !is_hidden && path.extension().is_some_and(|extension| extension == COMPONENT || extension == MANIFEST)
    }

    /// What of these files was seen counts as not seen, so that they are read again.
    pub fn forget<'a>(&mut self, paths: impl IntoIterator<Item = &'a PathBuf>) {
        for path in paths {
            if let Some(stamps) = self.seen.get_mut(path) {
                stamps.0.size = u64::MAX;
            }
        }
    }

    /// Looks at what is there. A file that is as it was is not opened, and one that `is_being_written` counts as it was.
    /// Blocks.
    ///
    /// # Errors
    /// When the folder cannot be read, or is not to be trusted; then everything counts as being as it was.
    pub fn look(&mut self, is_being_written: impl Fn(&Path) -> bool) -> Result<Found, FolderError> {
        self.check()?;
        let mut found = Found::default();
        let mut there = BTreeMap::new();
        for path in self.components()? {
            // Who follows a link sees what it leads to. A file that goes in this moment is gone.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if !metadata.is_file() {
                continue;
            }
            let manifest = path.with_extension(MANIFEST);
            let beside = fs::metadata(&manifest).ok();
            let is_unfinished = metadata.len() == 0
                || is_being_written(&path)
                || is_being_written(&manifest)
                || (self.is_known && (is_young(&metadata) || beside.as_ref().is_some_and(is_young)));
            if is_unfinished {
                if let Some(stamps) = self.seen.get(&path) {
                    there.insert(path, *stamps);
                }
                continue;
            }
            let stamps = (Stamp::of(&metadata), beside.as_ref().map(Stamp::of));
            if self.seen.get(&path) != Some(&stamps) {
                match self.read(&path, [Some(&metadata), beside.as_ref()]) {
                    Ok(plugin) => found.changed.push(plugin),
                    Err(why) => found.wrong.push((path.clone(), why)),
                }
            }
            there.insert(path, stamps);
        }
        found.gone = self.seen.keys().filter(|path| !there.contains_key(*path)).cloned().collect();
        self.seen = there;
        self.is_known = true;
        Ok(found)
    }

    /// Reads a component with the manifest beside it, whose metadata these are.
    fn read(&self, path: &Path, files: [Option<&Metadata>; 2]) -> Result<(Plugin, Bytes), String> {
        let beside = path.with_extension(MANIFEST);
        for (path, metadata) in [path, &beside].into_iter().zip(files) {
            let Some(metadata) = metadata else { continue };
            let shown = one_line(&path.display().to_string());
            if metadata.mode() & OTHERS_WRITE != 0 {
                return Err(format!("{shown}: others than its owner can write to it; run: chmod go-w {shown}"));
            }
            if !is_trusted(metadata.uid()) {
                return Err(format!(
                    "{shown}: it belongs to another user (id {}); give it to this one",
                    metadata.uid()
                ));
            }
            if metadata.len() > self.max_size {
                let (size, max) = (metadata.len(), self.max_size);
                return Err(format!("{shown}: it has {size} bytes; `max-component-size` is {max}"));
            }
        }
        manifest::read(path).map_err(|error| error.complaint().trim_end().to_owned())
    }

    fn components(&self) -> Result<Vec<PathBuf>, FolderError> {
        let unreadable = |error| FolderError::Read { path: self.path.clone(), error };
        let mut components = Vec::new();
        for file in fs::read_dir(&self.path).map_err(unreadable)? {
            let path = file.map_err(unreadable)?.path();
            if Self::is_of_interest(&path) && path.extension() == Some(OsStr::new(COMPONENT)) {
                components.push(path);
            }
        }
        components.sort_unstable();
        Ok(components)
    }

    fn check(&self) -> Result<(), FolderError> {
        let path = self.path.clone();
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => return Err(FolderError::Read { path, error }),
        };
        if metadata.mode() & OTHERS_WRITE != 0 {
            return Err(FolderError::Open { path });
        }
        let owner = metadata.uid();
        if !is_trusted(owner) {
            return Err(FolderError::Foreign { path, owner });
        }
        Ok(())
    }
}

/// This user, and root, who may do anything in any case.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Whether it was written so short a time ago that more may come.
fn is_young(metadata: &Metadata) -> bool {
    let age = metadata.modified().ok().and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age < QUIET)
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// The smallest module.
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn folder() -> (tempfile::TempDir, Folder) {
        let directory = tempfile::tempdir().unwrap();
        let folder =
            Folder { path: directory.path().join("plugins"), max_size: 100, seen: BTreeMap::new(), is_known: false };
        fs::create_dir(&folder.path).unwrap();
        (directory, folder)
    }

    /// Whatever was written, was written long ago.
    fn look(folder: &mut Folder) -> Result<Found, FolderError> {
        for file in fs::read_dir(&folder.path).into_iter().flatten() {
            let Ok(file) = fs::File::open(file.unwrap().path()) else { continue };
            if is_young(&file.metadata().unwrap()) {
                file.set_modified(SystemTime::now() - 2 * QUIET).unwrap();
            }
        }
        folder.look(|_| false)
    }

    /// The same, while somebody writes a file.
    fn look_except(folder: &mut Folder, written: &Path) -> Found {
        folder.look(|path| path == written).unwrap()
    }

    fn names(found: &Found) -> Vec<&str> {
        found.changed.iter().map(|(plugin, _)| plugin.name.as_str()).collect()
    }

    #[test]
    fn what_is_new_changed_or_gone_is_told_once() {
        let (directory, mut folder) = folder();
        let at = |name: &str| folder.path.join(name);
        let (one, other, beside) = (at("one.wasm"), at("other.wasm"), at("one.toml"));
        for name in ["one.wasm", "one.wasm.tmp", ".one.wasm", "README.md"] {
            fs::write(at(name), MODULE).unwrap();
        }
        fs::create_dir(at("folder.wasm")).unwrap();
        fs::write(at("empty.wasm"), "").unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, MODULE).unwrap();
        symlink(&elsewhere, &other).unwrap();
        symlink(directory.path().join("nowhere"), at("broken.wasm")).unwrap();
        let found = look(&mut folder).unwrap();
        assert_eq!((names(&found), &found.wrong, &found.gone), (vec!["one", "other"], &vec![], &vec![]));
        assert_eq!(found.changed[0].1, MODULE);
        assert!(look(&mut folder).unwrap().is_empty());
        fs::write(&beside, "description = \"another\"\n").unwrap();
        assert_eq!(names(&look(&mut folder).unwrap()), ["one"], "its manifest is new");
        // As long as before, and what the link leads to.
        fs::write(&elsewhere, [MODULE, &[0, 2, 1, b'x']].concat()).unwrap();
        assert_eq!(names(&look(&mut folder).unwrap()), ["other"]);
        // Who writes it anew has emptied it first; it is as it was until that is done.
        fs::write(&one, "").unwrap();
        assert!(look(&mut folder).unwrap().is_empty());
        fs::write(&one, [MODULE, &[0, 2, 1, b'y']].concat()).unwrap();
        assert!(folder.look(|_| false).unwrap().is_empty(), "more may come");
        assert!(look_except(&mut folder, &one).is_empty(), "somebody has it open");
        assert_eq!(names(&look(&mut folder).unwrap()), ["one"]);
        fs::remove_file(&one).unwrap();
        assert_eq!(look(&mut folder).unwrap().gone, [one]);
        assert!(look(&mut folder).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_used_is_told_once_too() {
        let (_directory, mut folder) = folder();
        let at = |name: &str| folder.path.join(name);
        fs::write(at("zip.wasm"), "PK\x03\x04").unwrap();
        fs::write(at("large.wasm"), [0; 101]).unwrap();
        fs::write(at("Wrong Name.wasm"), MODULE).unwrap();
        fs::write(at("open.wasm"), MODULE).unwrap();
        fs::set_permissions(at("open.wasm"), fs::Permissions::from_mode(0o666)).unwrap();
        let found = look(&mut folder).unwrap();
        assert_eq!(names(&found), Vec::<&str>::new());
        let said: Vec<_> = found.wrong.iter().map(|(_, why)| why.as_str()).collect();
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(said[0].contains("rename the file") && said[1].contains("max-component-size"), "{said:?}");
        assert!(said[2].contains("chmod go-w") && said[3].contains("zip archive"), "{said:?}");
        assert!(look(&mut folder).unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused_and_one_that_is_gone_changes_nothing() {
        let (_directory, mut folder) = folder();
        fs::write(folder.path.join("one.wasm"), MODULE).unwrap();
        look(&mut folder).unwrap();
        fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(look(&mut folder), Err(FolderError::Open { .. })));
        fs::set_permissions(&folder.path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(look(&mut folder).unwrap().is_empty());
        let moved = folder.path.with_extension("moved");
        fs::rename(&folder.path, &moved).unwrap();
        assert!(matches!(look(&mut folder), Err(FolderError::Read { .. })));
        fs::rename(&moved, &folder.path).unwrap();
        assert!(look(&mut folder).unwrap().is_empty(), "what is back is as it was");
    }
}
