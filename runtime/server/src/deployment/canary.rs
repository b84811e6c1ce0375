//! Trying a version that is new with a share of the deliveries, and what becomes of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gristmill_core::HandlerName;
use tracing::{error, info, warn};

use super::record::{Kept, Origin, Record};
use super::status::RolledBack;
use super::versions::VersionsError;
use super::work::Work;
use super::{Prepared, Shared, Slot};
use crate::cli::text::short_digest;
use crate::config::CanaryOptions;
use crate::dispatch::Fleet;
use crate::dispatch::breaker::is_breakers;
use crate::dispatch::trial::{Standing, Trial};

/// How often it is looked whether a trial has been ended by somebody else.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A version that is tried beside the one that is current.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub(super) trial: Arc<Trial>,
    pub(super) version: Kept,
    pub(super) ends: Instant,
}

impl Shared {
    /// Lets a version that is ready have a share of the deliveries. Any other that is tried has had its chance.
    pub(super) fn try_out(self: &Arc<Self>, next: Prepared, options: CanaryOptions) {
        let name = next.handler.config.name.clone();
        let version = next.record.current.clone();
        let trial = Arc::new(Trial::new(next.handler.clone(), options));
        let tried = Tried { trial: trial.clone(), version, ends: Instant::now() + options.period };
        info!(handler = %name, version = short_digest(&tried.version.digest), share = options.share, "a new version is tried");
        if self.refit(&name, Some(tried)) {
            self.guests.spawn(watch_over(self.clone(), name, trial, next));
        }
    }

    /// The same as the process begins. Where every event has failed, there is nothing to be careful of.
    pub(super) async fn begin_trial(self: &Arc<Self>, next: Prepared, options: CanaryOptions) {
        let name = next.handler.config.name.clone();
        let stats = self.queue.stats().await.unwrap_or_default();
        let paused = stats.into_iter().find(|stats| stats.queue == name).and_then(|stats| stats.paused);
        if !paused.is_some_and(|reason| is_breakers(&reason)) {
            self.try_out(next, options);
            return;
        }
        match self.record(&next).await {
            Ok(()) => self.switch(next),
            Err(error) => error!(handler = %name, %error, "a new version cannot be recorded, and does not take over"),
        }
    }

    /// Ends what is tried by hand, if anything is: the current version handles everything. What was tried.
    pub(super) async fn end_trial(&self, name: &HandlerName) -> Option<Kept> {
        let tried = self.slots().get(name)?.tried.clone()?;
        self.refit(name, None);
        self.remember(name, &tried.version).await;
        Some(tried.version)
    }

    /// What is tried has been delivered by its source, whatever becomes of it.
    pub(super) fn note_tried(&self, name: &HandlerName, record: &mut Record) {
        let slots = self.slots();
        let tried = slots.get(name).and_then(|slot| slot.tried.as_ref());
        if let Some(tried) = tried.filter(|tried| tried.version.origin == Origin::Source) {
            record.source = Some(tried.version.digest.clone());
        }
    }

    pub(super) fn is_circuit_open(&self, name: &HandlerName) -> bool {
        self.slots().get(name).is_some_and(|slot| slot.work.breaker().open().is_some())
    }

    /// Gives the current version another dispatcher, with or without one that is tried. Whether there is such a handler.
    fn refit(&self, name: &HandlerName, tried: Option<Tried>) -> bool {
        let mut slots = self.slots_mut();
        let Some(slot) = slots.get_mut(name).filter(|_| !self.is_stopping()) else { return false };
        slot.work.drain();
        let fleet = Fleet { handler: slot.handler.clone(), trial: tried.as_ref().map(|tried| tried.trial.clone()) };
        let predecessor = std::mem::replace(&mut slot.work, Work::start(self, fleet));
        slot.tried = tried;
        drop(slots);
        self.finish(predecessor);
        true
    }

