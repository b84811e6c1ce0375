//! Where a component comes from: a file, a URL, or a registry of OCI artifacts.
//!
//! What is fetched is kept by the digest of its bytes ([`ComponentCache`]); what a handler pins and is there already is
//! not fetched. A tag is asked for at every load, and at no other time.

mod cache;
mod credentials;
mod error;
mod https;
mod name;
mod oci;
mod trust;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use oci_client::Reference;
use reqwest::Url;
use tracing::info;

pub use cache::ComponentCache;
pub use error::SourceError;
pub use name::Unusable;

/// How long it may take to fetch a component, everything included.
pub const TIMEOUT: Duration = Duration::from_mins(1);
/// How long it may take to reach a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("gristmill/", env!("CARGO_PKG_VERSION"));

/// Where a component comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    Path(PathBuf),
    /// A file on a web server; its digest is pinned.
    Https {
        /// Where it is; without user and password.
        url: Url,
    },
    /// An artifact in a registry.
    Oci {
        /// Its registry and name, and a tag, or the digest of its manifest, or both; then the digest counts.
        reference: Reference,
    },
}

/// How components are fetched.
#[derive(Clone, Debug)]
pub struct Fetching {
    /// Bytes of the largest component that is fetched. A file on the disk may have more here.
    pub max_size: u64,
    /// A file of PEM: certificate authorities that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Where what was fetched is kept.
    pub cache: Option<ComponentCache>,
}

/// A component's bytes.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// They are those of the pin, if there is one.
    pub bytes: Bytes,
    /// Of the bytes: `sha256:` and 64 hexadecimal digits.
    pub digest: String,
    /// What the source stands for now: the file, where redirects led, or the artifact with the digest of its manifest. The
    /// source itself where the bytes were in the cache.
    pub resolved: String,
}

/// What came from elsewhere.
struct Download {
    bytes: Bytes,
    resolved: String,
    /// Whether the bytes themselves were in the cache.
    is_cached: bool,
}

impl Source {
    /// Gets the bytes. `pin` is the digest that they must have.
    ///
    /// # Errors
    /// When they cannot be had, are too many, or have another digest.
    pub async fn fetch(&self, pin: Option<&str>, how: &Fetching) -> Result<Fetched, SourceError> {
        let download: BoxFuture<'_, _> = match self {
            Self::Path(path) => {
                let (path, pin) = (path.clone(), pin.map(str::to_owned));
                return blocking(move || read(&path, pin.as_deref())).await;
            }
            Self::Https { url } => Box::pin(https::fetch(url, pin, how)),
            Self::Oci { reference } => Box::pin(oci::fetch(reference, pin, how)),
        };
        if let Some(digest) = pin
            && let Some(bytes) = cached(how, digest).await?
        {
            info!(source = %self, digest, "taken from the cache, for its digest is pinned");
            return Ok(Fetched { bytes, digest: digest.to_owned(), resolved: self.to_string() });
        }
        let Ok(download) = tokio::time::timeout(TIMEOUT, download).await else {
            return Err(SourceError::TimedOut { host: self.host(), is_pinned: pin.is_some() });
        };
        let fetched = kept(download?, pin, how).await?;
        info!(source = %self, resolved = fetched.resolved, digest = fetched.digest, "fetched");
        Ok(fetched)
    }

    /// Whether somebody has to be asked for it.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        !matches!(self, Self::Path(_))
    }

    /// Who is asked for it.
    fn host(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Https { url } => url.host_str().unwrap_or_default().to_owned(),
            Self::Oci { reference } => reference.resolve_registry().to_owned(),
        }
    }
}

fn read(path: &Path, pin: Option<&str>) -> Result<Fetched, SourceError> {
    let bytes = std::fs::read(path).map_err(SourceError::Read)?;
    checked(bytes.into(), path.display().to_string(), pin)
}

/// Compares the digest with the pin, and keeps the bytes for the next time.
async fn kept(download: Download, pin: Option<&str>, how: &Fetching) -> Result<Fetched, SourceError> {
    let cache = how.cache.clone().filter(|_| !download.is_cached);
    let pin = pin.map(str::to_owned);
    blocking(move || {
        let fetched = checked(download.bytes, download.resolved, pin.as_deref())?;
        if let Some(cache) = cache {
            cache.put(&fetched.digest, &fetched.bytes);
        }
        Ok(fetched)
    })
    .await
}

fn checked(bytes: Bytes, resolved: String, pin: Option<&str>) -> Result<Fetched, SourceError> {
    let digest = gristmill_host::digest(&bytes);
    match pin {
        Some(pinned) if pinned != digest => {
            Err(SourceError::DigestMismatch { pinned: pinned.to_owned(), actual: digest })
        }
        _ => Ok(Fetched { bytes, digest, resolved }),
    }
}

/// The bytes with this digest, if they are in the cache.
async fn cached(how: &Fetching, digest: &str) -> Result<Option<Bytes>, SourceError> {
    let Some(cache) = how.cache.clone() else { return Ok(None) };
    let digest = digest.to_owned();
    blocking(move || Ok(cache.get(&digest))).await
}

/// Whether it is `sha256:` and 64 hexadecimal digits in lower case.
fn is_digest(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(is_digit))
}

/// What a thread does that may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(SourceError::Read(std::io::Error::other(error))),
    }
}

/// As it was written; of a URL, without the query, which may hold a secret.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Https { url } => f.write_str(&https::shown(url)),
            Self::Oci { reference } => write!(f, "oci://{reference}"),
        }
    }
}
