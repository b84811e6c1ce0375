//! Components that were fetched, by the digest of their bytes.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use gristmill_host::PrivateFolder;
use tracing::warn;

use super::is_digest;

/// Bytes of all components that are kept.
const MAX_SIZE: u64 = 1 << 30;
const PREFIX: &str = "sha256-";

/// A folder of components: each in a file whose name is its digest.
#[derive(Clone, Debug)]
pub struct ComponentCache {
    folder: PrivateFolder,
}

impl ComponentCache {
    /// Keeps at most 1 GiB; what was not used for longest goes first. Nothing is read or written before it is needed.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder: PrivateFolder::new(folder, MAX_SIZE, is_component) }
    }

    /// The bytes that have this digest, if they are there and sound. Blocks.
    pub(super) fn get(&self, digest: &str) -> Option<Bytes> {
        let name = name(digest)?;
        let read = self.folder.read(&name, MAX_SIZE).and_then(|bytes| {
            if gristmill_host::digest(&bytes) == digest { Ok(bytes) } else { Err(io::Error::other("it is damaged")) }
        });
        match read {
            Ok(bytes) => Some(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.folder.path().join(name);
                warn!(path = %path.display(), %error, "cannot use a component that was kept; fetching it again");
                None
            }
        }
    }

    /// Keeps the bytes that have this digest. That it cannot is no error: they are fetched again. Blocks.
    pub(super) fn put(&self, digest: &str, bytes: &[u8]) {
        let Some(name) = name(digest) else { return };
        let folder = self.folder.path().display();
        if let Err(error) = self.folder.write(&name, &[bytes]) {
            warn!(%folder, %error, "cannot keep a component: the next load fetches it again");
        } else if let Err(error) = self.folder.make_room(&name) {
            warn!(%folder, %error, "cannot remove components: more are kept than should be");
        }
    }
}

/// How the file is called that has this digest.
fn name(digest: &str) -> Option<String> {
    is_digest(digest).then(|| digest.replacen("sha256:", PREFIX, 1))
}

fn is_component(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|digits| is_digest(&format!("sha256:{digits}")))
}
