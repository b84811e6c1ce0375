//! `wasi:messaging@0.2.0-draft`: an event is a message, and a message that is sent is an emitted event.
//!
//! | message | event |
//! | --- | --- |
//! | topic | `type` |
//! | content-type | `datacontenttype` |
//! | data | data; none is empty |
//! | metadata | every other attribute by its name; `specversion` is always 1.0 and left out |
//!
//! A message that came in may be sent on: it is another event then. So `id`, `source` and `time` of what is sent are
//! what they are for every emitted event, whatever the metadata say, and what the host added is dropped.
//!
//! `bindings` is generated from `wit/`, `imports` has the functions.

pub(crate) mod bindings;
mod imports;

use bytes::Bytes;
use gristmill_core::Event;
use gristmill_core::units::format_size;
use wasmtime::component::{HasSelf, Linker};

use crate::bindings::emitter::NewEvent;
use crate::bindings::types::Payload;
use crate::invocation::Invocation;
use crate::options::Limits;
use crate::state::State;

/// How the names of metadata begin that are about the delivery, which no attribute's name can.
const OF_DELIVERY: &str = "gristmill-";
/// What an entry of the metadata takes besides its texts, in bytes.
const ENTRY_OVERHEAD: u64 = 64;

/// A connection to nobody.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Client;

/// What nobody will heed.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct RequestOptions;

/// An event that came in, or one that may be sent.
#[derive(Debug, Default)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Message {
    topic: Option<String>,
    content_type: Option<String>,
    data: Bytes,
    /// Each name once, unless the guest has set them all at once.
    metadata: Vec<(String, String)>,
    /// How much of it is the guest's doing, in bytes.
    counted: u64,
}

/// How much a guest keeps in messages, which is the host's memory.
#[derive(Debug)]
pub(crate) struct Held {
    bytes: u64,
    max: u64,
}

/// The guest keeps more in messages than it may.
#[derive(Debug, thiserror::Error)]
#[error("it keeps more than {} in messages, which is twice `max-emit-bytes`", format_size(*.max))]
pub(crate) struct TooManyMessages {
    max: u64,
}

impl Held {
    /// As much as it may emit, and the same again for what is being made.
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { bytes: 0, max: limits.max_emit_bytes.saturating_mul(2) }
    }

    /// Counts `now` instead of `before`.
    fn recount(&mut self, before: u64, now: u64) -> wasmtime::Result<()> {
        self.bytes = self.bytes.saturating_sub(before).saturating_add(now);
        if self.bytes > self.max {
            return Err(TooManyMessages { max: self.max }.into());
        }
        Ok(())
    }
}

impl Message {
    /// The event of a delivery.
    pub(crate) fn incoming(invocation: Invocation) -> Self {
        let Invocation { delivery_id, queue, attempt, event, .. } = invocation;
        let Event { id, source, ty, subject, time, datacontenttype, dataschema, extensions, data } =
            std::sync::Arc::unwrap_or_clone(event);
        let always = [("id", Some(id)), ("source", Some(source))];
        let optional = [("subject", subject), ("time", time), ("dataschema", dataschema)];
        let attributes = always.into_iter().chain(optional);
        let attributes = attributes.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let of_delivery = [("delivery-id", delivery_id), ("attempt", attempt.to_string()), ("queue", queue)];
        let of_delivery = of_delivery.map(|(name, value)| (format!("{OF_DELIVERY}{name}"), value));
        Self {
            topic: Some(ty),
            content_type: datacontenttype,
            data: data.unwrap_or_default(),
            metadata: attributes.chain(extensions).chain(of_delivery).collect(),
            counted: 0,
        }
    }

    /// What is emitted if it is sent to `topic`.
    fn into_new_event(self, topic: String) -> Result<NewEvent, String> {
        let Self { content_type, data, metadata, .. } = self;
        let mut new = NewEvent {
            id: None,
            source: None,
            type_: topic,
            subject: None,
            datacontenttype: content_type,
            dataschema: None,
            extensions: Vec::new(),
            data: (!data.is_empty()).then(|| Payload::Binary(data.into())),
            key: None,
            priority: None,
            delay: None,
            dedupe_key: None,
        };
        for (name, value) in metadata {
            let attribute = match name.as_str() {
                "id" | "source" | "time" => continue,
                of_delivery if of_delivery.starts_with(OF_DELIVERY) => continue,
                "subject" => &mut new.subject,
                "dataschema" => &mut new.dataschema,
                _ => {
                    new.extensions.push((name, value));
                    continue;
                }
            };
            if attribute.replace(value).is_some() {
                return Err(format!("attribute `{name}`: is given twice"));
            }
        }
        Ok(new)
    }

    fn size(&self) -> u64 {
        let text = |text: &str| text.len() as u64;
        let metadata = self.metadata.iter().map(|(name, value)| text(name) + text(value) + ENTRY_OVERHEAD);
        self.data.len() as u64 + self.content_type.as_deref().map_or(0, text) + metadata.sum::<u64>()
    }
}

/// Links what a component may import.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use bindings::{producer, request_reply, types};

    type Own = HasSelf<State>;
    types::add_to_linker::<State, Own>(linker, |state| state)?;
    producer::add_to_linker::<State, Own>(linker, |state| state)?;
    request_reply::add_to_linker::<State, Own>(linker, |state| state)
}
