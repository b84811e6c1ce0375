//! `wasi:messaging/incoming-handler@0.2.0-draft`: the event as a message; ok or an error.

use gristmill_core::Outcome;
use wasmtime::Store;
use wasmtime::component::Resource;

use crate::compile::{Needs, Source, incompatible};
use crate::error::LoadError;
use crate::inspect::Outline;
use crate::invocation::Invocation;
use crate::messaging::Message;
use crate::messaging::bindings::{Messaging, MessagingPre, types::Error};
use crate::outcome::{Failure, cut};
use crate::state::State;

/// What a component exports.
pub(crate) const NAME: &str = "wasi:messaging/incoming-handler@0.2.0-draft";

pub(super) fn export(outline: &Outline) -> Option<&str> {
    outline.component_export(|name| name == NAME)
}

pub(crate) struct Ready {
    pre: MessagingPre<State>,
}

impl Ready {
    pub(super) fn new(source: &Source<'_>) -> Result<(Self, Needs), LoadError> {
        let (pre, needs) = source.component::<(Resource<Message>,), (Result<(), Error>,)>(NAME, "handle")?;
        Ok((Self { pre: MessagingPre::new(pre).map_err(incompatible)? }, needs))
    }

    pub(super) async fn bind(&self, store: &mut Store<State>) -> wasmtime::Result<Bound> {
        self.pre.instantiate_async(store).await
    }
}

/// An instance.
pub(crate) type Bound = Messaging;

impl Bound {
    pub(super) async fn call(&self, store: &mut Store<State>, invocation: Invocation) -> Result<Outcome, Failure> {
        let message = store.data_mut().table.push(Message::incoming(invocation));
        let message = message.map_err(|error| Failure::Call(error.into()))?;
        let kept = Resource::<Message>::new_borrow(message.rep());
        let handled = self.wasi_messaging_incoming_handler().call_handle(&mut *store, message).await;
        // Whoever keeps an event keeps the host's memory: such an instance serves no other.
        let state = store.data_mut();
        state.keeps_event = state.table.get(&kept).is_ok();
        handled.map(outcome).map_err(Failure::Call)
    }
}

fn outcome(handled: Result<(), Error>) -> Outcome {
    let reason = match handled {
        Ok(()) => return Outcome::Ack { result: None },
        Err(Error::Timeout) => "timeout".to_owned(),
        Err(Error::Connection(reason)) => format!("connection: {reason}"),
        Err(Error::PermissionDenied(reason)) => format!("permission denied: {reason}"),
        Err(Error::Other(reason)) => reason,
    };
    Outcome::Retry { reason: cut(reason), after: None }
}
