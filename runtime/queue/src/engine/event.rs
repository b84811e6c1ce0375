//! An event as it is stored in an entry. Encoded by the publisher's task and decoded by the claimant's, not by the writer.
//!
//! ```text
//! event = attributes' length 4 | attributes (postcard) | data
//! data  = 0 (none) | 1, the data | 2, the body's number 8, its length 8
//! ```
//!
//! Data above [`INLINE_DATA`] bytes lives apart, as a body, so that moving the entry does not rewrite it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use gristmill_core::Event;
use serde::{Deserialize, Serialize};

use super::records::{BadRecord, append, bad};

/// Data up to this length is stored with its entry, in bytes.
pub(crate) const INLINE_DATA: usize = 4 * 1024;

/// Data that lives apart from its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BodyRef {
    pub(crate) number: u64,
    /// In bytes.
    pub(crate) length: u64,
}

/// An encoded event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodedEvent(Bytes);

/// The attributes that the engine itself looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct EventHead<'a> {
    pub(crate) id: &'a str,
    pub(crate) source: &'a str,
    pub(crate) ty: &'a str,
}

/// An event without its data, laid out as [`Event`] is.
#[derive(Serialize)]
struct Attributes<'a> {
    id: &'a str,
    source: &'a str,
    ty: &'a str,
    subject: Option<&'a str>,
    time: Option<&'a str>,
    datacontenttype: Option<&'a str>,
    dataschema: Option<&'a str>,
    extensions: &'a BTreeMap<String, String>,
    data: Option<()>,
}

impl<'a> Attributes<'a> {
    fn of(event: &'a Event) -> Self {
        Self {
            id: &event.id,
            source: &event.source,
            ty: &event.ty,
            subject: event.subject.as_deref(),
            time: event.time.as_deref(),
            datacontenttype: event.datacontenttype.as_deref(),
            dataschema: event.dataschema.as_deref(),
            extensions: &event.extensions,
            data: None,
        }
    }
}

impl EncodedEvent {
    const KIND: &'static str = "event";
    const NONE: u8 = 0;
    const INLINE: u8 = 1;
    const BODY: u8 = 2;

    /// About as long as [`encode_into`](Self::encode_into) makes an event, and not longer, in bytes.
    pub(crate) fn encoded_len(event: &Event) -> usize {
        // Every attribute has a length before it.
        let attributes = 64 + 8 * event.extensions.len();
        let inline = event.data.as_ref().map_or(0, |data| if data.len() > INLINE_DATA { data.len() } else { 0 });
        attributes + usize::try_from(event.size()).unwrap_or(usize::MAX) - inline
    }

