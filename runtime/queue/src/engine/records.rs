//! Stored values. Each begins with a version byte; a value of a newer version is an error, not a guess.

use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{Backoff, Event, History, RetryPolicy, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::keys::{DueKey, Lane, LaneKey, QueueId, ReadyKey};
use crate::contract::{QueueOptions, Totals};

/// The version that every record is written in today.
const VERSION: u8 = 1;

/// Bytes that are no record of their kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {problem}")]
pub(crate) struct BadRecord {
    pub(crate) kind: &'static str,
    pub(crate) problem: String,
}

/// What is stored as postcard behind the version byte.
pub(crate) trait Record: Serialize + DeserializeOwned {
    const KIND: &'static str;

    fn encode(&self) -> Vec<u8> {
        // Serializing into memory cannot fail for these types: no maps of unknown length, no custom errors.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let payload = versioned(Self::KIND, bytes)?;
        postcard::from_bytes(payload).map_err(|error| bad(Self::KIND, error.to_string()))
    }
}

fn versioned<'a>(kind: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], BadRecord> {
    match bytes.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((version, _)) => Err(bad(kind, format!("version {version} is unknown to this release"))),
        None => Err(bad(kind, "empty".to_owned())),
    }
}

fn bad(kind: &'static str, problem: String) -> BadRecord {
    BadRecord { kind, problem }
}

/// What this store is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreRecord {
    /// Random; part of every entry's id.
    pub(crate) salt: u32,
    /// How often the store has been opened.
    pub(crate) incarnation: u64,
}

impl Record for StoreRecord {
    const KIND: &'static str = "store";
}

/// A single number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NumberRecord(pub(crate) u64);

impl Record for NumberRecord {
    const KIND: &'static str = "number";
}

/// A done entry, in the order of completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneOrderRecord {
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
}

impl Record for DoneOrderRecord {
    const KIND: &'static str = "done order";
}

/// Entries of a queue by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) scheduled: u64,
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRecord {
    pub(crate) name: String,
    max_attempts: Option<u32>,
    backoff: Backoff,
    lease: Duration,
    done_retention: Duration,
    done_max: u64,
    pub(crate) counts: Counts,
    totals: [u64; 6],
    /// Where the done entries' order begins.
    pub(crate) done_from: u64,
}

impl Record for QueueRecord {
    const KIND: &'static str = "queue";
}

impl QueueRecord {
    pub(crate) fn new(name: &str, options: &QueueOptions, counts: Counts, totals: Totals, done_from: u64) -> Self {
        Self {
            name: name.to_owned(),
            max_attempts: options.retry.max_attempts,
            backoff: options.retry.backoff,
            lease: options.lease,
            done_retention: options.done_retention,
            done_max: options.done_max,
            counts,
            totals: [
                totals.published,
                totals.acked,
                totals.retried,
                totals.deferred,
                totals.dead_lettered,
                totals.redriven,
            ],
            done_from,
        }
    }

    pub(crate) fn options(&self) -> QueueOptions {
        QueueOptions {
            retry: RetryPolicy { max_attempts: self.max_attempts, backoff: self.backoff },
            lease: self.lease,
            done_retention: self.done_retention,
            done_max: self.done_max,
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        let [published, acked, retried, deferred, dead_lettered, redriven] = self.totals;
        Totals { published, acked, retried, deferred, dead_lettered, redriven }
    }
}

/// A line of ready entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LaneRecord {
    /// What is at a smaller position is leased.
    pub(crate) cursor: u64,
    /// Entries from the cursor on.
    pub(crate) ready: u64,
}

impl Record for LaneRecord {
    const KIND: &'static str = "lane";
}

/// A ready key as it is stored in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spot {
    queue: QueueId,
    priority: u8,
    lane: u8,
    position: u64,
}

impl From<ReadyKey> for Spot {
    fn from(key: ReadyKey) -> Self {
        let lane = key.line.lane.stored();
        Self { queue: key.line.queue, priority: key.line.priority, lane, position: key.position }
    }
}

impl TryFrom<Spot> for ReadyKey {
    type Error = BadRecord;
    fn try_from(spot: Spot) -> Result<Self, BadRecord> {
        let lane = Lane::from_stored(spot.lane).map_err(|error| bad("ready key", error.to_string()))?;
        let line = LaneKey { queue: spot.queue, priority: spot.priority, lane };
        Ok(Self { line, position: spot.position })
    }
}

/// A delivery in somebody's hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) spot: Spot,
    pub(crate) number: u64,
    pub(crate) attempt: u32,
    pub(crate) claimed_at: Timestamp,
    /// Whether the entry has a place: it is not at its first ready key.
    pub(crate) has_place: bool,
}

impl Record for LeaseRecord {
    const KIND: &'static str = "lease";
}

/// Where an entry is that is not at its first ready key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PlaceAt {
    Ready(Spot),
    Due { time: Timestamp, queue: QueueId, position: u64 },
}

impl From<DueKey> for PlaceAt {
    fn from(key: DueKey) -> Self {
        Self::Due { time: key.time, queue: key.queue, position: key.position }
    }
}

/// An entry's place, and what has happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceRecord {
    pub(crate) at: PlaceAt,
    /// Attempts that count and have ended.
    pub(crate) attempts: u32,
    pub(crate) history: History,
}

impl Record for PlaceRecord {
    const KIND: &'static str = "place";
}

