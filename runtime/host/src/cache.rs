//! Compiled code that is kept for the next start.
//!
//! Compiled code is code: whoever writes an entry runs what he likes in this process. So entries are read from a folder
//! that belongs to this user and that nobody else may enter, never through a link; and each begins with the digest of what
//! follows, because the engine itself takes most damaged files for whole ones. Whatever is wrong with an entry, the
//! component is compiled again: a cache may make a start slow, and nothing else.
//!
//! An entry's time of change is when it was last used. Whoever writes one removes what was not used for longest, so that the
//! folder keeps its size; another process that looks for it finds nothing and compiles.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// What an entry begins with; the version of its layout is in it.
const MAGIC: &[u8; 16] = b"gristmill-code-1";
const DIGEST_LEN: usize = 32;
/// The largest entry that is read.
const MAX_LEN: u64 = 2 << 30;
/// The bits of a folder's mode that let others in.
const OTHERS: u32 = 0o077;
/// How the name of an entry begins that is being written.
const NEW: &str = ".new-";
/// Nobody writes for so long: whoever began has died.
const ABANDONED: Duration = Duration::from_hours(1);

/// A folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    max_size: u64,
}

/// A component or a core module, compiled.
pub(crate) trait Code: Sized {
    /// What entries of its kind end with.
    const EXTENSION: &'static str;

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;
    fn serialize(&self) -> wasmtime::Result<Vec<u8>>;

    /// The inverse of [`serialize`](Self::serialize).
    ///
    /// # Safety
    /// The bytes must be what `serialize` gave, unchanged.
    #[allow(unsafe_code, reason = "compiled code can only be trusted, not checked")]
    unsafe fn deserialize(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self>;
}

impl Cache {
    /// Keeps at most `max_size` bytes. Nothing is read or written before it is needed.
    pub(crate) fn new(folder: PathBuf, max_size: u64) -> Self {
        Self { folder, max_size }
    }

    /// What was kept for the component that has `digest`, if it is there and sound.
    pub(crate) fn get<C: Code>(&self, engine: &Engine, digest: &str) -> Option<C> {
        let path = self.path::<C>(engine, digest);
        let read = self.check_folder().and_then(|()| read(&path));
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(path = %path.display(), %error, "cannot use compiled code that was kept; compiling again");
                return None;
            }
        };
        let code = bytes.get(MAGIC.len() + DIGEST_LEN..).unwrap_or_default();
        // SAFETY: the folder and the file belong to this user, and nobody else may write there; the digest says that
        // the bytes are those which `put` wrote, and they are a copy that does not change under the engine's hands.
        #[allow(unsafe_code, reason = "see above")]
        let code = unsafe { C::deserialize(engine, code) };
        code.inspect_err(|error| debug!(path = %path.display(), %error, "another engine's code; compiling again")).ok()
    }

    /// Keeps compiled code. That it cannot is no error: it is said once for each component.
    pub(crate) fn put<C: Code>(&self, engine: &Engine, digest: &str, code: &C) {
        let path = self.path::<C>(engine, digest);
        let written = self.make_folder().and_then(|()| {
            let code = code.serialize().map_err(io::Error::other)?;
            let size = (MAGIC.len() + DIGEST_LEN + code.len()) as u64;
            if size > self.max_size {
                return Err(io::Error::other("it is larger than all that may be kept"));
            }
            write(&self.folder, &path, &code)
        });
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot keep compiled code: the next start compiles again");
        } else if let Err(error) = self.make_room(&path) {
            warn!(folder = %self.folder.display(), %error, "cannot remove compiled code: more is kept than should be");
        }
    }

    /// One entry for each component and each way to compile it.
    fn path<C: Code>(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        // What changes the bytes before they are compiled is part of this version.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        let digest = digest.trim_start_matches("sha256:");
        self.folder.join(format!("{digest}-{:016x}.{}", hasher.finish(), C::EXTENSION))
    }

    /// Removes entries until the rest fits; `newest` stays.
    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            // Of a link, not of what it leads to. Somebody else may have removed it meanwhile.
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified()?;
            let age = now.duration_since(used).unwrap_or_default();
            if metadata.is_file() && check_owner(&metadata).is_ok() && is_ours(&file.file_name(), age) {
                entries.push((used, metadata.len(), file.path()));
            }
        }
        let mut size: u64 = entries.iter().map(|(_, size, _)| size).sum();
        entries.sort_unstable();
        for (_, freed, path) in entries.into_iter().filter(|(.., path)| path != newest) {
            if size <= self.max_size {
                break;
            }
            match fs::remove_file(&path) {
                Ok(()) => debug!(path = %path.display(), "removed compiled code, to make room"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            size = size.saturating_sub(freed);
        }
        Ok(())
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        self.check_folder()
    }

    /// It must be a folder, not a link to one; this user's; and nobody else's.
    fn check_folder(&self) -> io::Result<()> {
        let folder = fs::symlink_metadata(&self.folder)?;
        let refuse = |why: &str| Err(io::Error::other(format!("{} {why}", self.folder.display())));
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

/// The bytes of an entry, if they are those that were written.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).custom_flags(no_link).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    check_owner(&metadata)?;
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("other users may change it"));
    }
    if metadata.len() > MAX_LEN {
        return Err(io::Error::other("it is too large"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default());
    Read::by_ref(&mut file).take(MAX_LEN).read_to_end(&mut bytes)?;
    let (magic, rest) = bytes.split_at_checked(MAGIC.len()).unwrap_or_default();
    let (digest, code) = rest.split_at_checked(DIGEST_LEN).unwrap_or_default();
    if magic != MAGIC || digest != Sha256::digest(code).as_slice() {
        return Err(io::Error::other("it is damaged"));
    }
    // That it was used. Where that cannot be noted, it goes earlier than it should.
    if let Err(error) = file.set_modified(SystemTime::now()) {
        debug!(path = %path.display(), %error, "cannot note that compiled code was used");
    }
    Ok(bytes)
}

/// Whether a file of this name is an entry, or what is left of one whose writing began so long ago.
fn is_ours(name: &OsStr, age: Duration) -> bool {
    let Some(name) = name.to_str() else { return false };
    if name.starts_with(NEW) {
        return age > ABANDONED;
    }
    let is_hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let is_stem = stem.split_once('-').is_some_and(|(digest, engine)| is_hex(digest, 64) && is_hex(engine, 16));
    is_stem && [Component::EXTENSION, Module::EXTENSION].contains(&extension)
}

/// Writes an entry beside its place and moves it there, so that nobody sees a part of it.
fn write(folder: &Path, path: &Path, code: &[u8]) -> io::Result<()> {
    let file = tempfile::Builder::new().prefix(NEW).tempfile_in(folder)?;
    let mut writer: &File = file.as_file();
    writer.write_all(MAGIC)?;
    writer.write_all(&Sha256::digest(code))?;
    writer.write_all(code)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::other("it belongs to another user"))
}

impl Code for Component {
    const EXTENSION: &'static str = "component";

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Self::serialize(self)
    }

    #[allow(unsafe_code, reason = "the caller's promise is handed on")]
    unsafe fn deserialize(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::deserialize(engine, bytes) }
    }
}

impl Code for Module {
    const EXTENSION: &'static str = "module";

    fn compile(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        Self::from_binary(engine, bytes)
    }

    fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        Self::serialize(self)
    }

    #[allow(unsafe_code, reason = "the caller's promise is handed on")]
    unsafe fn deserialize(engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::deserialize(engine, bytes) }
    }
}
