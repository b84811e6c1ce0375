//! An event in a queue: its id, its state, and what has happened to it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::OutcomeKind;
use crate::time::Timestamp;

/// Names one event in one queue, for ever. Opaque: only the engine that issued it knows what it means. Unique across
/// stores, so that it can serve other systems as an idempotency key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId(Arc<str>);

/// A string that no engine can have issued as an entry's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an entry's id: expected 1 to 64 of a-z, 0-9 and `-`", .0.escape_debug())]
pub struct EntryIdError(pub String);

impl EntryId {
    /// The longest id, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Takes the text that an engine issued.
    ///
    /// # Errors
    /// When it is empty, too long, or holds anything but `a-z`, `0-9` and `-`.
    pub fn new(text: &str) -> Result<Self, EntryIdError> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > Self::MAX_LEN || !text.bytes().all(allowed) {
            return Err(EntryIdError(text.to_owned()));
        }
        Ok(Self(Arc::from(text)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EntryId {
    type Err = EntryIdError;
    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for EntryId {
    type Error = EntryIdError;
    fn try_from(text: String) -> Result<Self, EntryIdError> {
        Self::new(&text)
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not due yet. In: a delayed publish, a retry, a deferral. Out: its time comes.
    Scheduled,
    /// Behind an unfinished entry of its ordering key. In: a publish, a redrive, a time coming. Out: the key is free.
    Waiting,
    /// May be claimed. In: publish, its time coming, a free key, release, redrive. Out: a claim; an operator.
    Ready,
    /// Somebody handles it. In: a claim. Out: settlement, or the lease's end.
    Leased,
    /// Acked. In: an ack. Reaped by retention.
    Done,
    /// Will not be tried again. In: a reject, the last attempt failing, its time being over. Out: redrive. Reaped by
    /// retention, if the queue limits it.
    Dead,
    /// Withdrawn by an operator before it was claimed. In: cancel. Reaped by retention.
    Cancelled,
}

impl State {
    /// Every state, in the order of an entry's life.
    pub const ALL: [Self; 7] =
        [Self::Scheduled, Self::Waiting, Self::Ready, Self::Leased, Self::Done, Self::Dead, Self::Cancelled];

    /// Whether nothing happens to it any more by itself.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Dead | Self::Cancelled)
    }

    /// The name in JSON and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a string is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a state: use scheduled, waiting, ready, leased, done, dead or cancelled", .0.escape_debug())]
pub struct StateError(pub String);

impl FromStr for State {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| StateError(text.to_owned()))
    }
}

/// One delivery that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its number, counted anew after a redrive.
    pub attempt: u32,
    /// What became of it.
    pub outcome: OutcomeKind,
    /// Why, in words; from guests, so escape it before a person reads it.
    pub reason: Option<String>,
    /// Which version handled it: the component's digest.
    pub version: Option<String>,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// From claim to settlement.
    pub duration: Duration,
    /// It failed and was not spent. Not serialized: [`History::forgiven`] has it for all attempts together.
    #[serde(skip)]
    pub forgiven: bool,
}

/// The first and the last ten attempts of an entry, across redrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    attempts: Vec<Attempt>,
    /// How many between the first ten and the last ten were dropped.
    omitted: u32,
}

impl History {
    /// How many attempts are kept from each end.
    pub const KEPT: usize = 10;

    /// Adds the latest attempt.
    pub fn push(&mut self, attempt: Attempt) {
        if self.attempts.len() >= 2 * Self::KEPT {
            self.attempts.remove(Self::KEPT);
            self.omitted = self.omitted.saturating_add(1);
        }
        if self.attempts.is_empty() {
            // Most entries have one attempt.
            self.attempts.reserve_exact(1);
        }
        self.attempts.push(attempt);
    }

    /// The attempts that are kept, oldest first.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// How many attempts between the first and the last ten are not kept.
    #[must_use]
    pub const fn omitted(&self) -> u32 {
        self.omitted
    }

    /// The latest attempt.
    #[must_use]
    pub fn last(&self) -> Option<&Attempt> {
        self.attempts.last()
    }

    /// Which of the attempts that are kept were forgiven: the lowest bit stands for the oldest.
    #[must_use]
    pub fn forgiven(&self) -> u32 {
        const { assert!(2 * Self::KEPT <= u32::BITS as usize, "a bit for each attempt that is kept") };
        let bits = self.attempts.iter().zip(0..).map(|(attempt, at)| u32::from(attempt.forgiven) << at);
        bits.fold(0, |all, bit| all | bit)
    }

    /// Marks attempts as [`forgiven`](Self::forgiven) says, and no others. For who has stored both apart.
    pub fn forgive(&mut self, forgiven: u32) {
        for (attempt, at) in self.attempts.iter_mut().zip(0..u32::BITS) {
            attempt.forgiven = forgiven >> at & 1 == 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_both_ends() {
        let mut history = History::default();
        for attempt in 1..=35 {
            history.push(Attempt {
                attempt,
                outcome: OutcomeKind::Retry,
                reason: None,
                version: None,
                started_at: Timestamp::EPOCH,
                duration: Duration::ZERO,
                forgiven: attempt % 3 == 0,
            });
        }
        let kept: Vec<_> = history.attempts().iter().map(|a| a.attempt).collect();
        assert_eq!(kept, (1..=10).chain(26..=35).collect::<Vec<_>>());
        assert_eq!(history.omitted(), 15);
        // The third, sixth and ninth of the first ten; 27, 30 and 33 of the last.
        assert_eq!(history.forgiven(), 0b0010_0100_1001_0010_0100);
        let mut copy = history.clone();
        copy.forgive(0);
        assert_eq!(copy.forgiven(), 0);
        copy.forgive(history.forgiven() | 1 << 31);
        assert_eq!(copy, history);
    }

    #[test]
    fn states_are_named_alike_in_json_and_tables() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
