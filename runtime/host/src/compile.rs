//! From bytes to machine code, and the checks that need a compiler.

use std::cell::Cell;

use wasmtime::Module;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, ComponentNamedList, InstancePre, Lift, Linker, Lower};
use wasmtime::error::Context as _;

use crate::cache::{Cache, Code};
use crate::error::{LoadError, printable};
use crate::keyvalue;
use crate::platform::Platform;
use crate::state::State;
use crate::tuning::TABLES_PER_INSTANCE;

/// What one instance takes of the pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    memories: u32,
    tables: u32,
}

impl Needs {
    /// As many permits as it takes of the pool's memories, or of its tables by the share that an instance has: whoever
    /// holds the permits finds the slots free.
    pub(crate) fn permits(self, instances: u32) -> Result<u32, LoadError> {
        let Self { memories, tables } = self;
        let permits = memories.max(tables.div_ceil(TABLES_PER_INSTANCE)).max(1);
        if permits > instances {
            return Err(LoadError::TooLarge { memories, tables, instances, needed: permits });
        }
        Ok(permits)
    }
}

/// What is compiled, and with what.
pub(crate) struct Source<'a> {
    pub(crate) platform: &'a Platform,
    bytes: &'a [u8],
    digest: &'a str,
    cache: Option<&'a Cache>,
    was_cached: Cell<bool>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(platform: &'a Platform, bytes: &'a [u8], digest: &'a str, cache: Option<&'a Cache>) -> Self {
        Self { platform, bytes, digest, cache, was_cached: Cell::new(false) }
    }

    /// Whether its code came out of the cache.
    pub(crate) fn was_cached(&self) -> bool {
        self.was_cached.get()
    }

    /// A component, linked. Its `function` of the exported `interface` takes `P` and gives `R`.
    pub(crate) fn component<P, R>(
        &self,
        interface: &str,
        function: &str,
    ) -> Result<(InstancePre<State>, Needs), LoadError>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let (compiled, needs) = self.compiled()?;
        let linker = keyvalue::linker_for(self.platform.linker(), &compiled).map_err(incompatible)?;
        let pre = linker.instantiate_pre(&compiled).map_err(incompatible)?;
        check_function::<P, R>(&linker, &compiled, interface, function).map_err(incompatible)?;
        Ok((pre, needs))
    }

    fn compiled(&self) -> Result<(Compiled, Needs), LoadError> {
        let compiled: Compiled = self.compile()?;
        compiled.initialize_copy_on_write_image().map_err(does_not_compile)?;
        // Unknown only for components that import core modules, which do not link.
        let needs = compiled.resources_required();
        let (memories, tables) = needs.map_or((0, 0), |needs| (needs.num_memories, needs.num_tables));
        Ok((compiled, Needs { memories, tables }))
    }

    /// A core module, for [`module_linker`](Platform::module_linker).
    pub(crate) fn module(&self) -> Result<(Module, Needs), LoadError> {
        let module: Module = self.compile()?;
        module.initialize_copy_on_write_image().map_err(does_not_compile)?;
        let needs = module.resources_required();
        Ok((module, Needs { memories: needs.num_memories, tables: needs.num_tables }))
    }

    /// What is in the cache, or else what the compiler makes, which is in the cache from then on.
    fn compile<C: Code>(&self) -> Result<C, LoadError> {
        let engine = self.platform.engine();
        if let Some(code) = self.cache.and_then(|cache| cache.get(engine, self.digest)) {
            self.was_cached.set(true);
            return Ok(code);
        }
        let code = C::compile(engine, self.bytes).map_err(does_not_compile)?;
        if let Some(cache) = self.cache {
            cache.put(engine, self.digest, &code);
        }
        Ok(code)
    }
}

/// Checks the type of a function of an exported interface, which the engine would do at the first call only.
fn check_function<P, R>(
    linker: &Linker<State>,
    compiled: &Compiled,
    interface: &str,
    function: &str,
) -> wasmtime::Result<()>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    let (ty, engine) = (linker.substituted_component_type(compiled)?, compiled.engine());
    let Some(ComponentItem::ComponentInstance(exported)) = ty.get_export(engine, interface).map(|export| export.ty)
    else {
        wasmtime::bail!("{interface} is not an interface");
    };
    let Some(ComponentItem::ComponentFunc(exported)) = exported.get_export(engine, function).map(|export| export.ty)
    else {
        wasmtime::bail!("{interface} has no function `{function}`");
    };
    exported.typecheck::<P, R>(&ty.instance_type()).with_context(|| format!("the function `{function}` of {interface}"))
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
pub(crate) fn incompatible(error: wasmtime::Error) -> LoadError {
    LoadError::Incompatible { reason: causes(&error) }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn does_not_compile(error: wasmtime::Error) -> LoadError {
    LoadError::DoesNotCompile { reason: causes(&error) }
}

/// An error and its causes on one line. They quote names from the file.
pub(crate) fn causes(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    printable(&causes)
}
