//! What operators do, and transactions apart from deliveries.

use std::collections::HashSet;
use std::time::Duration;

use gristmill_core::{EntryId, QueueName, State, Timestamp};
use gristmill_queue::{
    Act, ActReply, Action, Filter, Operated, Operation, PauseIf, Queue, QueueError, ResumeIf, Selection, StateSnapshot,
    Transacted,
};
use rand::RngExt;

use super::buckets::Verdict;
use super::choices::{self, one};
use super::run::Run;
use super::world::{Item, Rank, World};

fn archive() -> QueueName {
    QueueName::new("archive").unwrap()
}

impl Run {
    pub(crate) async fn operate(&mut self) {
        let queue = self.any_queue();
        let exists = self.world.queues.contains_key(&queue);
        let operation = match self.random.random_range(0..40) {
            0..6 => Operation::Pause {
                queue: queue.clone(),
                reason: one(&mut self.random, &choices::REASONS).to_owned(),
                only_if: one(&mut self.random, &[PauseIf::Any, PauseIf::NotPaused]),
            },
            6..12 => {
                let reason = one(&mut self.random, &choices::REASONS).to_owned();
                let only_if = one(&mut self.random, &[ResumeIf::Any, ResumeIf::Reason(reason)]);
                Operation::Resume { queue: queue.clone(), only_if }
            }
            12 => Operation::Delete { queue: queue.clone() },
            13..16 => {
                Operation::FreeKey { queue: queue.clone(), key: one(&mut self.random, &["k0", "k1", "k2"]).to_owned() }
            }
            16 => return self.limit_bucket().await,
            17..30 => return self.act_on_entries().await,
            _ => return self.act_by_filter(queue).await,
        };
        self.note(format!("{operation:?}"));
        let reply = self.engine().operate(operation.clone()).await;
        if !exists {
            assert_eq!(reply, Err(QueueError::UnknownQueue(queue)));
            return;
        }
        let mut changed = 0;
        match operation {
            Operation::Pause { reason, only_if, .. } => {
                let line = self.world.line(&queue);
                if only_if == PauseIf::Any || line.paused.is_none() {
                    (line.paused, changed) = (Some(reason), 1);
                }
            }
            Operation::Resume { only_if, .. } => {
                let line = self.world.line(&queue);
                let is_met = match only_if {
                    ResumeIf::Any => true,
                    ResumeIf::Reason(reason) => line.paused == Some(reason),
                };
                if is_met {
                    (line.paused, changed) = (None, 1);
                }
            }
            Operation::Delete { .. } => {
                let gone: Vec<_> = self.world.items.values().filter(|item| item.queue == queue).cloned().collect();
                for item in &gone {
                    if let Some(lease) = &item.lease {
                        self.world.buckets.free(lease.token);
                    }
                    self.world.items.remove(&item.id);
                }
                changed = gone.len() as u64;
                self.world.queues.remove(&queue);
            }
            Operation::FreeKey { key, .. } => {
                let held = self.world.held_by(&queue, &key);
                changed = held.len() as u64;
                for id in held {
                    self.world.item(&id).holds = false;
                }
                self.world.let_go(&queue, Some(&key));
            }
            _ => {}
        }
        assert_eq!(reply, Ok(Operated { changed, replies: Vec::new() }));
    }

    async fn limit_bucket(&mut self) {
        let bucket = one(&mut self.random, &choices::BUCKETS).to_owned();
        let max_bytes = self.random.random_bool(0.5).then(|| self.random.random_range(0..60));
        self.note(format!("limit bucket {bucket} to {max_bytes:?}"));
        let operation = Operation::LimitBucket { bucket: bucket.clone(), max_bytes };
        self.engine().operate(operation).await.unwrap();
        match max_bytes {
            Some(max_bytes) => drop(self.world.buckets.limits.insert(bucket, max_bytes)),
            None => drop(self.world.buckets.limits.remove(&bucket)),
        }
    }

    fn any_action(&mut self) -> Action {
        one(
            &mut self.random,
            &[Action::Cancel, Action::Redrive, Action::Redrive, Action::Purge, Action::Move(archive())],
        )
    }

