//! What of the machine a handler sees: variables, directories and the network, as far as they are granted.

use std::fmt;
use std::sync::Arc;

use gristmill_core::Secret;
use gristmill_core::directory::{DirectoryAccess, DirectoryGrant};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use crate::compile::causes;
use crate::error::LoadError;
use crate::options::Grants;
use crate::replay::Scene;
use crate::sockets::Sockets;

/// Made once for a component. Directories are opened then: what later takes the place of one is not seen.
pub(crate) struct Surroundings {
    environment: Vec<(String, Secret)>,
    files: WasiFilesystemCtx,
    /// The same, for those who may only look.
    files_to_read: WasiFilesystemCtx,
    sockets: Arc<Sockets>,
}

impl Surroundings {
    pub(crate) fn new(grants: &Grants) -> Result<Self, LoadError> {
        let files = opened(&grants.files, permissions)?;
        let is_written = grants.files.iter().any(|grant| grant.access == DirectoryAccess::Write);
        let files_to_read = if is_written { opened(&grants.files, |_| FsPerms::ReadOnly)? } else { files.clone() };
        let sockets = Arc::new(Sockets::new(grants.sockets.clone()));
        Ok(Self { environment: grants.env.clone(), files, files_to_read, sockets })
    }

    /// Gives what it is to a context that is being made.
    pub(crate) fn furnish(&self, wasi: &mut WasiCtxBuilder, scene: Option<&Arc<Scene>>) {
        for (name, value) in &self.environment {
            wasi.env(name, value.reveal());
        }
        self.sockets.open(wasi, scene);
    }

    /// Directories, which go into a context that is made.
    pub(crate) fn files(&self, scene: Option<&Scene>) -> WasiFilesystemCtx {
        // What a replay writes would stay.
        if scene.is_some() { self.files_to_read.clone() } else { self.files.clone() }
    }

    pub(crate) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    pub(crate) fn shared_sockets(&self) -> Arc<Sockets> {
        Arc::clone(&self.sockets)
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

fn opened(
    grants: &[DirectoryGrant],
    permissions: fn(&DirectoryGrant) -> FsPerms,
) -> Result<WasiFilesystemCtx, LoadError> {
    let mut wasi = WasiCtx::builder();
    for grant in grants {
        wasi.preopened_dir(&grant.host, &grant.guest, permissions(grant))
            .map_err(|error| LoadError::Directory { path: grant.host.display().to_string(), reason: causes(&error) })?;
    }
    Ok(wasi.build().filesystem().clone())
}

fn permissions(grant: &DirectoryGrant) -> FsPerms {
    match grant.access {
        DirectoryAccess::Read => FsPerms::ReadOnly,
        DirectoryAccess::Write => FsPerms::ReadWrite,
    }
}
