//! Keys: what is stored where, and in which order it sorts.
//!
//! Every number is big-endian, so that keys sort by number. An entry's key says its state:
//!
//! | family | key | value | ordered by |
//! | --- | --- | --- | --- |
//! | `Ready` | queue, 255 − priority, lane, position | entry | order of claiming |
//! | `Waiting` | queue, ordering key's id, position | entry | order within the ordering key |
//! | `Due` | time, queue, position | entry, or a timer | time it is due |
//! | `Done` | queue, number | entry, history, result | order of publishing |
//! | `DoneOrder` | queue, position | numbers, time | order of completion |
//! | `Dead`, `Cancelled` | queue, position | entry, history | order of ending |
//! | `Claim` | first delivery | runs of ready keys, time | delivery |
//! | `Lease` | delivery | ready key, opening, time, deadline | delivery |
//! | `Place` | number | where the entry is, history | – |
//! | `Key` | queue, ordering key | how many are busy, who waits | ordering key |
//! | `Origin` | kind, source, id | the entries of a publish | – |
//! | `Body` | body | data | – |
//! | `BodyCount` | body | references, if more than one | – |
//! | `Log` | segment, position | a published event | order of publishing |
//! | `LogBody` | segment, body | nothing: the segment refers to the body | – |
//! | `State` | bucket, key | value | key |
//! | `Meta` | one of [`Meta`] | store, queues, lanes, buckets, segments | – |
//!
//! A claim leaves the ready key where it is: behind its lane's cursor, a ready key belongs to a leased entry. An entry
//! has a place only while it is neither at its first ready key nor done.

use gristmill_core::Timestamp;
use smallvec::SmallVec;

/// A key's bytes. Most are shorter than this and need no memory of their own.
pub(crate) type Key = SmallVec<[u8; 24]>;

/// A part of the store with its own kind of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Meta,
    Ready,
    Waiting,
    Due,
    Done,
    DoneOrder,
    Dead,
    Cancelled,
    Claim,
    Lease,
    Place,
    Key,
    Origin,
    Body,
    BodyCount,
    Log,
    LogBody,
    State,
}

impl Family {
    pub(crate) const COUNT: usize = 18;

    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Meta,
        Self::Ready,
        Self::Waiting,
        Self::Due,
        Self::Done,
        Self::DoneOrder,
        Self::Dead,
        Self::Cancelled,
        Self::Claim,
        Self::Lease,
        Self::Place,
        Self::Key,
        Self::Origin,
        Self::Body,
        Self::BodyCount,
        Self::Log,
        Self::LogBody,
        Self::State,
    ];

    /// The stored name. Never change one, never use one again for something else.
    pub(crate) const fn stored_name(self) -> &'static str {
        match self {
            Self::Meta => "default",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Done => "done",
            Self::DoneOrder => "done-order",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Claim => "claim",
            Self::Lease => "lease",
            Self::Place => "place",
            Self::Key => "key",
            Self::Origin => "origin",
            Self::Body => "body",
            Self::BodyCount => "body-count",
            Self::Log => "log",
            Self::LogBody => "log-body",
            Self::State => "state",
        }
    }

    /// Whether keys are put once and deleted once, so that a single-delete may remove them. Mixing both kinds of
    /// delete on one key, or putting a key twice, corrupts the store.
    pub(crate) const fn is_single_delete(self) -> bool {
        matches!(self, Self::Ready | Self::Waiting | Self::Claim)
    }
}

/// A queue's number in keys; never used again for another queue.
pub(crate) type QueueId = u32;

/// Which line within a priority. Stored; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lane {
    /// Released entries: first.
    Front,
    /// Everything else.
    Normal,
    /// Entries whose process died while it handled them: one at a time, before the normal ones.
    Lost,
    /// Entries that a filtered claim took out of the middle of another line: always leased.
    Aside,
    /// Those of them that came out of a line of lost ones: whoever holds one over a reopening holds up the others.
    LostAside,
}

impl Lane {
    /// Those that hold ready entries, in the order of claiming.
    pub(crate) const CLAIM_ORDER: [Self; 3] = [Self::Front, Self::Lost, Self::Normal];

    pub(crate) const fn stored(self) -> u8 {
        match self {
            Self::Front => 0,
            Self::Normal => 1,
            Self::Lost => 2,
            Self::Aside => 3,
            Self::LostAside => 4,
        }
    }

