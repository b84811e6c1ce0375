//! The embedded engine: the transitions of an entry's life, over a store.
//!
//! ```text
//! Engine (handle) ──commands──► Writer (thread) ──commits──► Store ◄──syncs── Syncer (thread)
//!    └──────────────reads on snapshots──────────────────────────┘
//! ```
//!
//! **Invariants.** One writer owns all state, and every write is part of one atomic commit. A command reads before it
//! writes, so that one that fails contributes nothing. Answers that promise durability leave only after the sync that
//! covers them. After a failed commit or sync nothing more is accepted until the store is opened again. Nothing reads
//! over keys that were consumed: every line of entries has a persisted cursor. Nothing here knows about Wasm or HTTP.

mod claim;
mod ids;
mod keys;
mod memory;
mod publish;
mod read;
mod records;
mod redrive;
mod rocks;
mod settle;
mod state;
mod store;
mod sweep;
mod syncer;
mod writer;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;
use gristmill_core::{Clock, EntryId, Event, EventError, Monotonic, Outcome, QueueName, SystemClock, Timestamp};
use tokio::sync::{Semaphore, oneshot};

pub use memory::Memory;
pub use rocks::RocksDb;

use self::claim::Claimed;
use self::publish::Prepared;
use self::read::{MAX_PAGE, Reading};
use self::records::EncodedEvent;
use self::settle::PreparedSettle;
use self::state::State;
use self::store::Store;
use self::syncer::Syncer;
use self::writer::{Answer, ClaimCommand, Command, Envelope, Writer};
use crate::contract::{
    Capabilities, Claim, Confirm, Delivery, Durability, Entry, Extend, ExtendReply, LeaseToken, List, Page, Publish,
    PublishError, Published, Queue, QueueError, QueueOptions, QueueStats, RedriveReply, Settle, SettleReply,
};

/// Commands that may wait for the writer; whoever brings one more waits for a place.
const MAX_WAITING: usize = 4_096;
/// Entries that one publish may create.
const MAX_PUBLISH: usize = 100_000;
/// Deliveries that one claim may take.
const MAX_CLAIM: usize = 10_000;

/// How an engine is opened.
#[derive(Clone)]
pub struct EngineOptions {
    /// Who tells the time. Default: the operating system.
    pub clock: Arc<dyn Clock>,
    /// When a publish is acknowledged. Default: after an fsync. The memory engine takes no notice of it.
    pub durability: Durability,
    /// The largest event, in bytes of attributes and data. Default: 1 MiB.
    pub max_event_size: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::new()), durability: Durability::Fsync, max_event_size: 1 << 20 }
    }
}

/// Both kinds of time, read once for each commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) wall: Timestamp,
    pub(crate) monotonic: Monotonic,
}

impl From<keys::BadKey> for QueueError {
    fn from(error: keys::BadKey) -> Self {
        Self::Corrupt(error.to_string())
    }
}

impl From<records::BadRecord> for QueueError {
    fn from(error: records::BadRecord) -> Self {
        Self::Corrupt(error.to_string())
    }
}

/// An open engine. Dropping it closes it, which takes as long as the last sync.
pub struct Engine {
    capabilities: Capabilities,
    clock: Arc<dyn Clock>,
    salt: u32,
    commands: Mutex<Option<crossbeam_channel::Sender<Envelope>>>,
    places: Arc<Semaphore>,
    store: Mutex<Option<Arc<dyn Store>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Why the engine accepts nothing any more.
    failure: Arc<OnceLock<QueueError>>,
}

