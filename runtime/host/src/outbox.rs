//! The events that an invocation emits, checked one by one as they come.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::event::{HOPS_EXTENSION, MAX_HOPS};
use gristmill_core::json::{self, Origin};
use gristmill_core::retry::MIN_DELAY;
use gristmill_core::units::format_size;
use gristmill_core::{Event, HandlerName, Pattern};

use crate::bindings::emitter::{EmitError, NewEvent};
use crate::bindings::types::Payload;
use crate::options::Limits;

/// An event to be published if, and only if, the invocation is acked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emit {
    /// Valid, with id, source and hop count.
    pub event: Event,
    /// As the handler asked; 0 if it did not.
    pub priority: u8,
    /// At least [`MIN_DELAY`].
    pub delay: Option<Duration>,
    /// The ordering key, if the handler gave one.
    pub key: Option<String>,
    /// What takes the place of the event's id where duplicates are looked for, if the handler gave it.
    pub dedupe_key: Option<String>,
}

/// What emitted events take from the delivery that caused them.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    pub(crate) delivery_id: String,
    pub(crate) hops: u32,
}

/// Collects what one invocation emits.
#[derive(Debug)]
pub(crate) struct Outbox {
    parent: Parent,
    max_emits: usize,
    max_bytes: u64,
    max_event_size: u64,
    max_key_len: usize,
    emits: Vec<Emit>,
    calls: u32,
    bytes: u64,
    looping: Option<String>,
}

impl Outbox {
    pub(crate) fn new(parent: Parent, limits: &Limits) -> Self {
        Self {
            parent,
            max_emits: limits.max_emits,
            max_bytes: limits.max_emit_bytes,
            max_event_size: limits.max_event_size,
            max_key_len: limits.max_key_len,
            emits: Vec::new(),
            calls: 0,
            bytes: 0,
            looping: None,
        }
    }

    /// Takes an event from the handler called `name`, which may emit the types in `grant`. Returns the event's id.
    pub(crate) fn emit(
        &mut self,
        mut new: NewEvent,
        name: &HandlerName,
        grant: &[Pattern],
    ) -> Result<String, EmitError> {
        self.calls = self.calls.saturating_add(1);
        check_grant(&new.type_, grant)?;
        let (priority, delay) = (new.priority.unwrap_or(0), new.delay);
        let key = self.checked_key("key", new.key.take())?;
        let dedupe_key = self.checked_key("dedupe-key", new.dedupe_key.take())?;
        let event = self.complete(new, name)?;
        let id = event.id.clone();
        let delay = delay.map(|millis| Duration::from_millis(millis.into()).max(MIN_DELAY));
        self.accept(Emit { event, priority, delay, key, dedupe_key })?;
        Ok(id)
    }

    /// The same for an event as a program writes it: as JSON, with or without id and source.
    pub(crate) fn emit_line(&mut self, line: &[u8], name: &HandlerName, grant: &[Pattern]) -> Result<(), EmitError> {
        self.calls = self.calls.saturating_add(1);
        let origin = Origin { id: self.derived_id(), source: source_of(name) };
        let event = json::parse_draft(line, origin).map_err(|error| EmitError::Invalid(error.to_string()))?;
        check_grant(&event.ty, grant)?;
        let mut emit = Emit { event, priority: 0, delay: None, key: None, dedupe_key: None };
        emit.event.extensions.insert(HOPS_EXTENSION.to_owned(), self.hops());
        self.accept(emit)
    }

    fn accept(&mut self, emit: Emit) -> Result<(), EmitError> {
        emit.event.validate().map_err(|error| EmitError::Invalid(error.to_string()))?;
        self.check_hops(&emit.event)?;
        self.check_size(&emit.event)?;
        self.emits.push(emit);
        Ok(())
    }

    fn checked_key(&self, name: &str, key: Option<String>) -> Result<Option<String>, EmitError> {
        match &key {
            Some(text) if text.is_empty() || text.len() > self.max_key_len => {
                let (len, max) = (text.len(), self.max_key_len);
                Err(EmitError::Invalid(format!("`{name}` has {len} bytes; 1 to {max} are allowed")))
            }
            _ => Ok(key),
        }
    }

    /// Why the invocation is part of a loop, if it is.
    pub(crate) fn take_looping(&mut self) -> Option<String> {
        self.looping.take()
    }

