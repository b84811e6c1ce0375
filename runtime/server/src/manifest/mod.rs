//! Where the manifest of a component is found: in the file itself, as a custom section that `gristmill embed` writes, or
//! beside it, as `NAME.toml`. What it may say, [`config::manifest`](crate::config::manifest) knows.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gristmill_core::{HandlerName, NameError};
use gristmill_host::{MANIFEST_SECTION, MAX_MANIFEST, ManifestError, digest};

use crate::cli::text::block;
use crate::config::{ConfigErrors, Manifest, Plugin};

pub mod embed;

/// Why a component of the plugins folder becomes no handler.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// A handler cannot be called as the file is.
    #[error(
        "{}: a component of the plugins folder becomes the handler of its name, and {error}\nrename the file",
        .path.display()
    )]
    Name {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: NameError,
    },
    /// The file is no WebAssembly, or carries a manifest that cannot be read.
    #[error("{}: {error}", .path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ManifestError,
    },
    /// It has two manifests, and they are not the same.
    #[error(
        "{} carries a manifest, and {} is another\n\
         remove that file, or take the manifest out of the component: `gristmill embed {} --remove`",
        .path.display(), .beside.display(), .path.display()
    )]
    Two {
        /// The component.
        path: PathBuf,
        /// The manifest beside it.
        beside: PathBuf,
    },
    /// The manifest has errors, or the deployment does not let it say what it says.
    #[error(transparent)]
    Manifest(#[from] ConfigErrors),
}

impl PluginError {
    /// As a terminal may show it.
    #[must_use]
    pub fn complaint(&self) -> String {
        match self {
            Self::Manifest(errors) => block(&errors.to_string(), ""),
            error => block(&format!("error: {error}"), ""),
        }
    }
}

/// Reads the component at `path` and its manifest: the plugin and the bytes of its file. Blocks.
///
/// # Errors
/// When a file cannot be read, no handler can be called so, and when the manifest has errors.
pub fn read(path: &Path) -> Result<(Plugin, Bytes), PluginError> {
    let name = name_of(path)?;
    let bytes = std::fs::read(path).map_err(|error| PluginError::Read { path: path.to_owned(), error })?;
    let beside = path.with_extension("toml");
    let manifest = match (of(&bytes, path)?, at(&beside)?) {
        (Some(inside), Some(other)) if inside.text() != other.text() => {
            return Err(PluginError::Two { path: path.to_owned(), beside });
        }
        (inside, other) => inside.or(other),
    };
    Ok((Plugin { name, path: path.to_owned(), digest: digest(&bytes), manifest }, bytes.into()))
}

/// The manifest that the component `bytes` carries; `path` is what messages call its file.
///
/// # Errors
/// When it is no component or no core module, and when the manifest has errors.
pub fn of(bytes: &[u8], path: &Path) -> Result<Option<Manifest>, PluginError> {
    let section =
        gristmill_host::manifest(bytes).map_err(|error| PluginError::Section { path: path.to_owned(), error })?;
    Ok(section.map(|section| Manifest::parse(section, &inside(path))).transpose()?)
}

/// The manifest in the file at `path`; `None`: there is no such file. Blocks.
///
/// # Errors
/// When it cannot be read, and when it has errors.
pub fn at(path: &Path) -> Result<Option<Manifest>, PluginError> {
    let unreadable = |error| PluginError::Read { path: path.to_owned(), error };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = Vec::new();
    // One byte more than it may have tells whether there is one.
    let length = file.metadata().map_err(unreadable)?.len();
    file.take(MAX_MANIFEST as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > MAX_MANIFEST {
        let size = usize::try_from(length).unwrap_or(usize::MAX).max(text.len());
        return Err(PluginError::Section { path: path.to_owned(), error: ManifestError::TooLong { size } });
    }
    Ok(Some(Manifest::parse(&text, path)?))
}

/// What the handler is called that the component at `path` becomes.
fn name_of(path: &Path) -> Result<HandlerName, PluginError> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
    HandlerName::new(&stem).map_err(|error| PluginError::Name { path: path.to_owned(), error })
}

/// What messages call the manifest inside of the component at `path`.
fn inside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(" ({MANIFEST_SECTION})"));
    PathBuf::from(name)
}
