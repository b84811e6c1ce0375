//! Transitions into a queue: publish, and the events that an ack emits.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gristmill_core::QueueName;
use smallvec::SmallVec;

use super::Now;
use super::body;
use super::entry::{Draft, EntryRecord};
use super::ids::EntryKey;
use super::keys::{Family, Key, QueueId};
use super::log::{self, Logged};
use super::moves::{self, InHand};
use super::read;
use super::records::OriginRecord;
use super::state::State;
use super::store::{Space, Tx, View};
use crate::contract::{Due, EntryRef, Limit, OnDuplicate, PublishError, PublishStatus, QueueError};

/// An event that was validated and encoded outside the writer.
pub(crate) struct Prepared {
    /// With the ordering key of the first target.
    pub(crate) draft: Draft,
    /// Data that lives apart.
    pub(crate) body: Option<Bytes>,
    pub(crate) targets: SmallVec<[Target; 1]>,
    pub(crate) due: Due,
    pub(crate) priority: u8,
    /// The ordering key that the publisher asked for.
    pub(crate) key: Option<String>,
    pub(crate) time_to_live: Option<Duration>,
    /// `None`: nothing is remembered.
    pub(crate) origin: Option<Origin>,
    pub(crate) on_duplicate: OnDuplicate,
}

/// A queue that an event goes to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) queue: QueueName,
    pub(crate) key: Option<Arc<str>>,
}

/// Under which names a publish is remembered.
pub(crate) struct Origin {
    pub(crate) id: Key,
    /// Takes the place of the id where duplicates are looked for.
    pub(crate) dedupe: Option<Key>,
}

/// Which limits hold for what comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// All of them.
    Published(Option<Space>),
    /// None: a handler must not lock itself out.
    Emitted,
}

/// What a publish would do.
pub(crate) enum Decision {
    Enter(Targets),
    Existing(Keys),
}

/// Most events go to one queue.
type Targets = SmallVec<[Entering; 1]>;
type Keys = SmallVec<[EntryKey; 2]>;

/// An event that is in its queues, by this publish or an earlier one.
pub(crate) struct Stored {
    pub(crate) status: PublishStatus,
    pub(crate) entries: Keys,
}

/// A queue that is entered.
pub(crate) struct Entering {
    id: QueueId,
    key: Option<Arc<str>>,
    time_to_live: Option<Duration>,
}

/// Puts the event into all of its queues, or refuses it.
pub(crate) fn publish(
    state: &mut State,
    tx: &mut Tx<'_>,
    event: Prepared,
    admission: Admission,
    now: Now,
) -> Result<Result<Stored, PublishError>, QueueError> {
    match decide(state, tx, &event, admission, now)? {
        Err(refused) => Ok(Err(refused)),
        Ok(Decision::Existing(entries)) => {
            for target in targets(state, &event).into_iter().flatten() {
                state.queue_mut(target.id)?.totals.duplicates += 1;
            }
            Ok(Ok(Stored { status: PublishStatus::Duplicate, entries }))
        }
        Ok(Decision::Enter(targets)) => {
            let entries = enter(state, tx, event, targets, now)?;
            Ok(Ok(Stored { status: PublishStatus::Accepted, entries }))
        }
    }
}

/// Whether the event would be accepted; changes nothing.
pub(crate) fn decide(
    state: &State,
    tx: &Tx<'_>,
    event: &Prepared,
    admission: Admission,
    now: Now,
) -> Result<Result<Decision, PublishError>, QueueError> {
    let targets = match targets(state, event) {
        Ok(targets) => targets,
        Err(refused) => return Ok(Err(refused)),
    };
    if let Some(existing) = existing(state, tx, event, now)? {
        return Ok(match event.on_duplicate {
            OnDuplicate::Refuse => Err(PublishError::Duplicate(named(state, &existing)?)),
            _ => Ok(Decision::Existing(existing)),
        });
    }
    if let Admission::Published(space) = admission {
        if let Some(space) = space.filter(|space| space.is_low()) {
            return Ok(Err(PublishError::DiskFull { available: space.available, reserve: space.reserve }));
        }
        let size = event.draft.size();
        for target in &targets {
            if let Some(limit) = exceeded(state, target.id, size)? {
                return Ok(Err(PublishError::Full { queue: state.queue(target.id)?.name.clone(), limit }));
            }
        }
    }
    // A number for each entry, two for timers and keys, and some for the body and the log.
    if state.numbers_left() < targets.len() as u64 * 4 + 4 {
        return Err(QueueError::InvalidRequest("too many events at once: publish smaller batches".to_owned()));
    }
    Ok(Ok(Decision::Enter(targets)))
}

fn targets(state: &State, event: &Prepared) -> Result<Targets, PublishError> {
    let mut targets = Targets::with_capacity(event.targets.len());
    for target in &event.targets {
        let unknown = |_| PublishError::UnknownQueue(target.queue.clone());
        let id = state.queue_id(&target.queue).map_err(unknown)?;
        if targets.iter().all(|known| known.id != id) {
            let options = &state.queue(id).map_err(unknown)?.options;
            let time_to_live = event.time_to_live.or(options.time_to_live);
            targets.push(Entering { id, key: target.key.clone(), time_to_live });
        }
    }
    Ok(targets)
}

