//! Dispatch: claims what a handler can start at once, runs it, and settles what became of it.
//!
//! **Invariants.** Nothing is claimed without a free slot to run it in. Every delivery is settled, or its lease ends by
//! itself. A stop spends no attempt: claims end first, running handlers get their grace, and what still runs then is
//! released.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gristmill_core::{Clock, Outcome};
use gristmill_host::{Emit, Invocation, LogLevel, LogLine, Report};
use gristmill_queue::{Claim, Confirm, Delivery, Due, Publish, Queue, QueueError, Settle, SettleReply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::cli::text::one_line;
use crate::latency::Latencies;
use crate::registry::Handler;
use crate::routing::Router;

/// How long one claim waits; only a bound, because a publish wakes it.
const CLAIM_WAIT: Duration = Duration::from_secs(30);
/// How long dispatch waits before it asks a queue again that failed.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);
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

/// One handler at work.
pub struct Dispatcher {
    handler: Arc<Handler>,
    queue: Arc<dyn Queue>,
    router: Arc<Router>,
    clock: Arc<dyn Clock>,
    latencies: Arc<Latencies>,
    phase: watch::Receiver<Phase>,
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
        (latencies, phase): (Arc<Latencies>, watch::Receiver<Phase>),
    ) -> Arc<Self> {
        Arc::new(Self { handler, queue, router, clock, latencies, phase, unrouted: Mutex::default() })
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
                    for (delivery, slot) in claimed {
                        let this = self.clone();
                        running.spawn(async move {
                            this.deliver(delivery).await;
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
    }

    /// Deliveries, each with the slot that it will run in.
    async fn claim(&self, slots: &Arc<Semaphore>) -> Result<Vec<(Delivery, OwnedSemaphorePermit)>, QueueError> {
        let first = slots.clone().acquire_owned().await.map_err(|_| QueueError::Closed)?;
        let mut free = vec![first];
        while let Ok(another) = slots.clone().try_acquire_owned() {
            free.push(another);
        }
        let claim = Claim::new(self.handler.config.name.clone(), free.len()).wait(CLAIM_WAIT);
        Ok(self.queue.claim(claim).await?.into_iter().zip(free).collect())
    }

    async fn deliver(&self, delivery: Delivery) {
        debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, "delivering");
        let mut phase = self.phase.clone();
        let report = tokio::select! {
            biased;
            report = self.handler.component.handle(self.invocation(&delivery)) => Some(report),
            _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => None,
        };
        let settle = match report {
            Some(report) => self.judge(&delivery, report),
            None => Settle::new(delivery.lease, Outcome::Released),
        };
        self.settle(&delivery, settle).await;
    }

    fn invocation(&self, delivery: &Delivery) -> Invocation {
        Invocation {
            delivery_id: delivery.entry.to_string(),
            queue: delivery.queue.to_string(),
            attempt: delivery.attempt,
            max_attempts: delivery.max_attempts,
            enqueued_at: delivery.enqueued_at,
            event: delivery.event.clone(),
            limits: self.handler.limits.clone(),
        }
    }

    /// Turns what the host observed into a settlement.
    fn judge(&self, delivery: &Delivery, report: Report) -> Settle {
        for line in &report.logs {
            log_line(delivery, line);
        }
        let kind = report.outcome.kind();
        if let Some(reason) = report.outcome.reason() {
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, outcome = %kind,
                reason = one_line(reason), "not acked");
        }
        Settle {
            lease: delivery.lease,
            outcome: report.outcome,
            version: Some(self.handler.component.digest().to_owned()),
            emits: report.emits.into_iter().map(|emit| self.route(emit)).collect(),
            transaction: None,
        }
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

    async fn settle(&self, delivery: &Delivery, settle: Settle) {
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
            // It reads again what has been changed meanwhile; no attempt is spent.
            Ok(SettleReply::Conflict) => self.settle_instead(delivery, version, Outcome::Released).await,
            // The lease ends by itself, and the entry comes back.
            Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle"),
        }
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

/// A guest's line, as a structured record. Its text is escaped: it may go to a terminal.
fn log_line(delivery: &Delivery, line: &LogLine) {
    let (message, context) = (one_line(&line.message), one_line(&line.context));
    macro_rules! record {
        ($level:ident) => {
            $level!(target: "handler", handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                context, "{message}")
        };
    }
    match line.level {
        LogLevel::Trace | LogLevel::Debug => record!(debug),
        LogLevel::Info => record!(info),
        LogLevel::Warn => record!(warn),
        LogLevel::Error | LogLevel::Critical => record!(error),
    }
}
