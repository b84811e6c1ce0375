//! The writer: one thread that owns all state and every write. It drains what has arrived, applies each command,
//! commits once, and answers.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gristmill_core::{Clock, EntryId, Monotonic, Outcome, QueueName};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::claim::{self, Claimed};
use super::keys::QueueId;
use super::publish::{self, Prepared};
use super::settle::{self, PreparedSettle};
use super::state::State;
use super::store::{Store, Tx};
use super::sweep::{self, Progress};
use super::syncer::{Release, Syncer};
use super::{MAX_CLAIM, Now, redrive};
use crate::contract::{
    Confirm, EntryRef, Extend, ExtendReply, LeaseToken, PublishError, QueueError, QueueOptions, RedriveReply,
    SettleReply,
};

/// The most commands that one commit covers.
const MAX_COMMANDS: usize = 1_024;
/// A commit ends before it uses more than this share of the reserved numbers.
const MIN_NUMBERS: u64 = 1 << 18;
/// How often retention looks for old entries.
const RETENTION_INTERVAL: Duration = Duration::from_secs(1);

/// How long claims may wait before somebody asks whether a sync has failed.
const FAILURE_CHECK: Duration = Duration::from_secs(1);

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, QueueError>>;

/// What can be asked of the writer.
pub(crate) enum Command {
    Configure(QueueName, QueueOptions, Answer<()>),
    Publish(Vec<Result<Prepared, PublishError>>, Answer<Vec<Result<Vec<EntryRef>, PublishError>>>),
    Claim(ClaimCommand, Answer<Vec<Claimed>>),
    Settle(Vec<PreparedSettle>, Confirm, Answer<Vec<SettleReply>>),
    Extend(Vec<Extend>, Answer<Vec<ExtendReply>>),
    Redrive(Vec<EntryId>, Answer<Vec<RedriveReply>>),
    /// Leases that were granted to somebody who is gone.
    GiveBack(Vec<LeaseToken>),
    /// Looks at the clocks. For tests that move them.
    Tick(Answer<()>),
    Close(Answer<()>),
}

/// A claim, as the writer wants it.
pub(crate) struct ClaimCommand {
    pub(crate) queue: QueueName,
    pub(crate) max: usize,
    pub(crate) wait: Duration,
}

/// A command and its place in the bounded channel.
pub(crate) struct Envelope {
    pub(crate) command: Command,
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

/// A claim that found nothing and waits.
struct Waiter {
    max: usize,
    deadline: Monotonic,
    answer: Answer<Vec<Claimed>>,
}

/// An answer that is sent once the commit has happened. Returns leases that nobody received.
type Committed = Box<dyn FnOnce(Result<(), QueueError>) -> Vec<LeaseToken> + Send>;

pub(crate) struct Writer {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: State,
    pub(crate) syncer: Syncer,
    commands: Receiver<Envelope>,
    /// By queue, the longest-waiting first.
    waiters: BTreeMap<QueueId, Vec<Waiter>>,
    /// Leases whose claimant was gone when they were granted.
    orphans: Vec<LeaseToken>,
    next_retention: Monotonic,
    more: Progress,
    poisoned: Option<QueueError>,
    /// The same, for those who read outside the writer.
    failure: Arc<OnceLock<QueueError>>,
    closing: Option<Answer<()>>,
}

/// What a commit in the making has gathered.
struct Batch<'a> {
    tx: Tx<'a>,
    now: Now,
    on_commit: Vec<Committed>,
    on_sync: Vec<Release>,
}

impl Batch<'_> {
    fn answer_on_commit<T: Send + 'static>(&mut self, to: Answer<T>, result: Result<T, QueueError>) {
        self.on_commit.push(Box::new(move |committed| {
            // Nobody listens any more: nothing is lost by not answering.
            let _ = to.send(committed.and(result));
            Vec::new()
        }));
    }

    fn answer_on_sync<T: Send + 'static>(&mut self, to: Answer<T>, result: Result<T, QueueError>) {
        self.on_sync.push(Box::new(move |synced| {
            let _ = to.send(synced.and(result));
        }));
    }

    fn grant(&mut self, to: Answer<Vec<Claimed>>, claimed: Vec<Claimed>) {
        self.on_commit.push(Box::new(move |committed| match to.send(committed.map(|()| claimed)) {
            Ok(()) | Err(Err(_)) => Vec::new(),
            Err(Ok(unheard)) => unheard.into_iter().map(|claimed| claimed.lease).collect(),
        }));
    }
}

