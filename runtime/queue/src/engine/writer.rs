//! The writer: one thread that owns all state and every write. It drains what has arrived, applies each command,
//! commits once, and answers. When the store fails it answers everybody so, and ends; a supervisor opens it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use gristmill_core::{Clock, EntryId, Monotonic, Outcome};

use super::batch::Batch;
use super::claim::{self, Claimed, FilterCursors};
use super::command::{Answer, ClaimCommand, Command, Envelope, WaitReply, refuse};
use super::ids::EntryKey;
use super::janitor::Janitor;
use super::kv::Checked;
use super::operate::Operations;
use super::publish::{self, Admission};
use super::read;
use super::settle::{self, PreparedSettle};
use super::state::State;
use super::store::{Store, Tx};
use super::supervisor::{Opening, Shared, count};
use super::sweep::{self, Progress};
use super::syncer::{LAZY, Release, Syncer};
use super::waiters::{Waiter, Waiters, Watcher, Watchers};
use super::{DeadHook, Now};
use crate::contract::{Confirm, DeadLetter, Extend, ExtendReply, LeaseToken, QueueError, SettleReply, Transacted};

/// The most commands that one commit covers.
const MAX_COMMANDS: usize = 1_024;
/// A commit that has grown to so many bytes takes no further commands.
const MAX_BYTES: usize = 16 << 20;
/// A commit takes no more commands when fewer of the reserved numbers than this are left.
const MIN_NUMBERS: u64 = 1 << 19;
/// How often retention looks for old entries.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);
/// The writer syncs by itself when no worker has used it for so long.
const ALONE_AFTER: Duration = Duration::from_millis(20);
/// How long the writer looks for the next command before it sleeps: waking it takes longer.
const LOOK_OUT: Duration = Duration::from_micros(50);

/// Why the writer ended.
pub(crate) enum Exit {
    /// Somebody closed the engine, or nobody has it any more.
    Closed,
    /// The store failed.
    Failed(QueueError),
}

pub(crate) struct Writer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    state: State,
    syncer: Syncer,
    janitor: Janitor,
    shared: Arc<Shared>,
    on_dead: Option<DeadHook>,
    filters: FilterCursors,
    waiters: Waiters,
    watchers: Watchers,
    operations: Operations,
    /// Leases whose claimant was gone when they were granted.
    orphans: Vec<LeaseToken>,
    next_retention: Monotonic,
    /// When a worker claimed or settled last.
    last_work: Option<Instant>,
    more: Progress,
    closing: Option<Answer<()>>,
}

impl Writer {
    /// Settles what earlier openings of the store had in their hands, with `outcome`, and is ready to run.
    pub(crate) fn open(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        state: State,
        (on_dead, shared): (Option<DeadHook>, Arc<Shared>),
        outcome: &Outcome,
    ) -> Result<Self, QueueError> {
        let operations = Operations::left_over(&state);
        let more = if operations.is_empty() { Progress::Finished } else { Progress::More };
        let mut writer = Self {
            syncer: Syncer::start(store.clone(), shared.clone())?,
            janitor: Janitor::start(store.clone())?,
            store,
            clock,
            state,
            shared,
            on_dead,
            filters: FilterCursors::default(),
            waiters: Waiters::default(),
            watchers: Watchers::default(),
            operations,
            orphans: Vec::new(),
            next_retention: Monotonic::default(),
            last_work: None,
            more,
            closing: None,
        };
        writer.recover(outcome)?;
        Ok(writer)
    }

    fn recover(&mut self, outcome: &Outcome) -> Result<(), QueueError> {
        loop {
            let store = self.store.clone();
            let mut tx = Tx::new(store.current());
            let now = self.now();
            let progress = sweep::lost(&mut self.state, &mut tx, outcome, now)?;
            self.state.finish(&mut tx, now)?;
            store.commit(tx.into_writes())?;
            store.persist()?;
            self.announce_deaths();
            if progress == Progress::Finished {
                return Ok(());
            }
        }
    }

