//! What waits for a time: entries, and timers of the engine's own.

use bytes::Bytes;

use super::entry::EntryRecord;
use super::records::{BadRecord, Record, TimerRecord, bad};

/// A value of the `Due` family: a byte that says which, and the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DueValue {
    /// An entry that becomes ready.
    Entry(EntryRecord),
    /// Something else to do.
    Timer(TimerRecord),
}

impl DueValue {
    const ENTRY: u8 = 0;
    const TIMER: u8 = 1;

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Entry(entry) => [&[Self::ENTRY], entry.encode().as_ref()].concat(),
            Self::Timer(timer) => [&[Self::TIMER], timer.encode().as_slice()].concat(),
        }
    }

    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, BadRecord> {
        match bytes.split_first() {
            Some((&Self::ENTRY, entry)) => EntryRecord::decode(bytes.slice_ref(entry)).map(Self::Entry),
            Some((&Self::TIMER, timer)) => TimerRecord::decode(timer).map(Self::Timer),
            _ => Err(bad("due", "neither an entry nor a timer".to_owned())),
        }
    }

    /// The entry, if it is one.
    pub(crate) fn entry(bytes: &Bytes) -> Result<Option<EntryRecord>, BadRecord> {
        match Self::decode(bytes)? {
            Self::Entry(entry) => Ok(Some(entry)),
            Self::Timer(_) => Ok(None),
        }
    }
}