    /// What was emitted, in order.
    pub(crate) fn take_emits(&mut self) -> Vec<Emit> {
        std::mem::take(&mut self.emits)
    }

    /// Bytes of all that was emitted.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn complete(&self, new: NewEvent, name: &HandlerName) -> Result<Event, EmitError> {
        let mut extensions = BTreeMap::new();
        for (key, value) in new.extensions {
            match extensions.entry(key) {
                Entry::Vacant(entry) => entry.insert(value),
                Entry::Occupied(entry) => {
                    let key = entry.key().escape_debug();
                    return Err(EmitError::Invalid(format!("attribute `{key}`: is given twice")));
                }
            };
        }
        extensions.insert(HOPS_EXTENSION.to_owned(), self.hops());
        Ok(Event {
            id: new.id.unwrap_or_else(|| self.derived_id()),
            source: new.source.unwrap_or_else(|| source_of(name)),
            ty: new.type_,
            subject: new.subject,
            time: None,
            datacontenttype: new.datacontenttype,
            dataschema: new.dataschema,
            extensions,
            data: new.data.map(payload_bytes),
        })
    }

    /// The same at every attempt, so that a repeated one emits the same.
    fn derived_id(&self) -> String {
        format!("{}-{}", self.parent.delivery_id, self.calls)
    }

    /// Whatever the handler says: it may have copied the attribute of the event that it handles.
    fn hops(&self) -> String {
        self.parent.hops.saturating_add(1).to_string()
    }

    fn check_hops(&mut self, event: &Event) -> Result<(), EmitError> {
        if event.hops() <= MAX_HOPS {
            return Ok(());
        }
        let reason = format!(
            "emitted `{}` after {MAX_HOPS} handlers in a row: the handlers feed each other in a loop",
            event.ty.escape_debug(),
        );
        self.looping.get_or_insert_with(|| reason.clone());
        Err(EmitError::Other(reason))
    }

    fn check_size(&mut self, event: &Event) -> Result<(), EmitError> {
        let too_much = |what: String| Err(EmitError::TooMuch(what));
        let size = event.size();
        if size > self.max_event_size {
            let max = format_size(self.max_event_size);
            return too_much(format!(
                "the event has {}; at most {max} are allowed (`max-event-size`)",
                format_size(size)
            ));
        }
        if self.emits.len() >= self.max_emits {
            return too_much(format!("one invocation may emit at most {} events (`max-emits`)", self.max_emits));
        }
        let bytes = self.bytes.saturating_add(size);
        if bytes > self.max_bytes {
            return too_much(format!(
                "one invocation may emit at most {} in all (`max-emit-bytes`)",
                format_size(self.max_bytes)
            ));
        }
        self.bytes = bytes;
        Ok(())
    }
}

pub(crate) fn payload_bytes(payload: Payload) -> Bytes {
    match payload {
        Payload::Text(text) => text.into(),
        Payload::Binary(bytes) => bytes.into(),
    }
}

fn source_of(name: &HandlerName) -> String {
    format!("/handlers/{name}")
}