    /// Whether nobody is likely to want the writer while it syncs: it has done nothing for workers lately. Then it need
    /// not hand the sync to another thread, which takes as long as half a sync.
    fn is_alone(&self) -> bool {
        self.last_work.is_none_or(|last| last.elapsed() > ALONE_AFTER)
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), monotonic: self.clock.monotonic() }
    }

    /// Until the last handle is gone, somebody closes the engine, or the store fails.
    pub(crate) fn run(mut self, commands: &Receiver<Envelope>) -> Exit {
        let mut failed = None;
        while self.closing.is_none() && failed.is_none() {
            let Some(first) = self.next_command(commands) else { break };
            failed = self.turn(first, commands).err();
        }
        let error = failed.clone().unwrap_or(QueueError::Closed);
        self.waiters.refuse(&error);
        self.watchers.refuse(&error);
        self.operations.refuse(&error);
        let Self { store, syncer, janitor, shared, closing, .. } = self;
        shared.set(match &failed {
            Some(error) => Opening::Failed(error.clone()),
            None => Opening::Closed,
        });
        let synced = syncer.finish();
        store.interrupt();
        drop(janitor);
        // Closed before it is answered: whoever waits for the answer may open the store again.
        drop(store);
        match (failed, closing) {
            (Some(error), None) => Exit::Failed(error),
            (failed, closing) => {
                if let Some(answer) = closing {
                    let _ = answer.send(failed.map_or(synced, Err));
                }
                Exit::Closed
            }
        }
    }

    /// Waits for a command or for something to become due. `None`: nobody can send any more.
    fn next_command(&self, commands: &Receiver<Envelope>) -> Option<Option<Envelope>> {
        if !self.orphans.is_empty() || self.more == Progress::More {
            return match commands.try_recv() {
                Err(TryRecvError::Disconnected) => None,
                received => Some(received.ok()),
            };
        }
        let since = Instant::now();
        while since.elapsed() < LOOK_OUT {
            match commands.try_recv() {
                Ok(envelope) => return Some(Some(envelope)),
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        let received = match self.idle_for() {
            Some(wait) => commands.recv_timeout(wait),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(envelope) => Some(Some(envelope)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// How long nothing will happen by itself.
    fn idle_for(&self) -> Option<Duration> {
        let now = self.now();
        let lease = self.state.flight.next_deadline();
        let (waiter, watcher) = (self.waiters.next_deadline(), self.watchers.next_deadline());
        let throttled = self.waiters.queues().filter_map(|queue| self.state.queues.get(&queue));
        let throttled = throttled.filter_map(|queue| queue.throttled_until(now.monotonic)).min();
        let job = self.operations.next_step();
        let retention = sweep::has_ended(&self.state).then_some(self.next_retention);
        let next = [lease, waiter, watcher, throttled, job, retention].into_iter().flatten().min();
        let due = self.state.next_due.map(|due| due.since(now.wall));
        // Also to notice a failed sync while nothing else happens.
        let check = self.syncer.is_pending().then_some(2 * LAZY);
        [next.map(|next| next.since(now.monotonic)), due, check].into_iter().flatten().min()
    }

    /// One commit. An error ends the writer: everybody who took part in the commit has been told.
    fn turn(&mut self, first: Option<Envelope>, commands: &Receiver<Envelope>) -> Result<(), QueueError> {
        if let Some(error) = self.syncer.failure() {
            if let Some(envelope) = first {
                refuse(envelope.command, &error, &mut self.closing);
            }
            return Err(error);
        }
        let store = self.store.clone();
        let mut batch = Batch::new(Tx::new(store.current()), self.now());
        let result = self.fill(&mut batch, first, commands);
        // First those whose entry has ended: it is not too late for them.
        self.watchers.release(&mut self.state.effects.ended, &mut batch);
        let result = result.and_then(|()| self.watchers.dismiss(&self.state, &batch));
        let result = result.and_then(|()| self.state.finish(&mut batch.tx, batch.now));
        let Batch { tx, on_commit, mut on_sync, .. } = batch;
        let wrote = !tx.is_empty();
        let result = result.and_then(|sync_now| {
            if wrote {
                store.commit(tx.into_writes())?;
                count(&self.shared.counted.commits);
            }
            if sync_now { store.persist() } else { Ok(()) }
        });
        if let Err(error) = &result {
            // The state in memory is ahead of the store: nothing it says can be trusted any more.
            tracing::error!(%error, "a commit failed; the store is opened anew");
            self.syncer.fail(error.clone());
        } else {
            self.state.buckets.committed();
            on_sync.extend(self.deaths());
        }
        for answer in on_commit {
            self.orphans.extend(answer(result.clone()));
        }
        match result {
            Ok(_) => {
                if std::mem::take(&mut self.state.effects.freed) {
                    self.janitor.freed();
                }
                if !on_sync.is_empty() && commands.is_empty() && self.is_alone() {
                    self.syncer.sync_now(&*store, on_sync);
                } else if wrote || !on_sync.is_empty() {
                    self.syncer.committed(on_sync);
                }
                Ok(())
            }
            Err(error) => {
                on_sync.into_iter().for_each(|release| release(Err(error.clone())));
                Err(error)
            }
        }
    }

    /// Tells the hook of entries that died, once that is durable.
    fn deaths(&mut self) -> Option<Release> {
        let died = std::mem::take(&mut self.state.effects.died);
        let hook = self.on_dead.clone()?;
        let named = died.into_iter().filter_map(|key| {
            let queue = self.state.queues.get(&key.queue)?.name.clone();
            Some(DeadLetter { queue, entry: self.state.entry_id(key) })
        });
        let letters: Vec<_> = named.collect();
        if letters.is_empty() {
            return None;
        }
        Some(Box::new(move |synced| {
            if synced.is_ok() {
                letters.into_iter().for_each(|letter| hook(letter));
            }
        }))
    }

    fn announce_deaths(&mut self) {
        if let Some(release) = self.deaths() {
            release(Ok(()));
        }
        self.state.effects.ended.clear();
    }

    fn fill(
        &mut self,
        batch: &mut Batch<'_>,
        first: Option<Envelope>,
        commands: &Receiver<Envelope>,
    ) -> Result<(), QueueError> {
        self.more = self.sweep(batch)?;
        self.release_orphans(batch)?;
        let stepped = self.operations.step(&mut self.state, batch, MIN_NUMBERS)?;
        self.more = self.more.and(stepped);
        let mut count = 0;
        let mut next = first;
        while let Some(Envelope { command, permit }) = next.take() {
            self.apply(batch, command)?;
            drop(permit);
            count += 1;
            if count < MAX_COMMANDS
                && batch.tx.size() < MAX_BYTES
                && self.state.numbers_left() > MIN_NUMBERS
                && self.closing.is_none()
            {
                next = commands.try_recv().ok();
            }
        }
        let served = self.waiters.serve(&mut self.state, batch, &mut self.filters)?;
        self.more = self.more.and(served);
        Ok(())
    }

    fn release_orphans(&mut self, batch: &mut Batch<'_>) -> Result<(), QueueError> {
        for lease in std::mem::take(&mut self.orphans) {
            let release = PreparedSettle::new(lease, Outcome::Released);
            settle::settle(&mut self.state, &mut batch.tx, release, batch.now)?;
        }
        Ok(())
    }

    fn sweep(&mut self, batch: &mut Batch<'_>) -> Result<Progress, QueueError> {
        let expired = sweep::expire(&mut self.state, &mut batch.tx, batch.now)?;
        let due = sweep::due(&mut self.state, &mut batch.tx, batch.now)?;
        let crowded = self.state.queues.values().any(|queue| {
            queue.options.done.count.is_some_and(|max| queue.counts.done > max.saturating_add(sweep::SWEEP as u64))
        });
        let mut reaped = Progress::Finished;
        if crowded || batch.now.monotonic >= self.next_retention {
            reaped = sweep::retention(&mut self.state, &mut batch.tx, batch.now)?;
            if reaped == Progress::Finished {
                self.next_retention = batch.now.monotonic.after(RETENTION_INTERVAL);
                self.store.expire_origins(batch.now.wall);
            }
        }
        for queue in self.waiters.queues() {
            let state = self.state.queues.get(&queue);
            if state.is_some_and(|state| state.options.rate.is_some() && state.allowance(batch.now.monotonic) > 0) {
                self.state.woken.insert(queue);
            }
        }
        Ok(expired.and(due).and(reaped))
    }

    /// Only an error that leaves the state in doubt is returned; others are the command's answer.
    fn apply(&mut self, batch: &mut Batch<'_>, command: Command) -> Result<(), QueueError> {
        let Self { state, .. } = self;
        match command {
            Command::Configure(name, options, answer) => {
                let attribute = options.key.attribute.as_deref().map(Arc::from);
                let result = state.configure(&mut batch.tx, name.clone(), *options, batch.now.monotonic);
                if let Ok(id) = state.queue_id(&name) {
                    self.shared.name(id, name.clone());
                    self.shared.keyed_by(name, attribute);
                }
                batch.answer_on_sync(answer, result);
            }
            Command::Publish(events, answer) => {
                let admission = Admission::Published(self.store.space());
                let mut results = Vec::with_capacity(events.len());
                for event in events {
                    results.push(match event {
                        Ok(event) => match publish::publish(state, &mut batch.tx, event, admission, batch.now) {
                            Ok(result) => result,
                            Err(error) => {
                                batch.answer_on_sync(answer, Err(error.clone()));
                                return Err(error);
                            }
                        },
                        Err(refused) => Err(refused),
                    });
                }
                batch.answer_on_sync(answer, Ok(results));
            }
            Command::Claim(request, answer) => {
                self.last_work = Some(Instant::now());
                self.claim(batch, request, answer)?;
            }
            Command::Settle(requests, confirm, answer) => {
                self.last_work = Some(Instant::now());
                let settled =
                    requests.into_iter().map(|request| settle::settle(state, &mut batch.tx, request, batch.now));
                let replies = settled.collect::<Result<Vec<_>, _>>();
                for reply in replies.iter().flatten() {
                    if matches!(reply, SettleReply::StaleLease | SettleReply::Unknown) {
                        count(&self.shared.counted.stale);
                    }
                }
                let failed = replies.as_ref().err().cloned();
                match confirm {
                    Confirm::Committed => batch.answer_on_commit(answer, replies),
                    Confirm::Durable => batch.answer_on_sync(answer, replies),
                }
                return failed.map_or(Ok(()), Err);
            }
            Command::Extend(requests, answer) => {
                let replies = requests.into_iter().map(|request| extend(state, &mut batch.tx, request, batch.now));
                let replies: Vec<_> = replies.collect();
                for _ in replies.iter().filter(|reply| **reply != ExtendReply::Extended) {
                    count(&self.shared.counted.stale);
                }
                batch.answer_on_commit(answer, Ok(replies));
            }
            Command::Wait(entry, timeout, answer) => self.wait(batch, &entry, timeout, answer)?,
            Command::Operate(operation, answer) => {
                let begun = self.operations.start(state, batch, *operation, answer)?;
                self.more = self.more.and(begun);
            }
            Command::Transact(transaction, answer) => {
                let result = match state.buckets.check(&batch.tx, &transaction, None)? {
                    Checked::Conflict => Transacted::Conflict,
                    Checked::Refused(refused) => Transacted::Refused(refused),
                    Checked::Planned(plan) => {
                        let increments = plan.increments.clone();
                        state.buckets.apply(&mut batch.tx, plan)?;
                        Transacted::Committed(increments)
                    }
                };
                batch.answer_on_sync(answer, Ok(result));
            }
            Command::Tick(answer) => {
                self.next_retention = batch.now.monotonic;
                let swept = self.sweep(batch)?;
                self.more = self.more.and(swept);
                batch.answer_on_commit(answer, Ok(()));
            }
            Command::GiveBack(leases) => {
                self.orphans.extend(leases);
                self.release_orphans(batch)?;
            }
            Command::Close(answer) => self.closing = Some(answer),
        }
        Ok(())
    }

    fn wait(
        &mut self,
        batch: &mut Batch<'_>,
        entry: &EntryId,
        timeout: Duration,
        answer: Answer<WaitReply>,
    ) -> Result<(), QueueError> {
        let key = EntryKey::parse(entry, self.state.salt);
        let found = match key.map(|key| read::find(&batch.tx, &self.state, key)).transpose() {
            Err(error @ QueueError::Corrupt(_)) => {
                batch.answer_on_commit(answer, Err(error));
                return Ok(());
            }
            found => found?.flatten(),
        };
        match (key, found) {
            (Some(_), Some(found)) if found.at.state().has_ended() => {
                // It may have ended a moment ago: that is to be durable before anybody relies on it.
                batch.answer_on_sync(answer, Ok(WaitReply::Ended));
            }
            (Some(_), Some(found)) if timeout.is_zero() => {
                batch.answer_on_commit(answer, Ok(WaitReply::Pending(found.at.state())));
            }
            (Some(key), Some(_)) => {
                let deadline = batch.now.monotonic.after(timeout);
                self.watchers.add(key, Watcher { deadline, answer });
            }
            _ => batch.answer_on_commit(answer, Ok(WaitReply::Unknown)),
        }
        Ok(())
    }

    fn claim(
        &mut self,
        batch: &mut Batch<'_>,
        command: ClaimCommand,
        answer: Answer<Vec<Claimed>>,
    ) -> Result<(), QueueError> {
        let queue = match self.state.queue_id(&command.queue) {
            Ok(queue) => queue,
            Err(error) => {
                batch.answer_on_commit(answer, Err(error));
                return Ok(());
            }
        };
        if answer.is_closed() {
            return Ok(());
        }
        let request = command.request;
        let claimed = claim::claim(&mut self.state, &mut batch.tx, &mut self.filters, queue, &request, batch.now);
        let claimed = match claimed {
            Ok(claimed) => claimed,
            Err(error) => {
                batch.answer_on_commit(answer, Err(error.clone()));
                return Err(error);
            }
        };
        if claimed.is_empty() && !command.wait.is_zero() {
            let deadline = batch.now.monotonic.after(command.wait);
            if self.filters.take_stopped(queue, &request.types) {
                // It goes on looking in the next commit.
                self.state.woken.insert(queue);
            }
            self.waiters.add(queue, Waiter { request, deadline, answer });
        } else {
            batch.grant(answer, claimed);
        }
        Ok(())
    }
}

fn extend(state: &mut State, tx: &mut Tx<'_>, request: Extend, now: Now) -> ExtendReply {
    use super::keys::{Family, number_key};
    use super::records::{LeaseRecord, Record};
    let token = request.lease;
    let Some(lease) = state.flight.get(token) else {
        return if state.was_issued(token) { ExtendReply::StaleLease } else { ExtendReply::Unknown };
    };
    if state.flight.holder(token.delivery) == Some(crate::contract::Holder::Outside) {
        let record = LeaseRecord {
            line: lease.key.line.into(),
            position: lease.key.position,
            incarnation: token.incarnation,
            claimed_at: lease.claimed_at,
            deadline: now.wall.after(request.by),
        };
        tx.put(Family::Lease, number_key(token.delivery), record.encode());
    }
    state.flight.extend(token, now.monotonic.after(request.by));
    ExtendReply::Extended
}
