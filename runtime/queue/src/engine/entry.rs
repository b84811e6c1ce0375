//! An entry as it is stored: laid out by hand, because entries move more often than they are looked into.
//!
//! ```text
//! entry = version 1 | number 8 | priority 1 | enqueued-at 8 | at 8 | dies-at 8 | key's length 2 | key | event
//! ```
//!
//! Numbers are little-endian. A time of 0 means that there is none, and so does an ordering key's length of 0. The
//! event is laid out by [`super::event`].

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use gristmill_core::{Event, Timestamp};

use super::chunk::Chunk;
use super::event::EncodedEvent;
use super::ids::EntryKey;
use super::keys::QueueId;
use super::records::{BadRecord, VERSION, bad, versioned};

/// An event in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub(crate) number: u64,
    pub(crate) priority: u8,
    pub(crate) enqueued_at: Timestamp,
    /// When it entered its state; when scheduled, when it is due.
    pub(crate) at: Timestamp,
    /// When it dies unless somebody claims it before; `None`: it has no time to live, or was claimed or dead already.
    pub(crate) dies_at: Option<Timestamp>,
    pub(crate) key: KeyBytes,
    pub(crate) event: EncodedEvent,
}

/// An entry in the making: laid out as an entry, but for its number, its priority and its times, which the writer fills
/// in.
#[derive(Debug)]
pub(crate) struct Draft {
    bytes: BytesMut,
    key_len: usize,
}

/// An ordering key: text, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyBytes(Bytes);

impl EntryRecord {
    const KIND: &'static str = "entry";
    const HEAD: usize = 36;

    pub(crate) fn new(number: u64, priority: u8, now: Timestamp, key: Option<&str>, event: EncodedEvent) -> Self {
        let key = KeyBytes(key.map(|key| Bytes::copy_from_slice(key.as_bytes())).unwrap_or_default());
        Self { number, priority, enqueued_at: now, at: now, dies_at: None, key, event }
    }

    /// The ordering key.
    pub(crate) fn key(&self) -> Option<&str> {
        // Checked when it was decoded.
        std::str::from_utf8(&self.key.0).ok().filter(|key| !key.is_empty())
    }

    /// What names it in this queue.
    pub(crate) const fn key_in(&self, queue: QueueId) -> EntryKey {
        EntryKey { queue, priority: self.priority, number: self.number }
    }

    /// Attributes and data, in bytes: what a queue's limit counts.
    pub(crate) fn size(&self) -> u64 {
        self.event.size()
    }

    /// How many bytes [`encode_into`](Self::encode_into) adds.
    pub(crate) fn encoded_len(&self) -> usize {
        Self::HEAD + self.key.0.len() + self.event.as_bytes().len()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut bytes);
        bytes.freeze()
    }

    pub(crate) fn encode_into(&self, bytes: &mut BytesMut) {
        bytes.extend_from_slice(&self.head(self.key.0.len()));
        bytes.extend_from_slice(&self.key.0);
        bytes.extend_from_slice(self.event.as_bytes());
    }

    fn head(&self, key_len: usize) -> [u8; Self::HEAD] {
        let mut head = [0; Self::HEAD];
        let mut rest = head.as_mut_slice();
        rest.put_u8(VERSION);
        rest.put_u64_le(self.number);
        rest.put_u8(self.priority);
        for time in [self.enqueued_at, self.at, self.dies_at.unwrap_or_default()] {
            rest.put_u64_le(time.as_micros());
        }
        rest.put_u16_le(u16::try_from(key_len).unwrap_or(u16::MAX));
        head
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, BadRecord> {
        let short = || bad(Self::KIND, "truncated".to_owned());
        let payload = versioned(Self::KIND, &bytes)?;
        let (number, rest) = payload.split_first_chunk::<8>().ok_or_else(short)?;
        let (priority, rest) = rest.split_first().ok_or_else(short)?;
        let (enqueued_at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (dies_at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
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
            dies_at: Some(Timestamp::from_micros(u64::from_le_bytes(*dies_at))).filter(|at| *at != Timestamp::EPOCH),
            key: KeyBytes(bytes.slice_ref(key)),
            event: EncodedEvent::from_bytes(bytes.slice_ref(event)),
        })
    }
}

impl Draft {
    /// Of an event and its ordering key, in memory from `chunk`.
    pub(crate) fn new(event: &Event, key: Option<&str>, chunk: &mut Chunk) -> Self {
        let key = key.unwrap_or_default();
        let bytes = chunk.room(EntryRecord::HEAD + key.len() + EncodedEvent::encoded_len(event));
        bytes.extend_from_slice(&[0; EntryRecord::HEAD]);
        bytes.extend_from_slice(key.as_bytes());
        EncodedEvent::encode_into(event, bytes);
        Self { bytes: chunk.take(), key_len: key.len() }
    }

    /// Attributes and data, in bytes.
    pub(crate) fn size(&self) -> u64 {
        EncodedEvent::size_of(self.bytes.get(EntryRecord::HEAD + self.key_len..).unwrap_or_default())
    }

    /// The entry, and how it is stored.
    pub(crate) fn finish(
        mut self,
        number: u64,
        priority: u8,
        (now, dies_at): (Timestamp, Option<Timestamp>),
    ) -> (EntryRecord, Bytes) {
        let (key, event) = (KeyBytes::default(), EncodedEvent::from_bytes(Bytes::new()));
        let mut record = EntryRecord { number, priority, enqueued_at: now, at: now, dies_at, key, event };
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = record.head(self.key_len);
        }
        let event_at = EntryRecord::HEAD + self.key_len;
        let bytes = self.bytes.freeze();
        if self.key_len > 0 {
            record.key = KeyBytes(bytes.slice(EntryRecord::HEAD..event_at));
        }
        record.event = EncodedEvent::from_bytes(bytes.slice(event_at..));
        (record, bytes)
    }
}

/// An ordering key that is shared.
pub(crate) fn shared_key(key: Option<&str>) -> Option<Arc<str>> {
    key.map(Arc::from)
}

#[cfg(test)]
mod tests {
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
            let mortal = EntryRecord { dies_at: Some(Timestamp::from_micros(99)), ..record.clone() };
            assert_eq!(EntryRecord::decode(mortal.encode()).unwrap(), mortal);
            assert_eq!(mortal.encode().len(), mortal.encoded_len());
            let again = EntryRecord::decode(record.encode()).unwrap();
            assert_eq!(again, record);
            assert_eq!(again.key(), key);
            assert_eq!(again.event.decode(None).unwrap(), event(data));
            assert_eq!(again.event.without_data().unwrap().decode(None).unwrap(), event(None));
            assert_eq!(again.event.head().unwrap().ty, "t");
        }
    }

    #[test]
    fn a_draft_becomes_the_same_entry() {
        let mut chunk = Chunk::default();
        for (data, key) in [(None, None), (Some(Bytes::from_static(b"{}")), Some("k")), (None, Some("key"))] {
            let draft = Draft::new(&event(data.clone()), key, &mut chunk);
            let size = draft.size();
            let (record, bytes) = draft.finish(7, 3, (Timestamp::from_micros(11), None));
            assert_eq!(record, entry(data, key));
            assert_eq!(bytes, record.encode());
            assert_eq!(size, record.size());
        }
    }

    #[test]
    fn truncated_records_are_errors() {
        let bytes = entry(None, Some("key")).encode();
        for end in 0..bytes.len() {
            let record = EntryRecord::decode(bytes.slice(..end));
            assert!(record.is_err() || record.unwrap().event.decode(None).is_err(), "{end}");
        }
    }
}
