//! Compiled code that is kept for the next start.
//!
//! Compiled code is code: whoever writes an entry runs what he likes in this process. So entries are read from a
//! [private folder](PrivateFolder); and each begins with the digest of what follows, because the engine itself takes most
//! damaged files for whole ones. Whatever is wrong with an entry, the component is compiled again: a cache may make a start
//! slow, and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tracing::{debug, warn};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::private_folder::PrivateFolder;

/// What an entry begins with; the version of its layout is in it.
const MAGIC: &[u8; 16] = b"gristmill-code-1";
const DIGEST_LEN: usize = 32;
/// The largest entry that is read.
const MAX_LEN: u64 = 2 << 30;

/// A folder of compiled code.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PrivateFolder,
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
        Self { folder: PrivateFolder::new(folder, max_size, is_entry) }
    }

    /// What was kept for the component that has `digest`, if it is there and sound.
    pub(crate) fn get<C: Code>(&self, engine: &Engine, digest: &str) -> Option<C> {
        let name = name::<C>(engine, digest);
        let path = self.folder.path().join(&name);
        let bytes = match self.folder.read(&name, MAX_LEN).and_then(sound) {
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
        let name = name::<C>(engine, digest);
        let path = self.folder.path().join(&name);
        let written = code.serialize().map_err(io::Error::other).and_then(|code| {
            let digest = Sha256::digest(&code);
            self.folder.write(&name, &[MAGIC, &digest, &code])
        });
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot keep compiled code: the next start compiles again");
        } else if let Err(error) = self.folder.make_room(&name) {
            let folder = self.folder.path().display();
            warn!(%folder, %error, "cannot remove compiled code: more is kept than should be");
        }
    }
}

/// One entry for each component and each way to compile it.
fn name<C: Code>(engine: &Engine, digest: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // What changes the bytes before they are compiled is part of this version.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    let digest = digest.trim_start_matches("sha256:");
    format!("{digest}-{:016x}.{}", hasher.finish(), C::EXTENSION)
}

/// The bytes of an entry, if they are those that were written.
fn sound(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let (magic, rest) = bytes.split_at_checked(MAGIC.len()).unwrap_or_default();
    let (digest, code) = rest.split_at_checked(DIGEST_LEN).unwrap_or_default();
    if magic != MAGIC || digest != Sha256::digest(code).as_slice() {
        return Err(io::Error::other("it is damaged"));
    }
    Ok(bytes)
}

fn is_entry(name: &str) -> bool {
    let is_hex = |text: &str, len: usize| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let is_stem = stem.split_once('-').is_some_and(|(digest, engine)| is_hex(digest, 64) && is_hex(engine, 16));
    is_stem && [Component::EXTENSION, Module::EXTENSION].contains(&extension)
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
