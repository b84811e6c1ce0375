//! `wasi:cli/run` of WASI 0.2 and of WASI 0.3: a program that is a component.

use gristmill_core::Outcome;
use wasmtime::Store;
use wasmtime_wasi::{p2, p3};

use super::program;
use crate::compile::{Needs, Source, incompatible};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::outcome::Failure;
use crate::provided;
use crate::state::State;

/// What a component exports, of any 0.2 or 0.3.
pub(crate) const NAME: &str = "wasi:cli/run@0.2 or @0.3";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    let is_ours =
        |version: &str| [provided::WASI, provided::WASI3].iter().any(|ours| provided::compatible(ours, version));
    outline.component_export(|name| name.strip_prefix("wasi:cli/run@").is_some_and(is_ours))
}

pub(crate) enum Ready {
    /// Of WASI 0.2.
    Plain(p2::bindings::CommandPre<State>),
    /// Of WASI 0.3.
    Async(p3::bindings::CommandPre<State>),
}

impl Ready {
    pub(super) fn new(source: &Source<'_>, export: &str) -> Result<(Self, Needs), LoadError> {
        let (pre, needs) = source.component::<(), (Result<(), ()>,)>(export, "run")?;
        let ready = if provided::is_async(export) {
            p3::bindings::CommandPre::new(pre).map(Self::Async)
        } else {
            p2::bindings::CommandPre::new(pre).map(Self::Plain)
        };
        Ok((ready.map_err(incompatible)?, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        match self {
            Self::Plain(pre) => pre.instantiate_async(store).await.map(Bound::Plain),
            Self::Async(pre) => pre.instantiate_async(store).await.map(Bound::Async),
        }
    }
}

/// An instance.
pub(crate) enum Bound {
    Plain(p2::bindings::Command),
    Async(p3::bindings::Command),
}

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>) -> Result<Outcome, Failure> {
        let result = match self {
            Self::Plain(command) => command.wasi_cli_run().call_run(&mut *store).await,
            Self::Async(command) => {
                let run = store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await);
                run.await.and_then(|result| result)
            }
        };
        let status = program::status(result.map(|result| i32::from(result.is_err())))?;
        Ok(program::outcome(store.data_mut(), status).await)
    }
}
