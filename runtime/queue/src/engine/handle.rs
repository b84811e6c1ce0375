//! The engine's handle: checks requests, prepares what can be prepared outside the writer, and reads on snapshots.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use gristmill_core::{Clock, EntryId, Event, EventError, Outcome, QueueName};
use smallvec::SmallVec;
use tokio::sync::{Semaphore, oneshot};

use super::chunk::Chunk;
use super::claim::{Claimed, Request};
use super::command::{Answer, ClaimCommand, Command, Envelope, WaitReply};
use super::entry::Draft;
use super::event::INLINE_DATA;
use super::inspect::Reading;
use super::keys::{OriginKind, origin_key};
use super::kv::StateView;
use super::publish::{Origin, Prepared, Stored, Target};
use super::sample::sample;
use super::settle::PreparedSettle;
use super::state::Settings;
use super::supervisor::{Opener, Shared, Supervisor};
use super::verify::verify;

use super::{EngineOptions, MAX_CLAIM, MAX_PUBLISH, MAX_WAITING, body};
use crate::contract::*;

/// An open engine. Dropping it closes it, which takes as long as the last sync.
pub struct Engine {
    capabilities: Capabilities,
    clock: Arc<dyn Clock>,
    /// Publishes are remembered, so that they are not repeated.
    remembers: bool,
    shared: Arc<Shared>,
    /// `None`: it is being dropped.
    commands: Option<crossbeam_channel::Sender<Envelope>>,
    places: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(crate) fn start(name: &'static str, opener: Opener, options: EngineOptions) -> Result<Self, QueueError> {
        let settings =
            Settings { idempotency_window: options.idempotency_window, log_retention: options.log_retention };
        let shared = Arc::new(Shared::default());
        let supervisor = Supervisor {
            opener,
            clock: options.clock.clone(),
            settings,
            on_dead: options.on_dead,
            shared: shared.clone(),
        };
        let writer = supervisor.open(&Outcome::Lost)?;
        let (commands, receiver) = crossbeam_channel::unbounded();
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || supervisor.run(writer, &receiver))
            .map_err(|error| QueueError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            capabilities: Capabilities {
                engine: name,
                durability: options.durability,
                max_event_size: options.max_event_size,
                features: Feature::ALL,
            },
            clock: options.clock,
            remembers: !options.idempotency_window.is_zero(),
            shared,
            commands: Some(commands),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            thread: Some(thread),
        })
    }

    /// Looks at the clocks now, and returns when everything that is due by them has happened. The engine does so by
    /// itself; this is for tests that move a [`ManualClock`](gristmill_core::ManualClock).
    ///
    /// # Errors
    /// When the engine is closed or its store failed.
    pub async fn tick(&self) -> Result<(), QueueError> {
        self.call(Command::Tick).await
    }

    /// Writes a copy of the store, as it is now, to a directory that does not exist yet; work goes on meanwhile. It is
    /// opened after [`RocksDb::restore`](super::RocksDb::restore).
    ///
    /// # Errors
    /// When the directory exists or cannot be written, and with an engine that keeps nothing on disk.
    pub async fn backup(&self, directory: &Path) -> Result<(), QueueError> {
        let store = self.shared.open()?.store;
        let directory = directory.to_owned();
        blocking(move || store.backup(&directory)).await
    }

    /// Reads everything in the store, as it is now, and reports what is wrong with it; work goes on meanwhile. It takes
    /// as long as reading the store takes, and its memory does not grow with the number of entries.
    ///
    /// # Errors
    /// When the engine is closed, or its store cannot be read at all. Damaged records are part of the report.
    pub async fn verify(&self) -> Result<VerifyReport, QueueError> {
        let store = self.shared.open()?.store;
        blocking(move || verify(&*store.snapshot()?)).await
    }

    /// Gives back the disk space of deleted data now. The engine does so by itself, within half a minute.
    ///
    /// # Errors
    /// When the store failed.
    pub async fn reclaim(&self) -> Result<(), QueueError> {
        let store = self.shared.open()?.store;
        blocking(move || store.reclaim().map(drop)).await
    }

    async fn call<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, QueueError> {
        self.send(command).await?.await.map_err(|_| QueueError::Closed)?
    }

    /// Sends a command; the answer comes through the channel.
    async fn send<T>(
        &self,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<oneshot::Receiver<Result<T, QueueError>>, QueueError> {
        let permit = self.places.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
        let (answer, reply) = oneshot::channel();
        let envelope = Envelope { command: command(answer), permit: Some(permit) };
        self.commands.as_ref().ok_or(QueueError::Closed)?.send(envelope).map_err(|_| QueueError::Closed)?;
        Ok(reply)
    }

    /// Leases that nobody will use; no attempt is spent.
    fn give_back(&self, leases: Vec<LeaseToken>) {
        if let Some(commands) = &self.commands {
            // A closed engine ends leases in its own way.
            let _ = commands.send(Envelope { command: Command::GiveBack(leases), permit: None });
        }
    }

    /// Decodes the events of a claim. An entry whose event cannot be read is dead; its neighbours are delivered.
    async fn deliver(&self, queue: &QueueName, claimed: Vec<Claimed>) -> Result<Vec<Delivery>, QueueError> {
        let claimed = self.with_bodies(claimed).await?;
        let salt = self.shared.salt();
        let mut deliveries = Vec::with_capacity(claimed.len());
        let mut rejects = Vec::new();
        for (claimed, loaded) in claimed {
            let event = loaded.and_then(|body| claimed.event.decode(body).map_err(QueueError::from));
            let entry = claimed.entry.id(salt);
            match event {
                Ok(event) => deliveries.push(delivery(claimed, entry, queue, event)),
                Err(error) => {
                    tracing::error!(%entry, %error, "an entry's event cannot be read");
                    let reason = format!("the stored event cannot be read: {error}");
                    rejects.push(Settle::new(claimed.lease, Outcome::Reject { reason }));
                }
            }
        }
        if !rejects.is_empty() {
            self.settle(rejects, Confirm::Committed).await?;
        }
        Ok(deliveries)
    }

    /// Reads the data that lives apart, off the async threads.
    async fn with_bodies(&self, claimed: Vec<Claimed>) -> Result<Vec<(Claimed, Loaded)>, QueueError> {
        let lives_apart = |claimed: &Claimed| claimed.body.is_none() && !matches!(claimed.event.body(), Ok(None));
        if !claimed.iter().any(lives_apart) {
            let with_body = |mut claimed: Claimed| {
                let body = claimed.body.take();
                (claimed, Ok(body))
            };
            return Ok(claimed.into_iter().map(with_body).collect());
        }
        let store = self.shared.open()?.store;
        blocking(move || {
            let load = |mut claimed: Claimed| {
                let body = match claimed.body.take() {
                    Some(body) => Ok(Some(body)),
                    None => body::load(store.current(), &claimed.event),
                };
                (claimed, body)
            };
            Ok(claimed.into_iter().map(load).collect())
        })
        .await
    }

    /// Reads on a snapshot, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading<'_>) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let store = self.shared.open()?.store;
        let (salt, now) = (self.shared.salt(), self.clock.now());
        blocking(move || {
            let snapshot = store.snapshot()?;
            read(&Reading { view: &*snapshot, salt, now })
        })
        .await
    }

    /// Validates and encodes events outside the writer.
    fn prepare_all(&self, batch: Vec<Publish>) -> Vec<Result<Prepared, PublishError>> {
        let attributes = self.shared.key_attributes.read().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = Chunk::default();
        batch.into_iter().map(|publish| self.prepare(publish, &attributes, &mut chunk)).collect()
    }

    fn prepare(
        &self,
        publish: Publish,
        attributes: &HashMap<QueueName, Arc<str>>,
        chunk: &mut Chunk,
    ) -> Result<Prepared, PublishError> {
        let Publish { event, queues, due, priority, key, time_to_live, dedupe_key, on_duplicate } = publish;
        self.check(&event)?;
        for (name, value) in [("ordering key", &key), ("dedupe key", &dedupe_key)] {
            if let Some(value) = value.as_ref().filter(|value| value.is_empty() || value.len() > MAX_KEY_LEN) {
                return Err(PublishError::InvalidKey { name, len: value.len() });
            }
        }
        if queues.is_empty() {
            return Err(PublishError::Unroutable { ty: event.ty.clone(), source_attribute: event.source.clone() });
        }
        let shared: Option<Arc<str>> = key.as_deref().map(Arc::from);
        let target = |queue: QueueName| {
            let from_attribute = || {
                let value = event.attribute(attributes.get(&queue)?)?;
                let fits = !value.is_empty() && value.len() <= MAX_KEY_LEN;
                fits.then(|| Arc::from(value))
            };
            let key = shared.clone().or_else(from_attribute);
            Target { queue, key }
        };
        let targets: SmallVec<[Target; 1]> = queues.into_iter().map(target).collect();
        let first_key = targets.first().and_then(|target| target.key.as_deref());
        let origin = self.remembers.then(|| Origin {
            id: origin_key(OriginKind::Id, &event.source, &event.id),
            dedupe: dedupe_key.map(|key| origin_key(OriginKind::DedupeKey, &event.source, &key)),
        });
        Ok(Prepared {
            draft: Draft::new(&event, first_key, chunk),
            body: event.data.as_ref().filter(|data| data.len() > INLINE_DATA).cloned(),
            targets,
            due,
            priority,
            key,
            time_to_live,
            origin,
            on_duplicate,
        })
    }

    fn check(&self, event: &Event) -> Result<(), EventError> {
        event.validate()?;
        let (actual, max) = (event.size(), self.capabilities.max_event_size);
        if actual > max { Err(EventError::TooLarge { actual, max }) } else { Ok(()) }
    }

    fn prepare_settle(&self, settle: Settle) -> PreparedSettle {
        let emits = settle.emits.into_iter().filter(|emit| !emit.queues.is_empty());
        PreparedSettle {
            lease: settle.lease,
            outcome: settle.outcome,
            version: settle.version,
            forgive: settle.forgive,
            postmortem: settle.postmortem,
            emits: self.prepare_all(emits.collect()).into_iter().collect(),
            transaction: settle.transaction,
            with: settle.with,
        }
    }

    /// Closes the engine and waits for its thread. Blocks.
    fn shut(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the queue's writer panicked");
        }
    }
}

