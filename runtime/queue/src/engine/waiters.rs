//! Who waits: claims that found nothing, and those who want to know when an entry has ended.

use std::collections::{BTreeMap, HashMap};

use gristmill_core::Monotonic;

use super::MAX_CLAIM;
use super::batch::Batch;
use super::claim::{self, Claimed, FilterCursors};
use super::command::{Answer, WaitReply};
use super::ids::EntryKey;
use super::keys::QueueId;
use super::read;
use super::state::State;
use super::sweep::Progress;
use crate::contract::QueueError;

/// A claim that found nothing and waits.
pub(crate) struct Waiter {
    pub(crate) request: claim::Request,
    pub(crate) deadline: Monotonic,
    pub(crate) answer: Answer<Vec<Claimed>>,
}

/// Claims that wait, by queue, the longest-waiting first.
#[derive(Default)]
pub(crate) struct Waiters(BTreeMap<QueueId, Vec<Waiter>>);

impl Waiters {
    pub(crate) fn add(&mut self, queue: QueueId, waiter: Waiter) {
        self.0.entry(queue).or_default().push(waiter);
    }

    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.0.keys().copied()
    }

    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        self.0.values().flatten().map(|waiter| waiter.deadline).min()
    }

    /// Nothing will come any more.
    pub(crate) fn refuse(&mut self, error: &QueueError) {
        for waiter in std::mem::take(&mut self.0).into_values().flatten() {
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// Hands what became ready to the claims that wait for it, and ends those whose time is over.
    pub(crate) fn serve(
        &mut self,
        state: &mut State,
        batch: &mut Batch<'_>,
        filters: &mut FilterCursors,
    ) -> Result<Progress, QueueError> {
        let mut progress = Progress::Finished;
        for queue in std::mem::take(&mut state.woken) {
            let Some(waiters) = self.0.remove(&queue) else { continue };
            let waiters = serve_queue(state, batch, filters, queue, waiters)?;
            if !waiters.is_empty() {
                let goes_on = waiters.iter().any(|waiter| filters.take_stopped(queue, &waiter.request.types));
                if goes_on || state.numbers_left() < MAX_CLAIM as u64 {
                    // The next commit looks further, and has a fresh reservation.
                    state.woken.insert(queue);
                    progress = Progress::More;
                }
                self.0.insert(queue, waiters);
            }
        }
        for waiters in self.0.values_mut() {
            let over = |waiter: &mut Waiter| waiter.deadline <= batch.now.monotonic || waiter.answer.is_closed();
            for waiter in waiters.extract_if(.., over) {
                let _ = waiter.answer.send(Ok(Vec::new()));
            }
        }
        self.0.retain(|_, waiters| !waiters.is_empty());
        Ok(progress)
    }
}

/// Those of one queue; returns who still waits.
fn serve_queue(
    state: &mut State,
    batch: &mut Batch<'_>,
    filters: &mut FilterCursors,
    queue: QueueId,
    waiters: Vec<Waiter>,
) -> Result<Vec<Waiter>, QueueError> {
    let exists = state.queues.get(&queue).is_some_and(|queue| !queue.deleting);
    let keeps_out = |state: &State, waiter: &Waiter| {
        state.queues.get(&queue).is_some_and(|queue| queue.keeps_out(waiter.request.through.as_deref()))
    };
    let mut still_waiting: Vec<Waiter> = Vec::new();
    // The first without a filter that is let in and gets nothing shows that there is nothing for those behind it either.
    let mut exhausted = false;
    for waiter in waiters {
        if !exists {
            let _ = waiter.answer.send(Ok(Vec::new()));
        } else if exhausted || state.numbers_left() < MAX_CLAIM as u64 || keeps_out(state, &waiter) {
            still_waiting.push(waiter);
        } else if !waiter.answer.is_closed() {
            let claimed = claim::claim(state, &mut batch.tx, filters, queue, &waiter.request, batch.now)?;
            if claimed.is_empty() {
                exhausted = waiter.request.types.is_empty();
                still_waiting.push(waiter);
            } else {
                batch.grant(waiter.answer, claimed);
            }
        }
    }
    Ok(still_waiting)
}

/// Somebody who waits for an entry to end.
pub(crate) struct Watcher {
    pub(crate) deadline: Monotonic,
    pub(crate) answer: Answer<WaitReply>,
}

/// Those who wait for entries to end, by entry.
#[derive(Default)]
pub(crate) struct Watchers(HashMap<EntryKey, Vec<Watcher>>);

impl Watchers {
    pub(crate) fn add(&mut self, entry: EntryKey, watcher: Watcher) {
        self.0.entry(entry).or_default().push(watcher);
    }

    pub(crate) fn next_deadline(&self) -> Option<Monotonic> {
        self.0.values().flatten().map(|watcher| watcher.deadline).min()
    }

    /// Nothing will come any more.
    pub(crate) fn refuse(&mut self, error: &QueueError) {
        for watcher in std::mem::take(&mut self.0).into_values().flatten() {
            let _ = watcher.answer.send(Err(error.clone()));
        }
    }

    /// Answers those who wait for entries that have ended, once that is durable.
    pub(crate) fn release(&mut self, ended: &mut Vec<EntryKey>, batch: &mut Batch<'_>) {
        for key in ended.drain(..) {
            if self.0.is_empty() {
                continue;
            }
            for watcher in self.0.remove(&key).unwrap_or_default() {
                batch.answer_on_sync(watcher.answer, Ok(WaitReply::Ended));
            }
        }
    }

    /// Answers those who have waited long enough.
    pub(crate) fn dismiss(&mut self, state: &State, batch: &Batch<'_>) -> Result<(), QueueError> {
        let over = |watcher: &Watcher| watcher.deadline <= batch.now.monotonic || watcher.answer.is_closed();
        let keys: Vec<_> =
            self.0.iter().filter(|(_, watchers)| watchers.iter().any(over)).map(|(key, _)| *key).collect();
        for key in keys {
            let now = match read::find(&batch.tx, state, key) {
                Ok(found) => Ok(found.map_or(WaitReply::Unknown, |found| WaitReply::Pending(found.at.state()))),
                Err(error @ QueueError::Corrupt(_)) => Err(error),
                Err(error) => return Err(error),
            };
            let Some(watchers) = self.0.get_mut(&key) else { continue };
            for watcher in watchers.extract_if(.., |watcher| over(watcher)) {
                let _ = watcher.answer.send(now.clone());
            }
            if watchers.is_empty() {
                self.0.remove(&key);
            }
        }
        Ok(())
    }
}
