//! Everything that can be observed, compared.

use std::collections::BTreeSet;

use gristmill_core::{Attempt, History, OutcomeKind, QueueName, State};
use gristmill_queue::{Entry, KeyStats, List, ListKeys, Queue, QueueStats, Sample, SampleOf, Sampled, WhichKeys};
use rand::RngExt;

use super::choices::one;
use super::operations::{issued, same_state};
use super::run::Run;
use super::world::{Item, OriginName};

/// They agree in everything that the contract settles.
pub(crate) fn same_entry(entry: Entry, item: &Item) {
    assert_eq!(normal(entry), normal(item.entry()));
}

/// Without the words of those reasons that the engine words itself.
fn normal(entry: Entry) -> Entry {
    let mut history = History::default();
    for attempt in entry.history.attempts() {
        let own = matches!(attempt.outcome, OutcomeKind::TimeToLive | OutcomeKind::MaxAge);
        history.push(Attempt { reason: attempt.reason.clone().filter(|_| !own), ..attempt.clone() });
    }
    Entry { history, ..entry }
}

impl Run {
    /// Compares all lists in all states, stats, keys, state, and single entries.
    pub(crate) async fn compare(&mut self) {
        self.compare_stats().await;
        for queue in self.world.queues.keys().cloned().collect::<Vec<_>>() {
            for state in State::ALL {
                self.compare_list(&queue, state).await;
            }
            self.compare_keys(&queue).await;
            self.compare_samples(&queue).await;
        }
        for id in self.ids.iter().rev().take(20) {
            match (self.engine().get(id.clone()).await.unwrap(), self.world.items.get(id)) {
                (None, None) => {}
                (Some(entry), Some(item)) => same_entry(entry, item),
                (entry, item) => panic!("{id}: {entry:?}, expected {item:?}"),
            }
        }
        for (source, id) in self.events.iter().rev().take(10) {
            let origin = (OriginName::Id, source.clone(), id.clone());
            if self
                .world
                .origins
                .get(&origin)
                .is_some_and(|origin| origin.lapsed && origin.expires_at > self.world.wall)
            {
                continue;
            }
            let found = self.engine().find(source.clone(), id.clone()).await.unwrap();
            let found: BTreeSet<_> = found.into_iter().map(|entry| entry.id).collect();
            assert_eq!(found, self.world.found(source, id).into_iter().collect(), "find {source} {id}");
        }
        same_state(&*self.engine().snapshot().await.unwrap(), &self.world.buckets.now());
        for (snapshot, moment) in &self.snapshots {
            same_state(&**snapshot, moment);
        }
        assert_eq!(self.engine().counters().stale, self.world.stale);
    }

    async fn compare_stats(&mut self) {
        let stats = self.engine().stats().await.unwrap();
        let expected: Vec<_> = self.world.queues.keys().map(|queue| self.expected_stats(queue)).collect();
        let known = |mut stats: QueueStats| {
            if self.jumped_back {
                // Who has waited longest cannot be told by a clock that was set back.
                stats.oldest_ready = stats.oldest_ready.map(|_| std::time::Duration::ZERO);
            }
            stats
        };
        let (stats, expected): (Vec<_>, Vec<_>) =
            (stats.into_iter().map(known).collect(), expected.into_iter().map(known).collect());
        assert_eq!(stats, expected);
    }

    fn expected_stats(&self, queue: &QueueName) -> QueueStats {
        let line = &self.world.queues[queue];
        let count = |state| self.world.in_state(queue, state).len() as u64;
        let live = self.world.items.values().filter(|item| item.queue == *queue && !item.state.has_ended());
        let oldest = self.world.in_state(queue, State::Ready).into_iter().map(|item| item.at).min();
        QueueStats {
            queue: queue.clone(),
            paused: line.paused.clone(),
            scheduled: count(State::Scheduled),
            waiting: count(State::Waiting),
            ready: count(State::Ready),
            leased: count(State::Leased),
            done: count(State::Done),
            dead: count(State::Dead),
            cancelled: count(State::Cancelled),
            bytes: live.map(|item| self.world.size(&item.event)).sum(),
            oldest_ready: oldest.map(|at| self.world.wall.since(at)),
            next_due: self.world.in_state(queue, State::Scheduled).first().map(|item| item.at),
            totals: line.totals,
        }
    }