    fn is_tried(&self, name: &HandlerName, trial: &Arc<Trial>) -> bool {
        let slots = self.slots();
        let tried = slots.get(name).and_then(|slot| slot.tried.as_ref());
        tried.is_some_and(|tried| Arc::ptr_eq(&tried.trial, trial))
    }

    async fn promote(&self, next: Prepared, standing: &Standing) {
        let name = next.handler.config.name.clone();
        match self.record(&next).await {
            Ok(()) => {
                info!(handler = %name, version = short_digest(&next.record.current.digest), handled = standing.handled,
                    failed = standing.failed, "the version that was tried takes over");
                self.switch(next);
            }
            Err(error) => {
                error!(handler = %name, %error, "the version that was tried cannot be recorded, and does not take over");
                self.refit(&name, None);
            }
        }
    }

    /// The version has failed: it gets nothing more, whatever else is going on. What it was.
    fn give_up(&self, name: &HandlerName, trial: &Arc<Trial>, standing: &Standing) -> Option<Kept> {
        let version = {
            let slots = self.slots();
            let tried = slots.get(name)?.tried.as_ref()?;
            Arc::ptr_eq(&tried.trial, trial).then(|| tried.version.clone())?
        };
        let reason = format!(
            "{} of {} deliveries failed, the last one: {}",
            standing.failed,
            standing.handled,
            standing.last_failure.as_deref().unwrap_or("for no known reason")
        );
        warn!(handler = %name, version = short_digest(&version.digest), reason, "the version that was tried is rolled back");
        self.refit(name, None);
        let (at, digest) = (self.clock.now(), version.digest.clone());
        if let Some(slot) = self.slots_mut().get_mut(name) {
            slot.rolled_back = Some(RolledBack { digest, at, reason });
        }
        Some(version)
    }

    /// Notes that its source has delivered a version that is tried no more, so that it does not come back.
    async fn remember(&self, name: &HandlerName, version: &Kept) {
        if version.origin != Origin::Source {
            return;
        }
        let record = self.slots_mut().get_mut(name).map(|slot| {
            slot.record.source = Some(version.digest.clone());
            slot.record.clone()
        });
        let Some(record) = record else { return };
        let (versions, handler) = (self.versions.clone(), name.clone());
        let recorded = tokio::task::spawn_blocking(move || versions.commit(&handler, &record));
        if let Err(error) = recorded.await.unwrap_or_else(|error| Err(VersionsError::interrupted(error))) {
            error!(handler = %name, %error, "a version that was rolled back will be tried again after a restart");
        }
    }
}

/// Looks on until the version takes over or is rolled back; or until another change has ended the trial.
async fn watch_over(shared: Arc<Shared>, name: HandlerName, trial: Arc<Trial>, next: Prepared) {
    let ends = Instant::now() + trial.options().period;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        let nap = if left.is_zero() { HEARTBEAT } else { left.min(HEARTBEAT) };
        tokio::select! {
            () = trial.changed() => {}
            () = tokio::time::sleep(nap) => {}
        }
        if !shared.is_tried(&name, &trial) {
            return;
        }
        let standing = trial.standing();
        let is_over = Instant::now() >= ends && standing.is_enough;
        if !standing.is_too_much && !is_over {
            continue;
        }
        if standing.is_too_much {
            if let Some(version) = shared.give_up(&name, &trial, &standing) {
                let _change = shared.changing.lock().await;
                shared.remember(&name, &version).await;
            }
            return;
        }
        let _change = shared.changing.lock().await;
        if shared.is_tried(&name, &trial) && !shared.is_stopping() && !trial.standing().is_too_much {
            shared.promote(next, &standing).await;
            return;
        }
    }
}

impl Slot {
    pub(super) fn of(next: Prepared, work: Work) -> Self {
        let Prepared { handler, record, .. } = next;
        Self { handler, record, work, tried: None, rolled_back: None }
    }
}
