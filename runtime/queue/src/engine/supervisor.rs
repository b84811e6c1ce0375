//! The supervisor: opens the store, runs a writer on it, and does so again when the store has failed. Between openings
//! it answers every command that the store is unavailable.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use gristmill_core::{Clock, Outcome, QueueName};

use super::DeadHook;
use super::command::{Answer, Envelope, refuse};
use super::ids::EntryKey;
use super::keys::QueueId;
use super::kv;
use super::state::{Settings, State};
use super::store::Store;
use super::writer::{Exit, Writer};
use crate::contract::{Counters, EntryRef, QueueError};

/// How long to wait before the store is opened again; doubled each time, up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Opens the store, as often as asked.
pub(crate) type Opener = Box<dyn Fn() -> Result<Arc<dyn Store>, QueueError> + Send>;

/// What the engine's handle reads beside the writer.
#[derive(Default)]
pub(crate) struct Shared {
    opening: RwLock<Opening>,
    salt: AtomicU32,
    pub(crate) counted: Counted,
    /// Every queue that there is or was.
    names: RwLock<HashMap<QueueId, QueueName>>,
    /// Which attribute of an event is its ordering key, by queue.
    pub(crate) key_attributes: RwLock<HashMap<QueueName, Arc<str>>>,
}

/// What has been done.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) commits: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) reopened: AtomicU64,
}

impl Counted {
    pub(crate) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            commits: read(&self.commits),
            syncs: read(&self.syncs),
            stale: read(&self.stale),
            reopened: read(&self.reopened),
        }
    }
}

/// One more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The store as it is open now; or why it is not.
#[derive(Clone, Default)]
pub(crate) enum Opening {
    Open(Open),
    Failed(QueueError),
    #[default]
    Closed,
}

/// An open store.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) state: Arc<kv::Shared>,
}

impl Shared {
    /// Remembers a queue's name.
    pub(crate) fn name(&self, id: QueueId, name: QueueName) {
        self.names.write().unwrap_or_else(PoisonError::into_inner).insert(id, name);
    }

    /// Events for the queue that come without an ordering key take it from this attribute.
    pub(crate) fn keyed_by(&self, queue: QueueName, attribute: Option<Arc<str>>) {
        let mut attributes = self.key_attributes.write().unwrap_or_else(PoisonError::into_inner);
        match attribute {
            Some(attribute) => attributes.insert(queue, attribute),
            None => attributes.remove(&queue),
        };
    }

    /// What the publisher is told of an entry.
    pub(crate) fn entry_refs(&self, keys: &[EntryKey]) -> Vec<EntryRef> {
        let (names, salt) = (self.names.read().unwrap_or_else(PoisonError::into_inner), self.salt());
        let named = |key: &EntryKey| Some(EntryRef { queue: names.get(&key.queue)?.clone(), entry: key.id(salt) });
        keys.iter().filter_map(named).collect()
    }

    pub(crate) fn open(&self) -> Result<Open, QueueError> {
        match &*self.opening.read().unwrap_or_else(PoisonError::into_inner) {
            Opening::Open(open) => Ok(open.clone()),
            Opening::Failed(error) => Err(error.clone()),
            Opening::Closed => Err(QueueError::Closed),
        }
    }

    /// Part of every entry's id; the same at every opening.
    pub(crate) fn salt(&self) -> u32 {
        self.salt.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, opening: Opening) {
        *self.opening.write().unwrap_or_else(PoisonError::into_inner) = opening;
    }
}

/// Everything that an opening needs.
pub(crate) struct Supervisor {
    pub(crate) opener: Opener,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) on_dead: Option<DeadHook>,
    pub(crate) shared: Arc<Shared>,
}

impl Supervisor {
    /// Opens the store. What an earlier opening left in flight ends with `outcome`.
    pub(crate) fn open(&self, outcome: &Outcome) -> Result<Writer, QueueError> {
        let store = (self.opener)()?;
        let state = State::open(&*store, &*self.clock, self.settings)?;
        let named = state.queues.values().filter_map(|queue| {
            let attribute = queue.options.key.attribute.as_deref()?;
            Some((queue.name.clone(), Arc::from(attribute)))
        });
        let attributes = named.collect();
        for (id, queue) in &state.queues {
            self.shared.name(*id, queue.name.clone());
        }
        *self.shared.key_attributes.write().unwrap_or_else(PoisonError::into_inner) = attributes;
        self.shared.salt.store(state.salt, Ordering::Relaxed);
        let open = Open { store: store.clone(), state: state.buckets.shared() };
        let writer =
            Writer::open(store, self.clock.clone(), state, (self.on_dead.clone(), self.shared.clone()), outcome)?;
        self.shared.set(Opening::Open(open));
        Ok(writer)
    }

    /// Until the engine is closed.
    pub(crate) fn run(self, mut writer: Writer, commands: &Receiver<Envelope>) {
        loop {
            match writer.run(commands) {
                Exit::Closed => break,
                Exit::Failed(error) => match self.reopen(error, commands) {
                    Some(next) => writer = next,
                    None => break,
                },
            }
        }
        self.shared.set(Opening::Closed);
    }

    /// `None`: the engine was closed before the store could be opened.
    fn reopen(&self, mut error: QueueError, commands: &Receiver<Envelope>) -> Option<Writer> {
        let mut backoff = FIRST_BACKOFF;
        loop {
            if !refuse_for(backoff, &error, commands) {
                return None;
            }
            // Nobody failed: whoever held a lease is alive, and its attempt is not spent.
            match self.open(&Outcome::Released) {
                Ok(writer) => {
                    tracing::info!("the store is open again");
                    count(&self.shared.counted.reopened);
                    return Some(writer);
                }
                Err(again) => {
                    tracing::warn!(error = %again, "the store cannot be opened yet");
                    self.shared.set(Opening::Failed(again.clone()));
                    error = again;
                }
            }
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
        }
    }
}

/// Refuses everything for a while. False: the engine was closed.
fn refuse_for(time: Duration, error: &QueueError, commands: &Receiver<Envelope>) -> bool {
    let until = Instant::now() + time;
    let mut closing: Option<Answer<()>> = None;
    loop {
        if Instant::now() >= until {
            // Those who ask again and again must not keep the store from being opened.
            return true;
        }
        match commands.recv_deadline(until) {
            Ok(envelope) => refuse(envelope.command, error, &mut closing),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        if let Some(answer) = closing.take() {
            let _ = answer.send(Err(error.clone()));
            return false;
        }
    }
}
