//! A CloudEvents 1.0 event, validated once, at the edge.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The longest attribute value, in bytes. CloudEvents asks consumers to accept 64 KiB for a whole event.
pub const MAX_ATTRIBUTE_LEN: usize = 4 * 1024;
/// The most extension attributes on one event.
pub const MAX_EXTENSIONS: usize = 64;
/// Extension that counts how many handlers an event's ancestors passed through; kept by the host.
pub const HOPS_EXTENSION: &str = "gristmillhops";
/// An event that would get a higher hop count is in a loop, and its cause is dead-lettered.
pub const MAX_HOPS: u32 = 16;

/// A CloudEvents 1.0 event. Attribute values are the specification's canonical strings, exactly as published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Identifies the event together with `source`; several sources may use the same id.
    pub id: String,
    /// Who says it: a URI reference.
    pub source: String,
    /// What happened, such as `com.acme.order.paid`.
    pub ty: String,
    /// What it happened to.
    pub subject: Option<String>,
    /// When it happened: RFC 3339, as published.
    pub time: Option<String>,
    /// Media type of `data`.
    pub datacontenttype: Option<String>,
    /// URI of the schema that `data` adheres to.
    pub dataschema: Option<String>,
    /// Extension attributes: lower-case name to canonical string.
    pub extensions: BTreeMap<String, String>,
    /// The payload, undecoded.
    pub data: Option<Bytes>,
}

/// Why something is not a CloudEvent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The text is not JSON, or not a JSON object.
    #[error("not a CloudEvent in JSON: {0}")]
    Json(String),
    /// A required attribute is absent.
    #[error("the required attribute `{0}` is missing")]
    Missing(&'static str),
    /// An attribute has a value that it may not have.
    #[error("attribute `{}`: {reason}", .name.escape_debug())]
    Invalid {
        /// The attribute.
        name: String,
        /// What is wrong with its value, and what would be right.
        reason: String,
    },
    /// The event as a whole is too large.
    #[error("the event has {actual} bytes; the most that this queue takes is {max}")]
    TooLarge {
        /// Bytes of all attributes and the data.
        actual: u64,
        /// The limit, in bytes.
        max: u64,
    },
}

impl Event {
    /// An event with the three attributes that every event has (besides `specversion`, which is always 1.0).
    #[must_use]
    pub fn new(id: impl Into<String>, source: impl Into<String>, ty: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            ty: ty.into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
            data: None,
        }
    }

    /// Checks every attribute.
    ///
    /// # Errors
    /// The first attribute that breaks a rule of CloudEvents 1.0 or one of this module's limits.
    pub fn validate(&self) -> Result<(), EventError> {
        required("id", &self.id)?;
        required("source", &self.source)?;
        required("type", &self.ty)?;
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                if value.is_empty() {
                    return Err(invalid(name, "is empty; leave it out instead"));
                }
                text(name, value)?;
            }
        }
        if let Some(time) = &self.time
            && time.parse::<jiff::Timestamp>().is_err()
        {
            return Err(invalid("time", "is not an RFC 3339 time such as 2026-05-04T12:00:00Z"));
        }
        if self.extensions.len() > MAX_EXTENSIONS {
            return Err(invalid("extensions", &format!("more than {MAX_EXTENSIONS} of them")));
        }
        for (name, value) in &self.extensions {
            extension_name(name)?;
            text(name, value)?;
        }
        Ok(())
    }

    /// Bytes of all attributes and the data: what `max-event-size` limits.
    #[must_use]
    pub fn size(&self) -> u64 {
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let attributes = self.id.len()
            + self.source.len()
            + self.ty.len()
            + optional.into_iter().flatten().map(String::len).sum::<usize>()
            + self.extensions.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        (attributes + self.data.as_ref().map_or(0, Bytes::len)) as u64
    }

    /// The value of the attribute or extension with this name, as CloudEvents spells it; `None`: the event has none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        match name {
            "id" => Some(&self.id),
            "source" => Some(&self.source),
            "type" => Some(&self.ty),
            "subject" => self.subject.as_deref(),
            "time" => self.time.as_deref(),
            "datacontenttype" => self.datacontenttype.as_deref(),
            "dataschema" => self.dataschema.as_deref(),
            extension => self.extensions.get(extension).map(String::as_str),
        }
    }

    /// How many handlers this event's ancestors passed through. An extension that is no number counts as none.
    #[must_use]
    pub fn hops(&self) -> u32 {
        self.extensions.get(HOPS_EXTENSION).and_then(|hops| hops.parse().ok()).unwrap_or(0)
    }

    /// The data as text: when it is valid UTF-8 and `datacontenttype` is absent, JSON, XML or `text/*`.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let data = self.data.as_deref()?;
        let textual = self.datacontenttype.as_deref().is_none_or(|ty| {
            let ty = essence(ty);
            ty.starts_with("text/") || is_json(&ty) || ty.ends_with("/xml") || ty.ends_with("+xml")
        });
        if textual { std::str::from_utf8(data).ok() } else { None }
    }

    /// Whether the data claims to be JSON: `datacontenttype` says so, or is absent.
    #[must_use]
    pub fn claims_json(&self) -> bool {
        self.datacontenttype.as_deref().is_none_or(|ty| is_json(&essence(ty)))
    }
}

