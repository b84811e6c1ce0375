//! A folder that belongs to this user and that nobody else may enter, kept below a size.
//!
//! Files are read only from such a folder, never through a link, and are written beside their place and moved there, so that
//! nobody sees a part of one. A file's time of change is when it was last used: what was not used for longest goes first.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tracing::debug;

/// The bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;
/// How the name of a file begins that is being written.
const NEW: &str = ".new-";
/// Nobody writes for so long: whoever began has died.
const ABANDONED: Duration = Duration::from_hours(1);

/// A folder of files that can be had again if they are gone.
#[derive(Clone, Debug)]
pub struct PrivateFolder {
    path: PathBuf,
    max_size: u64,
    is_ours: fn(&str) -> bool,
}

impl PrivateFolder {
    /// Keeps at most `max_size` bytes in files whose name `is_ours`; others are never removed. Nothing is read or written
    /// before it is needed.
    #[must_use]
    pub fn new(path: PathBuf, max_size: u64, is_ours: fn(&str) -> bool) -> Self {
        Self { path, max_size, is_ours }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a file, at most `max_len`, and notes that it was used.
    ///
    /// # Errors
    /// When the file is not there, is larger, or somebody else could have written it.
    pub fn read(&self, name: &str, max_len: u64) -> io::Result<Vec<u8>> {
        self.check()?;
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(no_link).open(self.path.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        check_owner(&metadata)?;
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("other users may change it"));
        }
        if metadata.len() > max_len {
            return Err(io::Error::other("it is too large"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
        Read::by_ref(&mut file).take(max_len).read_to_end(&mut bytes)?;
        // Where that cannot be noted, the file goes earlier than it should.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            debug!(folder = %self.path.display(), name, %error, "cannot note that a file was used");
        }
        Ok(bytes)
    }

    /// Writes a file that consists of these parts; one of this name is replaced.
    ///
    /// # Errors
    /// When it would not fit alone, the folder is open to others, or the disk refuses.
    pub fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        if parts.iter().map(|part| part.len() as u64).sum::<u64>() > self.max_size {
            return Err(io::Error::other("it is larger than all that may be kept"));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        self.check()?;
        let file = tempfile::Builder::new().prefix(NEW).tempfile_in(&self.path)?;
        let mut writer: &File = file.as_file();
        parts.iter().try_for_each(|part| writer.write_all(part))?;
        file.persist(self.path.join(name)).map(drop).map_err(|error| error.error)
    }

    /// Removes files until the rest fits; `newest` stays. Another process that looks for one of them has to get it again.
    ///
    /// # Errors
    /// When the folder cannot be listed, or a file not removed.
    pub fn make_room(&self, newest: &str) -> io::Result<()> {
        let now = SystemTime::now();
        let mut files = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let file = file?;
            // Of a link, not of what it leads to. Somebody else may have removed it meanwhile.
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified()?;
            let age = now.duration_since(used).unwrap_or_default();
            let name = file.file_name();
            let is_ours = name.to_str().is_some_and(|name| self.may_remove(name, age));
            if metadata.is_file() && check_owner(&metadata).is_ok() && is_ours {
                files.push((used, metadata.len(), name));
            }
        }
        let mut size: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort_unstable();
        for (_, freed, name) in files.into_iter().filter(|(.., name)| name != newest) {
            if size <= self.max_size {
                break;
            }
            let path = self.path.join(name);
            match fs::remove_file(&path) {
                Ok(()) => debug!(path = %path.display(), "removed, to make room"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            size = size.saturating_sub(freed);
        }
        Ok(())
    }

    /// Whether a file of this name is one of those that are kept here, or what is left of one whose writing began so long ago.
    fn may_remove(&self, name: &str, age: Duration) -> bool {
        if name.starts_with(NEW) { age > ABANDONED } else { (self.is_ours)(name) }
    }

    /// It must be a folder, not a link to one; this user's; and nobody else's.
    fn check(&self) -> io::Result<()> {
        let folder = fs::symlink_metadata(&self.path)?;
        let refuse = |why: &str| Err(io::Error::other(format!("{} {why}", self.path.display())));
        if !folder.is_dir() {
            return refuse("is not a folder of its own");
        }
        check_owner(&folder)?;
        if folder.mode() & OTHERS != 0 {
            return refuse("is open to other users: make it mode 0700");
        }
        Ok(())
    }
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it belongs to another user"))
}
