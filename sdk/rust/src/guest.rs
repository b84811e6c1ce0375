//! The host as a component sees it: the generated bindings, and conversions from and to this crate's types.

use std::time::Duration;

use log::Level;

use crate::emit::{EmitError, NewEvent};
use crate::event::{Delivery, Event};
use crate::payload::{FromPayload, Payload, Raw};
use crate::verdict::{IntoVerdict, Verdict};
use crate::{__private, logging};

use bindings::gristmill::events::{context, emitter, types};
use bindings::wasi::logging::logging as wasi_logging;

pub use bindings::exports::gristmill::events::handler::{Delivery as WitDelivery, Guest, Verdict as WitVerdict};

/// Generated from `wit/`. A function that is not called is not imported: the linker drops it, and the component is made
/// of what is left.
#[allow(missing_docs, unsafe_code, unreachable_pub, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package gristmill:sdk;
            world guest {
                import gristmill:events/context@0.1.0;
                import gristmill:events/emitter@0.1.0;
                import wasi:logging/logging@0.1.0-draft;
                export gristmill:events/handler@0.1.0;
            }
        ",
        world: "gristmill:sdk/guest",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "gristmill_sdk::__private::bindings",
    });
}

/// One invocation.
pub fn run<T: FromPayload, V: IntoVerdict>(handler: impl FnOnce(Event<T>) -> V, delivery: WitDelivery) -> WitVerdict {
    logging::install();
    __private::dispatch(handler, delivery.into()).into()
}

pub(crate) fn emit(event: NewEvent) -> Result<String, EmitError> {
    let NewEvent {
        id,
        source,
        ty,
        subject,
        datacontenttype,
        dataschema,
        extensions,
        data,
        key,
        priority,
        delay,
        dedupe_key,
    } = event;
    emitter::emit(&emitter::NewEvent {
        id,
        source,
        type_: ty,
        subject,
        datacontenttype,
        dataschema,
        extensions: extensions.into_iter().collect(),
        data: data.map(Into::into),
        key,
        priority,
        delay: delay.map(millis),
        dedupe_key,
    })
    .map_err(|error| match error {
        emitter::EmitError::Denied(text) => EmitError::Denied(text),
        emitter::EmitError::Invalid(text) => EmitError::Invalid(text),
        emitter::EmitError::TooMuch(text) => EmitError::TooMuch(text),
        emitter::EmitError::Other(text) => EmitError::Other(text),
    })
}

pub(crate) fn handler_name() -> String {
    context::handler_name()
}

pub(crate) fn component_digest() -> String {
    context::component_digest()
}

pub(crate) fn remaining() -> Duration {
    Duration::from_millis(context::remaining().into())
}

pub(crate) fn log(level: Level, target: &str, message: &str) {
    let level = match level {
        Level::Error => wasi_logging::Level::Error,
        Level::Warn => wasi_logging::Level::Warn,
        Level::Info => wasi_logging::Level::Info,
        Level::Debug => wasi_logging::Level::Debug,
        Level::Trace => wasi_logging::Level::Trace,
    };
    wasi_logging::log(level, target, message);
}

/// Rounded up, so that nothing comes early; at most 49 days.
fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
}

impl From<WitDelivery> for Event<Raw> {
    fn from(delivery: WitDelivery) -> Self {
        let types::Delivery { id, queue, attempt, max_attempts, enqueued_at, event } = delivery;
        Self {
            id: event.id,
            source: event.source,
            ty: event.type_,
            subject: event.subject,
            time: event.time,
            datacontenttype: event.datacontenttype,
            dataschema: event.dataschema,
            extensions: event.extensions.into_iter().collect(),
            delivery: Delivery { id, queue, attempt, max_attempts, enqueued_at },
            data: Raw(event.data.map(Into::into)),
        }
    }
}

impl From<Verdict> for WitVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ack(result) => Self::Ack(result.map(Into::into)),
            Verdict::Retry { reason, after } => Self::Retry(types::Failure { reason, after: after.map(millis) }),
            Verdict::Defer { after, reason } => Self::Defer(types::Deferral { after: millis(after), reason }),
            Verdict::Reject(reason) => Self::Reject(reason),
        }
    }
}

impl From<types::Payload> for Payload {
    fn from(payload: types::Payload) -> Self {
        match payload {
            types::Payload::Text(text) => Self::Text(text),
            types::Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<Payload> for types::Payload {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Text(text) => Self::Text(text),
            Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}
