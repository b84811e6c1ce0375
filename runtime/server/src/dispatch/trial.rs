//! A canary: a version that is new gets a share of the deliveries, until it takes over or goes.
//!
//! Which version a delivery goes to is decided by its ordering key, so that no key is handled by both at once; without
//! one, by its entry. What the new version fails goes back without an attempt spent, once for each entry, and to the old
//! version from then on, with all that has the same key.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gristmill_core::Outcome;
use gristmill_queue::Delivery;
use tokio::sync::Notify;

use crate::cli::text::one_line;
use crate::config::CanaryOptions;
use crate::registry::Handler;

/// Keys that go to the old version because the new one has failed them. With more, the new one has long been rolled back.
const MAX_SHUNNED: usize = 100_000;
/// Fewer deliveries than this say nothing of a rate.
const ENOUGH: u64 = 50;

/// One version, tried beside another.
#[derive(Debug)]
pub struct Trial {
    /// The new version.
    pub candidate: Arc<Handler>,
    options: CanaryOptions,
    hasher: RandomState,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    handled: u64,
    failed: u64,
    last_failure: Option<String>,
    shunned: BTreeSet<u64>,
}

/// How a trial goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many of the new version's deliveries are over.
    pub handled: u64,
    /// How many of them it has failed.
    pub failed: u64,
    /// Why it failed last.
    pub last_failure: Option<String>,
    /// Whether it fails too often.
    pub is_too_much: bool,
    /// Whether it has handled enough to take over.
    pub is_enough: bool,
}

impl Trial {
    /// A trial of `candidate`.
    #[must_use]
    pub fn new(candidate: Arc<Handler>, options: CanaryOptions) -> Self {
        let (hasher, inner) = (RandomState::new(), Mutex::default());
        Self { candidate, options, hasher, inner, changed: Notify::new() }
    }

    /// Whether the new version handles this delivery.
    pub(super) fn takes(&self, delivery: &Delivery) -> bool {
        let hash = self.hash(delivery);
        // Its upper half as a number from 0 to 1.
        delivery.forgiven == 0
            && f64::from((hash >> 32) as u32) < self.options.share * (f64::from(u32::MAX) + 1.0)
            && !self.lock().shunned.contains(&hash)
    }

    /// What the new version made of a delivery. Whether that is forgiven, and the old version's from now on.
    pub(super) fn note(&self, delivery: &Delivery, outcome: &Outcome) -> bool {
        let failed = match outcome {
            Outcome::Ack { .. } | Outcome::Defer { .. } => false,
            Outcome::Released | Outcome::Killed { .. } => return false,
            // A rejection, too: the old version shall say whether it is right.
            _ => true,
        };
        let mut inner = self.lock();
        inner.handled += 1;
        if failed {
            inner.failed += 1;
            let reason = outcome.reason().and_then(|reason| reason.lines().next()).map(one_line).unwrap_or_default();
            inner.last_failure = Some(format!("{}: {}", outcome.kind(), reason.chars().take(200).collect::<String>()));
            if inner.shunned.len() < MAX_SHUNNED {
                inner.shunned.insert(self.hash(delivery));
            }
        }
        let is_news = failed || inner.handled == u64::from(self.options.min_deliveries);
        drop(inner);
        if is_news {
            self.changed.notify_one();
        }
        failed && delivery.forgiven == 0
    }

    /// How it goes.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let inner = self.lock();
        #[allow(clippy::cast_precision_loss, reason = "a rate")]
        let allowed = self.options.max_failure_rate * inner.handled.max(ENOUGH) as f64;
        #[allow(clippy::cast_precision_loss, reason = "as above")]
        let is_too_much = inner.failed as f64 > allowed;
        Standing {
            handled: inner.handled,
            failed: inner.failed,
            last_failure: inner.last_failure.clone(),
            is_too_much,
            is_enough: inner.handled >= self.options.min_deliveries.into(),
        }
    }

    /// Waits until one has failed, or enough are over.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// How it is tried.
    #[must_use]
    pub const fn options(&self) -> &CanaryOptions {
        &self.options
    }

    fn hash(&self, delivery: &Delivery) -> u64 {
        match &delivery.key {
            Some(key) => self.hasher.hash_one(key.as_bytes()),
            None => self.hasher.hash_one(delivery.entry.as_str()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
