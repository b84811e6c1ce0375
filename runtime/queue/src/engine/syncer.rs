//! The syncer: makes commits durable beside the writer, and releases the answers that wait for it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::store::Store;
use super::supervisor;
use crate::contract::QueueError;

/// Commits that nobody waits for are synced after this long.
pub(crate) const LAZY: Duration = Duration::from_millis(100);

/// Told whether the sync went well.
pub(crate) type Release = Box<dyn FnOnce(Result<(), QueueError>) + Send>;

/// Hands work to the syncer's thread.
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    counted: Arc<supervisor::Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    waiting: Vec<Release>,
    /// There are commits that no sync covers.
    dirty: bool,
    /// Somebody is at it.
    syncing: bool,
    closed: bool,
    failed: Option<QueueError>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sync has ended; those who waited for it are told before another begins, so that answers keep their order.
    fn tell(&self, result: &Result<(), QueueError>, waiting: Vec<Release>) {
        if let Err(error) = result {
            tracing::error!(%error, "a sync of the store failed; it is opened anew");
            self.lock().failed.get_or_insert_with(|| error.clone());
        }
        for release in waiting {
            release(result.clone());
        }
        self.lock().syncing = false;
        self.changed.notify_one();
    }
}

impl Syncer {
    pub(crate) fn start(store: Arc<dyn Store>, counted: Arc<supervisor::Shared>) -> Result<Self, QueueError> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("queue-syncer".to_owned())
            .spawn({
                let (shared, counted) = (shared.clone(), counted.clone());
                move || run(&shared, &*store, &counted)
            })
            .map_err(|error| QueueError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, counted, thread: Some(thread) })
    }

    /// A commit has happened; these wait until it is durable.
    pub(crate) fn committed(&self, waiting: Vec<Release>) {
        let mut pending = self.shared.lock();
        let wake = !pending.dirty || !waiting.is_empty();
        pending.dirty = true;
        pending.waiting.extend(waiting);
        if wake {
            self.shared.changed.notify_one();
        }
    }

    /// Syncs on the calling thread what it has just committed, if the syncer is not at it anyway; otherwise as
    /// [`committed`](Self::committed).
    pub(crate) fn sync_now(&self, store: &dyn Store, waiting: Vec<Release>) {
        {
            let mut pending = self.shared.lock();
            if pending.syncing || pending.failed.is_some() || !pending.waiting.is_empty() {
                drop(pending);
                return self.committed(waiting);
            }
            pending.syncing = true;
            pending.dirty = false;
        }
        let result = store.sync();
        supervisor::count(&self.counted.counted.syncs);
        self.shared.tell(&result, waiting);
    }

    /// Whether there is a commit of which it is not known yet whether it can be made durable.
    pub(crate) fn is_pending(&self) -> bool {
        let pending = self.shared.lock();
        pending.dirty || pending.syncing || pending.failed.is_some()
    }

    /// Why nothing more can be made durable. What was committed since the last good sync is in doubt, so the engine
    /// must stop.
    pub(crate) fn failure(&self) -> Option<QueueError> {
        self.shared.lock().failed.clone()
    }
}

impl Syncer {
    /// Nothing more can be made durable: whoever waits is told so.
    pub(crate) fn fail(&self, error: QueueError) {
        let mut pending = self.shared.lock();
        pending.failed.get_or_insert(error);
        pending.dirty = true;
        self.shared.changed.notify_one();
    }

    /// Syncs what is left, and ends. The error, if anything was not made durable.
    pub(crate) fn finish(mut self) -> Result<(), QueueError> {
        self.end();
        self.failure().map_or(Ok(()), Err)
    }

    fn end(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the syncer's thread panicked");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(shared: &Shared, store: &dyn Store, counted: &supervisor::Shared) {
    loop {
        let mut pending = shared.lock();
        while pending.syncing || !pending.dirty && !pending.closed {
            pending = shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if pending.waiting.is_empty() && !pending.closed {
            let lazy = shared.changed.wait_timeout_while(pending, LAZY, |p| p.waiting.is_empty() && !p.closed);
            pending = lazy.unwrap_or_else(PoisonError::into_inner).0;
            if pending.syncing {
                continue;
            }
        }
        if !pending.dirty {
            if pending.closed {
                return;
            }
            // The writer has synced it meanwhile.
            continue;
        }
        let waiting = std::mem::take(&mut pending.waiting);
        pending.dirty = false;
        pending.syncing = true;
        let failed = pending.failed.clone();
        drop(pending);
        // After a failed sync the kernel may have dropped the pages: a later success would prove nothing.
        let result = failed.map_or_else(|| store.sync(), Err);
        supervisor::count(&counted.counted.syncs);
        shared.tell(&result, waiting);
    }
}

#[cfg(test)]
mod tests;
