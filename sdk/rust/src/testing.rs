//! Unit tests of handlers, without WebAssembly.
//!
//! The attribute [`handler`](crate::handler) leaves a function as it is, so a test calls it. Outside WebAssembly there is
//! no host; a recorder on the test's thread takes its place.
//!
//! ```
//! use gristmill_sdk::testing::{self, Host};
//! use gristmill_sdk::{Error, Event, NewEvent, Verdict, emit, handler};
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: String,
//! }
//!
//! #[handler]
//! fn handle(event: Event<Order>) -> Result<(), Error> {
//!     emit(NewEvent::new("com.acme.receipt").subject(&event.data.id))?;
//!     Ok(())
//! }
//!
//! # fn main() {
//! let host = Host::new();
//! assert_eq!(handle(Event::for_test("com.acme.order.paid", serde_json::json!({ "id": "A-1" }))), Ok(()));
//! assert_eq!(host.emitted()[0].subject.as_deref(), Some("A-1"));
//!
//! // As the runtime calls it: data that does not fit is a verdict, too.
//! let verdict = testing::invoke(handle, Event::for_test("com.acme.order.paid", serde_json::json!({ "id": 1 })));
//! assert!(matches!(verdict, Verdict::Reject(reason) if reason.starts_with("data.id: invalid type")));
//! # }
//! ```
//!
//! Only the host's side is replaced: what a handler does with files, clocks and the network it does for real.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::time::Duration;

pub use log::Level;
use serde::Serialize;

use crate::emit::{EmitError, NewEvent};
use crate::event::{Delivery, Event};
use crate::payload::{FromPayload, Payload, Raw};
use crate::verdict::{IntoVerdict, Verdict};
use crate::{__private, logging};

thread_local! {
    static RECORDER: RefCell<Recorder> = RefCell::default();
}

/// The host of this thread: says what handlers emitted and logged since it was made.
///
/// Tests run on threads of their own; each makes one, first of all.
#[derive(Debug)]
pub struct Host {
    /// The recorder belongs to the thread.
    not_send: PhantomData<*const ()>,
}

impl Host {
    /// A host that has seen nothing yet. Forgets what was recorded on this thread before.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it changes the thread's state, which nobody expects of a default")]
    pub fn new() -> Self {
        logging::install();
        RECORDER.take();
        Self { not_send: PhantomData }
    }

    /// What was emitted, in order. A real host publishes it only if the handler acks.
    #[must_use]
    pub fn emitted(&self) -> Vec<NewEvent> {
        RECORDER.with_borrow(|recorder| recorder.emitted.clone())
    }

    /// What was logged, in order, at every level.
    #[must_use]
    pub fn logs(&self) -> Vec<LogLine> {
        RECORDER.with_borrow(|recorder| recorder.logs.clone())
    }

    /// From now on every emit fails with this error.
    pub fn refuse_emits(&self, error: EmitError) {
        RECORDER.with_borrow_mut(|recorder| recorder.refusal = Some(error));
    }

    /// What [`handler_name`](crate::handler_name) returns; `test` until then.
    pub fn set_handler_name(&self, name: impl Into<String>) {
        RECORDER.with_borrow_mut(|recorder| recorder.handler_name = name.into());
    }

    /// What [`remaining`](crate::remaining) returns; 5 seconds until then.
    pub fn set_remaining(&self, remaining: Duration) {
        RECORDER.with_borrow_mut(|recorder| recorder.remaining = remaining);
    }
}

/// One line that a handler logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How severe it is.
    pub level: Level,
    /// Who says it: a module path, unless the line named something else.
    pub target: String,
    /// `message key=value`.
    pub message: String,
}

/// Calls a handler as the runtime does: decodes the data, and makes a verdict of what comes back.
pub fn invoke<T: FromPayload, V: IntoVerdict>(handler: impl FnOnce(Event<T>) -> V, event: Event<Raw>) -> Verdict {
    __private::dispatch(handler, event)
}