/// What is acked together are different deliveries, and acked.
fn check_with(settle: &Settle) -> Result<(), QueueError> {
    let Settle { lease, outcome, with, .. } = settle;
    if !with.is_empty() && !matches!(outcome, Outcome::Ack { .. }) {
        let message =
            format!("deliveries are settled together with one whose outcome is {}: only acks can", outcome.kind());
        return Err(QueueError::InvalidRequest(message));
    }
    let mut leases: Vec<_> = with.iter().map(|other| other.lease).chain([*lease]).collect();
    leases.sort_unstable();
    if leases.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(QueueError::InvalidRequest("a delivery is acked together with itself".to_owned()));
    }
    Ok(())
}

/// Only what failed can be forgiven.
fn check_forgive(settle: &Settle) -> Result<(), QueueError> {
    match (&settle.forgive, &settle.outcome) {
        (Some(_), outcome @ (Outcome::Ack { .. } | Outcome::Released)) => Err(QueueError::InvalidRequest(format!(
            "a delivery whose outcome is {} is forgiven: only one that failed can be",
            outcome.kind()
        ))),
        _ => Ok(()),
    }
}

/// An event's data, if it lives apart.
type Loaded = Result<Option<bytes::Bytes>, QueueError>;

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, QueueError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| QueueError::Unavailable(error.to_string()))?
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shut();
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