    pub(crate) fn from_stored(byte: u8) -> Result<Self, BadKey> {
        match byte {
            0 => Ok(Self::Front),
            1 => Ok(Self::Normal),
            2 => Ok(Self::Lost),
            3 => Ok(Self::Aside),
            4 => Ok(Self::LostAside),
            _ => Err(BadKey),
        }
    }

    /// Whether its entries were lost in a crash, so that only one of them may be in flight.
    pub(crate) const fn is_lost(self) -> bool {
        matches!(self, Self::Lost | Self::LostAside)
    }

    /// Where a filtered claim puts what it takes out of the middle of such a line.
    pub(crate) const fn aside(self) -> Self {
        if self.is_lost() { Self::LostAside } else { Self::Aside }
    }
}

/// Bytes that are no key of their family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has the wrong length or an unknown kind")]
pub(crate) struct BadKey;

/// A line of ready entries of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LaneKey {
    pub(crate) queue: QueueId,
    pub(crate) priority: u8,
    pub(crate) lane: Lane,
}

impl LaneKey {
    const LEN: usize = 6;

    fn encode(self) -> [u8; Self::LEN] {
        let [a, b, c, d] = self.queue.to_be_bytes();
        [a, b, c, d, 255 - self.priority, self.lane.stored()]
    }

    fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { queue: reader.u32()?, priority: 255 - reader.u8()?, lane: Lane::from_stored(reader.u8()?)? };
        reader.end(key)
    }
}

/// Where a ready or leased entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReadyKey {
    pub(crate) line: LaneKey,
    pub(crate) position: u64,
}

impl ReadyKey {
    pub(crate) fn encode(self) -> Key {
        let mut bytes = Key::from_slice(&self.line.encode());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let (line, position) = bytes.split_at_checked(LaneKey::LEN).ok_or(BadKey)?;
        let mut reader = Reader(position);
        let key = Self { line: LaneKey::decode(line)?, position: reader.u64()? };
        reader.end(key)
    }
}

/// When a scheduled entry is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct DueKey {
    pub(crate) time: Timestamp,
    pub(crate) queue: QueueId,
    pub(crate) position: u64,
}

impl DueKey {
    pub(crate) fn encode(self) -> Key {
        let mut bytes = Key::from_slice(&self.time.as_micros().to_be_bytes());
        bytes.extend_from_slice(&self.queue.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { time: Timestamp::from_micros(reader.u64()?), queue: reader.u32()?, position: reader.u64()? };
        reader.end(key)
    }
}

/// Where an entry waits for its ordering key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WaitingKey {
    pub(crate) queue: QueueId,
    /// The id that its record gives the ordering key while it is in use.
    pub(crate) key: u64,
    pub(crate) position: u64,
}

impl WaitingKey {
    pub(crate) fn encode(self) -> Key {
        let mut bytes = Key::from_slice(&self.queue.to_be_bytes());
        bytes.extend_from_slice(&self.key.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { queue: reader.u32()?, key: reader.u64()?, position: reader.u64()? };
        reader.end(key)
    }
}

/// A place in a queue's list: of done entries by number, of others that have ended by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndKey {
    pub(crate) queue: QueueId,
    pub(crate) position: u64,
}

impl EndKey {
    pub(crate) fn encode(self) -> Key {
        let mut bytes = Key::from_slice(&self.queue.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { queue: reader.u32()?, position: reader.u64()? };
        reader.end(key)
    }
}

/// A key of the event log: the segment, and an event or a body in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogKey {
    pub(crate) segment: u64,
    pub(crate) position: u64,
}

