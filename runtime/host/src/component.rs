//! A component, or a command, that is ready to handle events: checked, compiled, and linked.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::HandlerName;

use crate::compile::{Code, Kind, Source, causes};
use crate::compiler::{Compiled, Job};
use crate::componentize;
use crate::engine::Host;
use crate::error::LoadError;
use crate::http::Client;
use crate::inspect::{self, Import, Outline};
use crate::interfaces::{self, Found, Interface, Ready};
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
    /// Checks, compiles and links a component, off the threads that run async code. Whoever drops the future ends the
    /// compiler, if that is a [child](crate::Compiler::Child).
    ///
    /// # Errors
    /// Says what is wrong with the component and what to do about it.
    pub async fn load(&self, request: LoadRequest) -> Result<Component, LoadError> {
        let host = self.clone();
        let inspected = off_thread(move || Inspected::new(host, request)).await?;
        let compiled = match &inspected.kept {
            Some(_) => None,
            None => Some(self.workshop().compile(inspected.job()).await?),
        };
        off_thread(move || inspected.link(compiled)).await
    }
}

/// Runs what takes long, and returns what it gave.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| if error.is_panic() { LoadError::Fault } else { LoadError::Interrupted })?
}

/// A component that is to be compiled, unless it was.
struct Inspected {
    host: Host,
    platform: Arc<Platform>,
    name: HandlerName,
    digest: String,
    grants: Grants,
    instances: Instances,
    imports: Vec<Import>,
    surroundings: Surroundings,
    found: Found,
    model: Model,
    is_wrapped: bool,
    /// What is compiled.
    bytes: Bytes,
    /// Of those.
    code_digest: String,
    /// Its code, if that was kept.
    kept: Option<Code>,
    /// How long it took to read that.
    took: Duration,
}

impl Inspected {
    fn new(host: Host, request: LoadRequest) -> Result<Self, LoadError> {
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
        let wrapped = match componentize::wrapped(&bytes, &outline, asked)? {
            Cow::Owned(wrapped) => Some(Bytes::from(wrapped)),
            Cow::Borrowed(_) => None,
        };
        let is_wrapped = wrapped.is_some();
        // The code is that of what is compiled: how a module is wrapped may change from version to version.
        let (bytes, outline, code_digest) = match wrapped {
            Some(bytes) => (bytes.clone(), Outline::read(&bytes)?, inspect::digest(&bytes)),
            None => (bytes, outline, digest.clone()),
        };
        let found = interfaces::find(&outline, asked)?;
        let imports = inspect::expect_imports(&outline, found.interface, &grants)?;
        let surroundings = Surroundings::new(&grants)?;
        let model = if outline.is_async { Model::Async } else { Model::Plain };
        let platform = host.platform(model).map_err(LoadError::Engine)?;
        let started = Instant::now();
        let kind = Kind::of(found.interface);
        let kept = host.cache().and_then(|cache| cache.get(platform.engine(), kind, &code_digest));
        Ok(Self {
            host,
            platform,
            name,
            digest,
            grants,
            instances,
            imports,
            surroundings,
            found,
            model,
            is_wrapped,
            bytes,
            code_digest,
            kept,
            took: started.elapsed(),
        })
    }

    /// What is to be compiled, and how.
    fn job(&self) -> Job {
        Job {
            platform: Arc::clone(&self.platform),
            model: self.model,
            count_fuel: self.host.options().count_fuel,
            kind: Kind::of(self.found.interface),
            bytes: self.bytes.clone(),
        }
    }

    /// With what was compiled, if nothing was kept.
    fn link(mut self, compiled: Option<Compiled>) -> Result<Component, LoadError> {
        let started = Instant::now();
        let is_cached = compiled.is_none();
        let code = match (self.kept.take(), compiled) {
            (_, Some(compiled)) => {
                self.took += compiled.took;
                self.keep(&compiled)?
            }
            (Some(kept), None) => kept,
            (None, None) => return Err(LoadError::Fault),
        };
        let source = Source { platform: &self.platform, code };
        let (ready, needs) = Ready::new(&source, &self.found)?;
        let compile_time = self.took + started.elapsed();
        let permits = needs.permits(self.host.options().instances)?;
        let Self { host, platform, name, digest, grants, instances, imports, surroundings, found, is_wrapped, .. } =
            self;
        let identity = Arc::new(Identity { name, digest, grants, surroundings, http: host.http().for_another() });
        // A program ends with its event.
        let shelf = Shelf::new(if ready.interface().is_program() { Instances::Fresh } else { instances });
        host.shelves().add(&shelf);
        Ok(Component {
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

    /// Keeps what was compiled for the next time.
    fn keep(&self, compiled: &Compiled) -> Result<Code, LoadError> {
        let (engine, kind) = (self.platform.engine(), Kind::of(self.found.interface));
        // SAFETY: the compiler made it of these bytes. Where that is a child, it runs the same program.
        #[allow(unsafe_code, reason = "see above")]
        let code = unsafe { Code::deserialize(engine, kind, &compiled.code) };
        let code =
            code.map_err(|error| LoadError::Compiler { how: format!("its code is none: {}", causes(&error)) })?;
        if let Some(cache) = self.host.cache() {
            cache.put(engine, kind, &self.code_digest, &compiled.code);
        }
        Ok(code)
    }
}

impl Component {
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
