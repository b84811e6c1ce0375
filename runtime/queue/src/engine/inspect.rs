//! Looking: stats, keys, lists and single entries, on a snapshot and outside the writer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use gristmill_core::{EntryId, Event, QueueName, Timestamp};

use super::body;
use super::entry::{EntryRecord, shared_key};
use super::ids::EntryKey;
use super::keys::{
    DueKey, Family, Key, Meta, OriginKind, QueueId, ReadyKey, after_prefix, decode_named_key, named_key, origin_key,
};
use super::page::{self, MAX_EXAMINED, Wanted, due_cursor, lanes, line_range};
use super::read::{Found, StoredCursors, Whereabouts, find};
use super::records::{KeyRecord, OriginRecord, QueueRecord, Record};
use super::store::{Still, for_each, try_scan};
use crate::contract::{Entry, KeyPage, KeyStats, List, ListKeys, Page, QueueError, QueueStats, WhichKeys};

/// Reads what one store knows.
pub(crate) struct Reading<'a> {
    pub(crate) view: &'a dyn Still,
    pub(crate) salt: u32,
    pub(crate) now: Timestamp,
}

impl Reading<'_> {
    /// Counts of every queue.
    pub(crate) fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        let due = self.next_due()?;
        let mut stats = Vec::new();
        for (id, record) in self.queues()? {
            let oldest = self.oldest_ready(id)?;
            stats.push(QueueStats {
                queue: name(&record)?,
                paused: record.paused.clone(),
                scheduled: record.counts.scheduled,
                waiting: record.counts.waiting,
                ready: record.counts.ready,
                leased: record.counts.leased,
                done: record.counts.done,
                dead: record.counts.dead,
                cancelled: record.counts.cancelled,
                bytes: record.counts.bytes,
                oldest_ready: oldest.map(|since| self.now.since(since)),
                next_due: due.get(&id).copied(),
                totals: record.totals(),
            });
        }
        stats.sort_by(|a, b| a.queue.cmp(&b.queue));
        Ok(stats)
    }

    /// One entry.
    pub(crate) fn get(&self, id: &EntryId) -> Result<Option<Entry>, QueueError> {
        match EntryKey::parse(id, self.salt) {
            Some(key) => self.look(&self.queues()?, key),
            None => Ok(None),
        }
    }

    /// The entries of a publish.
    pub(crate) fn find(&self, source: &str, id: &str) -> Result<Vec<Entry>, QueueError> {
        let key = origin_key(OriginKind::Id, source, id);
        let Some(bytes) = self.view.get(Family::Origin, &key)? else { return Ok(Vec::new()) };
        let origin = OriginRecord::decode(&bytes)?;
        if origin.expires_at <= self.now {
            return Ok(Vec::new());
        }
        let queues = self.queues()?;
        let entries = origin.entries.into_iter().filter_map(|key| self.look(&queues, key).transpose());
        entries.collect()
    }

    /// A page of entries.
    pub(crate) fn list(&self, request: &List) -> Result<Page, QueueError> {
        let (id, record) = self.queue(&request.queue)?;
        let after = request.cursor.as_deref().map(decode_cursor).transpose()?;
        let wanted = Wanted { queue: id, state: request.state, limit: request.limit, after, from: record.from };
        let part = page::page(self.view, &StoredCursors(self.view), &wanted)?;
        let entries = part.found.into_iter().map(|found| self.entry(found, &request.queue));
        Ok(Page { entries: entries.collect::<Result<_, _>>()?, next: part.next.as_deref().map(encode_cursor) })
    }

    /// A page of ordering keys.
    pub(crate) fn keys(&self, request: &ListKeys) -> Result<KeyPage, QueueError> {
        let (id, _) = self.queue(&request.queue)?;
        let mut from = named_key(id, "");
        if let Some(cursor) = &request.cursor {
            from = decode_cursor(cursor)?.max(from);
            from.push(0);
        }
        let mut keys = Vec::new();
        let mut last: Option<Key> = None;
        let mut more = false;
        let mut examined = 0;
        try_scan(self.view, Family::Key, &from, &after_prefix(&id.to_be_bytes()), |key, value| {
            if keys.len() >= request.limit || examined >= MAX_EXAMINED {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            examined += 1;
            last = Some(Key::from_slice(key));
            let stats = self.key_stats(key, value)?;
            let active = stats.busy > 0 || stats.waiting > 0 || !stats.held_by.is_empty();
            let wanted = match request.which {
                WhichKeys::Active => active,
                WhichKeys::Held => !stats.held_by.is_empty(),
            };
            keys.extend(wanted.then_some(stats));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(KeyPage { keys, next: last.filter(|_| more).map(|key| encode_cursor(&key)) })
    }

    fn key_stats(&self, key: &[u8], value: &[u8]) -> Result<KeyStats, QueueError> {
        let (_, name) = decode_named_key(key)?;
        let record = KeyRecord::decode(value)?;
        let held_by = record.held_by.into_iter().map(|entry| entry.id(self.salt)).collect();
        Ok(KeyStats { key: name.to_owned(), busy: record.busy, waiting: record.waiting, held_by })
    }

    pub(super) fn queue(&self, name: &QueueName) -> Result<(QueueId, QueueRecord), QueueError> {
        let found = self.queues()?.into_iter().find(|(_, record)| record.name == name.as_str());
        found.ok_or_else(|| QueueError::UnknownQueue(name.clone()))
    }

    /// Queues that are not being deleted.
    fn queues(&self) -> Result<BTreeMap<QueueId, QueueRecord>, QueueError> {
        let mut queues = BTreeMap::new();
        for_each(self.view, Family::Meta, &Meta::Queue(0).kind(), |key, value| {
            if let Meta::Queue(id) = Meta::decode(key)? {
                let record = QueueRecord::decode(value)?;
                if !record.deleting {
                    queues.insert(id, record);
                }
            }
            Ok(())
        })?;
        Ok(queues)
    }

    fn oldest_ready(&self, queue: QueueId) -> Result<Option<Timestamp>, QueueError> {
        let mut oldest: Option<Timestamp> = None;
        for (line, lane) in lanes(self.view, queue)? {
            if lane.ready == 0 {
                continue;
            }
            let (from, to) = line_range(line, lane.cursor);
            let mut first = None;
            self.view.scan(Family::Ready, &from, &to, &mut |key, value| {
                first = ReadyKey::decode(key).ok().map(|_| bytes::Bytes::copy_from_slice(value));
                ControlFlow::Break(())
            })?;
            if let Some(record) = first.and_then(|value| EntryRecord::decode(value).ok()) {
                oldest = Some(oldest.map_or(record.at, |known| known.min(record.at)));
            }
        }
        Ok(oldest)
    }

    fn next_due(&self) -> Result<BTreeMap<QueueId, Timestamp>, QueueError> {
        let mut due = BTreeMap::new();
        let mut examined = 0;
        self.view.scan(Family::Due, &due_cursor(self.view)?, &[], &mut |key, value| {
            // The first byte tells entries from timers.
            if let (Ok(key), Some(0)) = (DueKey::decode(key), value.first()) {
                due.entry(key.queue).or_insert(key.time);
            }
            examined += 1;
            if examined < MAX_EXAMINED { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(due)
    }

    fn look(&self, queues: &BTreeMap<QueueId, QueueRecord>, key: EntryKey) -> Result<Option<Entry>, QueueError> {
        let Some(record) = queues.get(&key.queue) else { return Ok(None) };
        let Some(mut found) = find(self.view, &StoredCursors(self.view), key)? else { return Ok(None) };
        if let Whereabouts::Leased(key) = found.at
            && let Some(claimed_at) = page::claimed_at(self.view, key)?
        {
            found.record.at = claimed_at;
        }
        self.entry(found, &name(record)?).map(Some)
    }

    pub(super) fn entry(&self, found: Found, name: &QueueName) -> Result<Entry, QueueError> {
        let id = found.key().id(self.salt);
        let body = body::load(self.view, &found.record.event).unwrap_or_else(|error| {
            tracing::error!(entry = %id, %error, "an entry's data cannot be read");
            None
        });
        Ok(Entry {
            id,
            queue: name.clone(),
            state: found.at.state(),
            priority: found.record.priority,
            key: shared_key(found.record.key()),
            attempts: found.attempts(),
            enqueued_at: found.record.enqueued_at,
            at: found.record.at,
            event: Arc::new(found.record.event.decode(body).unwrap_or_else(|_| unreadable())),
            postmortem: found.past.postmortem,
            history: found.past.history,
            result: found.result,
        })
    }
}

/// Stands for an event whose record is damaged, so that its entry can still be looked at.
fn unreadable() -> Event {
    Event::new("unreadable", "/gristmill/unreadable", "gristmill.unreadable")
}

fn name(record: &QueueRecord) -> Result<QueueName, QueueError> {
    QueueName::new(&record.name).map_err(|error| QueueError::Corrupt(error.to_string()))
}

pub(crate) fn encode_cursor(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn decode_cursor(text: &str) -> Result<Key, QueueError> {
    let bad = || QueueError::InvalidRequest("the cursor is not one that a list returned as `next`".to_owned());
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || text.len() > 4_096 || text.is_empty() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let bytes = pairs.map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    bytes.collect::<Option<Key>>().ok_or_else(bad)
}