impl LogKey {
    pub(crate) fn encode(self) -> Key {
        let mut bytes = Key::from_slice(&self.segment.to_be_bytes());
        bytes.extend_from_slice(&self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { segment: reader.u64()?, position: reader.u64()? };
        reader.end(key)
    }
}

/// A name of somebody's choice behind a number: an ordering key of a queue, a key of a bucket.
pub(crate) fn named_key(number: u32, name: &str) -> Key {
    let mut bytes = Key::from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

pub(crate) fn decode_named_key(bytes: &[u8]) -> Result<(u32, &str), BadKey> {
    let mut reader = Reader(bytes);
    let number = reader.u32()?;
    Ok((number, std::str::from_utf8(reader.0).map_err(|_| BadKey)?))
}

/// What makes two publishes the same. Stored; never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OriginKind {
    /// The event's id.
    Id,
    /// A key of the publisher's own.
    DedupeKey,
}

/// A publish, by its source and its id or dedupe key.
pub(crate) fn origin_key(kind: OriginKind, source: &str, id: &str) -> Key {
    let kind = match kind {
        OriginKind::Id => 0,
        OriginKind::DedupeKey => 1,
    };
    let mut bytes = Key::from_slice(&[kind]);
    // A source is shorter than 4 KiB.
    bytes.extend_from_slice(&u32::try_from(source.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(source.as_bytes());
    bytes.extend_from_slice(id.as_bytes());
    bytes
}

/// The source and the id of an [`origin_key`].
pub(crate) fn decode_origin_key(bytes: &[u8]) -> Result<(OriginKind, &str, &str), BadKey> {
    let mut reader = Reader(bytes);
    let kind = match reader.u8()? {
        0 => OriginKind::Id,
        1 => OriginKind::DedupeKey,
        _ => return Err(BadKey),
    };
    let length = usize::try_from(reader.u32()?).map_err(|_| BadKey)?;
    let (source, id) = reader.0.split_at_checked(length).ok_or(BadKey)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| BadKey);
    Ok((kind, text(source)?, text(id)?))
}

/// A key that is one number: of a delivery, an entry or a body.
pub(crate) fn number_key(number: u64) -> Key {
    Key::from_slice(&number.to_be_bytes())
}

pub(crate) fn decode_number_key(bytes: &[u8]) -> Result<u64, BadKey> {
    let mut reader = Reader(bytes);
    let number = reader.u64()?;
    reader.end(number)
}

/// The keys of the `Meta` family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Meta {
    /// What this store is.
    Store,
    /// Up to which number positions, entries and deliveries may have been issued.
    Reserved,
    /// Where the due entries begin.
    DueCursor,
    /// A queue.
    Queue(QueueId),
    /// A line of ready entries.
    Lane(LaneKey),
    /// A queue's options.
    Options(QueueId),
    /// A bucket of state.
    Bucket(u32),
    /// A segment of the event log.
    Segment(u64),
    /// Which queue numbers have been used.
    LastQueue,
}

impl Meta {
    const STORE: u8 = 0;
    const RESERVED: u8 = 1;
    const DUE_CURSOR: u8 = 2;
    const QUEUE: u8 = 3;
    const LANE: u8 = 4;
    const OPTIONS: u8 = 5;
    const BUCKET: u8 = 6;
    const SEGMENT: u8 = 7;
    const LAST_QUEUE: u8 = 8;

    pub(crate) fn encode(self) -> Key {
        let with = |kind: u8, rest: &[u8]| {
            let mut bytes = Key::from_slice(&[kind]);
            bytes.extend_from_slice(rest);
            bytes
        };
        match self {
            Self::Store => with(Self::STORE, &[]),
            Self::Reserved => with(Self::RESERVED, &[]),
            Self::DueCursor => with(Self::DUE_CURSOR, &[]),
            Self::LastQueue => with(Self::LAST_QUEUE, &[]),
            Self::Queue(queue) => with(Self::QUEUE, &queue.to_be_bytes()),
            Self::Lane(lane) => with(Self::LANE, &lane.encode()),
            Self::Options(queue) => with(Self::OPTIONS, &queue.to_be_bytes()),
            Self::Bucket(bucket) => with(Self::BUCKET, &bucket.to_be_bytes()),
            Self::Segment(segment) => with(Self::SEGMENT, &segment.to_be_bytes()),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let (kind, rest) = bytes.split_first().ok_or(BadKey)?;
        let mut reader = Reader(rest);
        let key = match *kind {
            Self::STORE => Self::Store,
            Self::RESERVED => Self::Reserved,
            Self::DUE_CURSOR => Self::DueCursor,
            Self::LAST_QUEUE => Self::LastQueue,
            Self::QUEUE => Self::Queue(reader.u32()?),
            Self::LANE => return Ok(Self::Lane(LaneKey::decode(rest)?)),
            Self::OPTIONS => Self::Options(reader.u32()?),
            Self::BUCKET => Self::Bucket(reader.u32()?),
            Self::SEGMENT => Self::Segment(reader.u64()?),
            _ => return Err(BadKey),
        };
        reader.end(key)
    }

    /// All keys of the kind of this one begin so.
    pub(crate) fn kind(self) -> Key {
        Key::from_slice(self.encode().get(..1).unwrap_or_default())
    }
}

/// The smallest key that is greater than every key with this prefix; empty: there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Key {
    let mut end = Key::from_slice(prefix);
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BadKey> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(BadKey)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, BadKey> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, BadKey> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, BadKey> {
        self.take().map(u64::from_be_bytes)
    }

