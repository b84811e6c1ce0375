//! An entry as it is stored: laid out by hand, because entries move more often than they are looked into.
//!
//! ```text
//! entry = version 1 | number 8 | priority 1 | enqueued-at 8 | at 8 | key's length 2 | key | event
//! event = attributes' length 4 | attributes (postcard) | data
//! data  = 0 (none) | 1, the data | 2, the body's number 8, its length 8
//! ```
//!
//! Numbers are little-endian. An ordering key is not empty; length 0 means that there is none. Data above
//! [`INLINE_DATA`] bytes lives apart, as a body, so that moving the entry does not rewrite it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gristmill_core::{Event, Timestamp};
use serde::{Deserialize, Serialize};

use super::records::{BadRecord, VERSION, bad, versioned};

/// Data up to this length is stored with its entry, in bytes.
pub(crate) const INLINE_DATA: usize = 4 * 1024;

/// An event in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub(crate) number: u64,
    pub(crate) priority: u8,
    pub(crate) enqueued_at: Timestamp,
    /// When it entered its state; when scheduled, when it is due.
    pub(crate) at: Timestamp,
    pub(crate) key: KeyBytes,
    pub(crate) event: EncodedEvent,
}

/// An ordering key: text, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyBytes(Bytes);

impl EntryRecord {
    const KIND: &'static str = "entry";
    const HEAD: usize = 28;

    pub(crate) fn new(number: u64, priority: u8, now: Timestamp, key: Option<&str>, event: EncodedEvent) -> Self {
        let key = KeyBytes(key.map(|key| Bytes::copy_from_slice(key.as_bytes())).unwrap_or_default());
        Self { number, priority, enqueued_at: now, at: now, key, event }
    }

    /// The ordering key.
    pub(crate) fn key(&self) -> Option<&str> {
        // Checked when it was decoded.
        std::str::from_utf8(&self.key.0).ok().filter(|key| !key.is_empty())
    }

    /// Attributes and data, in bytes: what a queue's limit counts.
    pub(crate) fn size(&self) -> u64 {
        self.event.size()
    }

