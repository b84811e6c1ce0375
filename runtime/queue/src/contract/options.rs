//! How a queue treats its entries.

use std::time::Duration;

use gristmill_core::{QueueName, RetryPolicy};
use serde::{Deserialize, Serialize};

use super::QueueError;

/// How a queue treats its entries. Stored with the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct QueueOptions {
    /// Attempts and backoff.
    pub retry: RetryPolicy,
    /// How long a claim's lease lasts. Default: 30 s.
    pub lease: Duration,
    /// An entry that is not claimed within this time of its publish is dead-lettered; one that was, and came back, is
    /// not. Default: none.
    pub time_to_live: Option<Duration>,
    /// An entry whose next attempt would begin later than this after its publish (or its last redrive) is dead-lettered
    /// instead: it ends endless retries and deferrals. Default: none.
    pub max_age: Option<Duration>,
    /// The most entries that may be scheduled, waiting, ready or leased; a publish above it is refused. Default: no
    /// limit.
    pub max_events: Option<u64>,
    /// The same in bytes of attributes and data. Default: no limit.
    pub max_bytes: Option<u64>,
    /// The most deliveries in flight. Default: 10,000.
    pub max_in_flight: u32,
    /// How fast entries may be claimed. Another rate holds at once: what was claimed counts, but nobody waits longer than
    /// the new rate makes them. Default: no limit.
    pub rate: Option<Rate>,
    /// What entries with the same ordering key mean to each other.
    pub key: KeyOptions,
    /// What is kept of done entries. Default: 24 h, 100,000 entries, without data.
    pub done: Retention,
    /// Whether done entries keep their data. Default: header and result only.
    pub payload: Payload,
    /// What is kept of dead letters. Default: everything.
    pub dead: Retention,
    /// What is kept of cancelled entries. Default: 30 days.
    pub cancelled: Retention,
}

impl Default for QueueOptions {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3_600);
        Self {
            retry: RetryPolicy::default(),
            lease: Duration::from_secs(30),
            time_to_live: None,
            max_age: None,
            max_events: None,
            max_bytes: None,
            max_in_flight: 10_000,
            rate: None,
            key: KeyOptions::default(),
            done: Retention { age: Some(DAY), count: Some(100_000) },
            payload: Payload::Drop,
            dead: Retention { age: None, count: None },
            cancelled: Retention { age: Some(DAY * 30), count: None },
        }
    }
}

impl QueueOptions {
    /// Whether they make sense for this queue.
    pub(crate) fn check(&self, queue: &QueueName) -> Result<(), QueueError> {
        check_rate(self.rate, || format!("the rate of queue `{queue}`"))?;
        check_rate(self.key.rate, || format!("the rate of the keys of queue `{queue}`"))?;
        let positive = [("max_in_flight", self.max_in_flight), ("key.concurrency", self.key.concurrency)];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(QueueError::InvalidRequest(format!(
                "`{name}` of queue `{queue}` is 0: nothing would ever be handled; pause the queue instead"
            ))),
            None => Ok(()),
        }
    }
}

/// What entries with the same ordering key mean to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeyOptions {
    /// The CloudEvents attribute or extension whose value is the ordering key of an event that is published without
    /// one. Default: none.
    pub attribute: Option<String>,
    /// How many entries of one key may be handled at the same time. Default: 1, in order of publishing; more gives up
    /// the order. Where it has grown, those that wait already go when the next one of their key has ended.
    pub concurrency: u32,
    /// How fast entries of one key may be claimed. Default: no limit.
    pub rate: Option<Rate>,
    /// What a dead letter means for the entries behind it. Default: they go on.
    pub on_dead: OnDead,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self { attribute: None, concurrency: 1, rate: None, on_dead: OnDead::Continue }
    }
}

/// What a dead letter means for the entries of its key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDead {
    /// The next one is handled.
    #[default]
    Continue,
    /// They wait until the dead letter is redriven, purged or moved, or somebody frees the key.
    Hold,
}

/// What becomes of a done entry's data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// It goes with the ack.
    #[default]
    Drop,
    /// It stays as long as the entry does.
    Keep,
}

/// At most so many events in a second, on average; up to `burst` at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Events per second; more than 0.
    pub per_second: f64,
    /// How many may come at once; at least 1.
    pub burst: u32,
}

/// Whether a rate, if there is one, makes sense.
pub(super) fn check_rate(rate: Option<Rate>, what: impl FnOnce() -> String) -> Result<(), QueueError> {
    match rate {
        Some(Rate { per_second, burst }) if !(per_second.is_finite() && per_second > 0.0) || burst == 0 => {
            Err(QueueError::InvalidRequest(format!(
                "{}: a rate has more than 0 events a second and a burst of at least 1, not {per_second} and {burst}",
                what()
            )))
        }
        _ => Ok(()),
    }
}

/// What is kept of entries that have ended; whatever exceeds either limit goes, the first to end first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// For how long; `None`: for ever.
    pub age: Option<Duration>,
    /// How many; `None`: all.
    pub count: Option<u64>,
}