impl Writer {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        state: State,
        syncer: Syncer,
        (commands, failure): (Receiver<Envelope>, Arc<OnceLock<QueueError>>),
    ) -> Self {
        Self {
            store,
            clock,
            state,
            syncer,
            commands,
            waiters: BTreeMap::new(),
            orphans: Vec::new(),
            next_retention: Monotonic::default(),
            more: Progress::Finished,
            poisoned: None,
            failure,
            closing: None,
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), monotonic: self.clock.monotonic() }
    }

    /// Settles what an earlier process had in its hands.
    pub(crate) fn recover(&mut self) -> Result<(), QueueError> {
        loop {
            let store = self.store.clone();
            let mut tx = Tx::new(store.current());
            let now = self.now();
            let progress = sweep::lost(&mut self.state, &mut tx, now)?;
            self.state.finish(&mut tx)?;
            store.commit(tx.into_writes())?;
            store.persist()?;
            if progress == Progress::Finished {
                return Ok(());
            }
        }
    }

    /// Until the last handle is gone or somebody closes the engine.
    pub(crate) fn run(mut self) {
        while self.closing.is_none() {
            let Some(first) = self.next_command() else { break };
            self.turn(first);
        }
        for waiter in std::mem::take(&mut self.waiters).into_values().flatten() {
            let _ = waiter.answer.send(Err(QueueError::Closed));
        }
        let Self { store, syncer, closing, poisoned, commands, .. } = self;
        let synced = syncer.finish();
        // Closed before it is answered: whoever waits for the answer may open the store again.
        drop((store, commands));
        if let Some(answer) = closing {
            let _ = answer.send(poisoned.map_or(synced, Err));
        }
    }

    /// Waits for a command or for something to become due. `None`: nobody can send any more.
    fn next_command(&self) -> Option<Vec<Envelope>> {
        if !self.orphans.is_empty() || self.more == Progress::More {
            return Some(self.commands.try_recv().into_iter().collect());
        }
        let received = match self.idle_for() {
            Some(wait) => self.commands.recv_timeout(wait),
            None => self.commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(envelope) => Some(vec![envelope]),
            Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// How long nothing will happen by itself.
    fn idle_for(&self) -> Option<Duration> {
        let now = self.now();
        let lease = self.state.deadlines.first().map(|(deadline, _)| deadline.since(now.monotonic));
        let waiter = self.waiters.values().flatten().map(|waiter| waiter.deadline.since(now.monotonic)).min();
        // Also to notice a failed sync while nothing else happens.
        let waiter = waiter.map(|wait| wait.min(FAILURE_CHECK));
        let due = self.state.next_due.map(|due| due.since(now.wall));
        let any_done = self.state.queues.values().any(|queue| queue.counts.done > 0);
        let retention = any_done.then(|| self.next_retention.since(now.monotonic));
        [lease, waiter, due, retention].into_iter().flatten().min()
    }

    /// One commit.
    fn turn(&mut self, first: Vec<Envelope>) {
        if let Some(error) = self.syncer.failure() {
            self.poison(error);
        }
        if let Some(error) = self.poisoned.clone() {
            self.refuse_all(first, &error);
            return;
        }
        let store = self.store.clone();
        let mut batch =
            Batch { tx: Tx::new(store.current()), now: self.now(), on_commit: Vec::new(), on_sync: Vec::new() };
        let result = self.fill(&mut batch, first).and_then(|()| self.state.finish(&mut batch.tx));
        let Batch { tx, on_commit, on_sync, .. } = batch;
        let wrote = !tx.is_empty();
        let result = result.and_then(|sync_now| {
            if wrote {
                store.commit(tx.into_writes())?;
            }
            if sync_now { store.persist() } else { Ok(()) }
        });
        if let Err(error) = &result {
            // The state in memory is ahead of the store: nothing it says can be trusted any more.
            tracing::error!(%error, "a commit failed; nothing more is accepted");
            self.syncer.fail(error.clone());
            self.poison(error.clone());
        }
        for answer in on_commit {
            self.orphans.extend(answer(result.clone()));
        }
        match result {
            Ok(()) if wrote || !on_sync.is_empty() => self.syncer.committed(on_sync),
            Ok(()) => {}
            Err(error) => {
                on_sync.into_iter().for_each(|release| release(Err(error.clone())));
                self.refuse_all(Vec::new(), &error);
            }
        }
    }

    fn poison(&mut self, error: QueueError) {
        // Readers are told as well; the first error is the one that matters.
        let _ = self.failure.set(error.clone());
        self.poisoned.get_or_insert(error);
    }

    fn refuse_all(&mut self, envelopes: Vec<Envelope>, error: &QueueError) {
        self.orphans.clear();
        self.more = Progress::Finished;
        self.state.deadlines.clear();
        self.state.next_due = None;
        self.next_retention = Monotonic::from_start(Duration::MAX);
        for waiter in std::mem::take(&mut self.waiters).into_values().flatten() {
            let _ = waiter.answer.send(Err(error.clone()));
        }
        for envelope in envelopes {
            refuse(envelope.command, error, &mut self.closing);
        }
    }

    fn fill(&mut self, batch: &mut Batch<'_>, first: Vec<Envelope>) -> Result<(), QueueError> {
        self.sweep(batch)?;
        self.release_orphans(batch)?;
        let mut commands = 0;
        let mut next = first.into_iter().next();
        while let Some(Envelope { command, permit }) = next.take() {
            self.apply(batch, command)?;
            drop(permit);
            commands += 1;
            if commands < MAX_COMMANDS && self.state.numbers_left() > MIN_NUMBERS && self.closing.is_none() {
                next = self.commands.try_recv().ok();
            }
        }
        self.serve_waiters(batch)
    }

    fn release_orphans(&mut self, batch: &mut Batch<'_>) -> Result<(), QueueError> {
        for lease in std::mem::take(&mut self.orphans) {
            let release = PreparedSettle { lease, outcome: Outcome::Released, version: None, emits: Ok(Vec::new()) };
            settle::settle(&mut self.state, &mut batch.tx, release, batch.now)?;
        }
        Ok(())
    }

    fn sweep(&mut self, batch: &mut Batch<'_>) -> Result<(), QueueError> {
        let expired = sweep::expire(&mut self.state, &mut batch.tx, batch.now)?;
        let due = sweep::due(&mut self.state, &mut batch.tx, batch.now)?;
        let crowded = self.state.queues.values().any(|q| q.counts.done > q.options.done_max.saturating_add(1_000));
        let mut reaped = Progress::Finished;
        if crowded || batch.now.monotonic >= self.next_retention {
            reaped = sweep::retention(&mut self.state, &mut batch.tx, batch.now)?;
            if reaped == Progress::Finished {
                self.next_retention = batch.now.monotonic.after(RETENTION_INTERVAL);
            }
        }
        let all = [expired, due, reaped];
        self.more = if all.contains(&Progress::More) { Progress::More } else { Progress::Finished };
        Ok(())
    }

    /// Only an error that leaves the state in doubt is returned; others are the command's answer.
    fn apply(&mut self, batch: &mut Batch<'_>, command: Command) -> Result<(), QueueError> {
        let Self { state, .. } = self;
        match command {
            Command::Configure(name, options, answer) => {
                let result = state.configure(name, options);
                batch.answer_on_sync(answer, result);
            }
            Command::Publish(events, answer) => {
                let mut results = Vec::with_capacity(events.len());
                for event in events {
                    results.push(match event {
                        Ok(event) => match publish::publish(state, &mut batch.tx, event, batch.now) {
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
            Command::Claim(request, answer) => self.claim(batch, request, answer)?,
            Command::Settle(requests, confirm, answer) => {
                // A settlement reads before it writes: what fails has changed nothing.
                let settled =
                    requests.into_iter().map(|request| settle::settle(state, &mut batch.tx, request, batch.now));
                let replies = settled.collect();
                match confirm {
                    Confirm::Committed => batch.answer_on_commit(answer, replies),
                    Confirm::Durable => batch.answer_on_sync(answer, replies),
                }
            }
            Command::Extend(requests, answer) => {
                let replies = requests.into_iter().map(|request| extend(state, request, batch.now)).collect();
                batch.answer_on_commit(answer, Ok(replies));
            }
            Command::Redrive(entries, answer) => {
                let redriven = entries.iter().map(|entry| redrive::redrive(state, &mut batch.tx, entry, batch.now));
                let replies = redriven.collect();
                batch.answer_on_sync(answer, replies);
            }
            Command::Tick(answer) => {
                self.next_retention = batch.now.monotonic;
                self.sweep(batch)?;
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

    fn claim(
        &mut self,
        batch: &mut Batch<'_>,
        request: ClaimCommand,
        answer: Answer<Vec<Claimed>>,
    ) -> Result<(), QueueError> {
        let queue = match self.state.queue_id(&request.queue) {
            Ok(queue) => queue,
            Err(error) => {
                batch.answer_on_commit(answer, Err(error));
                return Ok(());
            }
        };
        if answer.is_closed() {
            return Ok(());
        }
        let claimed = match claim::claim(&mut self.state, &mut batch.tx, queue, request.max, batch.now) {
            Ok(claimed) => claimed,
            Err(error) => {
                batch.answer_on_commit(answer, Err(error.clone()));
                return Err(error);
            }
        };
        if claimed.is_empty() && !request.wait.is_zero() {
            let deadline = batch.now.monotonic.after(request.wait);
            self.waiters.entry(queue).or_default().push(Waiter { max: request.max, deadline, answer });
        } else {
            batch.grant(answer, claimed);
        }
        Ok(())
    }

    /// Hands what became ready to the claims that wait for it, the longest-waiting first.
    fn serve_waiters(&mut self, batch: &mut Batch<'_>) -> Result<(), QueueError> {
        for queue in std::mem::take(&mut self.state.woken) {
            let Some(waiters) = self.waiters.get_mut(&queue) else { continue };
            let mut still_waiting = Vec::new();
            for waiter in waiters.drain(..) {
                // The first that gets nothing shows that there is nothing for those behind it either.
                if !still_waiting.is_empty() || self.state.numbers_left() < MAX_CLAIM as u64 {
                    still_waiting.push(waiter);
                } else if !waiter.answer.is_closed() {
                    let claimed = claim::claim(&mut self.state, &mut batch.tx, queue, waiter.max, batch.now)?;
                    if claimed.is_empty() {
                        still_waiting.push(waiter);
                    } else {
                        batch.grant(waiter.answer, claimed);
                    }
                }
            }
            if self.state.numbers_left() < MAX_CLAIM as u64 && !still_waiting.is_empty() {
                // The next commit has a fresh reservation.
                self.state.woken.insert(queue);
                self.more = Progress::More;
            }
            *waiters = still_waiting;
        }
        for waiters in self.waiters.values_mut() {
            let over = |waiter: &mut Waiter| waiter.deadline <= batch.now.monotonic || waiter.answer.is_closed();
            for waiter in waiters.extract_if(.., over) {
                let _ = waiter.answer.send(Ok(Vec::new()));
            }
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
        Ok(())
    }
}

fn extend(state: &mut State, request: Extend, now: Now) -> ExtendReply {
    match state.lease(request.lease) {
        Some(lease) => {
            let delivery = request.lease.delivery;
            state.deadlines.remove(&(lease.deadline, delivery));
            state.add_lease(delivery, super::state::Lease { deadline: now.monotonic.after(request.by), ..lease });
            ExtendReply::Extended
        }
        None => ExtendReply::StaleLease,
    }
}

fn refuse(command: Command, error: &QueueError, closing: &mut Option<Answer<()>>) {
    let error = error.clone();
    match command {
        Command::Configure(_, _, answer) | Command::Tick(answer) => drop(answer.send(Err(error))),
        Command::Publish(_, answer) => drop(answer.send(Err(error))),
        Command::Claim(_, answer) => drop(answer.send(Err(error))),
        Command::Settle(_, _, answer) => drop(answer.send(Err(error))),
        Command::Extend(_, answer) => drop(answer.send(Err(error))),
        Command::Redrive(_, answer) => drop(answer.send(Err(error))),
        Command::GiveBack(_) => {}
        Command::Close(answer) => *closing = Some(answer),
    }
}