/// An entry that is done or dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndRecord {
    /// The [`EntryRecord`], encoded; without data when done.
    pub(crate) entry: Vec<u8>,
    pub(crate) attempts: u32,
    pub(crate) history: History,
    pub(crate) result: Option<Vec<u8>>,
}

impl Record for EndRecord {
    const KIND: &'static str = "ended entry";
}

/// An event in a queue. Laid out by hand, because entries move more often than they are looked into:
///
/// ```text
/// version 1 | number 8 | priority 1 | enqueued-at 8 | at 8 | event
/// event = attributes' length 4 | attributes (postcard) | 0 (no data) or 1 and the data
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryRecord {
    pub(crate) number: u64,
    pub(crate) priority: u8,
    pub(crate) enqueued_at: Timestamp,
    /// When it entered its state; when scheduled, when it is due.
    pub(crate) at: Timestamp,
    pub(crate) event: EncodedEvent,
}

impl EntryRecord {
    const KIND: &'static str = "entry";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(26 + self.event.0.len());
        bytes.push(VERSION);
        bytes.extend(self.number.to_le_bytes());
        bytes.push(self.priority);
        bytes.extend(self.enqueued_at.as_micros().to_le_bytes());
        bytes.extend(self.at.as_micros().to_le_bytes());
        bytes.extend(&self.event.0);
        bytes
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, BadRecord> {
        let payload = versioned(Self::KIND, &bytes)?;
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (number, rest) = payload.split_first_chunk::<8>().ok_or_else(short)?;
        let (priority, rest) = rest.split_first().ok_or_else(short)?;
        let (enqueued_at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        Ok(Self {
            number: u64::from_le_bytes(*number),
            priority: *priority,
            enqueued_at: Timestamp::from_micros(u64::from_le_bytes(*enqueued_at)),
            at: Timestamp::from_micros(u64::from_le_bytes(*at)),
            event: EncodedEvent(bytes.slice_ref(rest)),
        })
    }
}

/// An event as it is stored. Encoded by the publisher's task and decoded by the claimant's, not by the writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EncodedEvent(Bytes);

impl EncodedEvent {
    const KIND: &'static str = "event";

    pub(crate) fn encode(event: &Event) -> Self {
        let attributes = Event { data: None, ..event.clone() };
        let mut bytes = postcard::to_extend(&attributes, vec![0; 4]).unwrap_or_default();
        let length = u32::try_from(bytes.len().saturating_sub(4)).unwrap_or(u32::MAX);
        if let Some(head) = bytes.first_chunk_mut::<4>() {
            *head = length.to_le_bytes();
        }
        match &event.data {
            None => bytes.push(0),
            Some(data) => {
                bytes.push(1);
                bytes.extend_from_slice(data);
            }
        }
        Self(Bytes::from(bytes))
    }

    pub(crate) fn decode(&self) -> Result<Event, BadRecord> {
        let (attributes, data) = self.split()?;
        let event: Event = postcard::from_bytes(attributes).map_err(|error| bad(Self::KIND, error.to_string()))?;
        let data = match data.split_first() {
            Some((0, [])) => None,
            Some((1, data)) => Some(self.0.slice_ref(data)),
            _ => return Err(bad(Self::KIND, "its data is damaged".to_owned())),
        };
        Ok(Event { data, ..event })
    }

    /// The event without its data.
    pub(crate) fn without_data(&self) -> Result<Self, BadRecord> {
        let (_, data) = self.split()?;
        let mut bytes = self.0.get(..self.0.len() - data.len()).unwrap_or_default().to_vec();
        bytes.push(0);
        Ok(Self(Bytes::from(bytes)))
    }

    fn split(&self) -> Result<(&[u8], &[u8]), BadRecord> {
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or_else(short)?;
        rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)
    }
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

    fn entry(data: Option<Bytes>) -> EntryRecord {
        EntryRecord {
            number: 7,
            priority: 3,
            enqueued_at: Timestamp::from_micros(11),
            at: Timestamp::from_micros(12),
            event: EncodedEvent::encode(&event(data)),
        }
    }

    #[test]
    fn entries_survive_the_round_trip() {
        for data in [None, Some(Bytes::new()), Some(Bytes::from_static(b"{}"))] {
            let record = entry(data.clone());
            let again = EntryRecord::decode(Bytes::from(record.encode())).unwrap();
            assert_eq!(again, record);
            assert_eq!(again.event.decode().unwrap(), event(data));
            assert_eq!(again.event.without_data().unwrap().decode().unwrap(), event(None));
        }
    }

    #[test]
    fn truncated_records_are_errors() {
        let bytes = entry(None).encode();
        for end in 0..bytes.len() {
            let record = EntryRecord::decode(Bytes::copy_from_slice(&bytes[..end]));
            assert!(record.is_err() || record.unwrap().event.decode().is_err(), "{end}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = NumberRecord(1).encode();
        bytes[0] = 2;
        assert_eq!(
            NumberRecord::decode(&bytes).unwrap_err().to_string(),
            "number: version 2 is unknown to this release"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            if let Ok(record) = EntryRecord::decode(Bytes::from(bytes.clone())) {
                let _ = (record.event.decode(), record.event.without_data());
            }
            let _ = (QueueRecord::decode(&bytes), PlaceRecord::decode(&bytes), EndRecord::decode(&bytes));
            let _ = (LeaseRecord::decode(&bytes), LaneRecord::decode(&bytes), StoreRecord::decode(&bytes));
        }
    }
}