#[async_trait]
impl Queue for Engine {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn counters(&self) -> Counters {
        self.shared.counted.counters()
    }

    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError> {
        options.check(&queue)?;
        self.call(|answer| Command::Configure(queue, Box::new(options), answer)).await
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError> {
        if batch.iter().map(|publish| publish.queues.len().max(1)).sum::<usize>() > MAX_PUBLISH {
            return Err(too_many("publish"));
        }
        let prepared = self.prepare_all(batch);
        let results = self.call(|answer| Command::Publish(prepared, answer)).await?;
        let accepted =
            |stored: Stored| Accepted { status: stored.status, entries: self.shared.entry_refs(&stored.entries) };
        let results = results.into_iter().map(|result| result.map(accepted)).collect();
        Ok(Published { durability: self.capabilities.durability, results })
    }

    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError> {
        let Claim { queue, max, wait, types, lease, holder, then, through } = request;
        if max == 0 {
            return Err(QueueError::InvalidRequest("a claim takes at least one entry: `max` is 0".to_owned()));
        }
        let request = Request { max: max.min(MAX_CLAIM), types, lease, holder, then, through };
        let command = ClaimCommand { queue: queue.clone(), request, wait };
        let reply = self.send(|answer| Command::Claim(command, answer)).await?;
        let claimed = Granted { engine: self, reply }.wait().await?;
        let mut held = Held { engine: self, leases: claimed.iter().map(|claimed| claimed.lease).collect() };
        let deliveries = self.deliver(&queue, claimed).await?;
        held.leases.clear();
        Ok(deliveries)
    }

    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError> {
        let emitted = batch.iter().flat_map(|settle| &settle.emits).map(|emit| emit.queues.len()).sum::<usize>();
        let settled = batch.iter().map(|settle| settle.with.len() + 1).sum::<usize>();
        if settled.saturating_add(emitted) > MAX_PUBLISH {
            return Err(too_many("settle"));
        }
        batch.iter().try_for_each(|settle| check_with(settle).and_then(|()| check_forgive(settle)))?;
        let prepared = batch.into_iter().map(|settle| self.prepare_settle(settle)).collect();
        self.call(|answer| Command::Settle(prepared, confirm, answer)).await
    }

    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError> {
        self.call(|answer| Command::Extend(batch, answer)).await
    }

    async fn wait(&self, entry: EntryId, timeout: Duration) -> Result<Waited, QueueError> {
        let id = entry.clone();
        match self.call(|answer| Command::Wait(id, timeout, answer)).await? {
            WaitReply::Pending(state) => Ok(Waited::Pending(state)),
            WaitReply::Unknown => Ok(Waited::Unknown),
            WaitReply::Ended => Ok(match self.get(entry).await? {
                Some(entry) if entry.state.has_ended() => Waited::Ended(Box::new(entry)),
                // Redriven in the meantime.
                Some(entry) => Waited::Pending(entry.state),
                None => Waited::Unknown,
            }),
        }
    }

    async fn operate(&self, operation: Operation) -> Result<Operated, QueueError> {
        operation.check(MAX_PUBLISH)?;
        self.call(|answer| Command::Operate(Box::new(operation), answer)).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        self.read(|reading| reading.stats()).await
    }

    async fn keys(&self, request: ListKeys) -> Result<KeyPage, QueueError> {
        request.check()?;
        self.read(move |reading| reading.keys(&request)).await
    }

    async fn list(&self, request: List) -> Result<Page, QueueError> {
        request.check()?;
        self.read(move |reading| reading.list(&request)).await
    }

    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError> {
        self.read(move |reading| reading.get(&entry)).await
    }

    async fn find(&self, source: String, id: String) -> Result<Vec<Entry>, QueueError> {
        self.read(move |reading| reading.find(&source, &id)).await
    }

    async fn sample(&self, request: Sample) -> Result<Vec<Sampled>, QueueError> {
        request.check()?;
        self.read(move |reading| sample(reading, &request)).await
    }

    async fn snapshot(&self) -> Result<Arc<dyn StateSnapshot>, QueueError> {
        let open = self.shared.open()?;
        Ok(Arc::new(StateView::new(open.state, || open.store.snapshot())?))
    }

    async fn transact(&self, transaction: Transaction) -> Result<Transacted, QueueError> {
        self.call(|answer| Command::Transact(transaction, answer)).await
    }

    async fn close(&self) -> Result<(), QueueError> {
        match self.call(Command::Close).await {
            Ok(()) | Err(QueueError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn too_many(what: &str) -> QueueError {
    QueueError::InvalidRequest(format!("a {what} makes at most {MAX_PUBLISH} entries: split it into smaller batches"))
}

/// Leases that nobody has heard of yet. Dropped, it gives them back.
struct Held<'a> {
    engine: &'a Engine,
    leases: Vec<LeaseToken>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.leases.is_empty() {
            self.engine.give_back(std::mem::take(&mut self.leases));
        }
    }
}

/// A claim that waits for its answer. Dropped before it was heard, it gives back what it was granted.
struct Granted<'a> {
    engine: &'a Engine,
    reply: oneshot::Receiver<Result<Vec<Claimed>, QueueError>>,
}

impl Granted<'_> {
    async fn wait(mut self) -> Result<Vec<Claimed>, QueueError> {
        (&mut self.reply).await.map_err(|_| QueueError::Closed)?
    }
}

impl Drop for Granted<'_> {
    fn drop(&mut self) {
        // Closed first: what is sent from now on, the writer takes back itself.
        self.reply.close();
        if let Ok(Ok(claimed)) = self.reply.try_recv() {
            self.engine.give_back(claimed.into_iter().map(|claimed| claimed.lease).collect());
        }
    }
}

fn delivery(claimed: Claimed, entry: EntryId, queue: &QueueName, event: Event) -> Delivery {
    Delivery {
        lease: claimed.lease,
        lease_for: claimed.lease_for,
        entry,
        queue: queue.clone(),
        attempt: claimed.attempt,
        forgiven: claimed.forgiven,
        max_attempts: claimed.max_attempts,
        enqueued_at: claimed.enqueued_at,
        key: claimed.key,
        event: Arc::new(event),
    }
}
