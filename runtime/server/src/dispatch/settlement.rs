//! Settling: what has been judged meanwhile goes to the queue together, in one request.

use std::sync::Arc;

use gristmill_core::{Disposition, Outcome, OutcomeKind};
use gristmill_queue::{Confirm, Delivery, Publish, QueueError, Settle, SettleReply, Transaction};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use super::{Call, Dispatcher, Run, pause};
use crate::cli::text::one_line;
use crate::state::RunState;

/// How many workers' turns may wait to be settled; further ones wait with their slots.
pub(super) const MAX_SETTLEMENTS: usize = 64;
/// The most entries that one request makes or ends, unless a single settlement makes more.
const MAX_ENTRIES: usize = 10_000;
/// What holds more bytes than this keeps its slot until it is settled, so that there is no more of it than there are slots.
const LARGE: u64 = 16 << 10;

/// What came of settling a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// The delivery is over, or its lease ends by itself.
    Over,
    /// The run does not count: what it read of the state has been changed since.
    Conflict,
}

/// A run that is over, and what follows from it.
pub(super) struct Judged {
    run: Box<Run>,
    settle: Box<Settle>,
    /// Held until it is settled: that is how long the queue remembers what the run is checked against.
    state: Option<Arc<RunState>>,
    /// Dropped when it is settled.
    settled: Option<oneshot::Sender<()>>,
}

/// What is said of a settlement when its answer has come.
struct Told {
    kind: OutcomeKind,
    reason: String,
}

impl Judged {
    pub(super) fn new(run: Box<Run>, settle: Settle, state: Option<Arc<RunState>>) -> Self {
        Self { run, settle: Box::new(settle), state, settled: None }
    }

    /// Whether it keeps its slot until it is settled.
    pub(super) fn is_large(&self) -> bool {
        self.bytes() > LARGE
    }

    fn bytes(&self) -> u64 {
        let result = match &self.settle.outcome {
            Outcome::Ack { result: Some(result) } => result.len() as u64,
            _ => 0,
        };
        let emits: u64 = self.settle.emits.iter().map(|emit| emit.event.size()).sum();
        self.run.delivery.event.size() + result + emits + self.settle.transaction.as_ref().map_or(0, bytes_of)
    }
}

/// Hands over what is judged to whoever settles; waits for that if the last of it is large.
pub(super) async fn hand_over(settlements: &mpsc::Sender<Vec<Judged>>, judged: &mut Vec<Judged>) {
    let Some(last) = judged.last_mut() else { return };
    let settled = last.is_large().then(|| {
        let (settled, wait) = oneshot::channel();
        last.settled = Some(settled);
        wait
    });
    // Nobody settles any more only after a panic: the leases end by themselves.
    if settlements.send(std::mem::take(judged)).await.is_ok()
        && let Some(settled) = settled
    {
        let _ = settled.await;
    }
}

fn bytes_of(transaction: &Transaction) -> u64 {
    // A read or a write keeps a bucket's name and a key besides.
    const KEY: u64 = 64;
    let Transaction { reads, writes, .. } = transaction;
    let values = writes.iter().map(|write| match &write.change {
        gristmill_core::state::Change::Set(value) => value.len() as u64,
        _ => 0,
    });
    values.sum::<u64>() + (reads.len() + writes.len()) as u64 * KEY
}

impl Dispatcher {
    /// Settles what is judged, as much at once as has come meanwhile, until nobody can send any more.
    pub(super) async fn settle_as_they_come(self: Arc<Self>, mut judged: mpsc::Receiver<Vec<Judged>>) {
        let mut arrived = Vec::new();
        while judged.recv_many(&mut arrived, MAX_SETTLEMENTS).await > 0 {
            self.settle_runs(std::mem::take(&mut arrived).into_iter().flatten().collect()).await;
        }
    }

    /// Settles runs. Those that do not count run again.
    pub(super) async fn settle_runs(self: &Arc<Self>, judged: Vec<Judged>) {
        let (mut held, mut settles) = (Vec::with_capacity(judged.len()), Vec::with_capacity(judged.len()));
        for Judged { run, settle, state, settled } in judged {
            settles.push(*settle);
            held.push((run, state, settled));
        }
        let deliveries: Vec<_> = held.iter().map(|(run, ..)| &run.delivery).collect();
        let answers = self.settle_all(&deliveries, settles).await;
        for ((run, ..), settled) in held.into_iter().zip(answers) {
            if settled == Settled::Conflict {
                self.again(run);
            }
        }
    }