    async fn act_on_entries(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let action = self.any_action();
        let mut ids = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let fitting: Vec<_> = self.world.items.values().filter(|item| applies(&action, item)).collect();
            let fitting: Vec<_> = fitting.into_iter().map(|item| item.id.clone()).collect();
            let from = if fitting.is_empty() || self.random.random_bool(0.2) { &self.ids } else { &fitting };
            ids.push(one(&mut self.random, from));
        }
        self.note(format!("{action:?} {ids:?}"));
        let act = Act { action: action.clone(), on: Selection::Entries(ids.clone()), rate: None };
        let reply = self.engine().operate(Operation::Act(act)).await;
        if matches!(action, Action::Move(_)) && !self.world.queues.contains_key(&archive()) {
            assert_eq!(reply, Err(QueueError::UnknownQueue(archive())));
            return;
        }
        let operated = reply.unwrap();
        assert_eq!(operated.replies.len(), ids.len());
        let mut changed = 0;
        for (id, reply) in ids.into_iter().zip(operated.replies) {
            match self.world.items.get(&id) {
                None => assert_eq!(reply, ActReply::Unknown),
                Some(item) if !applies(&action, item) => assert_eq!(reply, ActReply::WrongState(item.state)),
                Some(_) => {
                    changed += 1;
                    match (&action, reply) {
                        (Action::Move(_), ActReply::Moved(new)) => self.moved(&id, &new),
                        (Action::Cancel | Action::Redrive | Action::Purge, ActReply::Done) => {
                            self.world.act(&action, &id)
                        }
                        (_, reply) => panic!("{action:?} {id}: {reply:?}"),
                    }
                }
            }
        }
        assert_eq!(operated.changed, changed);
    }

    fn moved(&mut self, old: &EntryId, new: &EntryId) {
        assert!(!self.ids.contains(new), "entry {new} was issued twice");
        self.ids.push(new.clone());
        self.world.move_to(old, new, &archive());
    }

    async fn act_by_filter(&mut self, queue: QueueName) {
        let action = self.any_action();
        let mut filter = Filter::all(queue.clone());
        let random = &mut self.random;
        let possible = action.applies_to();
        let is_move = matches!(action, Action::Move(_));
        if is_move || random.random_bool(0.3) {
            let count = if is_move { 1 } else { 2 };
            filter.states = (0..count).map(|_| one(random, possible)).collect();
            filter.states.dedup();
        }
        if random.random_bool(0.3) {
            filter.key = Some(one(random, &["k0", "k1"]).to_owned());
        }
        if random.random_bool(0.2) {
            filter.older_than = Some(Duration::from_secs(random.random_range(0..10)));
        }
        if random.random_bool(0.1) {
            filter.younger_than = Some(Duration::from_secs(random.random_range(0..10)));
        }
        if random.random_bool(0.1) {
            filter.reason = Some("because".to_owned());
        }
        if random.random_bool(0.1) {
            filter.version = Some("v1".to_owned());
        }
        if random.random_bool(0.15) {
            filter.outcomes = vec![gristmill_core::OutcomeKind::Reject, gristmill_core::OutcomeKind::Trap];
        }
        filter.limit = random.random_bool(0.3).then(|| random.random_range(0..5));
        if random.random_bool(0.3) {
            filter.types = vec![self.any_type()];
        }
        self.note(format!("{action:?} {filter:?}"));
        let act = Act { action: action.clone(), on: Selection::Where(filter.clone()), rate: None };
        let reply = self.engine().operate(Operation::Act(act)).await;
        if is_move && !self.world.queues.contains_key(&archive()) {
            assert_eq!(reply, Err(QueueError::UnknownQueue(archive())));
            return;
        }
        if !self.world.queues.contains_key(&queue) {
            assert_eq!(reply, Err(QueueError::UnknownQueue(queue)));
            return;
        }
        if is_move && queue == archive() {
            assert!(matches!(reply, Err(QueueError::InvalidRequest(_))), "{reply:?}");
            return;
        }
        let operated = reply.unwrap();
        let states = State::ALL
            .into_iter()
            .filter(|state| possible.contains(state) && (filter.states.is_empty() || filter.states.contains(state)));
        let matching = states.flat_map(|state| self.world.in_state(&queue, state));
        let matching: Vec<_> =
            matching.filter(|item| self.world.matches(&filter, item)).map(|item| item.id.clone()).collect();
        let expected = filter.limit.unwrap_or(u64::MAX).min(matching.len() as u64);
        assert_eq!(operated.changed, expected, "{matching:?}");
        let mut matching = self.changed(matching, expected).await;
        matching.sort_by_cached_key(|id| bulk_order(&self.world.items[id]));
        if is_move {
            self.find_moved(&matching).await;
        } else {
            for id in &matching {
                self.world.act(&action, id);
            }
            if action == Action::Cancel {
                // In which order keys were gone through is left open: as the list has it.
                for entry in self.list(&queue, State::Cancelled).await {
                    if matching.contains(&entry.id) {
                        let order = self.world.next_order();
                        self.world.item(&entry.id).order = order;
                    }
                }
            }
        }
    }

    /// So many of these were changed. Which of them, if not all, is left open.
    async fn changed(&self, matching: Vec<EntryId>, expected: u64) -> Vec<EntryId> {
        if expected == matching.len() as u64 {
            return matching;
        }
        let mut changed = Vec::new();
        for id in matching {
            let state = self.engine().get(id.clone()).await.unwrap().map(|entry| entry.state);
            // What an action makes way for may have moved up, from waiting to ready.
            let moved_up = (self.world.items[&id].state, state) == (State::Waiting, Some(State::Ready));
            if state != Some(self.world.items[&id].state) && !moved_up {
                changed.push(id);
            }
        }
        assert_eq!(changed.len() as u64, expected, "{changed:?}");
        changed
    }

    /// The answer does not name those that were moved by a filter.
    async fn find_moved(&mut self, matching: &[EntryId]) {
        let known: HashSet<_> = self.ids.iter().cloned().collect();
        let mut new = Vec::new();
        for state in State::ALL {
            new.extend(self.list(&archive(), state).await.into_iter().filter(|entry| !known.contains(&entry.id)));
        }
        let mut pairs = Vec::new();
        for old in matching {
            let event = &self.world.items[old].event;
            let at = new.iter().position(|entry| entry.event == *event).expect("it was moved");
            pairs.push((old.clone(), new.remove(at).id));
        }
        assert!(new.is_empty(), "more than that was moved: {new:?}");
        // In which order keys are gone through is left open: as the new ids tell.
        pairs.sort_by_cached_key(|(_, new)| issued(new));
        let waited = pairs.iter().any(|(old, _)| self.world.items[old].state == State::Waiting);
        assert!(waited || pairs.iter().map(|(old, _)| old).eq(matching), "{pairs:?}, expected {matching:?}");
        for (old, new) in &pairs {
            self.moved(old, new);
        }
    }

    pub(crate) async fn transact_set(&mut self, bucket: &str) {
        let transaction = choices::set(bucket, "first", "0");
        let reply = self.engine().transact(transaction.clone()).await.unwrap();
        assert_eq!(reply, Transacted::Committed(Vec::new()));
        self.world.buckets.apply(&transaction);
    }

    pub(crate) async fn transact(&mut self) {
        if self.random.random_bool(0.4) {
            let snapshot = self.engine().snapshot().await.unwrap();
            self.snapshots.push((snapshot, self.world.buckets.now()));
            if self.snapshots.len() > 4 {
                self.snapshots.remove(0);
            }
            return;
        }
        let (transaction, moment) = choices::transaction(self);
        self.note(format!("{transaction:?}"));
        let reply = self.engine().transact(transaction.clone()).await.unwrap();
        let expected = match self.world.buckets.check(&transaction, moment.as_ref(), None) {
            Verdict::Conflict => Transacted::Conflict,
            Verdict::Refused(error) => Transacted::Refused(error),
            Verdict::Committed(increments) => {
                self.world.buckets.apply(&transaction);
                Transacted::Committed(increments)
            }
        };
        assert_eq!(reply, expected);
    }
}

