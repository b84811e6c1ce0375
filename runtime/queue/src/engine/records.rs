//! Stored values. Records begin with a version byte; one of a newer version is an error, not a guess. What is due has
//! another byte before that, which says what it is (see [`super::due`]). Only data that lives apart and the cursor of
//! what is due have no version.
//!
//! Small records are postcard behind that byte. A queue's options are JSON, so that they can grow. Entries are laid out
//! by hand in [`super::entry`], because they move more often than they are looked into.

use bytes::{BufMut as _, Bytes, BytesMut};
use gristmill_core::{History, Postmortem, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::entry::EntryRecord;
use super::ids::EntryKey;
use super::keys::{DueKey, Lane, LaneKey, QueueId, ReadyKey, WaitingKey};
use crate::contract::{QueueOptions, Totals};

/// The version that every record is written in today, but for those with forgiven attempts.
pub(crate) const VERSION: u8 = 1;
/// The version of places and ended entries with forgiven attempts: behind what version 1 has, it says which.
const WITH_FORGIVEN: u8 = 2;

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

/// Appends a value as postcard.
pub(crate) fn append<T: Serialize + ?Sized>(value: &T, bytes: &mut BytesMut) {
    struct Appending<'a>(&'a mut BytesMut);
    impl postcard::ser_flavors::Flavor for Appending<'_> {
        type Output = ();
        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.try_extend(&[byte])
        }
        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    // As little as `Record::encode` can.
    let _ = postcard::serialize_with_flavor(value, Appending(bytes));
}

/// What is behind the version byte.
pub(crate) fn versioned<'a>(kind: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], BadRecord> {
    versioned_up_to(VERSION, kind, bytes).map(|(_, payload)| payload)
}

/// The version, and what is behind it.
fn versioned_up_to<'a>(newest: u8, kind: &'static str, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), BadRecord> {
    match bytes.split_first() {
        Some((&version, payload)) if (VERSION..=newest).contains(&version) => Ok((version, payload)),
        Some((version, _)) => Err(bad(kind, format!("version {version} is unknown to this release"))),
        None => Err(bad(kind, "empty".to_owned())),
    }
}

pub(crate) fn bad(kind: &'static str, problem: String) -> BadRecord {
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

/// Entries of a queue by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) scheduled: u64,
    pub(crate) waiting: u64,
    pub(crate) ready: u64,
    pub(crate) leased: u64,
    pub(crate) done: u64,
    pub(crate) dead: u64,
    pub(crate) cancelled: u64,
    /// Attributes and data of those that have not ended.
    pub(crate) bytes: u64,
}

impl Counts {
    /// Entries that have not ended.
    pub(crate) const fn live(&self) -> u64 {
        self.scheduled + self.waiting + self.ready + self.leased
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct QueueRecord {
    pub(crate) name: String,
    pub(crate) paused: Option<String>,
    /// It is being deleted, entry by entry.
    pub(crate) deleting: bool,
    pub(crate) counts: Counts,
    totals: [u64; 8],
    pub(crate) from: ListCursors,
}

/// Where a queue's lists of ended entries begin: nothing before is there any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListCursors {
    pub(crate) done: u64,
    pub(crate) dead: u64,
    pub(crate) cancelled: u64,
}

impl Record for QueueRecord {
    const KIND: &'static str = "queue";
}

impl QueueRecord {
    pub(crate) fn new(name: &str, paused: Option<String>, counts: Counts, totals: Totals, from: ListCursors) -> Self {
        let totals = [
            totals.published,
            totals.duplicates,
            totals.acked,
            totals.retried,
            totals.deferred,
            totals.dead_lettered,
            totals.redriven,
            totals.cancelled,
        ];
        Self { name: name.to_owned(), paused, deleting: false, counts, totals, from }
    }

    pub(crate) fn totals(&self) -> Totals {
        let [published, duplicates, acked, retried, deferred, dead_lettered, redriven, cancelled] = self.totals;
        Totals { published, duplicates, acked, retried, deferred, dead_lettered, redriven, cancelled }
    }
}

/// A queue's options: the version byte, and JSON, in which what an older release did not know has its default.
pub(crate) fn encode_options(options: &QueueOptions) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Plain structs of numbers and strings: writing them to memory cannot fail.
    let _ = serde_json::to_writer(&mut bytes, options);
    bytes
}

