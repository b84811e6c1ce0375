//! Publishing, claiming, settling, extending, waiting: each command to both, and their answers compared.

use std::time::Duration;

use bytes::Bytes;
use gristmill_core::{EntryId, Outcome, QueueName, State};
use gristmill_queue::{
    Accepted, Acked, Claim, Confirm, Delivery, EntryRef, Extend, ExtendReply, Holder, LeaseToken, OnDuplicate, Publish,
    PublishStatus, Queue, QueueError, Settle, SettleReply, Then, Waited,
};
use rand::RngExt;

use super::buckets::{Moment, Verdict};
use super::choices::{self, one};
use super::observation::same_entry;
use super::publishing::{Admission, Decision};
use super::run::{Run, name_of};
use super::world::Lease;

impl Run {
    pub(crate) async fn publish(&mut self) {
        let count = one(&mut self.random, &[1, 1, 2, 5]);
        let batch: Vec<_> = (0..count).map(|_| choices::publish(self)).collect();
        self.note(format!("publish {:#?}", batch.iter().map(choices::brief).collect::<Vec<_>>()));
        let replies = self.engine().publish(batch.clone()).await.unwrap().results;
        assert_eq!(replies.len(), batch.len());
        for (publish, reply) in batch.into_iter().zip(replies) {
            match self.world.decide(&publish, Admission::Published) {
                Decision::Refused(error) => assert_eq!(reply, Err(error)),
                Decision::Existing(entries) => {
                    let mut accepted = reply.expect("a duplicate");
                    sort(&mut accepted.entries);
                    let mut entries = entries;
                    sort(&mut entries);
                    assert_eq!(accepted, Accepted { status: PublishStatus::Duplicate, entries });
                    self.world.repeated(&publish);
                }
                Decision::Enter(queues) => {
                    let accepted = reply.expect("it is accepted");
                    assert_eq!(accepted.status, PublishStatus::Accepted);
                    let named: Vec<_> = accepted.entries.iter().map(|entry| entry.queue.clone()).collect();
                    assert_eq!(named, queues);
                    self.entered(&publish, accepted.entries.into_iter().map(|e| (e.queue, e.entry)).collect());
                }
            }
        }
    }

    /// It has made these entries.
    pub(crate) fn entered(&mut self, publish: &Publish, entries: Vec<(QueueName, EntryId)>) {
        for (_, id) in &entries {
            assert!(!self.ids.contains(id), "entry {id} was issued twice");
            self.ids.push(id.clone());
        }
        let entries: Vec<_> = entries.into_iter().map(|(queue, entry)| EntryRef { queue, entry }).collect();
        self.world.enter(publish, &entries);
    }

    pub(crate) async fn claim(&mut self) {
        let queue = self.any_queue();
        let mut claim = Claim::new(queue.clone(), one(&mut self.random, &[1, 1, 2, 3, 10]));
        if self.random.random_bool(0.3) {
            claim.types = (0..self.random.random_range(1..3)).map(|_| self.any_type()).collect();
        }
        claim.lease = self.random.random_bool(0.5).then(|| Duration::from_secs(self.random.random_range(1..20)));
        claim.holder = one(&mut self.random, &[Holder::Process, Holder::Process, Holder::Outside]);
        claim.then = one(&mut self.random, &[Then::Lease, Then::Lease, Then::Lease, Then::Lease, Then::Ack]);
        claim.through = self.random.random_bool(0.3).then(|| one(&mut self.random, &choices::REASONS).to_owned());
        self.note(format!("{claim:?}"));
        let reply = self.engine().claim(claim.clone()).await;
        if !self.world.queues.contains_key(&queue) {
            assert_eq!(reply, Err(QueueError::UnknownQueue(queue)));
            return;
        }
        let claimed = reply.unwrap();
        let expected = self.world.claimable(&claim);
        let ids: Vec<_> = claimed.iter().map(|delivery| delivery.entry.clone()).collect();
        assert_eq!(ids, expected, "claimed, expected");
        for delivery in claimed {
            self.claimed(&claim, delivery);
        }
    }

