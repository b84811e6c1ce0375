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
use crate::sockets::Sockets;

/// Made once for a component. Directories are opened then: what later takes the place of one is not seen.
pub(crate) struct Surroundings {
    environment: Vec<(String, Secret)>,
    files: WasiFilesystemCtx,
    sockets: Arc<Sockets>,
}

impl Surroundings {
    pub(crate) fn new(grants: &Grants) -> Result<Self, LoadError> {
        let mut wasi = WasiCtx::builder();
        for grant in &grants.files {
            wasi.preopened_dir(&grant.host, &grant.guest, permissions(grant)).map_err(|error| {
                LoadError::Directory { path: grant.host.display().to_string(), reason: causes(&error) }
            })?;
        }
        let files = wasi.build().filesystem().clone();
        Ok(Self { environment: grants.env.clone(), files, sockets: Arc::new(Sockets::new(grants.sockets.clone())) })
    }

    /// Gives what it is to a context that is being made.
    pub(crate) fn furnish(&self, wasi: &mut WasiCtxBuilder) {
        for (name, value) in &self.environment {
            wasi.env(name, value.reveal());
        }
        self.sockets.open(wasi);
    }

    /// Directories, which go into a context that is made.
    pub(crate) fn files(&self) -> WasiFilesystemCtx {
        self.files.clone()
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

fn permissions(grant: &DirectoryGrant) -> FsPerms {
    match grant.access {
        DirectoryAccess::Read => FsPerms::ReadOnly,
        DirectoryAccess::Write => FsPerms::ReadWrite,
    }
}
