//! The invocations that are going on, and the way to end one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::HandlerName;
use tokio::sync::Notify;

use crate::component::Identity;
use crate::invocation::Invocation;

/// Threads that begin and end invocations at once get in each other's way less.
const SHARDS: u64 = 16;

/// An invocation that is going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which one, among all of this host.
    pub number: u64,
    /// The handler.
    pub handler: HandlerName,
    /// The digest of its component.
    pub digest: String,
    /// What it handles.
    pub delivery_id: String,
    /// 1 for the first.
    pub attempt: u32,
    /// How long it has been going on.
    pub elapsed: Duration,
    /// How long it may go on in all.
    pub timeout: Duration,
    /// Bytes of all its memories and tables.
    pub memory: u64,
}

/// The list of what is going on.
#[derive(Debug, Default)]
pub(crate) struct Live {
    next: AtomicU64,
    shards: [Mutex<BTreeMap<u64, Arc<Call>>>; SHARDS as usize],
}

/// One invocation, as others see it.
#[derive(Debug)]
pub(crate) struct Call {
    identity: Arc<Identity>,
    delivery_id: String,
    attempt: u32,
    started: Instant,
    timeout: Duration,
    memory: AtomicU64,
    is_killed: AtomicBool,
    killed: Notify,
}

/// Takes an invocation off the list when it is over.
pub(crate) struct Listed<'a> {
    live: &'a Live,
    number: u64,
    call: Arc<Call>,
}

impl Live {
    /// Lists an invocation until the answer is dropped.
    pub(crate) fn list(&self, identity: &Arc<Identity>, invocation: &Invocation, started: Instant) -> Listed<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let call = Arc::new(Call {
            identity: Arc::clone(identity),
            delivery_id: invocation.delivery_id.clone(),
            attempt: invocation.attempt,
            started,
            timeout: invocation.limits.timeout,
            memory: AtomicU64::new(0),
            is_killed: AtomicBool::new(false),
            killed: Notify::new(),
        });
        self.shard(number).insert(number, Arc::clone(&call));
        Listed { live: self, number, call }
    }

    /// In the order in which they began.
    pub(crate) fn running(&self) -> Vec<Running> {
        let mut running: Vec<_> = (0..SHARDS)
            .flat_map(|shard| self.shard(shard).iter().map(|(number, call)| call.describe(*number)).collect::<Vec<_>>())
            .collect();
        running.sort_by_key(|running| running.number);
        running
    }

    /// Ends an invocation. `false`: there is none of this number.
    pub(crate) fn kill(&self, number: u64) -> bool {
        let call = self.shard(number).get(&number).cloned();
        call.inspect(|call| call.kill()).is_some()
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, BTreeMap<u64, Arc<Call>>> {
        let index = usize::try_from(number % SHARDS).unwrap_or_default();
        let [first, ..] = &self.shards;
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    pub(crate) fn is_killed(&self) -> bool {
        self.is_killed.load(Ordering::Relaxed)
    }

    /// Waits until somebody ends it.
    pub(crate) async fn killed(&self) {
        self.killed.notified().await;
    }

    pub(crate) fn set_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    fn kill(&self) {
        self.is_killed.store(true, Ordering::Relaxed);
        // Whoever is to be told may not be waiting yet.
        self.killed.notify_one();
    }

    fn describe(&self, number: u64) -> Running {
        Running {
            number,
            handler: self.identity.name.clone(),
            digest: self.identity.digest.clone(),
            delivery_id: self.delivery_id.clone(),
            attempt: self.attempt,
            elapsed: self.started.elapsed(),
            timeout: self.timeout,
            memory: self.memory.load(Ordering::Relaxed),
        }
    }
}

impl Listed<'_> {
    pub(crate) fn call(&self) -> &Arc<Call> {
        &self.call
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.live.shard(self.number).remove(&self.number);
    }
}
