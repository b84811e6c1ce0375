//! `wasi:cli/run` of WASI 0.2: a program that is a component.

use gristmill_core::Outcome;
use wasmtime::Store;
use wasmtime_wasi::p2::bindings::{Command, CommandPre};

use super::program;
use crate::compile::{self, Needs, Source, incompatible};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::keyvalue;
use crate::outcome::Failure;
use crate::provided;
use crate::state::State;

/// What a component exports, of any 0.2.
pub(crate) const NAME: &str = "wasi:cli/run@0.2";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.component_export(|name| {
        name.strip_prefix("wasi:cli/run@").is_some_and(|version| provided::compatible(provided::WASI, version))
    })
}

pub(crate) struct Ready {
    pre: CommandPre<State>,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>, export: &str) -> Result<(Self, Needs), LoadError> {
        let (compiled, needs) = source.component()?;
        let linker = keyvalue::linker_for(source.platform.linker(), &compiled).map_err(incompatible)?;
        let pre = linker.instantiate_pre(&compiled).and_then(CommandPre::new).map_err(incompatible)?;
        compile::check_function::<(), (Result<(), ()>,)>(&linker, &compiled, export, "run").map_err(incompatible)?;
        Ok((Self { pre }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        self.pre.instantiate_async(store).await.map(Bound)
    }
}

/// An instance.
pub(crate) struct Bound(Command);

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>) -> Result<Outcome, Failure> {
        let result = self.0.wasi_cli_run().call_run(&mut *store).await;
        let status = program::status(result.map(|result| i32::from(result.is_err())))?;
        Ok(program::outcome(store.data_mut(), status).await)
    }
}
