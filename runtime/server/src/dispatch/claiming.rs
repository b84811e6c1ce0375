//! Claiming: what can be started at once, as the breaker lets it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use gristmill_queue::{Claim, Delivery, Operation, PauseIf, QueueError, ResumeIf};
use tokio::time::Interval;
use tracing::{debug, error, info};

use super::breaker::Step;
use super::{CLAIM_WAIT, Dispatcher};
use crate::cli::text::one_line;

impl Dispatcher {
    /// A breaker may have paused the queue before: of the version before, or of an earlier process.
    pub(super) async fn adopt_pause(&self) {
        match self.queue.stats().await {
            Ok(stats) => {
                let paused = stats.into_iter().find(|stats| stats.queue == self.name).and_then(|stats| stats.paused);
                self.breaker.adopt(paused.as_deref(), Instant::now());
            }
            // It is asked again when a claim has come back with nothing.
            Err(error) => debug!(handler = %self.name, %error, "cannot tell whether its queue is paused"),
        }
    }

    /// A person may have resumed the queue while there was nothing in it.
    async fn close_if_resumed(&self) {
        let stats = self.queue.stats().await.unwrap_or_default();
        if stats.iter().any(|stats| stats.queue == self.name && stats.paused.is_none()) {
            self.breaker.close();
        }
    }

    /// What can be started at once. What was claimed before and could not goes back meanwhile.
    pub(super) async fn claim(self: &Arc<Self>, looks: &mut Interval) -> Result<Vec<Delivery>, QueueError> {
        let mut claim = pin!(self.claim_next());
        loop {
            tokio::select! {
                biased;
                claimed = &mut claim => return claimed,
                _ = looks.tick() => self.give_back_beside(self.window.overdue()),
            }
        }
    }

    /// Claims as the breaker lets it: nothing while it is open, but for a probe now and then.
    async fn claim_next(self: &Arc<Self>) -> Result<Vec<Delivery>, QueueError> {
        loop {
            let changed = self.breaker.changed();
            match self.breaker.step() {
                Step::Claim => tokio::select! {
                    biased;
                    claimed = self.claim_as_ever() => {
                        if claimed.as_ref().is_ok_and(Vec::is_empty) {
                            self.adopt_pause().await;
                        }
                        return claimed;
                    }
                    () = changed => {}
                },
                Step::Pause(reason) => {
                    error!(handler = %self.name, reason = one_line(&reason), "its queue is paused, until a probe is handled");
                    self.give_back_beside(self.window.take_all());
                    let (queue, only_if) = (self.name.clone(), PauseIf::NotPaused);
                    self.queue.operate(Operation::Pause { queue, reason, only_if }).await?;
                    self.breaker.paused();
                }
                Step::Resume(reason) => {
                    let (queue, only_if) = (self.name.clone(), ResumeIf::Reason(reason));
                    self.queue.operate(Operation::Resume { queue, only_if }).await?;
                    self.breaker.close();
                    info!(handler = %self.name, "it handles events again: its queue goes on");
                }
                Step::Probe(reason, at) => tokio::select! {
                    biased;
                    // There is something only if a person has resumed the queue.
                    claimed = self.claim_as_ever() => match claimed {
                        Ok(claimed) if claimed.is_empty() => self.close_if_resumed().await,
                        claimed => {
                            self.breaker.close();
                            return claimed;
                        }
                    },
                    claimed = self.probe(reason, at) => return claimed,
                    () = changed => {}
                },
                Step::Wait => tokio::select! {
                    () = changed => {}
                    // Whatever has become of it: its lease has ended by then.
                    () = tokio::time::sleep(self.version.handler.config.queue.lease) => self.breaker.give_up_probe(),
                },
            }
        }
    }

    async fn claim_as_ever(&self) -> Result<Vec<Delivery>, QueueError> {
        let calls = self.window.room().await;
        self.queue.claim(self.claim_of(calls * self.version.handler.batch_size())).await
    }

    /// With leases as this version needs them: its successor may have others already.
    fn claim_of(&self, deliveries: usize) -> Claim {
        let lease = Some(self.version.handler.config.queue.lease);
        Claim { lease, ..Claim::new(self.name.clone(), deliveries).wait(CLAIM_WAIT) }
    }

    /// From `at` on, the next entry alone, through the breaker's own pause.
    async fn probe(&self, reason: String, at: Instant) -> Result<Vec<Delivery>, QueueError> {
        tokio::time::sleep_until(at.into()).await;
        self.window.room().await;
        let claimed = self.queue.claim(self.claim_of(1).through(reason)).await?;
        if let Some(delivery) = claimed.first() {
            info!(handler = %self.name, entry = %delivery.entry, "trying whether it handles events again");
            self.breaker.probing(delivery.entry.clone());
        }
        Ok(claimed)
    }
}
