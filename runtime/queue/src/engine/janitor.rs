//! The janitor: gives back the space of deleted bodies, beside everything else and not too often.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::store::Store;
use crate::contract::QueueError;

/// How long after the first deletion space is given back, so that many deletions are one effort.
const DELAY: Duration = Duration::from_secs(20);

pub(crate) struct Janitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Pending>,
    changed: Condvar,
}

#[derive(Default)]
struct Pending {
    freed: bool,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Janitor {
    pub(crate) fn start(store: Arc<dyn Store>) -> Result<Self, QueueError> {
        let shared = Arc::new(Shared::default());
        let thread = std::thread::Builder::new()
            .name("queue-janitor".to_owned())
            .spawn({
                let shared = shared.clone();
                move || run(&shared, &*store)
            })
            .map_err(|error| QueueError::Unavailable(format!("cannot start a thread: {error}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Bodies were deleted.
    pub(crate) fn freed(&self) {
        let mut pending = self.shared.lock();
        if !pending.freed {
            pending.freed = true;
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the janitor's thread panicked");
        }
    }
}

fn run(shared: &Shared, store: &dyn Store) {
    loop {
        let mut pending = shared.lock();
        while !pending.freed && !pending.closed {
            pending = shared.changed.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        let waited = shared.changed.wait_timeout_while(pending, DELAY, |pending| !pending.closed);
        let mut pending = waited.unwrap_or_else(PoisonError::into_inner).0;
        if pending.closed {
            return;
        }
        pending.freed = false;
        drop(pending);
        match store.reclaim() {
            Ok(true) => {}
            Ok(false) => shared.lock().freed = true,
            Err(error) => {
                tracing::warn!(%error, "the space of deleted data could not be given back; it is tried again");
                shared.lock().freed = true;
            }
        }
    }
}