fn check_grant(ty: &str, grant: &[Pattern]) -> Result<(), EmitError> {
    if grant.iter().any(|pattern| pattern.matches(ty)) {
        return Ok(());
    }
    let patterns: Vec<_> = grant.iter().map(|pattern| format!("{:?}", pattern.as_str())).collect();
    Err(EmitError::Denied(format!(
        "type `{}` is not covered by the grant emit = [{}]",
        ty.escape_debug(),
        patterns.join(", "),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_event(ty: &str) -> NewEvent {
        NewEvent {
            id: None,
            source: None,
            type_: ty.to_owned(),
            subject: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Vec::new(),
            data: None,
            key: None,
            priority: None,
            delay: None,
            dedupe_key: None,
        }
    }

    fn outbox(hops: u32, limits: &Limits) -> Outbox {
        Outbox::new(Parent { delivery_id: "e7".to_owned(), hops }, limits)
    }

    fn emit(outbox: &mut Outbox, new: NewEvent) -> Result<String, EmitError> {
        outbox.emit(new, &HandlerName::new("shop").unwrap(), &[Pattern::new("com.acme.*")])
    }

    #[test]
    fn what_the_handler_leaves_out_is_filled_in() {
        let mut outbox = outbox(3, &Limits::default());
        assert!(matches!(emit(&mut outbox, new_event("org.other")), Err(EmitError::Denied(_))));
        let new = NewEvent {
            delay: Some(1),
            extensions: vec![(HOPS_EXTENSION.to_owned(), "0".to_owned())],
            data: Some(Payload::Text("{}".to_owned())),
            ..new_event("com.acme.a")
        };
        // The refused call counts, so that ids do not depend on which calls succeed.
        assert_eq!(emit(&mut outbox, new).unwrap(), "e7-2");
        let [emit] = &outbox.take_emits()[..] else { panic!("one event") };
        assert_eq!((emit.event.id.as_str(), emit.event.source.as_str()), ("e7-2", "/handlers/shop"));
        assert_eq!(emit.event.hops(), 4);
        assert_eq!(emit.event.data.as_deref(), Some(&b"{}"[..]));
        assert_eq!((emit.priority, emit.delay), (0, Some(MIN_DELAY)));
        assert_eq!((&emit.key, &emit.dedupe_key), (&None, &None));
    }

    #[test]
    fn keys_go_with_the_event() {
        let mut outbox = outbox(0, &Limits::default());
        let (key, dedupe_key) = (Some("order-7".to_owned()), Some("reminder-7".to_owned()));
        let new = NewEvent { key: key.clone(), dedupe_key: dedupe_key.clone(), ..new_event("com.acme.a") };
        emit(&mut outbox, new).unwrap();
        let [emit] = &outbox.take_emits()[..] else { panic!("one event") };
        assert_eq!((&emit.key, &emit.dedupe_key), (&key, &dedupe_key));
    }

    #[test]
    fn refusals_are_typed() {
        let limits = Limits { max_emits: 2, max_emit_bytes: 10_000, max_event_size: 6_000, ..Limits::default() };
        let with = |bytes: usize| NewEvent { data: Some(Payload::Binary(vec![0; bytes])), ..new_event("com.acme.a") };
        let twice = vec![("a".to_owned(), String::new()), ("a".to_owned(), String::new())];
        let mut outbox = outbox(0, &limits);
        let denied = emit(&mut outbox, new_event("a\nb"));
        assert!(
            matches!(denied, Err(EmitError::Denied(m)) if m == r#"type `a\nb` is not covered by the grant emit = ["com.acme.*"]"#)
        );
        assert!(matches!(
            emit(&mut outbox, NewEvent { extensions: twice, ..new_event("com.acme.a") }),
            Err(EmitError::Invalid(_))
        ));
        assert!(matches!(
            emit(&mut outbox, NewEvent { id: Some(String::new()), ..new_event("com.acme.a") }),
            Err(EmitError::Invalid(_))
        ));
        for key in [String::new(), "k".repeat(limits.max_key_len + 1)] {
            let keyed = NewEvent { key: Some(key.clone()), ..new_event("com.acme.a") };
            assert!(matches!(emit(&mut outbox, keyed), Err(EmitError::Invalid(m)) if m.starts_with("`key` has ")));
            let deduped = NewEvent { dedupe_key: Some(key), ..new_event("com.acme.a") };
            assert!(
                matches!(emit(&mut outbox, deduped), Err(EmitError::Invalid(m)) if m.starts_with("`dedupe-key` has "))
            );
        }
        assert!(matches!(emit(&mut outbox, with(6_001)), Err(EmitError::TooMuch(_))), "one event");
        assert!(emit(&mut outbox, with(5_500)).is_ok());
        assert!(matches!(emit(&mut outbox, with(5_500)), Err(EmitError::TooMuch(_))), "in all");
        assert!(emit(&mut outbox, with(1)).is_ok());
        assert!(matches!(emit(&mut outbox, with(1)), Err(EmitError::TooMuch(_))), "how many");
        assert!(outbox.take_looping().is_none());
        assert_eq!(outbox.take_emits().len(), 2);
    }

    #[test]
    fn too_many_hops_are_a_loop() {
        let mut last = outbox(MAX_HOPS - 1, &Limits::default());
        assert!(emit(&mut last, new_event("com.acme.a")).is_ok());
        assert!(last.take_looping().is_none());
        let mut over = outbox(MAX_HOPS, &Limits::default());
        assert!(matches!(emit(&mut over, new_event("com.acme.a")), Err(EmitError::Other(_))));
        assert!(over.take_looping().unwrap().contains("com.acme.a"));
    }
}