fn is_json(essence: &str) -> bool {
    essence.ends_with("/json") || essence.ends_with("+json")
}

/// A media type without its parameters, in lower case.
fn essence(media_type: &str) -> String {
    media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn required(name: &'static str, value: &str) -> Result<(), EventError> {
    if value.is_empty() {
        return Err(invalid(name, "is empty; every event has one"));
    }
    text(name, value)
}

fn text(name: &str, value: &str) -> Result<(), EventError> {
    if value.len() > MAX_ATTRIBUTE_LEN {
        return Err(invalid(name, &format!("has {} bytes; at most {MAX_ATTRIBUTE_LEN} are allowed", value.len())));
    }
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    match value.chars().find(|c| c.is_control()) {
        Some(c) => Err(invalid(name, &format!("holds the control character {:?}", c))),
        None => Ok(()),
    }
}

fn extension_name(name: &str) -> Result<(), EventError> {
    const RESERVED: [&str; 10] = [
        "id",
        "source",
        "type",
        "specversion",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "data",
        "data_base64",
    ];
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return Err(invalid(name, "attribute names are lower-case letters a-z and digits"));
    }
    if RESERVED.contains(&name) {
        return Err(invalid(name, "is not an extension attribute"));
    }
    Ok(())
}

pub(crate) fn invalid(name: &str, reason: &str) -> EventError {
    EventError::Invalid { name: name.to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event::new("1", "/shop", "order.paid")
    }

    #[test]
    fn an_event_needs_id_source_and_type() {
        assert_eq!(event().validate(), Ok(()));
        for (name, broken) in [
            ("id", Event { id: String::new(), ..event() }),
            ("source", Event { source: String::new(), ..event() }),
            ("type", Event { ty: String::new(), ..event() }),
        ] {
            assert_eq!(broken.validate(), Err(invalid(name, "is empty; every event has one")));
        }
    }

    #[test]
    fn attributes_are_checked() {
        let broken = [
            Event { time: Some("yesterday".into()), ..event() },
            Event { subject: Some("a\u{1b}[31m".into()), ..event() },
            Event { subject: Some(String::new()), ..event() },
            Event { id: "x".repeat(MAX_ATTRIBUTE_LEN + 1), ..event() },
            Event { extensions: [("Upper".into(), "1".into())].into(), ..event() },
            Event { extensions: [("data".into(), "1".into())].into(), ..event() },
        ];
        for event in broken {
            assert!(matches!(event.validate(), Err(EventError::Invalid { .. })), "{event:?}");
        }
        assert_eq!(Event { time: Some("2026-05-04T12:00:00.5+02:00".into()), ..event() }.validate(), Ok(()));
    }

    #[test]
    fn data_is_text_only_when_its_type_says_so() {
        let with = |ty: Option<&str>, data: &'static [u8]| Event {
            datacontenttype: ty.map(str::to_owned),
            data: Some(Bytes::from_static(data)),
            ..event()
        };
        assert_eq!(with(None, b"{}").text(), Some("{}"));
        assert_eq!(with(Some("application/JSON; charset=utf-8"), b"{}").text(), Some("{}"));
        assert_eq!(with(Some("application/vnd.x+json"), b"{}").text(), Some("{}"));
        assert_eq!(with(Some("text/csv"), b"a,b").text(), Some("a,b"));
        assert_eq!(with(Some("image/png"), b"a").text(), None);
        assert_eq!(with(Some("text/plain"), b"\xff").text(), None);
    }
}
