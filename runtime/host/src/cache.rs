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
use wasmtime::Engine;

use crate::compile::{Code, Kind};
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

impl Cache {
    /// Keeps at most `max_size` bytes. Nothing is read or written before it is needed.
    pub(crate) fn new(folder: PathBuf, max_size: u64) -> Self {
        Self { folder: PrivateFolder::new(folder, max_size, is_entry) }
    }

    /// What was kept for the component that has `digest`, if it is there and sound.
    pub(crate) fn get(&self, engine: &Engine, kind: Kind, digest: &str) -> Option<Code> {
        let name = name(engine, kind, digest);
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
        let code = unsafe { Code::deserialize(engine, kind, code) };
        code.inspect_err(|error| debug!(path = %path.display(), %error, "another engine's code; compiling again")).ok()
    }

    /// Keeps compiled code. That it cannot is no error: it is said once for each component.
    pub(crate) fn put(&self, engine: &Engine, kind: Kind, digest: &str, code: &[u8]) {
        let name = name(engine, kind, digest);
        let path = self.folder.path().join(&name);
        let written = self.folder.write(&name, &[MAGIC, &Sha256::digest(code), code]);
        if let Err(error) = written {
            warn!(path = %path.display(), %error, "cannot keep compiled code: the next start compiles again");
        } else if let Err(error) = self.folder.make_room(&name) {
            let folder = self.folder.path().display();
            warn!(%folder, %error, "cannot remove compiled code: more is kept than should be");
        }
    }
}

/// One entry for each component and each way to compile it.
fn name(engine: &Engine, kind: Kind, digest: &str) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    // What changes the bytes before they are compiled is part of this version.
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    let digest = digest.trim_start_matches("sha256:");
    format!("{digest}-{:016x}.{}", hasher.finish(), extension(kind))
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
    is_stem && [Kind::Component, Kind::Module].map(self::extension).contains(&extension)
}

/// What entries end with.
fn extension(kind: Kind) -> &'static str {
    match kind {
        Kind::Component => "component",
        Kind::Module => "module",
    }
}
