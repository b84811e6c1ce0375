//! Who may have an instance: places in the engine's pool, and memory. Whoever gets none waits, first come, first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Memory is counted in these.
const PAGE: u64 = 64 << 10;

/// What all instances share.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    all_pages: u32,
    waiting: AtomicUsize,
}

/// Room for one instance, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    // `None` if the semaphores were closed, which nobody does.
    _slots: Option<OwnedSemaphorePermit>,
    _pages: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// `instances` places, and `memory` bytes for all of them together.
    pub(crate) fn new(instances: u32, memory: u64) -> Self {
        // As many as 256 TiB; a semaphore counts fewer than a `usize` does.
        let all_pages = u32::try_from(memory / PAGE).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32).max(1);
        let slots = Arc::new(Semaphore::new(instances as usize));
        Self { slots, pages: Arc::new(Semaphore::new(all_pages as usize)), all_pages, waiting: AtomicUsize::new(0) }
    }

    /// Waits for `slots` places and `memory` bytes; more memory than there is at all counts as all of it. Whoever keeps
    /// room without using it is asked to `make_room` first, and sees that [somebody waits](Self::is_waited_for) from then on.
    pub(crate) async fn admit(&self, slots: u32, memory: u64, make_room: impl FnOnce()) -> Admission {
        if let Some(admission) = self.try_admit(slots, memory) {
            return admission;
        }
        let _waiting = Waiting::new(&self.waiting);
        make_room();
        let pages = Arc::clone(&self.pages).acquire_many_owned(self.pages_of(memory)).await.ok();
        let slots = Arc::clone(&self.slots).acquire_many_owned(slots).await.ok();
        Admission { _slots: slots, _pages: pages }
    }

    /// Whether room that is not used should be given up.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    fn try_admit(&self, slots: u32, memory: u64) -> Option<Admission> {
        let pages = Arc::clone(&self.pages).try_acquire_many_owned(self.pages_of(memory)).ok()?;
        let slots = Arc::clone(&self.slots).try_acquire_many_owned(slots).ok()?;
        Some(Admission { _slots: Some(slots), _pages: Some(pages) })
    }

    fn pages_of(&self, memory: u64) -> u32 {
        u32::try_from(memory.div_ceil(PAGE)).unwrap_or(u32::MAX).min(self.all_pages)
    }
}

/// Counts those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
