//! Who tells the time. The only place that asks the operating system for it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::{Monotonic, Timestamp};

/// A source of both kinds of time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock. May jump in either direction.
    fn now(&self) -> Timestamp;
    /// A clock that only goes forward.
    fn monotonic(&self) -> Monotonic;
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH.after(since_epoch)
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.started.elapsed())
    }
}

/// A clock that stands still until it is moved. Clones move together.
#[derive(Clone, Debug)]
pub struct ManualClock {
    times: Arc<Mutex<(Timestamp, Monotonic)>>,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { times: Arc::new(Mutex::new((now, Monotonic::default()))) }
    }

    /// Moves both times forward.
    pub fn advance(&self, by: Duration) {
        let mut times = self.lock();
        *times = (times.0.after(by), times.1.after(by));
    }

    /// Sets the wall clock, as an administrator or a time server would; monotonic time does not notice.
    pub fn jump_to(&self, now: Timestamp) {
        self.lock().0 = now;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Monotonic)> {
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn monotonic(&self) -> Monotonic {
        self.lock().1
    }
}