    /// The lease goes on, so that the queue knows who has lost three times and gives it its buckets alone.
    fn again(self: &Arc<Self>, mut run: Box<Run>) {
        run.conflicts += 1;
        let Run { delivery, conflicts, .. } = &*run;
        debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt, conflicts,
            "what it read of the state was changed meanwhile; running it again");
        let pause = pause(*conflicts);
        if pause.is_zero() {
            return self.window.put_first(Call::One(run));
        }
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            this.window.put_first(Call::One(run));
        });
    }

    /// Settles deliveries, each in its own right; what came of each.
    pub(super) async fn settle_all(&self, deliveries: &[&Delivery], mut settles: Vec<Settle>) -> Vec<Settled> {
        let told: Vec<_> = settles.iter().map(Told::new).collect();
        let mut answers = Vec::with_capacity(settles.len());
        while !settles.is_empty() {
            let rest = settles.split_off(fitting(&settles));
            let count = settles.len();
            match self.queue.settle(settles, Confirm::Committed).await {
                Ok(replies) => answers.extend(replies.into_iter().map(Ok)),
                Err(error) => answers.extend(std::iter::repeat_n(Err(error), count)),
            }
            settles = rest;
        }
        let now = self.clock.now();
        let mut settled = Vec::with_capacity(answers.len());
        for ((delivery, told), answer) in deliveries.iter().zip(told).zip(answers) {
            if told.kind == OutcomeKind::Ack && matches!(answer, Ok(SettleReply::Settled(_))) {
                self.latencies.record(&delivery.queue, now.since(delivery.enqueued_at));
            }
            settled.push(self.hear(delivery, told, answer).await);
        }
        settled
    }

    async fn hear(&self, delivery: &Delivery, told: Told, answer: Result<SettleReply, QueueError>) -> Settled {
        match answer {
            Ok(SettleReply::Settled(Disposition::DeadLetter)) => {
                let Told { kind, reason } = told;
                warn!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                    outcome = %kind, reason, "dead-lettered");
            }
            Ok(SettleReply::Settled(_)) => {}
            Ok(SettleReply::StaleLease) => {
                warn!(handler = %delivery.queue, entry = %delivery.entry, "settled too late: the lease had ended");
            }
            Ok(SettleReply::Unknown) => {
                error!(handler = %delivery.queue, entry = %delivery.entry, "the engine does not know its own lease");
            }
            Ok(SettleReply::Refused(refused)) => {
                self.fail(delivery, format!("an emitted event cannot be published: {refused}")).await;
            }
            Ok(SettleReply::StateRefused(refused)) => {
                self.fail(delivery, format!("a write to the state cannot be done: {refused}")).await;
            }
            Ok(SettleReply::Conflict) => return Settled::Conflict,
            // The lease ends by itself, and the entry comes back.
            Err(error) => error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle"),
        }
        Settled::Over
    }

    /// Ends a delivery whose own outcome was refused.
    async fn fail(&self, delivery: &Delivery, reason: String) {
        let settle = self.settlement(delivery, Outcome::HostError { reason });
        if let Err(error) = self.settle_one(settle).await {
            error!(handler = %delivery.queue, entry = %delivery.entry, %error, "cannot settle");
        }
    }

    pub(super) async fn settle_one(&self, settle: Settle) -> Result<SettleReply, QueueError> {
        let replies = self.queue.settle(vec![settle], Confirm::Committed).await?;
        replies.into_iter().next().ok_or_else(|| QueueError::Unavailable("a settlement without an answer".to_owned()))
    }

    /// What became of a delivery, without effects.
    pub(super) fn settlement(&self, delivery: &Delivery, outcome: Outcome) -> Settle {
        if let Some(reason) = outcome.reason() {
            debug!(handler = %delivery.queue, entry = %delivery.entry, attempt = delivery.attempt,
                outcome = %outcome.kind(), reason = one_line(reason), "not acked");
        }
        let version = Some(self.handler.component.digest().to_owned());
        Settle { version, ..Settle::new(delivery.lease, outcome) }
    }
}

impl Told {
    fn new(settle: &Settle) -> Self {
        let reason = settle.outcome.reason().map(one_line).unwrap_or_default();
        Self { kind: settle.outcome.kind(), reason }
    }
}

/// How many of these go into one request: at least one.
fn fitting(settles: &[Settle]) -> usize {
    let mut entries = 0;
    let fit = settles.iter().take_while(|settle| {
        let made = settle.emits.iter().map(|Publish { queues, .. }| queues.len()).sum::<usize>();
        entries += made + settle.with.len() + 1;
        entries <= MAX_ENTRIES
    });
    fit.count().max(1)
}