/// The number in an entry's id, so that it sorts: the digits do, if there are as many.
pub(crate) fn issued(id: &EntryId) -> (usize, String) {
    let number = id.as_str().split('-').nth(1).unwrap();
    (number.len(), number.to_owned())
}

/// In which order a filter's entries are done with, which the contract leaves open: what waits before that which it
/// waits for, and state by state in the order of lists.
fn bulk_order(item: &Item) -> (usize, u8, bool, Rank, Timestamp, u64) {
    let order = [State::Waiting, State::Scheduled, State::Ready, State::Done, State::Dead, State::Cancelled];
    let stage = order.iter().position(|state| *state == item.state).unwrap();
    let (priority, is_lost, rank) = match item.state {
        State::Ready => (u8::MAX - item.priority, item.rank == Rank::Lost, item.rank),
        _ => (0, false, Rank::Normal),
    };
    let due = if item.state == State::Scheduled { item.at } else { Timestamp::EPOCH };
    (stage, priority, is_lost, rank, due, item.order)
}

pub(crate) fn applies(action: &Action, item: &Item) -> bool {
    action.applies_to().contains(&item.state) && *action != Action::Move(item.queue.clone())
}

impl World {
    /// Cancels, redrives or purges.
    pub(crate) fn act(&mut self, action: &Action, id: &EntryId) {
        match action {
            Action::Cancel => self.end(id, State::Cancelled),
            Action::Purge => drop(self.forget(id)),
            Action::Redrive => {
                let (wall, item) = (self.wall, self.item(id));
                (item.attempts, item.forgiven, item.redriven_at) = (0, 0, Some(wall));
                let (queue, holds, key) = (item.queue.clone(), item.holds, item.key.clone());
                self.line(&queue).totals.redriven += 1;
                if holds {
                    self.make_ready(id, Rank::Normal);
                    self.let_go(&queue, key.as_deref());
                } else {
                    self.admit(id);
                }
            }
            Action::Move(_) => unreachable!("moved by its new id"),
        }
    }