pub(crate) fn decode_options(bytes: &[u8]) -> Result<QueueOptions, BadRecord> {
    const KIND: &str = "options";
    serde_json::from_slice(versioned(KIND, bytes)?).map_err(|error| bad(KIND, error.to_string()))
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

/// A line of a queue as it is stored in values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredLine {
    queue: QueueId,
    priority: u8,
    lane: u8,
}

impl From<LaneKey> for StoredLine {
    fn from(line: LaneKey) -> Self {
        Self { queue: line.queue, priority: line.priority, lane: line.lane.stored() }
    }
}

impl TryFrom<StoredLine> for LaneKey {
    type Error = BadRecord;
    fn try_from(line: StoredLine) -> Result<Self, BadRecord> {
        let lane = Lane::from_stored(line.lane).map_err(|error| bad("lane", error.to_string()))?;
        Ok(Self { queue: line.queue, priority: line.priority, lane })
    }
}

/// Deliveries of one claim, all held by this process. The first has the number of the record's key, the others follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) claimed_at: Timestamp,
    pub(crate) runs: Vec<Run>,
}

/// Neighbours in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) line: StoredLine,
    pub(crate) first: u64,
    pub(crate) count: u32,
}

impl Record for ClaimRecord {
    const KIND: &'static str = "claim";
}

impl ClaimRecord {
    pub(crate) fn new(claimed_at: Timestamp, keys: impl IntoIterator<Item = ReadyKey>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for key in keys {
            let line = key.line.into();
            match runs.last_mut() {
                Some(run) if run.line == line && run.first + u64::from(run.count) == key.position => run.count += 1,
                _ => runs.push(Run { line, first: key.position, count: 1 }),
            }
        }
        Self { claimed_at, runs }
    }

    /// Where its entries were, in the order of their deliveries.
    pub(crate) fn keys(&self) -> Result<Vec<ReadyKey>, BadRecord> {
        let mut keys = Vec::new();
        let count: u64 = self.runs.iter().map(|run| u64::from(run.count)).sum();
        if count > super::MAX_CLAIM as u64 {
            return Err(bad(Self::KIND, format!("{count} deliveries in one claim")));
        }
        for run in &self.runs {
            let line = LaneKey::try_from(run.line)?;
            let positions = (0..u64::from(run.count)).map(|i| run.first.saturating_add(i));
            keys.extend(positions.map(|position| ReadyKey { line, position }));
        }
        Ok(keys)
    }
}

/// A delivery in the hands of somebody outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) line: StoredLine,
    pub(crate) position: u64,
    /// Which opening of the store issued it.
    pub(crate) incarnation: u64,
    pub(crate) claimed_at: Timestamp,
    pub(crate) deadline: Timestamp,
}

impl Record for LeaseRecord {
    const KIND: &'static str = "lease";
}

impl LeaseRecord {
    pub(crate) fn key(&self) -> Result<ReadyKey, BadRecord> {
        Ok(ReadyKey { line: self.line.try_into()?, position: self.position })
    }
}

/// Where an entry is that is neither at its first ready key nor done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spot {
    Ready { line: StoredLine, position: u64 },
    Due { time: Timestamp, queue: QueueId, position: u64 },
    Waiting { queue: QueueId, key: u64, position: u64 },
    Dead { queue: QueueId, position: u64 },
    Cancelled { queue: QueueId, position: u64 },
}

impl From<ReadyKey> for Spot {
    fn from(key: ReadyKey) -> Self {
        Self::Ready { line: key.line.into(), position: key.position }
    }
}

impl From<DueKey> for Spot {
    fn from(key: DueKey) -> Self {
        Self::Due { time: key.time, queue: key.queue, position: key.position }
    }
}

impl From<WaitingKey> for Spot {
    fn from(key: WaitingKey) -> Self {
        Self::Waiting { queue: key.queue, key: key.key, position: key.position }
    }
}

/// An entry's place, and what has happened to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlaceRecord {
    pub(crate) at: Spot,
    pub(crate) past: Past,
}

