//! An event as a handler sees it.

use std::collections::BTreeMap;

use crate::payload::{DataError, FromPayload, Raw};

/// One CloudEvents 1.0 event, delivered to this handler. Attributes are exactly what was published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<T = Raw> {
    /// Identifies the event together with `source`; two sources may use the same id.
    pub id: String,
    /// Who says it: a URI reference.
    pub source: String,
    /// The attribute `type`: what happened, such as `com.acme.order.paid`.
    pub ty: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When it happened: RFC 3339.
    pub time: Option<String>,
    /// Media type of the data.
    pub datacontenttype: Option<String>,
    /// URI of the schema that the data adheres to.
    pub dataschema: Option<String>,
    /// Extension attributes, such as `traceparent`, as canonical strings.
    pub extensions: BTreeMap<String, String>,
    /// This attempt at the event.
    pub delivery: Delivery,
    /// The decoded data.
    pub data: T,
}

/// One attempt at one event in one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The same for every attempt at this event in this queue: the idempotency key towards other systems.
    pub id: String,
    /// The queue that the event waited in.
    pub queue: String,
    /// 1 for the first.
    pub attempt: u32,
    /// The attempt after which a failing event is dead-lettered. `None`: there is no limit.
    pub max_attempts: Option<u32>,
    /// When the event entered the queue: RFC 3339.
    pub enqueued_at: String,
}

impl<T> Event<T> {
    /// An extension attribute by its name.
    #[must_use]
    pub fn extension(&self, name: &str) -> Option<&str> {
        self.extensions.get(name).map(String::as_str)
    }

    /// The same event with other data.
    #[must_use]
    pub fn with_data<U>(self, data: U) -> Event<U> {
        self.split(data).0
    }

    fn split<U>(self, data: U) -> (Event<U>, T) {
        let Self { id, source, ty, subject, time, datacontenttype, dataschema, extensions, delivery, data: old } = self;
        (Event { id, source, ty, subject, time, datacontenttype, dataschema, extensions, delivery, data }, old)
    }
}

impl Event<Raw> {
    /// Decodes the data.
    ///
    /// # Errors
    /// When there is none, or it does not fit the type.
    pub fn decode<T: FromPayload>(self) -> Result<Event<T>, DataError> {
        let (event, Raw(data)) = self.split(());
        let data = T::from_payload(data, event.datacontenttype.as_deref())?;
        Ok(event.with_data(data))
    }
}

impl Delivery {
    /// Whether a failure of this attempt dead-letters the event.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.max_attempts.is_some_and(|max| self.attempt >= max)
    }
}