    pub(crate) fn move_to(&mut self, old: &EntryId, new: &EntryId, to: &QueueName) {
        let item = self.forget(old);
        let was_dead = item.state == State::Dead;
        let (attempts, forgiven) = if was_dead { (0, 0) } else { (item.attempts, item.forgiven) };
        let redriven_at = if was_dead { Some(self.wall) } else { item.redriven_at };
        let (state, at) = (item.state, item.at);
        let was_claimed = !item.history.attempts().is_empty() || item.redriven_at.is_some();
        let dies_at = item.dies_at.filter(|_| !was_dead && !was_claimed);
        let (id, queue) = (new.clone(), to.clone());
        let item = Item { id, queue, attempts, forgiven, redriven_at, holds: false, ..item };
        self.items.insert(new.clone(), Item { state: State::Ready, ..item });
        match state {
            State::Scheduled => self.schedule(new, at),
            _ => self.admit(new),
        }
        let order = self.next_order();
        self.item(new).dies_at = dies_at.map(|(at, _)| (at, order));
        self.line(to).totals.published += 1;
    }

    fn matches(&self, filter: &Filter, item: &Item) -> bool {
        let last = item.history.last();
        let age = self.wall.since(item.at);
        let mut attempts = item.history.attempts().iter();
        let version = attempts.rfind(|attempt| attempt.outcome.is_attempt()).and_then(|last| last.version.as_ref());
        (filter.types.is_empty() || filter.types.iter().any(|pattern| pattern.matches(&item.event.ty)))
            && (filter.outcomes.is_empty() || last.is_some_and(|last| filter.outcomes.contains(&last.outcome)))
            && filter.reason.as_ref().is_none_or(|reason| {
                last.and_then(|last| last.reason.as_ref()).is_some_and(|text| text.contains(reason))
            })
            && filter.version.as_ref().is_none_or(|wanted| version == Some(wanted))
            && filter.key.as_ref().is_none_or(|key| item.key.as_ref() == Some(key))
            && filter.older_than.is_none_or(|limit| age >= limit)
            && filter.younger_than.is_none_or(|limit| age <= limit)
    }
}

/// What a snapshot sees is what the model saw then.
pub(crate) fn same_state(snapshot: &dyn StateSnapshot, moment: &super::buckets::Moment) {
    let mut seen = std::collections::BTreeMap::new();
    for bucket in snapshot.buckets().unwrap() {
        for key in snapshot.keys(&bucket, "", None, usize::MAX).unwrap() {
            let value = snapshot.get(&bucket, &key).unwrap().unwrap();
            seen.insert((bucket.clone(), key), value);
        }
    }
    assert_eq!(seen, moment.values);
}
