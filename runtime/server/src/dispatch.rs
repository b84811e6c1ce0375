//! Dispatch: claims what a handler can start at once, runs it, and settles what became of it.
//!
//! **Invariants.** Nothing is claimed without a free slot to run it in. Every delivery is settled, or its lease ends by
//! itself. A stop spends no attempt: claims end first, running handlers get their grace, and what still runs then is
//! released.

mod batch;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gristmill_core::{Clock, Outcome};
use gristmill_host::{Emit, Interface, Invocation, Place, Report};
use gristmill_queue::{
    Claim, Confirm, Delivery, Due, Extend, ExtendReply, Publish, Queue, QueueError, Settle, SettleReply,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, warn};

use crate::cli::text::{one_line, short_digest};
use crate::handler_log::HandlerLog;
use crate::latency::Latencies;
use crate::metrics::Metrics;
use crate::postmortem;
use crate::registry::Handler;
use crate::routing::Router;
use crate::state::RunState;

/// How long one claim waits; only a bound, because a publish wakes it.
const CLAIM_WAIT: Duration = Duration::from_secs(30);
/// How long dispatch waits before it asks a queue again that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
/// How much longer than a run's time-out the lease must last before the run begins.
const SETTLE_GRACE: Duration = Duration::from_secs(1);
/// Conflicts after which the queue gives a delivery its buckets alone; further ones mean that another has them now.
const RESERVED_AFTER: u32 = 3;
/// How long a run waits for whoever has its buckets alone: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// Types that nobody subscribes to are warned of once each, up to this many.
const MAX_UNROUTED: usize = 100;

/// How far a stop has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Claiming and running.
    Running,
    /// No more claims; what runs may finish.
    Draining,
    /// What still runs is released.
    Releasing,
}

/// What came of settling a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// The delivery is over, or its lease ends by itself.
    Over,
    /// The run does not count: what it read of the state has been changed since.
    Conflict,
}

/// What is told of every handler's work.
#[derive(Clone, Debug, Default)]
pub struct Observers {
    /// From publish to ack.
    pub latencies: Arc<Latencies>,
    /// What calls cost.
    pub metrics: Arc<Metrics>,
}

/// One handler at work.
pub struct Dispatcher {
    handler: Arc<Handler>,
    queue: Arc<dyn Queue>,
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
    latencies: Arc<Latencies>,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    log: Arc<HandlerLog>,
    unrouted: Mutex<BTreeSet<String>>,
}

impl Dispatcher {
    /// A dispatcher that [`run`](Self::run) sets to work.
    #[must_use]
    pub fn new(
        handler: Arc<Handler>,
        queue: Arc<dyn Queue>,
        router: Arc<Router>,
        clock: Arc<dyn Clock>,
        (observers, phase): (Observers, watch::Receiver<Phase>),
    ) -> Arc<Self> {
        let version = short_digest(handler.component.digest());
        let log = HandlerLog::new(handler.config.name.clone(), version, handler.config.max_log_rate);
        let Observers { latencies, metrics } = observers;
        Arc::new(Self { handler, queue, router, clock, latencies, metrics, phase, log, unrouted: Mutex::default() })
    }

    /// Works until it is told to drain, and returns when every delivery is settled.
    pub async fn run(self: Arc<Self>) {
        let slots = Arc::new(Semaphore::new(self.handler.config.concurrency));
        let mut phase = self.phase.clone();
        let mut running = JoinSet::new();
        loop {
            let claimed = tokio::select! {
                biased;
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                claimed = self.claim(&slots) => claimed,
            };
            match claimed {
                Ok(claimed) => {
                    for (deliveries, slot) in claimed {
                        let this = self.clone();
                        running.spawn(async move {
                            this.deliver_all(deliveries).await;
                            drop(slot);
                        });
                    }
                }
                Err(QueueError::Closed) => {
                    error!(handler = %self.handler.config.name, "the queue was closed under a handler at work");
                    break;
                }
                Err(error) => {
                    error!(handler = %self.handler.config.name, %error, "cannot claim; trying again in a second");
                    tokio::select! {
                        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                        () = tokio::time::sleep(FAILURE_PAUSE) => {}
                    }
                }
            }
            while running.try_join_next().is_some() {}
        }
        while running.join_next().await.is_some() {}
        self.log.notice();
    }