    /// Appends the event with its data. What is too large to be stored so is left out, and taken in by
    /// [`with_body`](Self::with_body).
    pub(crate) fn encode_into(event: &Event, bytes: &mut BytesMut) {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        append(&Attributes::of(event), bytes);
        let length = u32::try_from(bytes.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(head) = bytes.get_mut(start..start + 4) {
            head.copy_from_slice(&length.to_le_bytes());
        }
        match &event.data {
            None => bytes.extend_from_slice(&[Self::NONE]),
            Some(data) if data.len() <= INLINE_DATA => {
                bytes.extend_from_slice(&[Self::INLINE]);
                bytes.extend_from_slice(data);
            }
            Some(data) => push_body(bytes, BodyRef { number: 0, length: data.len() as u64 }),
        }
    }

    #[cfg(test)]
    pub(crate) fn encode(event: &Event) -> Self {
        let mut bytes = BytesMut::new();
        Self::encode_into(event, &mut bytes);
        Self(bytes.freeze())
    }

    /// From what [`as_bytes`](Self::as_bytes) gave.
    pub(crate) const fn from_bytes(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The same event, its data being the body with this number.
    pub(crate) fn with_body(&self, number: u64) -> Result<Self, BadRecord> {
        let Some(body) = self.body()? else { return Ok(self.clone()) };
        let (_, data) = self.split()?;
        let mut bytes = BytesMut::from(self.0.get(..self.0.len() - data.len()).unwrap_or_default());
        push_body(&mut bytes, BodyRef { number, ..body });
        Ok(Self(bytes.freeze()))
    }

    /// Whether it has data that is still there. One that never had any looks like one whose data has gone.
    pub(crate) fn has_data(&self) -> bool {
        self.split().is_ok_and(|(_, data)| data != [Self::NONE])
    }

    /// Where the data is, if it lives apart.
    pub(crate) fn body(&self) -> Result<Option<BodyRef>, BadRecord> {
        Self::body_of(&self.0)
    }

    fn body_of(event: &[u8]) -> Result<Option<BodyRef>, BadRecord> {
        let (_, data) = Self::split_of(event)?;
        match data.split_first() {
            Some((&Self::BODY, rest)) => {
                let damaged = || bad(Self::KIND, "its body's number is damaged".to_owned());
                let (number, length) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
                let length = <[u8; 8]>::try_from(length).map_err(|_| damaged())?;
                Ok(Some(BodyRef { number: u64::from_le_bytes(*number), length: u64::from_le_bytes(length) }))
            }
            _ => Ok(None),
        }
    }

    /// The event; `body` gives the data that lives apart, if it is wanted.
    pub(crate) fn decode(&self, body: Option<Bytes>) -> Result<Event, BadRecord> {
        let (attributes, data) = self.split()?;
        let event: Event = postcard::from_bytes(attributes).map_err(|error| bad(Self::KIND, error.to_string()))?;
        let data = match data.split_first() {
            Some((&Self::NONE, [])) => None,
            Some((&Self::INLINE, data)) => Some(self.0.slice_ref(data)),
            Some((&Self::BODY, _)) => body,
            _ => return Err(bad(Self::KIND, "its data is damaged".to_owned())),
        };
        Ok(Event { data, ..event })
    }

    pub(crate) fn head(&self) -> Result<EventHead<'_>, BadRecord> {
        let (attributes, _) = self.split()?;
        let head = postcard::take_from_bytes::<EventHead<'_>>(attributes);
        head.map(|(head, _)| head).map_err(|error| bad(Self::KIND, error.to_string()))
    }

    /// The event without its data.
    pub(crate) fn without_data(&self) -> Result<Self, BadRecord> {
        let (_, data) = self.split()?;
        let attributes = self.0.get(..self.0.len() - data.len()).unwrap_or_default();
        let mut bytes = Vec::with_capacity(attributes.len() + 1);
        bytes.extend_from_slice(attributes);
        bytes.push(Self::NONE);
        Ok(Self(Bytes::from(bytes)))
    }

    /// Attributes and data, in bytes; nearly what [`Event::size`] says.
    pub(crate) fn size(&self) -> u64 {
        Self::size_of(&self.0)
    }

    /// The size of an encoded event.
    pub(crate) fn size_of(event: &[u8]) -> u64 {
        let body = Self::body_of(event).ok().flatten().map_or(0, |body| body.length);
        (event.len() as u64).saturating_sub(5).saturating_add(body)
    }

    fn split(&self) -> Result<(&[u8], &[u8]), BadRecord> {
        Self::split_of(&self.0)
    }

    fn split_of(event: &[u8]) -> Result<(&[u8], &[u8]), BadRecord> {
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (length, rest) = event.split_first_chunk::<4>().ok_or_else(short)?;
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)
    }
}

fn push_body(bytes: &mut BytesMut, body: BodyRef) {
    bytes.extend_from_slice(&[EncodedEvent::BODY]);
    bytes.extend_from_slice(&body.number.to_le_bytes());
    bytes.extend_from_slice(&body.length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_data_lives_apart() {
        let data = Bytes::from(vec![b'x'; INLINE_DATA + 1]);
        let event = Event { data: Some(data.clone()), ..Event::new("1", "/s", "t") };
        let encoded = EncodedEvent::encode(&event);
        assert!(encoded.as_bytes().len() < 200);
        assert!(encoded.size() > data.len() as u64);
        let stored = encoded.with_body(42).unwrap();
        assert_eq!(stored.body().unwrap(), Some(BodyRef { number: 42, length: data.len() as u64 }));
        assert_eq!(stored.decode(Some(data)).unwrap(), event);
        assert_eq!(stored.decode(None).unwrap(), Event { data: None, ..event });
    }
}
