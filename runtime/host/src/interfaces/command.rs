//! WASI preview 1 commands: programs that are core modules, as `GOOS=wasip1 go build` and C toolchains make them. They
//! are run as they are: the adapter that would make components of them knows no exit status but 0 and 1.

use gristmill_core::Outcome;
use wasmtime::{ExternType, InstancePre, Linker, Module, Store, TypedFunc};

use super::program;
use crate::compile::{Needs, Source, causes};
use crate::error::LoadError;
use crate::inspect::{Outline, START};
use crate::outcome::Failure;
use crate::state::State;

pub(crate) const NAME: &str = "wasi-preview1-command";
/// What WASI's functions read and write.
const MEMORY: &str = "memory";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.is_command().then_some(START)
}

pub(crate) struct Ready {
    pre: InstancePre<State>,
    /// Linked for replays.
    replay: InstancePre<State>,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>) -> Result<(Self, Needs), LoadError> {
        let (module, needs) = source.module()?;
        check(&module)?;
        let link = |linker: &Linker<State>| linker.instantiate_pre(&module).map_err(|error| wrong(&causes(&error)));
        let (pre, replay) = (link(source.platform.module_linker())?, link(source.platform.replay_linker())?);
        Ok((Self { pre, replay }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        let pre = if store.data().scene.is_some() { &self.replay } else { &self.pre };
        let instance = pre.instantiate_async(&mut *store).await?;
        Ok(Bound { start: instance.get_typed_func(store, START)? })
    }
}

/// An instance.
pub(crate) struct Bound {
    start: TypedFunc<(), ()>,
}

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>) -> Result<Outcome, Failure> {
        let status = program::status(self.start.call_async(&mut *store, ()).await.map(|()| 0))?;
        Ok(program::outcome(store.data_mut(), status).await)
    }
}

/// What the engine would notice at the first call only.
fn check(module: &Module) -> Result<(), LoadError> {
    match module.get_export(START) {
        Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
        _ => return Err(wrong("`_start` is not a function without parameters and results")),
    }
    let imports_wasi = module.imports().len() > 0;
    if imports_wasi && !matches!(module.get_export(MEMORY), Some(ExternType::Memory(_))) {
        return Err(wrong("it calls WASI and does not export its memory as `memory`"));
    }
    Ok(())
}

fn wrong(reason: &str) -> LoadError {
    LoadError::BadCommand { reason: reason.to_owned() }
}