    /// Deliveries, those of each call with the slot that it will run in.
    async fn claim(&self, slots: &Arc<Semaphore>) -> Result<Vec<(Vec<Delivery>, OwnedSemaphorePermit)>, QueueError> {
        let first = slots.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
        let mut free = vec![first];
        while let Ok(another) = slots.clone().try_acquire_owned() {
            free.push(another);
        }
        let size = self.handler.batch_size();
        let claim = Claim::new(self.handler.config.name.clone(), free.len() * size).wait(CLAIM_WAIT);
        let mut claimed = self.queue.claim(claim).await?.into_iter();
        let calls = std::iter::repeat_with(|| claimed.by_ref().take(size).collect::<Vec<_>>());
        Ok(calls.take_while(|deliveries| !deliveries.is_empty()).zip(free).collect())
    }

    async fn deliver_all(&self, deliveries: Vec<Delivery>) {
        if self.handler.component.interface() == Interface::BatchHandler {
            return self.deliver_batch(deliveries).await;
        }
        for delivery in deliveries {
            self.deliver(delivery).await;
        }
    }

    /// Runs the handler until its run counts: what it read may have been changed before it was done. That spends no
    /// attempt, and the lease goes on, so that the queue knows who has lost three times and gives it its buckets alone.
    async fn deliver(&self, delivery: Delivery) {
        let mut lease_end = Instant::now() + delivery.lease_for;
        let mut conflicts = 0;
        loop {
            let Some(place) = self.place(&delivery, &mut lease_end).await else { return };
            if self.run_once(&delivery, place).await == Settled::Over {
                return;
            }
            conflicts += 1;
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, conflicts,
                "what it read of the state was changed meanwhile; running it again");
            tokio::time::sleep(pause(conflicts)).await;
            let enough = self.handler.config.limits.timeout + SETTLE_GRACE;
            if lease_end.saturating_duration_since(Instant::now()) < enough {
                if !self.extend(&delivery).await {
                    return;
                }
                lease_end = Instant::now() + delivery.lease_for;
            }
        }
    }

    /// Room for the run, with a lease that lasts longer than the run may; waiting for room does not use it up. `None`:
    /// the lease is over, or given back.
    async fn place(&self, delivery: &Delivery, lease_end: &mut Instant) -> Option<Place> {
        let limits = &self.handler.config.limits;
        // A lease may be as short as a time-out and the grace: half of that is for waiting.
        let enough = limits.timeout + SETTLE_GRACE / 2;
        let mut phase = self.phase.clone();
        let mut admit = pin!(self.handler.component.admit(limits));
        loop {
            let spare = lease_end.saturating_duration_since(Instant::now()).saturating_sub(enough);
            let place = tokio::select! {
                biased;
                place = &mut admit => Some(place),
                _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => break,
                () = tokio::time::sleep(spare) => None,
            };
            if lease_end.saturating_duration_since(Instant::now()) < enough {
                if !self.extend(delivery).await {
                    return None;
                }
                *lease_end = Instant::now() + delivery.lease_for;
            }
            if place.is_some() {
                return place;
            }
        }
        self.settle(delivery, Settle::new(delivery.lease, Outcome::Released)).await;
        None
    }

    /// Whether the lease lasts from now as long as it did from the claim.
    async fn extend(&self, delivery: &Delivery) -> bool {
        let extend = Extend { lease: delivery.lease, by: delivery.lease_for };
        match self.queue.extend(vec![extend]).await.map(|replies| replies.first().copied()) {
            Ok(Some(ExtendReply::Extended)) => return true,
            // It comes back by itself.
            Ok(reply) => warn!(handler = %delivery.queue, entry = %delivery.entry, ?reply, "the lease has ended"),
            Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot extend the lease"),
        }
        false
    }

    async fn run_once(&self, delivery: &Delivery, place: Place) -> Settled {
        debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, "delivering");
        // Held until it is settled: that is how long the queue remembers what the run is checked against.
        let state = self.run_state();
        let mut phase = self.phase.clone();
        let report = tokio::select! {
            biased;
            report = self.handler.component.handle_in(place, self.invocation(delivery, state.clone())) => Some(report),
            _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => None,
        };
        let settle = match report {
            Some(report) => self.judge(delivery, report, state.as_deref()),
            None => Settle::new(delivery.lease, Outcome::Released),
        };
        self.settle(delivery, settle).await
    }

    /// What one run sees of the state, if it may see any.
    fn run_state(&self) -> Option<Arc<RunState>> {
        (!self.handler.config.grant.state.is_empty()).then(|| Arc::new(RunState::new(self.queue.clone())))
    }

    fn invocation(&self, delivery: &Delivery, state: Option<Arc<RunState>>) -> Invocation {
        Invocation {
            delivery_id: delivery.entry.to_string(),
            queue: delivery.queue.to_string(),
            attempt: delivery.attempt,
            max_attempts: delivery.max_attempts,
            enqueued_at: delivery.enqueued_at,
            event: delivery.event.clone(),
            state: state.map(|state| state as _),
            configuration: self.handler.configuration.get(),
            limits: self.handler.config.limits.clone(),
        }
    }

    /// Turns what the host observed into a settlement.
    fn judge(&self, delivery: &Delivery, report: Report, state: Option<&RunState>) -> Settle {
        self.log.record(delivery, &report.logs);
        self.metrics.note(&self.handler.config.name, &report.ledger, [report.outcome.kind()]);
        let postmortem = postmortem::of(&report.outcome, &report.ledger, &report.logs);
        Settle {
            postmortem,
            emits: report.emits.into_iter().map(|emit| self.route(emit)).collect(),
            transaction: state.and_then(|state| state.transaction(report.state)),
            ..self.settlement(delivery, report.outcome)
        }
    }

    /// What became of a delivery, without effects.
    fn settlement(&self, delivery: &Delivery, outcome: Outcome) -> Settle {
        if let Some(reason) = outcome.reason() {
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                outcome = %outcome.kind(), reason = one_line(reason), "not acked");
        }
        let version = Some(self.handler.component.digest().to_owned());
        Settle { version, ..Settle::new(delivery.lease, outcome) }
    }

    fn route(&self, emit: Emit) -> Publish {
        let queues = self.router.route(&emit.event);
        if queues.is_empty() {
            let mut unrouted = self.unrouted.lock().unwrap_or_else(PoisonError::into_inner);
            if unrouted.len() < MAX_UNROUTED && unrouted.insert(emit.event.ty.clone()) {
                warn!(handler = %self.handler.config.name, r#type = one_line(&emit.event.ty),
                    "emitted events of this type are dropped: no subscription matches them");
            }
        }
        Publish {
            due: emit.delay.map_or(Due::Now, Due::After),
            priority: emit.priority,
            key: emit.key,
            dedupe_key: emit.dedupe_key,
            ..Publish::new(emit.event, queues)
        }
    }

    async fn settle(&self, delivery: &Delivery, settle: Settle) -> Settled {
        let is_ack = matches!(settle.outcome, Outcome::Ack { .. });
        let (kind, version) = (settle.outcome.kind(), settle.version.clone());
        let reason = settle.outcome.reason().map(one_line).unwrap_or_default();
        match self.settle_one(settle).await {
            Ok(SettleReply::Settled(disposition)) => {
                if is_ack {
                    self.latencies.record(&delivery.queue, self.clock.now().since(delivery.enqueued_at));
                }
                if disposition == gristmill_core::Disposition::DeadLetter {
                    warn!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                        outcome = %kind, reason, "dead-lettered");
                }
            }
            Ok(SettleReply::StaleLease) => {
                warn!(handler = %delivery.queue, entry = %delivery.entry, "settled too late: the lease had ended");
            }
            Ok(SettleReply::Unknown) => {
                error!(handler = %delivery.queue, entry = %delivery.entry, "the engine does not know its own lease");
            }
            Ok(SettleReply::Refused(refused)) => {
                let reason = format!("an emitted event cannot be published: {refused}");
                self.settle_instead(delivery, version, Outcome::HostError { reason }).await;
            }
            Ok(SettleReply::StateRefused(refused)) => {
                let reason = format!("a write to the state cannot be done: {refused}");
                self.settle_instead(delivery, version, Outcome::HostError { reason }).await;
            }
            Ok(SettleReply::Conflict) => return Settled::Conflict,
            // The lease ends by itself, and the entry comes back.
            Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle"),
        }
        Settled::Over
    }

    /// Ends a delivery whose own outcome was refused.
    async fn settle_instead(&self, delivery: &Delivery, version: Option<String>, outcome: Outcome) {
        let settle = Settle { version, ..Settle::new(delivery.lease, outcome) };
        if let Err(error) = self.settle_one(settle).await {
            error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle");
        }
    }

    async fn settle_one(&self, settle: Settle) -> Result<SettleReply, QueueError> {
        let replies = self.queue.settle(vec![settle], Confirm::Committed).await?;
        replies.into_iter().next().ok_or_else(|| QueueError::Unavailable("a settlement without an answer".to_owned()))
    }
}

/// How long to wait after so many conflicts in a row.
fn pause(conflicts: u32) -> Duration {
    let (first, most) = PAUSES;
    match conflicts.checked_sub(RESERVED_AFTER + 1) {
        None => Duration::ZERO,
        Some(further) => first.saturating_mul(1 << further.min(10)).min(most),
    }
}