    pub(crate) fn claimed(&mut self, claim: &Claim, delivery: Delivery) {
        let LeaseToken { delivery: number, .. } = delivery.lease;
        assert!(self.deliveries.insert(number), "delivery {number} was issued twice");
        self.tokens.push(delivery.lease);
        let options = self.world.queues[&claim.queue].options.clone();
        let (wall, monotonic) = (self.world.wall, self.world.monotonic);
        let lease_for = claim.lease.unwrap_or(options.lease);
        self.world.line(&claim.queue).pace.spend(options.rate, monotonic);
        let order = self.world.next_order();
        let item = self.world.item(&delivery.entry);
        let attempt = item.attempts + 1;
        let expected = Delivery {
            lease: delivery.lease,
            lease_for: if claim.then == Then::Ack { Duration::ZERO } else { lease_for },
            entry: item.id.clone(),
            queue: item.queue.clone(),
            attempt,
            forgiven: item.forgiven,
            max_attempts: options.retry.max_attempts,
            enqueued_at: item.enqueued_at,
            key: item.key.as_deref().map(Into::into),
            event: item.event.clone(),
        };
        assert_eq!(delivery, expected);
        let alone = item.rank == super::world::Rank::Lost;
        (item.state, item.order) = (State::Leased, order);
        item.lease = Some(Lease {
            token: delivery.lease,
            holder: claim.holder,
            attempt,
            claimed_at: wall,
            deadline: monotonic.after(lease_for),
            wall_deadline: wall.after(lease_for),
            conflicts: 0,
            alone,
        });
        if claim.then == Then::Ack {
            self.world.conclude(&delivery.entry, &Outcome::Ack { result: None }, None);
        }
    }

    /// A token that is held, or was, or never.
    fn any_token(&mut self) -> Option<LeaseToken> {
        let held: Vec<_> = self.world.leased().map(|(_, lease)| lease.token).collect();
        match self.random.random_range(0..20) {
            0 => (!self.tokens.is_empty()).then(|| one(&mut self.random, &self.tokens)),
            1 => self.tokens.last().map(|token| LeaseToken { delivery: token.delivery + (1 << 40), ..*token }),
            2 => self.tokens.last().map(|token| LeaseToken { incarnation: token.incarnation + 100, ..*token }),
            _ => (!held.is_empty()).then(|| one(&mut self.random, &held)),
        }
    }

    fn was_issued(&self, token: LeaseToken) -> bool {
        self.tokens.contains(&token)
    }

    pub(crate) async fn settle(&mut self) {
        let mut batch: Vec<(Settle, Option<Moment>)> = Vec::new();
        for _ in 0..one(&mut self.random, &[1, 1, 1, 2, 3]) {
            let Some(token) = self.any_token() else { return };
            let mut settle = Settle::new(token, choices::outcome(&mut self.random));
            settle.version = self.random.random_bool(0.3).then(|| "v1".to_owned());
            if !matches!(settle.outcome, Outcome::Ack { .. } | Outcome::Released) && self.random.random_bool(0.3) {
                settle.forgive = Some(Duration::from_secs(self.random.random_range(0..3)));
            }
            let mut moment = None;
            if self.random.random_bool(0.3) {
                let (transaction, at) = choices::transaction(self);
                (settle.transaction, moment) = (Some(transaction), at);
            }
            if matches!(settle.outcome, Outcome::Ack { .. }) {
                for _ in 0..one(&mut self.random, &[0, 0, 1, 3]) {
                    let Some(lease) = self.any_token() else { break };
                    let is_new = lease != settle.lease && settle.with.iter().all(|other| other.lease != lease);
                    let result = self.random.random_bool(0.5).then(|| Bytes::from_static(b"with others"));
                    settle.with.extend(is_new.then_some(Acked { lease, result }));
                }
            }
            for _ in 0..one(&mut self.random, &[0, 0, 0, 1, 2]) {
                let mut emit = choices::publish(self);
                if self.world.is_doubtful(&emit.event, emit.dedupe_key.as_deref()) {
                    continue;
                }
                if emit.on_duplicate == OnDuplicate::Allow {
                    // Two of one name could not be told apart.
                    emit.on_duplicate = OnDuplicate::ReturnExisting;
                }
                let mut emitted = batch.iter().flat_map(|(settle, _)| &settle.emits).chain(&settle.emits);
                if emitted.any(|other| name_of(&other.event) == name_of(&emit.event)) {
                    // Nor could these, if the key made it another publish.
                    emit.dedupe_key = None;
                }
                settle.emits.push(emit);
            }
            batch.push((settle, moment));
        }
        for (settle, _) in &batch {
            let emits: Vec<_> = settle.emits.iter().map(choices::brief).collect();
            let Settle { lease, outcome, version, forgive, transaction, with, .. } = settle;
            self.note(format!(
                "settle {lease:?} {outcome:?} by {version:?}, forgiven {forgive:?}, {emits:#?}, {transaction:?}, with {with:?}"
            ));
        }
        let confirm = one(&mut self.random, &[Confirm::Committed, Confirm::Durable]);
        let requests = batch.iter().map(|(settle, _)| settle.clone()).collect();
        let replies = self.engine().settle(requests, confirm).await.unwrap();
        assert_eq!(replies.len(), batch.len());
        for ((settle, moment), reply) in batch.into_iter().zip(replies) {
            self.settled(settle, moment.as_ref(), reply).await;
        }
    }