    fn end<T>(&self, value: T) -> Result<T, BadKey> {
        if self.0.is_empty() { Ok(value) } else { Err(BadKey) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lane() -> impl Strategy<Value = Lane> {
        prop_oneof![Just(Lane::Front), Just(Lane::Normal), Just(Lane::Lost), Just(Lane::Aside), Just(Lane::LostAside)]
    }

    fn ready() -> impl Strategy<Value = ReadyKey> {
        (0..4u32, any::<u8>(), lane(), any::<u64>()).prop_map(|(queue, priority, lane, position)| ReadyKey {
            line: LaneKey { queue, priority, lane },
            position,
        })
    }

    fn due() -> impl Strategy<Value = DueKey> {
        (any::<u64>(), any::<u32>(), any::<u64>()).prop_map(|(time, queue, position)| DueKey {
            time: Timestamp::from_micros(time),
            queue,
            position,
        })
    }

    proptest! {
        #[test]
        fn keys_survive_the_round_trip(ready in ready(), due in due(), queue in any::<u32>(), number in any::<u64>()) {
            prop_assert_eq!(ReadyKey::decode(&ready.encode()), Ok(ready));
            prop_assert_eq!(DueKey::decode(&due.encode()), Ok(due));
            let end = EndKey { queue, position: number };
            prop_assert_eq!(EndKey::decode(&end.encode()), Ok(end));
            let waiting = WaitingKey { queue, key: number, position: ready.position };
            prop_assert_eq!(WaitingKey::decode(&waiting.encode()), Ok(waiting));
            let log = LogKey { segment: number, position: ready.position };
            prop_assert_eq!(LogKey::decode(&log.encode()), Ok(log));
            let named = named_key(queue, "ä/b");
            prop_assert_eq!(decode_named_key(&named), Ok((queue, "ä/b")));
            for kind in [OriginKind::Id, OriginKind::DedupeKey] {
                let origin = origin_key(kind, "/ä", "b");
                prop_assert_eq!(decode_origin_key(&origin), Ok((kind, "/ä", "b")));
            }
            prop_assert_eq!(decode_number_key(&number_key(number)), Ok(number));
            let plain = [Meta::Store, Meta::Reserved, Meta::DueCursor, Meta::LastQueue];
            let numbered = [Meta::Queue(queue), Meta::Options(queue), Meta::Bucket(queue), Meta::Segment(number)];
            for meta in plain.into_iter().chain(numbered).chain([Meta::Lane(ready.line)]) {
                prop_assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
            }
        }

        #[test]
        fn due_keys_sort_by_time_then_queue_then_position(a in due(), b in due()) {
            prop_assert_eq!(a.cmp(&b), a.encode().cmp(&b.encode()));
        }

        #[test]
        fn higher_priority_sorts_first_then_the_earlier_position(a in ready(), b in ready()) {
            let order = |key: ReadyKey| {
                (key.line.queue, std::cmp::Reverse(key.line.priority), key.line.lane.stored(), key.position)
            };
            prop_assert_eq!(order(a).cmp(&order(b)), a.encode().cmp(&b.encode()));
        }
    }

    #[test]
    fn truncated_keys_and_longer_keys_are_errors() {
        let key = ReadyKey { line: LaneKey { queue: 1, priority: 2, lane: Lane::Lost }, position: 3 }.encode();
        for end in 0..key.len() {
            assert_eq!(ReadyKey::decode(&key[..end]), Err(BadKey), "{end}");
        }
        assert_eq!(ReadyKey::decode(&[key.as_slice(), &[0]].concat()), Err(BadKey));
    }

    #[test]
    fn stored_names_are_unique() {
        let names: std::collections::BTreeSet<_> = Family::ALL.iter().map(|family| family.stored_name()).collect();
        assert_eq!(names.len(), Family::ALL.len());
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_its_keys() {
        assert_eq!(after_prefix(&[1, 2]).as_slice(), [1, 3]);
        assert_eq!(after_prefix(&[1, 255]).as_slice(), [2]);
        assert!(after_prefix(&[255, 255]).is_empty());
    }
}
