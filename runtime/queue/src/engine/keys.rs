//! Keys: what is stored where, and in which order it sorts.
//!
//! Every number is big-endian, so that keys sort by number. An entry's key says its state:
//!
//! | family | key | value | ordered by |
//! | --- | --- | --- | --- |
//! | `Ready` | queue, 255 − priority, lane, position | entry | order of claiming |
//! | `Lease` | delivery | which ready key, which attempt | delivery |
//! | `Due` | time, queue, position | entry | time it is due |
//! | `Done` | queue, number | header, result, history | order of publishing |
//! | `DoneOrder` | queue, position | number, time | order of completion |
//! | `Dead` | queue, number | entry, history | order of publishing |
//! | `Place` | number | where the entry is, history | – |
//! | `Meta` | one of [`Meta`] | store, queues, lanes | – |
//!
//! A claim leaves the ready key where it is: behind its lane's cursor, a ready key belongs to a leased entry. An entry
//! has a place only while it is scheduled or at another than its first ready key.

use gristmill_core::Timestamp;

/// A part of the store with its own kind of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    Meta,
    Ready,
    Lease,
    Due,
    Done,
    DoneOrder,
    Dead,
    Place,
}

impl Family {
    pub(crate) const ALL: [Self; 8] =
        [Self::Meta, Self::Ready, Self::Lease, Self::Due, Self::Done, Self::DoneOrder, Self::Dead, Self::Place];

    /// The stored name. Never change one, never use one again for something else.
    pub(crate) const fn stored_name(self) -> &'static str {
        match self {
            Self::Meta => "default",
            Self::Ready => "ready",
            Self::Lease => "lease",
            Self::Due => "due",
            Self::Done => "done",
            Self::DoneOrder => "done-order",
            Self::Dead => "dead",
            Self::Place => "place",
        }
    }

    /// Whether keys are put once and deleted once, so that a single-delete may remove them. Mixing both kinds of
    /// delete on one key, or putting a key twice, corrupts the store.
    pub(crate) const fn is_single_delete(self) -> bool {
        matches!(self, Self::Ready | Self::Lease)
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
}

impl Lane {
    /// In the order of claiming.
    pub(crate) const CLAIM_ORDER: [Self; 3] = [Self::Front, Self::Lost, Self::Normal];

    pub(crate) const fn stored(self) -> u8 {
        match self {
            Self::Front => 0,
            Self::Normal => 1,
            Self::Lost => 2,
        }
    }

    pub(crate) fn from_stored(byte: u8) -> Result<Self, BadKey> {
        match byte {
            0 => Ok(Self::Front),
            1 => Ok(Self::Normal),
            2 => Ok(Self::Lost),
            _ => Err(BadKey),
        }
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
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = self.line.encode().to_vec();
        bytes.extend(self.position.to_be_bytes());
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
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = self.time.as_micros().to_be_bytes().to_vec();
        bytes.extend(self.queue.to_be_bytes());
        bytes.extend(self.position.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { time: Timestamp::from_micros(reader.u64()?), queue: reader.u32()?, position: reader.u64()? };
        reader.end(key)
    }
}

/// An entry that has come to an end, by the number that it got when it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndKey {
    pub(crate) queue: QueueId,
    pub(crate) number: u64,
}

impl EndKey {
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut bytes = self.queue.to_be_bytes().to_vec();
        bytes.extend(self.number.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let mut reader = Reader(bytes);
        let key = Self { queue: reader.u32()?, number: reader.u64()? };
        reader.end(key)
    }
}

/// A key that is one number: a delivery's lease, or an entry's place.
pub(crate) fn number_key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
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
}

impl Meta {
    const STORE: u8 = 0;
    const RESERVED: u8 = 1;
    const DUE_CURSOR: u8 = 2;
    const QUEUE: u8 = 3;
    const LANE: u8 = 4;

    pub(crate) fn encode(self) -> Vec<u8> {
        match self {
            Self::Store => vec![Self::STORE],
            Self::Reserved => vec![Self::RESERVED],
            Self::DueCursor => vec![Self::DUE_CURSOR],
            Self::Queue(queue) => [&[Self::QUEUE], queue.to_be_bytes().as_slice()].concat(),
            Self::Lane(lane) => [&[Self::LANE], lane.encode().as_slice()].concat(),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadKey> {
        let (kind, rest) = bytes.split_first().ok_or(BadKey)?;
        match *kind {
            Self::STORE if rest.is_empty() => Ok(Self::Store),
            Self::RESERVED if rest.is_empty() => Ok(Self::Reserved),
            Self::DUE_CURSOR if rest.is_empty() => Ok(Self::DueCursor),
            Self::QUEUE => {
                let mut reader = Reader(rest);
                let queue = reader.u32()?;
                reader.end(Self::Queue(queue))
            }
            Self::LANE => Ok(Self::Lane(LaneKey::decode(rest)?)),
            _ => Err(BadKey),
        }
    }
}

/// The smallest key that is greater than every key with this prefix; empty: there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
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
        prop_oneof![Just(Lane::Front), Just(Lane::Normal), Just(Lane::Lost)]
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
            let end = EndKey { queue, number };
            prop_assert_eq!(EndKey::decode(&end.encode()), Ok(end));
            prop_assert_eq!(decode_number_key(&number_key(number)), Ok(number));
            for meta in [Meta::Store, Meta::Reserved, Meta::DueCursor, Meta::Queue(queue), Meta::Lane(ready.line)] {
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

        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = (ReadyKey::decode(&bytes), DueKey::decode(&bytes), EndKey::decode(&bytes), Meta::decode(&bytes));
            prop_assert_eq!(decode_number_key(&bytes).is_ok(), bytes.len() == 8);
        }
    }

    #[test]
    fn truncated_keys_and_longer_keys_are_errors() {
        let key = ReadyKey { line: LaneKey { queue: 1, priority: 2, lane: Lane::Lost }, position: 3 }.encode();
        for end in 0..key.len() {
            assert_eq!(ReadyKey::decode(&key[..end]), Err(BadKey), "{end}");
        }
        assert_eq!(ReadyKey::decode(&[key, vec![0]].concat()), Err(BadKey));
    }

    #[test]
    fn stored_names_are_unique() {
        let names: std::collections::BTreeSet<_> = Family::ALL.iter().map(|family| family.stored_name()).collect();
        assert_eq!(names.len(), Family::ALL.len());
    }

    #[test]
    fn the_end_of_a_prefix_is_after_all_its_keys() {
        assert_eq!(after_prefix(&[1, 2]), [1, 3]);
        assert_eq!(after_prefix(&[1, 255]), [2]);
        assert!(after_prefix(&[255, 255]).is_empty());
    }
}