impl Engine {
    fn start(name: &'static str, store: Arc<dyn Store>, options: EngineOptions) -> Result<Self, QueueError> {
        let state = State::open(&*store, &*options.clock)?;
        let salt = state.salt;
        let (commands, receiver) = crossbeam_channel::unbounded();
        let syncer = Syncer::start(store.clone())?;
        let failure = Arc::new(OnceLock::new());
        let watched = (receiver, failure.clone());
        let mut writer = Writer::new(store.clone(), options.clock.clone(), state, syncer, watched);
        writer.recover()?;
        let thread = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| QueueError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self {
            capabilities: Capabilities {
                engine: name,
                durability: options.durability,
                max_event_size: options.max_event_size,
            },
            clock: options.clock,
            salt,
            commands: Mutex::new(Some(commands)),
            places: Arc::new(Semaphore::new(MAX_WAITING)),
            store: Mutex::new(Some(store)),
            writer: Mutex::new(Some(thread)),
            failure,
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
        self.sender().ok_or(QueueError::Closed)?.send(envelope).map_err(|_| QueueError::Closed)?;
        Ok(reply)
    }

    fn sender(&self) -> Option<crossbeam_channel::Sender<Envelope>> {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leases that nobody will use; no attempt is spent.
    fn give_back(&self, leases: Vec<LeaseToken>) {
        if let Some(sender) = self.sender() {
            // A closed engine ends leases in its own way.
            let _ = sender.send(Envelope { command: Command::GiveBack(leases), permit: None });
        }
    }

    /// Decodes the events of a claim. An entry whose event cannot be read is dead; its neighbours are delivered.
    async fn deliver(&self, claimed: Vec<Claimed>) -> Result<Vec<Delivery>, QueueError> {
        let mut deliveries = Vec::with_capacity(claimed.len());
        let mut rejects = Vec::new();
        for claimed in claimed {
            match claimed.event.decode() {
                Ok(event) => deliveries.push(delivery(claimed, event)),
                Err(error) => {
                    tracing::error!(entry = %claimed.entry, %error, "an entry's event cannot be read");
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

    /// Reads on a snapshot, off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reading<'_>) -> Result<T, QueueError> + Send + 'static,
    ) -> Result<T, QueueError> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(QueueError::Closed)?;
        let (salt, now) = (self.salt, self.clock.now());
        let reading = tokio::task::spawn_blocking(move || {
            let mut read = Some(read);
            let mut result = Err(QueueError::Closed);
            store.snapshot(&mut |view| {
                if let Some(read) = read.take() {
                    result = read(&Reading { view, salt, now });
                }
            })?;
            result
        });
        reading.await.map_err(|error| QueueError::Unavailable(error.to_string()))?
    }

    /// Validates and encodes an event outside the writer.
    fn prepare(&self, publish: Publish) -> Result<Prepared, PublishError> {
        let Publish { event, queues, delay, priority } = publish;
        self.check(&event)?;
        if queues.is_empty() {
            return Err(PublishError::Unroutable { ty: event.ty.clone(), source_attribute: event.source.clone() });
        }
        Ok(Prepared { event: EncodedEvent::encode(&event), queues, delay, priority })
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
            emits: emits.map(|emit| self.prepare(emit)).collect(),
        }
    }

    fn shut(&self) {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        drop(self.store.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("the queue's writer panicked");
        }
    }
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

    async fn configure(&self, queue: QueueName, options: QueueOptions) -> Result<(), QueueError> {
        self.call(|answer| Command::Configure(queue, options, answer)).await
    }

    async fn publish(&self, batch: Vec<Publish>) -> Result<Published, QueueError> {
        if batch.iter().map(|publish| publish.queues.len().max(1)).sum::<usize>() > MAX_PUBLISH {
            return Err(QueueError::InvalidRequest(format!(
                "a publish makes at most {MAX_PUBLISH} entries: split it into smaller batches"
            )));
        }
        let prepared = batch.into_iter().map(|publish| self.prepare(publish)).collect();
        let results = self.call(|answer| Command::Publish(prepared, answer)).await?;
        Ok(Published { durability: self.capabilities.durability, results })
    }

    async fn claim(&self, request: Claim) -> Result<Vec<Delivery>, QueueError> {
        let Claim { queue, max, wait } = request;
        if max == 0 {
            return Err(QueueError::InvalidRequest("a claim takes at least one entry: `max` is 0".to_owned()));
        }
        let command = ClaimCommand { queue, max: max.min(MAX_CLAIM), wait };
        let reply = self.send(|answer| Command::Claim(command, answer)).await?;
        let claimed = Granted { engine: self, reply }.wait().await?;
        self.deliver(claimed).await
    }

    async fn settle(&self, batch: Vec<Settle>, confirm: Confirm) -> Result<Vec<SettleReply>, QueueError> {
        let emitted = batch.iter().flat_map(|settle| &settle.emits).map(|emit| emit.queues.len()).sum::<usize>();
        if batch.len().saturating_add(emitted) > MAX_PUBLISH {
            return Err(QueueError::InvalidRequest(format!(
                "a settle makes at most {MAX_PUBLISH} entries: split it into smaller batches"
            )));
        }
        let prepared = batch.into_iter().map(|settle| self.prepare_settle(settle)).collect();
        self.call(|answer| Command::Settle(prepared, confirm, answer)).await
    }

    async fn extend(&self, batch: Vec<Extend>) -> Result<Vec<ExtendReply>, QueueError> {
        self.call(|answer| Command::Extend(batch, answer)).await
    }

    async fn stats(&self) -> Result<Vec<QueueStats>, QueueError> {
        self.read(|reading| reading.stats()).await
    }

    async fn list(&self, request: List) -> Result<Page, QueueError> {
        if request.limit == 0 || request.limit > MAX_PAGE {
            return Err(QueueError::InvalidRequest(format!(
                "`limit` is {}; a page has 1 to {MAX_PAGE} entries",
                request.limit
            )));
        }
        self.read(move |reading| reading.list(&request)).await
    }

    async fn get(&self, entry: EntryId) -> Result<Option<Entry>, QueueError> {
        self.read(move |reading| reading.get(&entry)).await
    }

    async fn redrive(&self, entries: Vec<EntryId>) -> Result<Vec<RedriveReply>, QueueError> {
        if entries.len() > MAX_PUBLISH {
            return Err(QueueError::InvalidRequest(format!("a redrive names at most {MAX_PUBLISH} entries")));
        }
        self.call(|answer| Command::Redrive(entries, answer)).await
    }

    async fn close(&self) -> Result<(), QueueError> {
        drop(self.store.lock().unwrap_or_else(PoisonError::into_inner).take());
        match self.call(Command::Close).await {
            Ok(()) | Err(QueueError::Closed) => Ok(()),
            Err(error) => Err(error),
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

fn delivery(claimed: Claimed, event: Event) -> Delivery {
    Delivery {
        lease: claimed.lease,
        lease_for: claimed.lease_for,
        entry: claimed.entry,
        queue: claimed.queue,
        attempt: claimed.attempt,
        max_attempts: claimed.max_attempts,
        enqueued_at: claimed.enqueued_at,
        event: Arc::new(event),
    }
}
