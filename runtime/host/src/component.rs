//! A component that is ready to handle events: checked, compiled, and linked.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gristmill_core::HandlerName;
use wasmtime::component::Component as Compiled;
use wasmtime::component::types::ComponentItem;
use wasmtime::error::Context as _;

use crate::bindings::EventHostPre;
use crate::bindings::types::{Delivery, Verdict};
use crate::engine::{Host, TABLES_PER_INSTANCE};
use crate::error::{HANDLER, LoadError, printable};
use crate::inspect::{self, Import};
use crate::options::Grants;
use crate::state::State;

/// What to load, and what it may do.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The handler that the component will be.
    pub name: HandlerName,
    /// The component.
    pub bytes: Bytes,
    /// The digest that the bytes must have: `sha256:` and 64 hexadecimal digits. `None`: any.
    pub digest: Option<String>,
    /// What it may do.
    pub grants: Grants,
}

/// What a component exports for the host to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// `gristmill:events/handler`: one event, one verdict.
    Handler,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler => f.pad(HANDLER),
        }
    }
}

/// A loaded component. Cheap to clone; each [`handle`](Self::handle) runs in an instance of its own.
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
}

struct Loaded {
    host: Host,
    identity: Arc<Identity>,
    imports: Vec<Import>,
    pre: EventHostPre<State>,
    permits: u32,
    compile_time: Duration,
}

impl Host {
    /// Checks, compiles and links a component, off the threads that run async code.
    ///
    /// # Errors
    /// Says what is wrong with the component and what to do about it.
    pub async fn load(&self, request: LoadRequest) -> Result<Component, LoadError> {
        let host = self.clone();
        let load = move || Component::load(host, request);
        tokio::task::spawn_blocking(load).await.map_err(|_| LoadError::Interrupted)?
    }
}

impl Component {
    fn load(host: Host, request: LoadRequest) -> Result<Self, LoadError> {
        let LoadRequest { name, bytes, digest: pinned, grants } = request;
        inspect::expect_wasm(&bytes)?;
        let digest = inspect::digest(&bytes);
        if let Some(pinned) = pinned
            && !pinned.eq_ignore_ascii_case(&digest)
        {
            return Err(LoadError::DigestMismatch { pinned, actual: digest });
        }
        let imports = inspect::expect_handler(&bytes, &grants)?;
        let started = Instant::now();
        let compiled = compile(&host, &bytes)?;
        let compile_time = started.elapsed();
        let permits = permits(&compiled, host.instances())?;
        let pre = host.linker().instantiate_pre(&compiled).and_then(EventHostPre::new).map_err(incompatible)?;
        check_signature(&host, &compiled).map_err(incompatible)?;
        let identity = Arc::new(Identity { name, digest, grants });
        Ok(Self { inner: Arc::new(Loaded { host, identity, imports, pre, permits, compile_time }) })
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
        Interface::Handler
    }

    /// What it imports, in its own order, and what it gets.
    #[must_use]
    pub fn imports(&self) -> &[Import] {
        &self.inner.imports
    }

    /// How long it took to compile.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.inner.compile_time
    }

    pub(crate) fn host(&self) -> &Host {
        &self.inner.host
    }

    pub(crate) fn identity(&self) -> &Arc<Identity> {
        &self.inner.identity
    }

    pub(crate) fn pre(&self) -> &EventHostPre<State> {
        &self.inner.pre
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

fn compile(host: &Host, bytes: &[u8]) -> Result<Compiled, LoadError> {
    let fail = |error: wasmtime::Error| LoadError::DoesNotCompile { reason: causes(&error) };
    let compiled = Compiled::from_binary(host.engine(), bytes).map_err(fail)?;
    compiled.initialize_copy_on_write_image().map_err(fail)?;
    Ok(compiled)
}

/// A component takes as many permits as it takes of the pool's memories, or of its tables by the share that an instance
/// has: whoever holds the permits finds the slots free.
fn permits(compiled: &Compiled, instances: u32) -> Result<u32, LoadError> {
    // Unknown only for components that import core modules, which do not link.
    let Some(needed) = compiled.resources_required() else { return Ok(1) };
    let (memories, tables) = (needed.num_memories, needed.num_tables);
    let permits = memories.max(tables.div_ceil(TABLES_PER_INSTANCE)).max(1);
    if permits > instances { Err(LoadError::TooLarge { memories, tables, instances }) } else { Ok(permits) }
}

/// Checks the type of the handler's function, which the engine would do at the first call only.
fn check_signature(host: &Host, compiled: &Compiled) -> wasmtime::Result<()> {
    let ty = host.linker().substituted_component_type(compiled)?;
    let Some(ComponentItem::ComponentInstance(handler)) = ty.get_export(host.engine(), HANDLER).map(|export| export.ty)
    else {
        wasmtime::bail!("{HANDLER} is not an interface");
    };
    let Some(ComponentItem::ComponentFunc(handle)) =
        handler.get_export(host.engine(), "handle").map(|export| export.ty)
    else {
        wasmtime::bail!("{HANDLER} has no function `handle`");
    };
    handle
        .typecheck::<(&Delivery,), (Verdict,)>(&ty.instance_type())
        .with_context(|| format!("the function `handle` of {HANDLER}"))
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn incompatible(error: wasmtime::Error) -> LoadError {
    LoadError::Incompatible { reason: causes(&error) }
}

/// An error and its causes on one line. They quote names from the component.
fn causes(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    printable(&causes)
}
