//! A component, or a command, that is ready to handle events: checked, compiled, and linked.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::HandlerName;

use crate::compile::Source;
use crate::componentize;
use crate::engine::Host;
use crate::error::LoadError;
use crate::http::Client;
use crate::inspect::{self, Import, Outline};
use crate::interfaces::{self, Interface, Ready};
use crate::options::{Grants, Instances};
use crate::platform::{Model, Platform};
use crate::reuse::Shelf;
use crate::surroundings::Surroundings;

/// What to load, and what it may do.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The handler that the component will be.
    pub name: HandlerName,
    /// The component, or a WASI preview 1 command.
    pub bytes: Bytes,
    /// The digest that the bytes must have: `sha256:` and 64 hexadecimal digits. `None`: any.
    pub digest: Option<String>,
    /// The interface to call. `None`: the first that it has, in the order of [`Interface::ALL`].
    pub interface: Option<Interface>,
    /// What it may do.
    pub grants: Grants,
    /// For how many events an instance lives.
    pub instances: Instances,
}

/// A loaded component. Cheap to clone; each [`handle`](Self::handle) runs in an instance of its own
/// unless it was loaded to [reuse](Instances) them.
#[derive(Clone)]
pub struct Component {
    inner: Arc<Loaded>,
}

/// Who a component is, and what it may do.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: HandlerName,
    pub(crate) digest: String,
    pub(crate) grants: Grants,
    pub(crate) surroundings: Surroundings,
    pub(crate) http: Client,
}

struct Loaded {
    host: Host,
    platform: Arc<Platform>,
    identity: Arc<Identity>,
    imports: Vec<Import>,
    is_wrapped: bool,
    form: String,
    ready: Ready,
    permits: u32,
    compile_time: Duration,
    is_cached: bool,
    shelf: Arc<Shelf>,
    /// Whether its last call was quick.
    is_quick: AtomicBool,
}

impl Host {
    /// Checks, compiles and links a component, off the threads that run async code.
    ///
    /// # Errors
    /// Says what is wrong with the component and what to do about it.
    pub async fn load(&self, request: LoadRequest) -> Result<Component, LoadError> {
        let host = self.clone();
        let load = move || Component::load(host, request);
        tokio::task::spawn_blocking(load).await.map_err(not_loaded)?
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn not_loaded(error: tokio::task::JoinError) -> LoadError {
    if error.is_panic() { LoadError::Fault } else { LoadError::Interrupted }
}

impl Component {
    fn load(host: Host, request: LoadRequest) -> Result<Self, LoadError> {
        let LoadRequest { name, bytes, digest: pinned, interface: asked, grants, instances } = request;
        let (size, max) = (bytes.len() as u64, host.options().max_component_size);
        if size > max {
            return Err(LoadError::TooManyBytes { size, max });
        }
        inspect::expect_wasm(&bytes)?;
        let digest = inspect::digest(&bytes);
        if let Some(pinned) = pinned
            && !pinned.eq_ignore_ascii_case(&digest)
        {
            return Err(LoadError::DigestMismatch { pinned, actual: digest });
        }
        let outline = Outline::read(&bytes)?;
        let given = bytes;
        let bytes = componentize::wrapped(&given, &outline, asked)?;
        let is_wrapped = matches!(bytes, Cow::Owned(_));
        let outline = if is_wrapped { Outline::read(&bytes)? } else { outline };
        let found = interfaces::find(&outline, asked)?;
        let imports = inspect::expect_imports(&outline, found.interface, &grants)?;
        let surroundings = Surroundings::new(&grants)?;
        let model = if outline.is_async { Model::Async } else { Model::Plain };
        let platform = host.platform(model).map_err(LoadError::Engine)?;
        let started = Instant::now();
        // The code is that of what is compiled: how a module is wrapped may change from version to version.
        let wrapped_digest = is_wrapped.then(|| inspect::digest(&bytes));
        let source = Source::new(&platform, &bytes, wrapped_digest.as_deref().unwrap_or(&digest), host.cache());
        let (ready, needs) = Ready::new(&source, &found)?;
        let (compile_time, is_cached) = (started.elapsed(), source.was_cached());
        let permits = needs.permits(host.options().instances)?;
        let identity = Arc::new(Identity { name, digest, grants, surroundings, http: host.http().for_another() });
        // A program ends with its event.
        let shelf = Shelf::new(if ready.interface().is_program() { Instances::Fresh } else { instances });
        host.shelves().add(&shelf);
        Ok(Self {
            inner: Arc::new(Loaded {
                host,
                platform,
                identity,
                imports,
                is_wrapped,
                form: found.form(),
                ready,
                permits,
                compile_time,
                is_cached,
                shelf,
                is_quick: AtomicBool::new(false),
            }),
        })
    }

    /// The handler that it is.
    #[must_use]
    pub fn name(&self) -> &HandlerName {
        &self.inner.identity.name
    }

    /// `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.inner.identity.digest
    }

    /// What the host calls.
    #[must_use]
    pub fn interface(&self) -> Interface {
        self.inner.ready.interface()
    }

    /// What the host calls, for people to read: the name of the interface, with the version that the component has:
    /// `wasi:cli/run@0.3`.
    #[must_use]
    pub fn form(&self) -> &str {
        &self.inner.form
    }

    /// What it imports, in its own order, and what it gets.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.inner.imports
    }

    /// Whether the file is a core module that carries the type of a component, and was made one. The digest is that of
    /// the file.
    #[must_use]
    pub fn is_wrapped(&self) -> bool {
        self.inner.is_wrapped
    }

    /// How long it took to compile, or to read what was compiled earlier.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.inner.compile_time
    }

    /// Whether what was compiled earlier could be [read](crate::HostOptions::cache).
    #[must_use]
    pub fn is_cached(&self) -> bool {
        self.inner.is_cached
    }

    pub(crate) fn platform(&self) -> &Platform {
        &self.inner.platform
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.inner.shelf
    }

    pub(crate) fn host(&self) -> &Host {
        &self.inner.host
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }

    pub(crate) fn ready(&self) -> &Ready {
        &self.inner.ready
    }

    /// Whether its last call was [quick](crate::ledger::CpuMeter::is_quick).
    pub(crate) fn is_quick(&self) -> bool {
        self.inner.is_quick.load(Ordering::Relaxed)
    }

    pub(crate) fn note_quick(&self, is_quick: bool) {
        // Written only where it changes: all threads read it.
        if self.is_quick() != is_quick {
            self.inner.is_quick.store(is_quick, Ordering::Relaxed);
        }
    }

    /// How many of the pool's permits one instance takes.
    pub(crate) fn permits(&self) -> u32 {
        self.inner.permits
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("identity", &self.inner.identity).finish_non_exhaustive()
    }
}
