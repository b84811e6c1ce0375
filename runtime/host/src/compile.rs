//! From bytes to machine code, and the checks that need a compiler.

use wasmtime::Module;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, ComponentNamedList, Lift, Linker, Lower};
use wasmtime::error::Context as _;

use crate::engine::{Host, TABLES_PER_INSTANCE};
use crate::error::{LoadError, printable};
use crate::state::State;

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
        if permits > instances { Err(LoadError::TooLarge { memories, tables, instances }) } else { Ok(permits) }
    }
}

pub(crate) fn component(host: &Host, bytes: &[u8]) -> Result<(Compiled, Needs), LoadError> {
    let compiled = Compiled::from_binary(host.engine(), bytes).map_err(does_not_compile)?;
    compiled.initialize_copy_on_write_image().map_err(does_not_compile)?;
    // Unknown only for components that import core modules, which do not link.
    let needs = compiled.resources_required();
    let (memories, tables) = needs.map_or((0, 0), |needs| (needs.num_memories, needs.num_tables));
    Ok((compiled, Needs { memories, tables }))
}

pub(crate) fn module(host: &Host, bytes: &[u8]) -> Result<(Module, Needs), LoadError> {
    let module = Module::from_binary(host.engine(), bytes).map_err(does_not_compile)?;
    module.initialize_copy_on_write_image().map_err(does_not_compile)?;
    let needs = module.resources_required();
    Ok((module, Needs { memories: needs.num_memories, tables: needs.num_tables }))
}

/// Checks the type of a function of an exported interface, which the engine would do at the first call only.
pub(crate) fn check_function<P, R>(
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