    async fn settled(&mut self, settle: Settle, moment: Option<&Moment>, reply: SettleReply) {
        let leases = [settle.lease].into_iter().chain(settle.with.iter().map(|other| other.lease));
        let mut holders = Vec::new();
        for lease in leases {
            let Some(id) = self.world.holder_of(lease) else {
                let stale = self.was_issued(lease);
                assert_eq!(reply, if stale { SettleReply::StaleLease } else { SettleReply::Unknown });
                self.world.stale += 1;
                return;
            };
            holders.push(id);
        }
        let (id, others) = (holders.remove(0), holders);
        if !matches!(settle.outcome, Outcome::Ack { .. }) {
            let disposition = self.world.settle(&id, &settle.outcome, settle.version, settle.forgive);
            assert_eq!(reply, SettleReply::Settled(disposition));
            return;
        }
        let emits: Vec<_> = settle.emits.into_iter().filter(|emit| !emit.queues.is_empty()).collect();
        // What is wrong with an event itself is found before anything else.
        let refusals = emits.iter().filter_map(|emit| match self.world.decide(emit, Admission::Emitted) {
            Decision::Refused(error) => Some(error),
            _ => None,
        });
        let mut refusals: Vec<_> = refusals.collect();
        refusals.sort_by_key(|error| !matches!(error, gristmill_queue::PublishError::InvalidKey { .. }));
        if let Some(error) = refusals.into_iter().next() {
            assert_eq!(reply, SettleReply::Refused(error));
            return;
        }
        if let Some(transaction) = &settle.transaction {
            match self.world.buckets.check(transaction, moment, Some(settle.lease)) {
                Verdict::Conflict => {
                    assert_eq!(reply, SettleReply::Conflict);
                    let lease = self.world.item(&id).lease.as_mut().unwrap();
                    lease.conflicts += 1;
                    if lease.conflicts >= 3 {
                        self.world.buckets.reserve(transaction, settle.lease);
                    }
                    return;
                }
                Verdict::Refused(error) => {
                    assert_eq!(reply, SettleReply::StateRefused(error));
                    return;
                }
                Verdict::Committed(_) => {}
            }
        }
        let disposition = self.world.conclude(&id, &settle.outcome, settle.version.clone());
        assert_eq!(reply, SettleReply::Settled(disposition));
        for (id, Acked { result, .. }) in others.iter().zip(settle.with) {
            self.world.conclude(id, &Outcome::Ack { result }, settle.version.clone());
        }
        for emit in emits {
            match self.world.decide(&emit, Admission::Emitted) {
                Decision::Refused(_) => {}
                Decision::Existing(_) => self.world.repeated(&emit),
                Decision::Enter(_) => {
                    let (source, id) = name_of(&emit.event);
                    let found = self.engine().find(source, id).await.unwrap();
                    self.entered(&emit, found.into_iter().map(|entry| (entry.queue, entry.id)).collect());
                }
            }
        }
        if let Some(transaction) = &settle.transaction {
            self.world.buckets.apply(transaction);
        }
    }

    pub(crate) async fn extend(&mut self) {
        let Some(token) = self.any_token() else { return };
        let by = Duration::from_secs(self.random.random_range(0..30));
        self.note(format!("extend {token:?} by {by:?}"));
        let reply = self.engine().extend(vec![Extend { lease: token, by }]).await.unwrap();
        let (wall, monotonic) = (self.world.wall, self.world.monotonic);
        let expected = match self.world.holder_of(token) {
            Some(id) => {
                let lease = self.world.item(&id).lease.as_mut().unwrap();
                (lease.deadline, lease.wall_deadline) = (monotonic.after(by), wall.after(by));
                ExtendReply::Extended
            }
            None => {
                self.world.stale += 1;
                if self.was_issued(token) { ExtendReply::StaleLease } else { ExtendReply::Unknown }
            }
        };
        assert_eq!(reply, [expected]);
    }

    pub(crate) async fn wait(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let id = one(&mut self.random, &self.ids);
        self.note(format!("wait for {id}"));
        let reply = self.engine().wait(id.clone(), Duration::ZERO).await.unwrap();
        match self.world.items.get(&id) {
            None => assert_eq!(reply, Waited::Unknown),
            Some(item) if item.state.has_ended() => {
                let Waited::Ended(entry) = reply else { panic!("{reply:?}, and it has ended: {item:?}") };
                same_entry(*entry, item);
            }
            Some(item) => assert_eq!(reply, Waited::Pending(item.state)),
        }
    }
}

fn sort(entries: &mut [EntryRef]) {
    entries.sort_by(|a, b| (&a.queue, &a.entry).cmp(&(&b.queue, &b.entry)));
}
