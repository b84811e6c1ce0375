//! `gristmill:events/batch-handler`: several deliveries in, a verdict for each out.

use gristmill_core::Outcome;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, InstancePre, TypedFunc};

use super::handler;
use crate::bindings::types::{Delivery, Verdict};
use crate::compile::{Needs, Source};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::invocation::Invocation;
use crate::outcome::Failure;
use crate::state::State;

/// What a component exports.
pub(crate) const NAME: &str = "gristmill:events/batch-handler@0.1.0";
const FUNCTION: &str = "handle";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.component_export(|name| name == NAME)
}

pub(crate) struct Ready {
    pre: InstancePre<State>,
    handle: ComponentExportIndex,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>) -> Result<(Self, Needs), LoadError> {
        let (pre, needs) = source.component::<(&[Delivery],), (Vec<Verdict>,)>(NAME, FUNCTION)?;
        let compiled = pre.component();
        let handle = compiled
            .get_export_index(None, NAME)
            .and_then(|interface| compiled.get_export_index(Some(&interface), FUNCTION))
            .ok_or_else(|| LoadError::Incompatible { reason: format!("{NAME} has no function `{FUNCTION}`") })?;
        Ok((Self { pre, handle }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        Ok(Bound { handle: instance.get_typed_func(store, self.handle)? })
    }
}

/// An instance.
pub(crate) struct Bound {
    handle: TypedFunc<(Vec<Delivery>,), (Vec<Verdict>,)>,
}

impl Bound {
    /// As many outcomes as there were verdicts.
    pub(super) async fn call(
        &self,
        store: &mut Store<State>,
        invocations: Vec<Invocation>,
    ) -> Result<Vec<Outcome>, Failure> {
        let deliveries: Vec<_> = invocations.into_iter().map(handler::delivery).collect();
        let (verdicts,) = self.handle.call_async(&mut *store, (deliveries,)).await.map_err(Failure::Call)?;
        Ok(verdicts.into_iter().map(handler::outcome).collect())
    }
}

/// What it means that there is not one verdict for each delivery.
pub(crate) fn wrong_length(deliveries: usize, verdicts: usize) -> Outcome {
    Outcome::InvalidOutput {
        reason: format!("the handler got a batch of {deliveries}, and returned {verdicts} verdicts"),
    }
}
