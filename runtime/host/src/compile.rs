//! From bytes to machine code to what can be instantiated, and the checks that need machine code.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, ComponentNamedList, InstancePre, Lift, Linker, Lower};
use wasmtime::error::Context as _;
use wasmtime::{Engine, Module};

use crate::error::{LoadError, printable};
use crate::interfaces::Interface;
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

/// What there is to compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Component,
    Module,
}

impl Kind {
    /// What a file with this interface is.
    pub(crate) fn of(interface: Interface) -> Self {
        if interface == Interface::Command { Self::Module } else { Self::Component }
    }

    /// The machine code of `bytes`, for [`Code::deserialize`]. How long that takes, and how much memory, is up to whoever
    /// made them.
    pub(crate) fn compile(self, engine: &Engine, bytes: &[u8]) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::Component => engine.precompile_component(bytes),
            Self::Module => engine.precompile_module(bytes),
        }
    }
}

/// Machine code that can be linked.
#[derive(Clone)]
pub(crate) enum Code {
    Component(Compiled),
    Module(Module),
}

impl Code {
    /// What [`Kind::compile`] gave, with an engine that is set up alike.
    ///
    /// # Safety
    /// The bytes must be what it gave, unchanged: they are run.
    #[allow(unsafe_code, reason = "compiled code can only be trusted, not checked")]
    pub(crate) unsafe fn deserialize(engine: &Engine, kind: Kind, bytes: &[u8]) -> wasmtime::Result<Self> {
        Ok(match kind {
            // SAFETY: the caller's promise.
            Kind::Component => Self::Component(unsafe { Compiled::deserialize(engine, bytes) }?),
            // SAFETY: the caller's promise.
            Kind::Module => Self::Module(unsafe { Module::deserialize(engine, bytes) }?),
        })
    }
}

/// What is linked, and with what.
pub(crate) struct Source<'a> {
    pub(crate) platform: &'a Platform,
    pub(crate) code: Code,
}

impl Source<'_> {
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
        let Code::Component(compiled) = &self.code else { return Err(LoadError::Fault) };
        compiled.initialize_copy_on_write_image().map_err(does_not_compile)?;
        let linker = keyvalue::linker_for(self.platform.linker(), compiled).map_err(incompatible)?;
        let pre = linker.instantiate_pre(compiled).map_err(incompatible)?;
        check_function::<P, R>(&linker, compiled, interface, function).map_err(incompatible)?;
        // Unknown only for components that import core modules, which do not link.
        let needs = compiled.resources_required();
        let (memories, tables) = needs.map_or((0, 0), |needs| (needs.num_memories, needs.num_tables));
        Ok((pre, Needs { memories, tables }))
    }

    /// A core module, for [`module_linker`](Platform::module_linker).
    pub(crate) fn module(&self) -> Result<(Module, Needs), LoadError> {
        let Code::Module(module) = &self.code else { return Err(LoadError::Fault) };
        module.initialize_copy_on_write_image().map_err(does_not_compile)?;
        let needs = module.resources_required();
        Ok((module.clone(), Needs { memories: needs.num_memories, tables: needs.num_tables }))
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
pub(crate) fn does_not_compile(error: wasmtime::Error) -> LoadError {
    LoadError::DoesNotCompile { reason: causes(&error) }
}

/// An error and its causes on one line. They quote names from the file.
pub(crate) fn causes(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    printable(&causes)
}