impl Record for PlaceRecord {
    const KIND: &'static str = "place";

    fn encode(&self) -> Vec<u8> {
        let forgiven = self.past.forgiven_attempts();
        let bytes = postcard::to_extend(self, vec![version_with(forgiven)]).unwrap_or_default();
        match forgiven {
            Some(forgiven) => postcard::to_extend(&forgiven, bytes).unwrap_or_default(),
            None => bytes,
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let (version, payload) = versioned_up_to(WITH_FORGIVEN, Self::KIND, bytes)?;
        let read = || {
            let (mut place, rest) = postcard::take_from_bytes::<Self>(payload)?;
            place.past.take_forgiven(version, rest)?;
            Ok(place)
        };
        read().map_err(|error: postcard::Error| bad(Self::KIND, error.to_string()))
    }
}

/// What has happened to an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Past {
    /// Attempts that count and have ended, since publish or the last redrive.
    pub(crate) attempts: u32,
    pub(crate) history: History,
    /// When it was redriven last; `None`: never.
    pub(crate) redriven_at: Option<Timestamp>,
    /// Of the delivery that made it a dead letter last.
    pub(crate) postmortem: Option<Box<Postmortem>>,
    /// It has its ordering key for itself, even while it is scheduled or dead.
    pub(crate) holds_key: bool,
    /// How many attempts were forgiven, since publish or the last redrive. Stored apart, as [`ForgivenAttempts`].
    #[serde(skip)]
    pub(crate) forgiven: u32,
}

/// Which attempts were forgiven. Few entries have any: it is stored behind the record of those that do.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ForgivenAttempts {
    /// [`Past::forgiven`].
    count: u32,
    /// [`History::forgiven`].
    marks: u32,
}

const fn version_with(forgiven: Option<ForgivenAttempts>) -> u8 {
    if forgiven.is_some() { WITH_FORGIVEN } else { VERSION }
}

impl Past {
    /// `None`: none were, and nothing is stored.
    fn forgiven_attempts(&self) -> Option<ForgivenAttempts> {
        let (count, marks) = (self.forgiven, self.history.forgiven());
        (count > 0 || marks > 0).then_some(ForgivenAttempts { count, marks })
    }

    /// From what is stored behind a record of this version.
    fn take_forgiven(&mut self, version: u8, stored: &[u8]) -> Result<(), postcard::Error> {
        if version >= WITH_FORGIVEN {
            let ForgivenAttempts { count, marks } = postcard::from_bytes(stored)?;
            self.forgiven = count;
            self.history.forgive(marks);
        }
        Ok(())
    }

    /// Nothing has happened yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.attempts == 0 && self.history.attempts().is_empty() && self.redriven_at.is_none()
    }
}

/// An entry that has ended. Laid out by hand, so that an ack writes it in one go:
///
/// ```text
/// version 1 | entry's length 4 (little-endian) | entry | past and result (postcard) | in version 2: forgiven attempts
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EndRecord {
    /// The entry, encoded.
    pub(crate) entry: Bytes,
    pub(crate) past: Past,
    pub(crate) result: Option<Bytes>,
}

impl EndRecord {
    const KIND: &'static str = "ended entry";

    /// Nearly how many bytes an entry that has ended takes.
    pub(crate) fn encoded_len(entry: &EntryRecord, result: Option<&Bytes>) -> usize {
        entry.encoded_len() + 64 + result.map_or(0, Bytes::len)
    }

    pub(crate) fn encode_into(entry: &EntryRecord, past: &Past, result: Option<&Bytes>, bytes: &mut BytesMut) {
        let forgiven = past.forgiven_attempts();
        bytes.put_u8(version_with(forgiven));
        bytes.put_u32_le(u32::try_from(entry.encoded_len()).unwrap_or(u32::MAX));
        entry.encode_into(bytes);
        append(&(past, result), bytes);
        if let Some(forgiven) = forgiven {
            append(&forgiven, bytes);
        }
    }