    /// A whole list, in pages.
    pub(crate) async fn list(&mut self, queue: &QueueName, state: State) -> Vec<Entry> {
        let limit = one(&mut self.looks, &[2, 3, 7, 1_000, 1_000, 1_000]);
        let mut entries = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.engine().list(List { limit, cursor, ..List::new(queue.clone(), state) }).await.unwrap();
            assert!(page.entries.len() <= limit);
            entries.extend(page.entries);
            cursor = page.next;
            if cursor.is_none() {
                return entries;
            }
        }
    }

    async fn compare_list(&mut self, queue: &QueueName, state: State) {
        let mut entries = self.list(queue, state).await;
        let mut expected = self.world.in_state(queue, state);
        if matches!(state, State::Ready | State::Waiting) {
            // Of these, the order holds within a key or a line, and claims tell it.
            entries.sort_by(|a, b| a.id.cmp(&b.id));
            expected.sort_by(|a, b| a.id.cmp(&b.id));
        }
        let ids: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        let expected_ids: Vec<_> = expected.iter().map(|item| item.id.clone()).collect();
        assert_eq!(ids, expected_ids, "{state} entries of {queue}");
        for (entry, item) in entries.into_iter().zip(expected) {
            same_entry(entry, item);
        }
    }

    /// The model keeps no log: what is in the queue, and of the done, those with data.
    async fn compare_samples(&mut self, queue: &QueueName) {
        let limit = one(&mut self.looks, &[1, 3, 1_000]);
        let items = self.world.items.values().filter(|item| item.queue == *queue && item.state != State::Cancelled);
        let items = items.filter(|item| item.state != State::Done || item.event.data.is_some());
        let mut last: Vec<_> = items.map(|item| item.id.clone()).collect();
        last.sort_by_cached_key(|id| std::cmp::Reverse(issued(id)));
        let mut dead: Vec<_> = self.world.in_state(queue, State::Dead).iter().map(|item| item.id.clone()).collect();
        dead.reverse();
        for (which, mut expected) in [(SampleOf::Last, last), (SampleOf::Dead, dead)] {
            expected.truncate(limit);
            let sampled = self.engine().sample(Sample { queue: queue.clone(), which, limit }).await.unwrap();
            let ids: Vec<_> = sampled.iter().map(|sampled| sampled.entry.as_ref().unwrap().id.clone()).collect();
            assert_eq!(ids, expected, "{which:?} of {queue}");
            for Sampled { event, published_at, entry } in sampled {
                let entry = entry.unwrap();
                let item = &self.world.items[&entry.id];
                assert_eq!((&event, published_at), (&item.event, item.enqueued_at));
                same_entry(entry, item);
            }
        }
    }

    async fn compare_keys(&mut self, queue: &QueueName) {
        let used = self.world.items.values().filter(|item| item.queue == *queue);
        let names: BTreeSet<_> = used.filter_map(|item| item.key.clone()).collect();
        let stats = names.into_iter().map(|key| {
            let busy = u32::try_from(self.world.busy(queue, &key)).unwrap();
            let waiting = self.world.waiting(queue, &key).len() as u64;
            KeyStats { busy, waiting, held_by: self.world.held_by(queue, &key), key }
        });
        let stats: Vec<_> = stats.filter(|key| key.busy > 0 || key.waiting > 0 || !key.held_by.is_empty()).collect();
        for which in [WhichKeys::Active, WhichKeys::Held] {
            let wanted = stats.iter().filter(|key| which == WhichKeys::Active || !key.held_by.is_empty());
            let wanted: Vec<_> = wanted.cloned().collect();
            let limit = self.looks.random_range(1..8);
            let mut keys = Vec::new();
            let mut cursor = None;
            loop {
                let request = ListKeys { which, limit, cursor, ..ListKeys::new(queue.clone()) };
                let page = self.engine().keys(request).await.unwrap();
                keys.extend(page.keys);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            keys.iter_mut().for_each(|key| key.held_by.sort());
            assert_eq!(keys, wanted, "{which:?} keys of {queue}");
        }
    }
}