impl<T: FromPayload> Event<T> {
    /// An event with this type and JSON data, delivered for the first of five times. Its other attributes are made up;
    /// every field may be set before it is handed to a handler.
    ///
    /// # Panics
    /// When the data is not a `T`. To see what a handler answers to such an event, make an `Event<Raw>` and call
    /// [`invoke`].
    #[must_use]
    #[track_caller]
    pub fn for_test(ty: impl Into<String>, data: impl Serialize) -> Self {
        let event = Event {
            id: "test-event".to_owned(),
            source: "/test".to_owned(),
            ty: ty.into(),
            subject: None,
            time: None,
            datacontenttype: Some("application/json".to_owned()),
            dataschema: None,
            extensions: BTreeMap::new(),
            delivery: Delivery {
                id: "test-delivery".to_owned(),
                queue: "test".to_owned(),
                attempt: 1,
                max_attempts: Some(5),
                enqueued_at: "2026-05-04T12:00:00Z".to_owned(),
            },
            data: (),
        };
        let typed = Payload::from_json(&data)
            .map_err(|error| error.to_string())
            .and_then(|json| T::from_payload(Some(json), None).map_err(|error| error.to_string()));
        match typed {
            Ok(data) => event.with_data(data),
            Err(error) => panic!("the data of this test event does not fit the handler's type: {error}"),
        }
    }
}

struct Recorder {
    handler_name: String,
    remaining: Duration,
    refusal: Option<EmitError>,
    emitted: Vec<NewEvent>,
    logs: Vec<LogLine>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            handler_name: "test".to_owned(),
            remaining: Duration::from_secs(5),
            refusal: None,
            emitted: Vec::new(),
            logs: Vec::new(),
        }
    }
}

pub(crate) fn emit(event: NewEvent) -> Result<String, EmitError> {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(refusal) = &recorder.refusal {
            return Err(refusal.clone());
        }
        let id = event.id.clone().unwrap_or_else(|| format!("test-emit-{}", recorder.emitted.len() + 1));
        recorder.emitted.push(event);
        Ok(id)
    })
}

pub(crate) fn handler_name() -> String {
    RECORDER.with_borrow(|recorder| recorder.handler_name.clone())
}

pub(crate) fn component_digest() -> String {
    format!("sha256:{}", "0".repeat(64))
}

pub(crate) fn remaining() -> Duration {
    RECORDER.with_borrow(|recorder| recorder.remaining)
}

pub(crate) fn log(level: Level, target: &str, message: &str) {
    let line = LogLine { level, target: target.to_owned(), message: message.to_owned() };
    RECORDER.with_borrow_mut(|recorder| recorder.logs.push(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorder_is_fresh_and_says_what_it_is_told() {
        crate::emit(NewEvent::new("before")).unwrap();
        let host = Host::new();
        assert_eq!(host.emitted(), []);
        assert_eq!(crate::emit(NewEvent::new("a")), Ok("test-emit-1".to_owned()));
        assert_eq!(crate::emit(NewEvent::new("b").id("mine")), Ok("mine".to_owned()));
        host.refuse_emits(EmitError::Denied("c".into()));
        assert_eq!(crate::emit(NewEvent::new("c")), Err(EmitError::Denied("c".into())));
        assert_eq!(host.emitted().iter().map(|event| event.ty.as_str()).collect::<Vec<_>>(), ["a", "b"]);

        assert_eq!(crate::handler_name(), "test");
        host.set_handler_name("orders");
        host.set_remaining(Duration::from_millis(3));
        assert_eq!((crate::handler_name(), crate::remaining()), ("orders".into(), Duration::from_millis(3)));
    }

    #[test]
    #[should_panic(expected = "does not fit the handler's type: data: invalid type")]
    fn test_data_that_does_not_fit_says_so() {
        let _ = Event::<u32>::for_test("t", "text");
    }
}