/// The entries of an earlier publish that stands in the way of this one.
fn existing(state: &State, tx: &Tx<'_>, event: &Prepared, now: Now) -> Result<Option<Keys>, QueueError> {
    let Some(origin) = event.origin.as_ref().filter(|_| event.on_duplicate != OnDuplicate::Allow) else {
        return Ok(None);
    };
    let key = origin.dedupe.as_ref().unwrap_or(&origin.id);
    let Some(bytes) = tx.get(Family::Origin, key)? else { return Ok(None) };
    let origin = match OriginRecord::decode(&bytes) {
        Ok(origin) => origin,
        Err(error) => {
            tracing::error!(%error, "the memory of an earlier publish cannot be read; this one counts as new");
            return Ok(None);
        }
    };
    if origin.expires_at <= now.wall {
        return Ok(None);
    }
    let mut entries = Keys::new();
    for entry in origin.entries {
        if event.on_duplicate == OnDuplicate::AllowAfterFailure && has_failed(state, tx, entry)? {
            return Ok(None);
        }
        // A queue that was deleted since has no entries any more.
        if state.queues.get(&entry.queue).is_some_and(|queue| !queue.deleting) {
            entries.push(entry);
        }
    }
    Ok(Some(entries))
}

fn named(state: &State, entries: &[EntryKey]) -> Result<Vec<EntryRef>, QueueError> {
    let name =
        |key: &EntryKey| Ok(EntryRef { queue: state.queue(key.queue)?.name.clone(), entry: state.entry_id(*key) });
    entries.iter().map(name).collect()
}

fn has_failed(state: &State, tx: &Tx<'_>, entry: EntryKey) -> Result<bool, QueueError> {
    use gristmill_core::State::{Cancelled, Dead};
    let found = match read::find(tx, state, entry) {
        // One that cannot be read has not failed, as far as anybody knows.
        Err(QueueError::Corrupt(_)) => None,
        found => found?,
    };
    Ok(found.is_some_and(|found| matches!(found.at.state(), Dead | Cancelled)))
}

fn exceeded(state: &State, queue: QueueId, size: u64) -> Result<Option<Limit>, QueueError> {
    let queue = state.queue(queue)?;
    let (events, bytes) = (queue.counts.live(), queue.counts.bytes);
    let events = queue.options.max_events.filter(|max| events >= *max).map(Limit::Events);
    let bytes = queue.options.max_bytes.filter(|max| bytes.saturating_add(size) > *max).map(Limit::Bytes);
    Ok(events.or(bytes))
}

fn enter(state: &mut State, tx: &mut Tx<'_>, event: Prepared, targets: Targets, now: Now) -> Result<Keys, QueueError> {
    let due = match event.due {
        Due::Now => None,
        Due::After(delay) => Some(now.wall.after(delay)),
        Due::At(time) => Some(time).filter(|time| *time > now.wall),
    };
    let (mut draft, mut stored) = (Some(event.draft), None);
    let references = targets.len() as u64;
    let mut keys = Keys::with_capacity(targets.len());
    for target in targets {
        let number = state.next_number()?;
        let dies_at = target.time_to_live.map(|time_to_live| now.wall.after(time_to_live));
        let hand = match (draft.take(), &stored) {
            (Some(draft), _) => {
                let (mut record, encoded) = draft.finish(number, event.priority, (now.wall, dies_at));
                let mut encoded = Some(encoded);
                if let Some(data) = &event.body {
                    record.event = record.event.with_body(body::add(state, tx, data.clone(), references)?)?;
                    encoded = None;
                }
                stored = Some(record.event.clone());
                InHand::drafted(target.id, record, encoded)
            }
            (None, Some(stored)) => {
                let key = target.key.as_deref();
                let record = EntryRecord::new(number, event.priority, now.wall, key, stored.clone());
                InHand::new(target.id, EntryRecord { dies_at, ..record })
            }
            (None, None) => break,
        };
        keys.push(moves::enter(state, tx, hand, due, now)?);
    }
    if let Some(origin) = event.origin {
        remember(state, tx, origin, &keys, now);
    }
    if let Some(stored) = stored.filter(|_| state.settings.log_retention.is_some()) {
        let queues = keys.iter().map(|key| key.queue).collect();
        let logged = Logged { event: &stored, priority: event.priority, key: event.key.as_deref(), queues };
        log::append(state, tx, logged, now)?;
    }
    Ok(keys)
}

fn remember(state: &State, tx: &mut Tx<'_>, origin: Origin, entries: &[EntryKey], now: Now) {
    let expires_at = now.wall.after(state.settings.idempotency_window);
    let record =
        tx.put_with(Family::Origin, origin.id, 32, |bytes| OriginRecord::encode_into(expires_at, entries, bytes));
    if let Some(dedupe) = origin.dedupe {
        tx.put(Family::Origin, dedupe, record);
    }
}