    pub(crate) fn encode(entry: &EntryRecord, past: &Past, result: Option<&Bytes>) -> Bytes {
        let mut bytes = BytesMut::with_capacity(Self::encoded_len(entry, result));
        Self::encode_into(entry, past, result, &mut bytes);
        bytes.freeze()
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, BadRecord> {
        let (version, entry, rest) = Self::split_version(bytes)?;
        let read = || {
            let ((mut past, result), rest) = postcard::take_from_bytes::<(Past, Option<Bytes>)>(rest)?;
            past.take_forgiven(version, rest)?;
            Ok((past, result))
        };
        let (past, result) = read().map_err(|error: postcard::Error| bad(Self::KIND, error.to_string()))?;
        Ok(Self { entry: bytes.slice_ref(entry), past, result })
    }

    /// The entry, encoded, and what follows it.
    pub(crate) fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), BadRecord> {
        Self::split_version(bytes).map(|(_, entry, rest)| (entry, rest))
    }

    fn split_version(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), BadRecord> {
        let (version, payload) = versioned_up_to(WITH_FORGIVEN, Self::KIND, bytes)?;
        let short = || bad(Self::KIND, "truncated".to_owned());
        let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
        Ok((version, entry, rest))
    }
}

/// Done entries, in the order of completion: what one commit completed in one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneOrderRecord {
    pub(crate) at: Timestamp,
    pub(crate) numbers: Vec<u64>,
}

impl Record for DoneOrderRecord {
    const KIND: &'static str = "done order";
}

/// An ordering key that is in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    /// Its number while it is in use.
    pub(crate) id: u64,
    /// Entries that are ready, leased, or scheduled for another attempt.
    pub(crate) busy: u32,
    /// Entries behind them.
    pub(crate) waiting: u64,
    /// No entry waits at a smaller position.
    pub(crate) from: u64,
    /// Dead letters that hold it.
    pub(crate) held_by: Vec<EntryKey>,
    /// When its rate allows another entry, if it had one just now; in the engine's steady time.
    pub(crate) rate_at: Timestamp,
    /// A timer looks after it at this time.
    pub(crate) timer: Option<Timestamp>,
}

impl Record for KeyRecord {
    const KIND: &'static str = "ordering key";
}

impl KeyRecord {
    pub(crate) const fn new(id: u64) -> Self {
        let epoch = Timestamp::EPOCH;
        Self { id, busy: 0, waiting: 0, from: 0, held_by: Vec::new(), rate_at: epoch, timer: None }
    }

    pub(crate) const fn is_in_use(&self) -> bool {
        self.busy > 0 || self.waiting > 0 || !self.held_by.is_empty()
    }
}

/// What the store's timers do when they are due, beside making entries ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TimerRecord {
    /// An entry that was not claimed by now is dead.
    TimeToLive(EntryKey),
    /// An ordering key's rate allows another entry, or the key is not in use any more.
    Key(String),
}

impl Record for TimerRecord {
    const KIND: &'static str = "timer";
}

/// The entries of a publish. Laid out by hand: a compaction filter reads the expiry.
///
/// ```text
/// version 1 | expires-at 8 (little-endian) | entries (postcard)
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OriginRecord {
    pub(crate) expires_at: Timestamp,
    pub(crate) entries: Vec<EntryKey>,
}

impl OriginRecord {
    const KIND: &'static str = "origin";

    pub(crate) fn encode_into(expires_at: Timestamp, entries: &[EntryKey], bytes: &mut BytesMut) {
        bytes.put_u8(VERSION);
        bytes.put_u64_le(expires_at.as_micros());
        append(entries, bytes);
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let payload = versioned(Self::KIND, bytes)?;
        let (expires_at, entries) =
            payload.split_first_chunk::<8>().ok_or_else(|| bad(Self::KIND, "truncated".to_owned()))?;
        Ok(Self {
            expires_at: Timestamp::from_micros(u64::from_le_bytes(*expires_at)),
            entries: postcard::from_bytes(entries).map_err(|error| bad(Self::KIND, error.to_string()))?,
        })
    }

    /// Whether a stored record may go. One that cannot be read stays.
    pub(crate) fn is_expired(value: &[u8], now: Timestamp) -> bool {
        let payload = versioned(Self::KIND, value).unwrap_or_default();
        let expires_at = payload.first_chunk().map(|expires_at| u64::from_le_bytes(*expires_at));
        expires_at.is_some_and(|expires_at| expires_at <= now.as_micros())
    }
}

