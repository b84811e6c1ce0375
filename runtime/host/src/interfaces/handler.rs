//! `gristmill:events/handler`: a delivery in, a verdict out.

use std::sync::Arc;
use std::time::Duration;

use gristmill_core::{Event, Outcome};
use wasmtime::Store;

use crate::bindings::types::{self, Delivery, Verdict};
use crate::bindings::{EventHost, EventHostPre};
use crate::compile::{Needs, Source, incompatible};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::invocation::Invocation;
use crate::outbox::payload_bytes;
use crate::outcome::{Failure, cut};
use crate::state::State;

/// What a component exports.
pub(crate) const NAME: &str = "gristmill:events/handler@0.1.0";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.component_export(|name| name == NAME)
}

pub(crate) struct Ready {
    pre: EventHostPre<State>,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>) -> Result<(Self, Needs), LoadError> {
        let (pre, needs) = source.component::<(&Delivery,), (Verdict,)>(NAME, "handle")?;
        Ok((Self { pre: EventHostPre::new(pre).map_err(incompatible)? }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        self.pre.instantiate_async(store).await
    }
}

/// An instance.
pub(crate) type Bound = EventHost;

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>, invocation: Invocation) -> Result<Outcome, Failure> {
        let delivery = delivery(invocation);
        let verdict = self.gristmill_events_handler().call_handle(store, &delivery).await;
        verdict.map(outcome).map_err(Failure::Call)
    }
}

/// What the handler's answer means.
pub(super) fn outcome(verdict: Verdict) -> Outcome {
    let millis = |after: u32| Duration::from_millis(after.into());
    match verdict {
        Verdict::Ack(result) => Outcome::Ack { result: result.map(payload_bytes) },
        Verdict::Retry(failure) => Outcome::Retry { reason: cut(failure.reason), after: failure.after.map(millis) },
        Verdict::Defer(deferral) => Outcome::Defer { reason: deferral.reason.map(cut), after: millis(deferral.after) },
        Verdict::Reject(reason) => Outcome::Reject { reason: cut(reason) },
    }
}

pub(super) fn delivery(invocation: Invocation) -> Delivery {
    Delivery {
        id: invocation.delivery_id,
        queue: invocation.queue,
        attempt: invocation.attempt,
        max_attempts: invocation.max_attempts,
        enqueued_at: invocation.enqueued_at.to_string(),
        event: event(Arc::unwrap_or_clone(invocation.event)),
    }
}

fn event(event: Event) -> types::Event {
    let data = match event.text() {
        Some(text) => Some(types::Payload::Text(text.to_owned())),
        None => event.data.map(|bytes| types::Payload::Binary(bytes.into())),
    };
    types::Event {
        id: event.id,
        source: event.source,
        type_: event.ty,
        subject: event.subject,
        time: event.time,
        datacontenttype: event.datacontenttype,
        dataschema: event.dataschema,
        extensions: event.extensions.into_iter().collect(),
        data,
    }
}

#[cfg(test)]
mod tests {
    use gristmill_core::outcome::MAX_REASON_LEN;

    use super::*;

    #[test]
    fn reasons_are_cut() {
        let Outcome::Reject { reason } = outcome(Verdict::Reject("ä".repeat(5_000))) else { panic!("a reject") };
        assert_eq!(reason.len(), MAX_REASON_LEN);
    }
}
