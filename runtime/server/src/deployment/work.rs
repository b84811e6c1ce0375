//! One version of a handler at work: its dispatcher, and the way to end it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Shared;
use crate::dispatch::breaker::Breaker;
use crate::dispatch::{Dispatcher, Fleet, Phase};

/// A dispatcher that runs. Its successor takes over while it finishes what it has begun.
#[derive(Debug)]
pub(super) struct Work {
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
    breaker: Arc<Breaker>,
}

impl Work {
    /// Begins to claim.
    pub(super) fn start(shared: &Shared, fleet: Fleet) -> Self {
        let (phase, phases) = watch::channel(Phase::Running);
        let (queue, router, clock) = (shared.queue.clone(), shared.router.clone(), shared.clock.clone());
        // Calls run where the dispatcher is made.
        let _guests = shared.guests.enter();
        let dispatcher = Dispatcher::new(fleet, queue, router, clock, (shared.observers.clone(), phases));
        let breaker = dispatcher.breaker().clone();
        Self { phase, task: shared.threads.handle().spawn(dispatcher.run()), breaker }
    }

    /// Whether the handler gets deliveries.
    pub(super) fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Nothing more is claimed, and what was not begun goes back.
    pub(super) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// What still runs goes back too.
    pub(super) fn release(&self) {
        self.phase.send_replace(Phase::Releasing);
    }

    /// Whether everything is settled.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until everything is settled.
    pub(super) async fn ended(&mut self) {
        if !self.task.is_finished() {
            // Of a panic, others have told.
            let _ = (&mut self.task).await;
        }
    }
}