/// A published event in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) at: Timestamp,
    pub(crate) priority: u8,
    /// The ordering key that the publisher asked for.
    pub(crate) key: Option<String>,
    pub(crate) queues: Vec<QueueId>,
    /// The event, encoded.
    pub(crate) event: Bytes,
}

impl Record for LogRecord {
    const KIND: &'static str = "logged event";
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) started_at: Timestamp,
    /// When its latest event was published.
    pub(crate) last_at: Timestamp,
    pub(crate) events: u64,
}

impl Record for SegmentRecord {
    const KIND: &'static str = "log segment";
}

/// A bucket of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketRecord {
    pub(crate) name: String,
    /// Of keys and values.
    pub(crate) bytes: u64,
    pub(crate) max_bytes: Option<u64>,
}

impl Record for BucketRecord {
    const KIND: &'static str = "bucket";
}

#[cfg(test)]
mod tests {
    use gristmill_core::{Attempt, Event, OutcomeKind};

    use super::*;
    use crate::engine::event::EncodedEvent;

    fn place(forgiven: u32) -> PlaceRecord {
        let mut past = Past { forgiven, ..Past::default() };
        for attempt in [1, 1, 2] {
            past.history.push(Attempt {
                attempt,
                outcome: OutcomeKind::Trap,
                reason: None,
                version: Some("v2".to_owned()),
                started_at: Timestamp::EPOCH,
                duration: std::time::Duration::ZERO,
                forgiven: forgiven > 0 && attempt == 1,
            });
        }
        PlaceRecord { at: Spot::Dead { queue: 1, position: 2 }, past }
    }

    #[test]
    fn only_a_past_with_forgiven_attempts_needs_the_newer_version() {
        let (plain, forgiven) = (place(0), place(2));
        for (record, version) in [(&plain, VERSION), (&forgiven, WITH_FORGIVEN)] {
            let bytes = record.encode();
            assert_eq!(bytes[0], version);
            assert_eq!(PlaceRecord::decode(&bytes).unwrap(), *record);
            let entry =
                EntryRecord::new(7, 0, Timestamp::EPOCH, None, EncodedEvent::encode(&Event::new("1", "/s", "t")));
            let result = Some(Bytes::from_static(b"result"));
            let bytes = EndRecord::encode(&entry, &record.past, result.as_ref());
            assert_eq!(bytes[0], version);
            let end = EndRecord::decode(&bytes).unwrap();
            assert_eq!((end.past, end.result), (record.past.clone(), result));
        }
        // In front of what is new, they are alike.
        let (plain, forgiven) = (plain.encode(), forgiven.encode());
        assert_eq!(plain[1..], forgiven[1..plain.len()]);
        assert!(PlaceRecord::decode(&forgiven[..plain.len()]).is_err(), "cut off");
        let newer = [&[WITH_FORGIVEN + 1], &forgiven[1..]].concat();
        assert_eq!(PlaceRecord::decode(&newer).unwrap_err().to_string(), "place: version 3 is unknown to this release");
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

    #[test]
    fn a_claim_of_neighbours_is_short_and_whole() {
        let line = |priority| LaneKey { queue: 1, priority, lane: Lane::Normal };
        let keys: Vec<_> = [(9, 7), (9, 8), (9, 9), (9, 11), (0, 12), (0, 13)]
            .map(|(priority, position)| ReadyKey { line: line(priority), position })
            .into();
        let record = ClaimRecord::new(Timestamp::EPOCH, keys.iter().copied());
        assert_eq!(record.runs.len(), 3);
        assert_eq!(record.keys().unwrap(), keys);
    }

    #[test]
    fn options_that_an_older_release_wrote_have_defaults() {
        let older = [&[VERSION], br#"{"max_in_flight":7}"#.as_slice()].concat();
        let options = decode_options(&older).unwrap();
        assert_eq!(options, QueueOptions { max_in_flight: 7, ..QueueOptions::default() });
        assert_eq!(decode_options(&encode_options(&options)).unwrap(), options);
    }
}
