//! State as one run of a handler sees it: a snapshot of the queue's, taken when something is read.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use gristmill_core::state::{StateReader, StateUnavailable, StateUse};
use gristmill_queue::{Queue, StateSnapshot, Transaction};
use tokio::runtime::Handle;

/// One run's view. The snapshot is held until this is dropped: keep it until the run is settled, or everything
/// conflicts with it.
pub struct RunState {
    queue: Arc<dyn Queue>,
    runtime: Handle,
    snapshot: OnceLock<Arc<dyn StateSnapshot>>,
}

impl RunState {
    /// The state of `queue`. To be made on a thread of the runtime.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue, runtime: Handle::current(), snapshot: OnceLock::new() }
    }

    /// What a settlement needs to know of a run that read and wrote this; `None`: nothing.
    #[must_use]
    pub fn transaction(&self, used: StateUse) -> Option<Transaction> {
        let StateUse { reads, writes } = used;
        let revision = self.snapshot.get().map(|snapshot| snapshot.revision());
        (!reads.is_empty() || !writes.is_empty()).then_some(Transaction { revision, reads, writes })
    }

    fn snapshot(&self) -> Result<&dyn StateSnapshot, StateUnavailable> {
        if let Some(snapshot) = self.snapshot.get() {
            return Ok(&**snapshot);
        }
        let snapshot = self.runtime.block_on(self.queue.snapshot()).map_err(unavailable)?;
        Ok(&**self.snapshot.get_or_init(|| snapshot))
    }
}

impl StateReader for RunState {
    fn get(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, StateUnavailable> {
        self.snapshot()?.get(bucket, key).map_err(unavailable)
    }

    fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Result<Vec<String>, StateUnavailable> {
        self.snapshot()?.keys(bucket, "", after, limit).map_err(unavailable)
    }
}

impl fmt::Debug for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunState").field("is_read", &self.snapshot.get().is_some()).finish_non_exhaustive()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn unavailable(error: gristmill_queue::QueueError) -> StateUnavailable {
    StateUnavailable(error.to_string())
}
