//! Events that a handler publishes.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::host;
use crate::payload::Payload;

/// Publishes an event when, and only when, this invocation is acked. Returns the new event's id.
///
/// # Errors
/// When the handler may not emit this type, the event is not valid, or there are too many. See [`EmitError`].
pub fn emit(event: NewEvent) -> Result<String, EmitError> {
    host::emit(event)
}

/// An event to publish. Only the type is required.
///
/// ```
/// # fn main() -> Result<(), serde_json::Error> {
/// use std::time::Duration;
/// use gristmill_sdk::NewEvent;
///
/// let reminder = NewEvent::new("com.acme.reminder")
///     .subject("order-17")
///     .json(&serde_json::json!({ "text": "Your cart misses you" }))?
///     .delay(Duration::from_secs(3600))
///     .dedupe_key("reminder-order-17");
/// # let _ = reminder;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewEvent {
    /// `None`: derived from the delivery and the position of this emit, so that a repeated attempt emits the same id.
    pub id: Option<String>,
    /// `None`: `/handlers/NAME`.
    pub source: Option<String>,
    /// The attribute `type`.
    pub ty: String,
    /// What it is about.
    pub subject: Option<String>,
    /// Media type of the data.
    pub datacontenttype: Option<String>,
    /// URI of the schema that the data adheres to.
    pub dataschema: Option<String>,
    /// Extension attributes.
    pub extensions: BTreeMap<String, String>,
    /// The data.
    pub data: Option<Payload>,
    /// Ordering key. `None`: as the receiving queue's configuration says.
    pub key: Option<String>,
    /// Higher is earlier. `None`: as the receiving queue's configuration says.
    pub priority: Option<u8>,
    /// How long the event waits before it is handled.
    pub delay: Option<Duration>,
    /// An event with the key of an earlier one is published once.
    pub dedupe_key: Option<String>,
}

impl NewEvent {
    /// An event of this type, without data.
    #[must_use]
    pub fn new(ty: impl Into<String>) -> Self {
        Self { ty: ty.into(), ..Self::default() }
    }

    /// Sets the id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the subject.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets the URI of the data's schema.
    #[must_use]
    pub fn dataschema(mut self, dataschema: impl Into<String>) -> Self {
        self.dataschema = Some(dataschema.into());
        self
    }

    /// Sets an extension attribute: a string, a boolean or a 32-bit integer.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.extensions.insert(name.into(), value.to_string());
        self
    }

    /// Makes a value the data, as `application/json`.
    ///
    /// # Errors
    /// When the value's `Serialize` fails, or a map has keys that are not strings.
    pub fn json(self, value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        Ok(self.data("application/json", Payload::from_json(value)?))
    }

    /// Sets the data and its media type.
    #[must_use]
    pub fn data(mut self, datacontenttype: impl Into<String>, data: impl Into<Payload>) -> Self {
        self.datacontenttype = Some(datacontenttype.into());
        self.data = Some(data.into());
        self
    }

    /// Sets the ordering key: entries of one key are handled one at a time, in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the priority: higher is earlier.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets how long the event waits before it is handled.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Sets the key that makes the event published once, however often it is emitted.
    #[must_use]
    pub fn dedupe_key(mut self, key: impl Into<String>) -> Self {
        self.dedupe_key = Some(key.into());
        self
    }
}

/// Why an event was not taken. As an [`Error`](crate::Error), all but [`EmitError::Other`] are a reject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmitError {
    /// The handler's grant does not cover this type.
    #[error("emit denied: {0}")]
    Denied(String),
    /// Not a CloudEvent: which attribute, and why.
    #[error("emit of an invalid event: {0}")]
    Invalid(String),
    /// Over this invocation's count or bytes, or over `max-event-size`.
    #[error("too much emitted: {0}")]
    TooMuch(String),
    /// Anything else.
    #[error("emit failed: {0}")]
    Other(String),
}
