//! What a publish comes to.

use std::sync::Arc;

use gristmill_core::{EntryId, Event, History, QueueName, State, Timestamp};
use gristmill_queue::{Due, EntryRef, Limit, OnDuplicate, Publish, PublishError};

use super::world::{Item, Origin, OriginName, Rank, World};

/// For how long a publish is remembered.
pub(crate) const WINDOW: std::time::Duration = std::time::Duration::from_secs(60);

/// Which limits hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Published,
    Emitted,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It enters these queues, in this order.
    Enter(Vec<QueueName>),
    Existing(Vec<EntryRef>),
    Refused(PublishError),
}

impl World {
    pub(crate) fn decide(&self, publish: &Publish, admission: Admission) -> Decision {
        for (name, value) in [("ordering key", &publish.key), ("dedupe key", &publish.dedupe_key)] {
            if let Some(value) = value.as_ref().filter(|value| value.is_empty()) {
                return Decision::Refused(PublishError::InvalidKey { name, len: value.len() });
            }
        }
        let event = &publish.event;
        if publish.queues.is_empty() {
            let (ty, source_attribute) = (event.ty.clone(), event.source.clone());
            return Decision::Refused(PublishError::Unroutable { ty, source_attribute });
        }
        if let Some(unknown) = publish.queues.iter().find(|queue| !self.queues.contains_key(*queue)) {
            return Decision::Refused(PublishError::UnknownQueue(unknown.clone()));
        }
        if let Some(existing) = self.earlier(publish) {
            return match publish.on_duplicate {
                OnDuplicate::Refuse => Decision::Refused(PublishError::Duplicate(existing)),
                _ => Decision::Existing(existing),
            };
        }
        let mut targets: Vec<QueueName> = Vec::new();
        for queue in &publish.queues {
            if !targets.contains(queue) {
                targets.push(queue.clone());
            }
        }
        let full = targets.iter().filter(|_| admission == Admission::Published).find_map(|queue| {
            let options = &self.queues[queue].options;
            let live = || self.items.values().filter(|item| item.queue == *queue && !item.state.has_ended());
            let events = options.max_events.filter(|max| live().count() as u64 >= *max).map(Limit::Events);
            let bytes = live().map(|item| self.size(&item.event)).sum::<u64>() + self.size(event);
            let bytes = options.max_bytes.filter(|max| bytes > *max).map(Limit::Bytes);
            events.or(bytes).map(|limit| PublishError::Full { queue: queue.clone(), limit })
        });
        full.map_or(Decision::Enter(targets), Decision::Refused)
    }

    fn earlier(&self, publish: &Publish) -> Option<Vec<EntryRef>> {
        if publish.on_duplicate == OnDuplicate::Allow {
            return None;
        }
        let source = publish.event.source.clone();
        let name = match &publish.dedupe_key {
            Some(key) => (OriginName::DedupeKey, source, key.clone()),
            None => (OriginName::Id, source, publish.event.id.clone()),
        };
        let origin = self.origins.get(&name).filter(|origin| origin.expires_at > self.wall)?;
        let failed =
            |id: &EntryId| self.items.get(id).is_some_and(|item| matches!(item.state, State::Dead | State::Cancelled));
        if publish.on_duplicate == OnDuplicate::AllowAfterFailure && origin.entries.iter().any(|(.., id)| failed(id)) {
            return None;
        }
        Some(self.named(origin))
    }

    /// Entries of an earlier publish whose queues still exist.
    fn named(&self, origin: &Origin) -> Vec<EntryRef> {
        let exists = |(queue, born, _): &&(QueueName, u64, EntryId)| {
            self.queues.get(queue).is_some_and(|line| line.born == *born)
        };
        let refs = origin.entries.iter().filter(exists);
        refs.map(|(queue, _, entry)| EntryRef { queue: queue.clone(), entry: entry.clone() }).collect()
    }

    /// Whether an engine may have forgotten what this repeats, or not: the clock was set back to before its end.
    pub(crate) fn is_doubtful(&self, event: &Event, dedupe_key: Option<&str>) -> bool {
        let by_id = (OriginName::Id, event.source.clone(), event.id.clone());
        let by_key = dedupe_key.map(|key| (OriginName::DedupeKey, event.source.clone(), key.to_owned()));
        let origins = [Some(by_id), by_key].into_iter().flatten().filter_map(|name| self.origins.get(&name));
        origins.into_iter().any(|origin| origin.lapsed && origin.expires_at > self.wall)
    }

    /// What `find` answers.
    pub(crate) fn found(&self, source: &str, id: &str) -> Vec<EntryId> {
        let origin = self.origins.get(&(OriginName::Id, source.to_owned(), id.to_owned()));
        let refs = origin.filter(|origin| origin.expires_at > self.wall).map(|origin| self.named(origin));
        refs.into_iter().flatten().map(|found| found.entry).filter(|id| self.items.contains_key(id)).collect()
    }

    /// It repeats an earlier publish.
    pub(crate) fn repeated(&mut self, publish: &Publish) {
        let mut queues = publish.queues.clone();
        queues.sort();
        queues.dedup();
        for queue in queues {
            self.line(&queue).totals.duplicates += 1;
        }
    }

    /// It enters these queues, as these entries.
    pub(crate) fn enter(&mut self, publish: &Publish, entries: &[EntryRef]) {
        let wall = self.wall;
        let due = match publish.due {
            Due::Now => None,
            Due::After(delay) => Some(wall.after(delay)),
            Due::At(at) => Some(at).filter(|at| *at > wall),
        };
        let mut remembered = Vec::new();
        for EntryRef { queue, entry } in entries {
            let line = self.line(queue);
            line.totals.published += 1;
            let from_attribute = || publish.event.attribute(line.options.key.attribute.as_deref()?).map(str::to_owned);
            let key = publish.key.clone().or_else(from_attribute);
            let time_to_live = publish.time_to_live.or(line.options.time_to_live);
            remembered.push((queue.clone(), line.born, entry.clone()));
            self.add(entry, queue, publish.priority, key, publish);
            match due {
                None => self.admit(entry),
                Some(at) => self.schedule(entry, at),
            }
            if let Some(time_to_live) = time_to_live {
                let order = self.next_order();
                self.item(entry).dies_at = Some((wall.after(time_to_live), order));
            }
        }
        let origin = Origin { expires_at: wall.after(WINDOW), entries: remembered, lapsed: false };
        let source = publish.event.source.clone();
        if let Some(key) = &publish.dedupe_key {
            self.origins.insert((OriginName::DedupeKey, source.clone(), key.clone()), origin.clone());
        }
        self.origins.insert((OriginName::Id, source, publish.event.id.clone()), origin);
    }

    fn add(&mut self, id: &EntryId, queue: &QueueName, priority: u8, key: Option<String>, publish: &Publish) {
        let item = Item {
            id: id.clone(),
            queue: queue.clone(),
            state: State::Ready,
            priority,
            key,
            attempts: 0,
            forgiven: 0,
            enqueued_at: self.wall,
            at: Timestamp::EPOCH,
            event: Arc::clone(&publish.event),
            history: History::default(),
            result: None,
            redriven_at: None,
            holds: false,
            order: 0,
            rank: Rank::Normal,
            dies_at: None,
            lease: None,
        };
        assert!(self.items.insert(id.clone(), item).is_none(), "entry {id} exists already");
    }
}