    /// How many bytes [`encode_into`](Self::encode_into) adds.
    pub(crate) fn encoded_len(&self) -> usize {
        Self::HEAD + self.key.0.len() + self.event.0.len()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.encoded_len());
        self.encode_into(&mut bytes);
        Bytes::from(bytes)
    }

    pub(crate) fn encode_into(&self, bytes: &mut Vec<u8>) {
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.push(self.priority);
        bytes.extend_from_slice(&self.enqueued_at.as_micros().to_le_bytes());
        bytes.extend_from_slice(&self.at.as_micros().to_le_bytes());
        bytes.extend_from_slice(&u16::try_from(self.key.0.len()).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(&self.event.0);
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, BadRecord> {
        let payload = versioned(Self::KIND, &bytes)?;
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (number, rest) = payload.split_first_chunk::<8>().ok_or_else(short)?;
        let (priority, rest) = rest.split_first().ok_or_else(short)?;
        let (enqueued_at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (key_len, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let (key, event) = rest.split_at_checked(usize::from(u16::from_le_bytes(*key_len))).ok_or_else(short)?;
        if std::str::from_utf8(key).is_err() {
            return Err(bad(Self::KIND, "its ordering key is no text".to_owned()));
        }
        Ok(Self {
            number: u64::from_le_bytes(*number),
            priority: *priority,
            enqueued_at: Timestamp::from_micros(u64::from_le_bytes(*enqueued_at)),
            at: Timestamp::from_micros(u64::from_le_bytes(*at)),
            key: KeyBytes(bytes.slice_ref(key)),
            event: EncodedEvent(bytes.slice_ref(event)),
        })
    }
}

/// Data that lives apart from its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BodyRef {
    pub(crate) number: u64,
    /// In bytes.
    pub(crate) length: u64,
}

/// An event as it is stored. Encoded by the publisher's task and decoded by the claimant's, not by the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodedEvent(Bytes);

/// The attributes that the engine itself looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct EventHead<'a> {
    _id: &'a str,
    _source: &'a str,
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

    /// The event with its data, however large. What is too large to be stored so is taken apart by
    /// [`with_body`](Self::with_body).
    pub(crate) fn encode(event: &Event) -> Self {
        let attributes = Attributes::of(event);
        let inline = event.data.as_ref().filter(|data| data.len() <= INLINE_DATA);
        let mut bytes = Vec::with_capacity(160 + inline.map_or(0, Bytes::len));
        bytes.extend_from_slice(&[0; 4]);
        let mut bytes = postcard::to_extend(&attributes, bytes).unwrap_or_default();
        let length = u32::try_from(bytes.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = bytes.first_chunk_mut::<4>() {
            *head = length.to_le_bytes();
        }
        match (&event.data, inline) {
            (None, _) => bytes.push(Self::NONE),
            (Some(_), Some(data)) => {
                bytes.push(Self::INLINE);
                bytes.extend_from_slice(data);
            }
            (Some(data), None) => {
                let body = BodyRef { number: 0, length: data.len() as u64 };
                push_body(&mut bytes, body);
            }
        }
        Self(Bytes::from(bytes))
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
        let mut bytes = self.0.get(..self.0.len() - data.len()).unwrap_or_default().to_vec();
        push_body(&mut bytes, BodyRef { number, ..body });
        Ok(Self(Bytes::from(bytes)))
    }

    /// Where the data is, if it lives apart.
    pub(crate) fn body(&self) -> Result<Option<BodyRef>, BadRecord> {
        let (_, data) = self.split()?;
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
        let body = self.body().ok().flatten().map_or(0, |body| body.length);
        (self.0.len() as u64).saturating_sub(5).saturating_add(body)
    }

    fn split(&self) -> Result<(&[u8], &[u8]), BadRecord> {
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or_else(short)?;
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)
    }
}

fn push_body(bytes: &mut Vec<u8>, body: BodyRef) {
    bytes.push(EncodedEvent::BODY);
    bytes.extend_from_slice(&body.number.to_le_bytes());
    bytes.extend_from_slice(&body.length.to_le_bytes());
}

/// An ordering key that is shared.
pub(crate) fn shared_key(key: Option<&str>) -> Option<Arc<str>> {
    key.map(Arc::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(data: Option<Bytes>) -> Event {
        Event {
            subject: Some("s".into()),
            extensions: [("traceparent".to_owned(), "00".to_owned())].into(),
            data,
            ..Event::new("1", "/s", "t")
        }
    }

    fn entry(data: Option<Bytes>, key: Option<&str>) -> EntryRecord {
        EntryRecord::new(7, 3, Timestamp::from_micros(11), key, EncodedEvent::encode(&event(data)))
    }

    #[test]
    fn entries_survive_the_round_trip() {
        for (data, key) in [(None, None), (Some(Bytes::new()), Some("k")), (Some(Bytes::from_static(b"{}")), None)] {
            let record = entry(data.clone(), key);
            let again = EntryRecord::decode(record.encode()).unwrap();
            assert_eq!(again, record);
            assert_eq!(again.key(), key);
            assert_eq!(again.event.decode(None).unwrap(), event(data));
            assert_eq!(again.event.without_data().unwrap().decode(None).unwrap(), event(None));
            assert_eq!(again.event.head().unwrap().ty, "t");
        }
    }

    #[test]
    fn large_data_lives_apart() {
        let data = Bytes::from(vec![b'x'; INLINE_DATA + 1]);
        let encoded = EncodedEvent::encode(&event(Some(data.clone())));
        assert!(encoded.as_bytes().len() < 200);
        assert!(encoded.size() > data.len() as u64);
        let stored = encoded.with_body(42).unwrap();
        assert_eq!(stored.body().unwrap(), Some(BodyRef { number: 42, length: data.len() as u64 }));
        assert_eq!(stored.decode(Some(data.clone())).unwrap(), event(Some(data)));
        assert_eq!(stored.decode(None).unwrap(), event(None));
    }

    #[test]
    fn truncated_records_are_errors() {
        let bytes = entry(None, Some("key")).encode();
        for end in 0..bytes.len() {
            let record = EntryRecord::decode(bytes.slice(..end));
            assert!(record.is_err() || record.unwrap().event.decode(None).is_err(), "{end}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            if let Ok(record) = EntryRecord::decode(Bytes::from(bytes)) {
                let _ = (record.event.decode(None), record.event.without_data(), record.event.head().is_ok());
                let _ = (record.event.body(), record.event.size(), record.event.with_body(1), record.key());
            }
        }
    }
}
